//! What an instance and its machine say to each other: health checks without curl, systemd's notifications, manual pages.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{command, run};
use crate::harness::{Cluster, Process, config_text};

#[test]
fn health_says_whether_an_instance_lives_and_is_ready() {
    let cluster = Cluster::named("health-command");
    cluster.create_topic("events.job", 1, &[]);
    let process = Process::start(&config_text(&cluster, &["events.job"], ""));
    let address = process.telemetry().to_string();
    let alive = run(&["health", "--address", &address], b"");
    assert_eq!((alive.code, alive.stdout.as_str()), (0, "ok\n"));
    let ready = run(&["health", "--ready", "--address", &address], b"");
    assert_eq!((ready.code, ready.stdout.as_str()), (0, "ready\n"));

    process.terminate();

    let gone = run(&["health", "--address", &address], b"");
    assert_eq!(gone.code, 1);
    assert!(
        gone.stderr.contains(&address) && gone.stderr.contains("web.telemetry_listen"),
        "{}",
        gone.stderr
    );
}

#[test]
fn systemd_is_told_when_it_is_ready_that_it_lives_and_that_it_stops() {
    let cluster = Cluster::named("systemd");
    cluster.create_topic("events.job", 1, &[]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("postrider.toml");
    std::fs::write(&config, config_text(&cluster, &["events.job"], "")).unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut child = command(&["--config", config.to_str().unwrap(), "run"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "900000")
        .spawn()
        .unwrap();
    let next = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };

    assert_eq!(next(), "READY=1\n");
    let begin = Instant::now();
    for _ in 0..4 {
        assert_eq!(next(), "WATCHDOG=1\n");
    }
    // Four in less than 900 ms each, with room for a slow machine.
    assert!(begin.elapsed() < Duration::from_secs(3));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let stopping = (0..20).map(|_| next()).any(|said| said == "STOPPING=1\n");
    assert!(stopping);
    assert!(child.wait().unwrap().success());
}

#[test]
fn every_command_has_a_manual_page_and_each_shell_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(run(&["man", path], b"").code, 0);
    for page in [
        "postrider.1",
        "postrider-run.1",
        "postrider-dead-letters-replay.1",
    ] {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell], b"");
        assert_eq!(output.code, 0);
        assert!(output.stdout.contains("dead-letters"), "{shell}");
    }
    let refused = run(&["man", "/nowhere"], b"");
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("/nowhere"), "{}", refused.stderr);
}
