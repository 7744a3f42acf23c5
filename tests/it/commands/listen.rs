//! `listen` shows what arrived, and answers as it was told.

use std::io::{BufRead, BufReader, Write};
use std::process::Child;
use std::time::Duration;

use serde_json::Value;

use super::{command, finish, run};

/// A running `listen`; where it listens.
fn listen(arguments: &[&str]) -> (Child, String) {
    let mut child = command(&[&["listen", "--address", "127.0.0.1:0"], arguments].concat())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    let url = line
        .trim()
        .strip_prefix("listening on ")
        .unwrap()
        .to_owned();
    // Read on, so that the child never waits for a full pipe.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    (child, url)
}

fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let mut request = format!(
        "POST /in?q=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer.to_lowercase())
}

#[test]
fn listen_fails_as_told_checks_signatures_and_ends_after_its_count() {
    let (child, url) = listen(&[
        "--secret",
        "s",
        "--fail-first",
        "1",
        "--retry-after",
        "7",
        "--count",
        "3",
        "--output",
        "json",
    ]);
    let signed = run(&["sign", "--secret", "s"], b"{}");
    let headers: Vec<(&str, &str)> = signed
        .stdout
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .collect();
    let (status, answer) = post(&url, &headers, b"{}");
    assert_eq!(status, 503);
    assert!(answer.contains("retry-after: 7"), "{answer}");
    let (status, answer) = post(&url, &headers, b"{ }");
    assert_eq!(status, 200);
    assert!(!answer.contains("retry-after"), "{answer}");
    assert_eq!(
        post(&url, &[("Authorization", "Bearer t")], b"\x1b[2J").0,
        200
    );

    let output = finish(child, b"");
    assert_eq!(output.code, 0);
    let lines: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let field = |name: &str| {
        lines
            .iter()
            .map(|line| line[name].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(field("signature"), ["valid", "invalid", "missing"]);
    assert_eq!(field("status"), [503, 200, 200]);
    assert_eq!(lines[0]["path"], "/in?q=1");
    assert_eq!(lines[0]["body"], "{}");
    assert!(!output.stdout.contains("Bearer"), "{}", output.stdout);
    assert!(!output.stdout.contains('\u{1b}'));
}

#[test]
fn listen_prints_what_people_can_read_and_ends_on_ctrl_c() {
    let (child, url) = listen(&["--status", "410", "--delay", "0.3"]);
    let started = std::time::Instant::now();
    let headers = [
        ("X-Webhook-Event", "job.failed"),
        ("X-Webhook-Attempt", "2"),
    ];
    assert_eq!(post(&url, &headers, b"{\"b\":1.0,\"a\":[]}").0, 410);
    assert!(started.elapsed() >= Duration::from_millis(300));
    let process = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = finish(child, b"");
    assert_eq!(output.code, 0);
    for said in [
        "#1 POST /in?q=1  job.failed  attempt 2  16 bytes  -> 410",
        "  x-webhook-event: job.failed",
        "    {\n      \"b\": 1.0,\n      \"a\": []\n    }",
    ] {
        assert!(output.stdout.contains(said), "{}", output.stdout);
    }
}

#[test]
fn wrong_usage_of_listen_is_refused() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["listen", "--address", &taken], 1, "--address"),
        (&["listen", "--address", "here"], 2, "--address"),
        (&["listen", "--status", "99"], 2, "200 to 599"),
        (&["listen", "--delay", "NaN"], 2, "--delay"),
        (&["listen", "--count", "0"], 2, "--count"),
        (
            &["listen", "--secret", "whsec_*", "--address", "127.0.0.1:0"],
            1,
            "base64",
        ),
    ];
    for (arguments, code, said) in cases {
        let refused = run(arguments, b"");
        assert_eq!(refused.code, *code, "{arguments:?}: {}", refused.stderr);
        assert!(
            refused.stderr.contains(said),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
}
