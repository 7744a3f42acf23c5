//! `postrider health`: what a container's `HEALTHCHECK` runs, so that an image needs no shell and no curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{Answer, Context, output};

/// Readiness may ask the broker, for at most two seconds.
const LIMIT: Duration = Duration::from_secs(4);
/// More than any answer is long.
const ANSWER_BYTES: u64 = 64 * 1024;

#[derive(Args)]
pub(super) struct Health {
    /// Ask whether it can do its duty now (`/readyz`), not only whether the process works (`/livez`)
    #[arg(long)]
    ready: bool,
    /// Where the instance answers [default: web.telemetry_listen]
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
}

impl Health {
    pub(super) fn run(self, context: &Context) -> Answer {
        let address = match self.address {
            Some(address) => address,
            None => reachable(context.config()?.web.telemetry_listen),
        };
        let path = if self.ready { "/readyz" } else { "/livez" };
        let answer = ask(address, path).with_context(|| {
            format!("no answer from {address}; does an instance run there (web.telemetry_listen)?")
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if head.split(' ').nth(1) != Some("200") {
            let said = body.trim_end();
            bail!(
                "{path} at {address}: {}",
                if said.is_empty() { head } else { said }
            );
        }
        output::print(body)
    }
}

/// An address that listens on every interface is asked on this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let here: IpAddr = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(here, listen.port())
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
