//! Decides which addresses may be reached: the global Internet, and what the operator names.
//!
//! Keeps promise 7: no private address is reached by accident, in whatever spelling or IPv6 wrapping it comes.
//! It is asked three times: when a webhook is written, before a request (literals never reach a resolver), and for
//! every address a resolver gives. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// The longest URL, in characters.
pub const LONGEST_URL: usize = 2048;

/// IPv4 that is not the global Internet: IANA special-purpose registry (RFC 6890), and the address where Azure's hosts
/// serve their guests. Network, prefix length, name.
const REFUSED_V4: [(Ipv4Addr, u32, &str); 20] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "an address of this host"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
    (
        Ipv4Addr::new(100, 64, 0, 0),
        10,
        "a carrier-grade NAT address",
    ),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
    (
        Ipv4Addr::new(169, 254, 0, 0),
        16,
        "a link-local address (cloud metadata)",
    ),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "a protocol address"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "a documentation address"),
    (Ipv4Addr::new(192, 31, 196, 0), 24, "an AS112 address"),
    (Ipv4Addr::new(192, 52, 193, 0), 24, "an AMT address"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a 6to4 relay address"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
    (Ipv4Addr::new(192, 175, 48, 0), 24, "an AS112 address"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "a benchmarking address"),
    (
        Ipv4Addr::new(198, 51, 100, 0),
        24,
        "a documentation address",
    ),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "a documentation address"),
    (
        Ipv4Addr::new(168, 63, 129, 16),
        32,
        "a platform address of Azure",
    ),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
    (
        Ipv4Addr::new(255, 255, 255, 255),
        32,
        "the broadcast address",
    ),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
];

/// IPv6 that is not the global Internet. What is in no range here must still lie in 2000::/3.
const REFUSED_V6: [(Ipv6Addr, u32, &str); 18] = [
    (
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0),
        128,
        "an address of this host",
    ),
    (
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 1),
        128,
        "a loopback address",
    ),
    (
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0),
        96,
        "an IPv4-compatible address",
    ),
    (
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0),
        96,
        "an IPv4-translated address",
    ),
    (
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0),
        48,
        "a local NAT64 address",
    ),
    (
        Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0),
        64,
        "a discard address",
    ),
    (
        Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0),
        64,
        "a dummy address",
    ),
    (
        Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0),
        32,
        "a Teredo address",
    ),
    (
        Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0),
        23,
        "a protocol address",
    ),
    (
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0),
        32,
        "a documentation address",
    ),
    (
        Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0),
        16,
        "a 6to4 address",
    ),
    (
        Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0),
        48,
        "an AS112 address",
    ),
    (
        Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0),
        20,
        "a documentation address",
    ),
    (
        Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0),
        16,
        "a segment routing address",
    ),
    (
        Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0),
        7,
        "a private address",
    ),
    (
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
        "a link-local address",
    ),
    (
        Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0),
        10,
        "a site-local address",
    ),
    (
        Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        8,
        "a multicast address",
    ),
];

/// An address that may not be reached, and why. The delivery is dead-lettered with reason `blocked_address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "refused: {address} is {range_name}; add it to outbound.allow_networks if it may be reached"
)]
pub struct Blocked {
    /// The address as it was met.
    pub address: IpAddr,
    /// What it is, with its article: "a private address".
    pub range_name: &'static str,
}

/// Why a URL is no target of a webhook. No variant repeats more of the URL than its scheme or host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefused {
    /// The text is no URL.
    #[error("the URL cannot be read: {0}")]
    Unreadable(String),
    /// A character that parsers of URLs disagree about.
    #[error("the URL has {0}, which programs read differently; remove it or percent-encode it")]
    Ambiguous(AmbiguousCharacter),
    /// Something other than HTTP.
    #[error("the scheme {0:?} is not supported; use http or https")]
    Scheme(String),
    /// A user name or password before the host.
    #[error("the URL holds a user name or password; use the webhook's auth field instead")]
    Credentials,
    /// Longer than [`LONGEST_URL`].
    #[error("the URL has {0} characters; at most 2048 are allowed")]
    TooLong(usize),
    /// No host.
    #[error("the URL has no host")]
    NoHost,
    /// `localhost` and names below it.
    #[error(
        "refused: {0} is this machine; add 127.0.0.0/8 to outbound.allow_networks if it may be reached"
    )]
    LocalName(String),
    /// The host is an address that may not be reached.
    #[error(transparent)]
    Blocked(#[from] Blocked),
}

/// A character that [`UrlRefused::Ambiguous`] refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmbiguousCharacter(char);

impl fmt::Display for AmbiguousCharacter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ' ' => formatter.write_str("a space"),
            '\\' => formatter.write_str("a backslash"),
            other => write!(
                formatter,
                "the control character {}",
                other.escape_default()
            ),
        }
    }
}

/// The rule for addresses of the whole process. Shared by all tasks; it never changes after the start.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allow_networks: Vec<IpNet>,
}

impl Guard {
    /// A guard that opens `allow_networks` and nothing else beyond the global Internet.
    pub fn new(allow_networks: Vec<IpNet>) -> Self {
        Self { allow_networks }
    }

    /// Whether an address may be connected to.
    ///
    /// A mapped (`::ffff:a.b.c.d`) or NAT64 (`64:ff9b::a.b.c.d`) address leads to the very host that its IPv4 address
    /// names, so the rules and the allow list of that address decide. The other wrappings (6to4, ISATAP, IPv4-compatible,
    /// Teredo) lead through somebody else's relay: an allow list of IPv4 networks never opens them.
    ///
    /// # Errors
    /// [`Blocked`].
    pub fn check(&self, address: IpAddr) -> Result<(), Blocked> {
        if self.allows(address) {
            return Ok(());
        }
        let range_name = match address {
            IpAddr::V4(v4) => refused_v4(v4),
            IpAddr::V6(v6) => match same_host_v4(v6) {
                Some(v4) if self.allows(IpAddr::V4(v4)) => None,
                Some(v4) => refused_v4(v4),
                None => relayed_v4(v6)
                    .and_then(refused_v4)
                    .or_else(|| refused_v6(v6)),
            },
        };
        range_name.map_or(Ok(()), |range_name| {
            Err(Blocked {
                address,
                range_name,
            })
        })
    }

    /// Whether a URL may be the target of a webhook, as far as that shows without asking a resolver.
    ///
    /// # Errors
    /// [`UrlRefused`].
    pub fn check_url(&self, url: &Url) -> Result<(), UrlRefused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlRefused::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlRefused::Credentials);
        }
        if url.as_str().len() > LONGEST_URL {
            return Err(UrlRefused::TooLong(url.as_str().len()));
        }
        match url.host() {
            // The url crate has turned 2130706433, 0x7f.1, 127.1 and full-width digits into an address by now.
            Some(Host::Ipv4(address)) => Ok(self.check(IpAddr::V4(address))?),
            Some(Host::Ipv6(address)) => Ok(self.check(IpAddr::V6(address))?),
            Some(Host::Domain(name)) => self.check_name(name),
            None => Err(UrlRefused::NoHost),
        }
    }

    /// Reads the text of a URL as somebody wrote it, and checks it.
    ///
    /// Stricter than [`Url::parse`], which drops tabs and line ends silently and takes a backslash for a slash.
    ///
    /// # Errors
    /// [`UrlRefused`].
    pub fn parse_url(&self, text: &str) -> Result<Url, UrlRefused> {
        let length = text.chars().count();
        if length > LONGEST_URL {
            return Err(UrlRefused::TooLong(length));
        }
        if let Some(found) = text
            .chars()
            .find(|each| each.is_control() || matches!(each, ' ' | '\\'))
        {
            return Err(UrlRefused::Ambiguous(AmbiguousCharacter(found)));
        }
        let url = Url::parse(text).map_err(|error| UrlRefused::Unreadable(error.to_string()))?;
        self.check_url(&url)?;
        Ok(url)
    }

    fn check_name(&self, name: &str) -> Result<(), UrlRefused> {
        let bare = name.strip_suffix('.').unwrap_or(name);
        // RFC 6761 section 6.3: such a name is this machine, whatever a resolver says.
        let is_local = bare == "localhost" || bare.ends_with(".localhost");
        let loopback_allowed = self.allows(IpAddr::V4(Ipv4Addr::LOCALHOST))
            || self.allows(IpAddr::V6(Ipv6Addr::LOCALHOST));
        if is_local && !loopback_allowed {
            return Err(UrlRefused::LocalName(name.to_owned()));
        }
        Ok(())
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.allow_networks
            .iter()
            .any(|network| network.contains(&address))
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let mut ranges = REFUSED_V4.iter();
    let found =
        ranges.find(|(network, length, _)| (bits ^ network.to_bits()) >> (32 - length) == 0);
    found.map(|(_, _, name)| *name)
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let mut ranges = REFUSED_V6.iter();
    let found =
        ranges.find(|(network, length, _)| (bits ^ network.to_bits()) >> (128 - length) == 0);
    match found {
        Some((_, _, name)) => Some(name),
        None if bits >> 125 == 0b001 => None,
        None => Some("no global unicast address"),
    }
}

/// The IPv4 address whose host is reached through this IPv6 address: IPv4-mapped (RFC 4291) and NAT64 (RFC 6052).
fn same_host_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(joined(high, low))
        }
        _ => None,
    }
}

/// The IPv4 address that a relay on the way would unwrap: 6to4 (RFC 3056), ISATAP (RFC 5214), IPv4-compatible and
/// IPv4-translated (RFC 2765) addresses. Only for naming the range and refusing; it never opens anything.
fn relayed_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0x2002, high, low, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low] => Some(joined(high, low)),
        _ => None,
    }
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests;
