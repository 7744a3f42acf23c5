//! Receivers that give no answer, and addresses that are never connected to.

use super::*;

#[tokio::test]
async fn no_answer_and_no_http_are_protocol_failures() {
    let closed = answer_to(b"").await;
    assert!(failed(&closed, FailureKind::Protocol).contains("127.0.0.1:"));
    for reply in [
        b"SSH-2.0-OpenSSH_9.6\r\n".as_slice(),
        b"hello, this is HTTP/0.9\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbroken header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"\x00\x01\x02\x03\x04\xff\xff\xff\xff\r\n\r\n",
        b"HTTP/1.1 200",
    ] {
        failed(&answer_to(reply).await, FailureKind::Protocol);
    }
    let reset = Receiver::new(async |mut stream| {
        let _ = read_request(&mut stream).await;
        receiver::reset(stream);
    })
    .await;
    let sent = attempt(&client(), &reset.url(), Duration::from_secs(2)).await;
    assert!(failed(&sent, FailureKind::Protocol).contains("without an answer"));
}

#[tokio::test]
async fn nothing_listening_is_a_connect_failure() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let sent = attempt(
        &client(),
        &format!("http://{free}/"),
        Duration::from_secs(2),
    )
    .await;
    assert!(failed(&sent, FailureKind::Connect).contains("connection refused"));
}

#[tokio::test]
async fn a_host_that_drops_packets_is_a_timeout_of_connecting() {
    let Some((address, _held)) = receiver::deaf().await else {
        return;
    };
    let mut client = client();
    let guard = Arc::clone(&client.guard);
    client = Client::new(
        guard,
        Duration::from_millis(300),
        client.response_body_bytes,
    )
    .unwrap();
    let sent = attempt(
        &client,
        &format!("http://{address}/"),
        Duration::from_secs(5),
    )
    .await;
    assert!(failed(&sent, FailureKind::Timeout).contains("connect_timeout_seconds"));
    assert!(sent.duration < Duration::from_secs(2));
}

#[tokio::test]
async fn a_name_without_an_address_is_a_dns_failure() {
    let sent = attempt(
        &client(),
        "http://nowhere.invalid/",
        Duration::from_secs(15),
    )
    .await;
    assert!(failed(&sent, FailureKind::Dns).contains("nowhere.invalid"));
}

#[tokio::test]
async fn a_refused_literal_or_local_name_is_never_connected_to() {
    let receiver = Receiver::replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = receiver.port();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "0",
    ];
    for host in hosts {
        let sent = attempt(
            &client_of(&[]),
            &format!("http://{host}:{port}/"),
            Duration::from_secs(2),
        )
        .await;
        assert!(failed(&sent, FailureKind::Blocked).contains("outbound.allow_networks"));
        assert_eq!(sent.verdict(0).outcome, Outcome::Blocked);
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_name_that_resolves_to_a_refused_address_is_never_connected_to() {
    let receiver = Receiver::replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    // The URL passes, as a public name would; the resolver's answer is what is refused.
    let mut client = client_of(&[]);
    client.guard = Arc::new(Guard::new(vec!["127.0.0.0/8".parse().unwrap()]));
    let sent = attempt(
        &client,
        &format!("http://localhost:{}/", receiver.port()),
        Duration::from_secs(2),
    )
    .await;
    let message = failed(&sent, FailureKind::Blocked);
    assert!(message.contains("localhost resolves to"), "{message}");
    assert!(
        message.contains("a loopback address; add it to outbound.allow_networks"),
        "{message}"
    );
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn of_a_mixed_answer_only_public_addresses_are_tried_and_not_too_many() {
    let guard = Guard::default();
    let socket = |text: &str| -> SocketAddr { format!("{text}:0").parse().unwrap() };
    let mixed = [
        socket("10.0.0.1"),
        socket("8.8.8.8"),
        socket("127.0.0.1"),
        socket("1.1.1.1"),
    ];
    assert_eq!(
        only_reachable(&guard, mixed.into_iter()).unwrap(),
        [socket("8.8.8.8"), socket("1.1.1.1")]
    );
    let many = (0..1000).map(|_| socket("8.8.8.8"));
    assert_eq!(only_reachable(&guard, many).unwrap().len(), MOST_ADDRESSES);
    let private = only_reachable(
        &guard,
        [socket("10.0.0.1"), socket("127.0.0.1")].into_iter(),
    );
    assert!(matches!(
        private,
        Err(ResolveError::Blocked(Blocked {
            range_name: "a private address",
            ..
        }))
    ));
    assert!(matches!(
        only_reachable(&guard, std::iter::empty()),
        Err(ResolveError::NoAddress)
    ));
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_ignored() {
    // The environment belongs to the whole process, so the test runs itself in one of its own.
    if std::env::var_os("HTTP_PROXY").is_none() {
        let name = "outbound::http::tests::unreachable::a_proxy_in_the_environment_is_ignored";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        for variable in [
            "HTTP_PROXY",
            "http_proxy",
            "HTTPS_PROXY",
            "https_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            again.env(variable, "http://127.0.0.1:1");
        }
        again.env_remove("NO_PROXY").env_remove("no_proxy");
        let output = again.args(["--exact", name]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    let sent = answer_to(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(sent.status, Some(200), "{sent:?}");
}
