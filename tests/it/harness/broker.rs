//! A broker for one test alone, to be killed and brought back. Promises 1 and 2 are about such days.

use std::path::Path;
use std::process::{Command, Stdio};

/// An Apache Kafka broker in a temporary folder, by `tests/broker.sh`. It is killed when dropped, and also when this
/// process dies in any other way.
pub struct OwnBroker {
    folder: tempfile::TempDir,
    bootstrap: String,
}

impl OwnBroker {
    /// Starts one; takes about four seconds. Its address stays the same for its life.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bootstrap = script("start", folder.path());
        Self { folder, bootstrap }
    }

    /// One with a second listener whose clients are sent to a proxy on this port of loopback. The listener's own port is the
    /// answer's second half; [`Self::bootstrap`] goes past the proxy.
    pub fn behind(proxy: u16) -> (Self, u16) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = command("start", folder.path());
        command.env("POSTRIDER_BROKER_PROXY", proxy.to_string());
        let bootstrap = run("start", command);
        let port = std::fs::read_to_string(folder.path().join("proxied"))
            .expect("the second listener's port");
        let port = port.trim().parse().expect("a port");
        (Self { folder, bootstrap }, port)
    }

    /// One with TLS, SASL and rights (`POSTRIDER_BROKER_SECURITY` of the script), its certificates in `security`. Its plain
    /// listener, [`Self::bootstrap`], may do everything; the others' addresses come second: SASL, client certificates.
    pub fn secured(security: &Path) -> (Self, [String; 2]) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = command("start", folder.path());
        command.env("POSTRIDER_BROKER_SECURITY", security);
        let bootstrap = run("start", command);
        let address = |name: &str| {
            let port = std::fs::read_to_string(folder.path().join(name)).expect("a port");
            format!("127.0.0.1:{}", port.trim())
        };
        let addresses = [address("sasl"), address("mtls")];
        (Self { folder, bootstrap }, addresses)
    }

    /// What clients connect to, `host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// What it has said, warnings and errors.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// SIGKILL: the process is gone when this returns.
    pub fn kill(&self) {
        script("kill", self.folder.path());
    }

    /// SIGTERM, so that it leaves in order.
    pub fn stop(&self) {
        script("stop", self.folder.path());
    }

    /// Up again on the same port with the same data. After [`Self::kill`] this takes some five seconds, because the
    /// controller first lets the dead broker's session run out.
    pub fn restart(&self) {
        script("restart", self.folder.path());
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        let _ = command("remove", self.folder.path()).status();
    }
}

fn command(action: &str, folder: &Path) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker.sh"));
    command
        .arg(action)
        .arg(folder)
        .env("POSTRIDER_BROKER_OWNER", std::process::id().to_string())
        .stdin(Stdio::null());
    command
}

fn script(action: &str, folder: &Path) -> String {
    run(action, command(action, folder))
}

fn run(action: &str, mut command: Command) -> String {
    let output = command.output().expect("tests/broker.sh can be run");
    assert!(
        output.status.success(),
        "tests/broker.sh {action} failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
