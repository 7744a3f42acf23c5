//! What may stand in a value of the configuration that is written as text. Each error is the end of a sentence that
//! begins with the key.

use ipnet::IpNet;

/// Legal in names of topics and groups (Kafka's `Topic.java`).
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=200).contains(&name.len()) && name.bytes().all(legal) {
        Ok(())
    } else {
        Err(format!(
            "must be 1 to 200 characters of A-Z a-z 0-9 . _ -; it is {name:?}"
        ))
    }
}

pub(super) fn check_source(topic: &str) -> Result<(), String> {
    match topic.strip_prefix('^') {
        Some("") => {
            Err("is an empty regular expression; write one such as \"^events\\\\..*\"".to_owned())
        }
        Some(_) => Ok(()),
        None => check_name(topic)
            .map_err(|message| format!("{message} (a regular expression begins with ^)")),
    }
}

/// `host`, `host:port`, `[::1]:port`, each also after `SASL_SSL://` and the like, which librdkafka understands.
pub(super) fn check_servers(servers: &str) -> Result<(), String> {
    for server in servers.split(',').map(str::trim) {
        let address = match server.split_once("://") {
            Some((scheme, _))
                if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
            {
                return Err(format!(
                    "Kafka does not speak {scheme}; write host:port, such as localhost:9092"
                ));
            }
            Some((_, address)) => address,
            None => server,
        };
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "9092"));
        if host.is_empty()
            || host.contains(char::is_whitespace)
            || port.parse::<u16>().is_ok_and(|port| port == 0)
        {
            return Err(format!(
                "must be host:port, several separated by commas; {server:?} is not"
            ));
        }
        if !address.ends_with(']') && port.parse::<u16>().is_err() {
            return Err(format!(
                "the port of {server:?} must be a number from 1 to 65535"
            ));
        }
    }
    Ok(())
}

/// RFC 6901: empty, or parts that each begin with a slash; `~` only as `~0` or `~1`.
pub(super) fn check_pointer(pointer: &str) -> Result<(), String> {
    let escapes_hold = pointer
        .split('~')
        .skip(1)
        .all(|after| after.starts_with(['0', '1']));
    if pointer.is_empty() || (pointer.starts_with('/') && escapes_hold) {
        Ok(())
    } else {
        Err(format!(
            "must be a JSON pointer such as \"/customer\" (RFC 6901), or \"\"; it is {pointer:?}"
        ))
    }
}

/// A network, or an address alone for itself. Bits behind the prefix are dropped, as routers do.
pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    network.map(|network| network.trunc()).ok_or_else(|| {
        format!("must be a network such as 10.0.0.0/8 or fd00::/8, or one address; it is {text:?}")
    })
}
