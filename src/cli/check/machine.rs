//! What can be checked without a broker: the addresses to listen on, the list of certificate authorities.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::{Line, Report};
use crate::cli::Answer;
use crate::config::Config;
use crate::outbound::guard::Guard;
use crate::outbound::http::Client;

pub(super) fn check(config: &Config, report: &mut Report) -> Answer {
    let telemetry = config.web.telemetry_listen;
    report.tell(address(
        "telemetry",
        "web.telemetry_listen",
        telemetry,
        is_ours,
    ))?;
    if let Some(api) = config.web.listen {
        // The router that has the one has the other.
        let ours = |_| is_ours(telemetry);
        report.tell(address("api", "web.listen", api, ours))?;
    }
    report.tell(certificates(config))
}

fn address(
    name: &'static str,
    key: &str,
    address: SocketAddr,
    is_ours: impl Fn(SocketAddr) -> bool,
) -> Line {
    match TcpListener::bind(address) {
        Ok(_) => Line::ok(name, format!("{address} is free")),
        Err(fault) if fault.kind() == ErrorKind::AddrInUse && is_ours(address) => {
            Line::ok(name, format!("a router serves {address}"))
        }
        Err(fault) => Line::wrong(
            name,
            format!("cannot listen on {address}: {fault}"),
            format!("free the port or set {key} to another"),
        ),
    }
}

/// Whether what listens there answers as a router does.
fn is_ours(address: SocketAddr) -> bool {
    const PATIENCE: Duration = Duration::from_secs(1);
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(1_000).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    asked().is_ok_and(|answer| answer.contains(" 200 ") && answer.ends_with("\r\n\r\nok\n"))
}

fn certificates(config: &Config) -> Line {
    const NAME: &str = "certificates";
    let guard = Arc::new(Guard::new(config.outbound.allow_networks.clone()));
    let timeout = Duration::from_secs(config.outbound.connect_timeout_seconds);
    let client = Client::new(guard, timeout, config.outbound.response_body_bytes);
    match client {
        Ok(client) => match client.certificate_trouble() {
            None => Line::ok(NAME, "this machine's authorities can be read"),
            Some(trouble) => Line::wrong(
                NAME,
                format!("no receiver's certificate can be checked: {trouble}"),
                "install this machine's list of authorities (ca-certificates)",
            ),
        },
        Err(fault) => Line::wrong(NAME, fault.to_string(), "please report this"),
    }
}
