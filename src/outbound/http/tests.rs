//! One attempt against receivers on real sockets that do everything a receiver should not.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use url::Url;

use super::super::request::{Auth, EndpointSettings};
use super::*;
use crate::attempt::{Next, Outcome};

mod answers;
mod certificates;
mod dns;
mod hostile;
mod http2;
#[cfg(target_os = "linux")]
mod memory;
mod receiver;
mod tls;
mod unreachable;

use receiver::{Receiver, read_request};

const CAP: usize = 1000;

fn client_of(networks: &[&str]) -> Client {
    let networks = networks
        .iter()
        .map(|network| network.parse().unwrap())
        .collect();
    Client::new(Arc::new(Guard::new(networks)), Duration::from_secs(5), CAP).unwrap()
}

fn client() -> Client {
    client_of(&["127.0.0.0/8", "::1/128"])
}

fn endpoint(url: &str, timeout: Duration) -> Endpoint {
    Endpoint::new(EndpointSettings {
        url: Url::parse(url).unwrap(),
        method: Method::POST,
        headers: vec![],
        cookies: vec![],
        auth: Auth::None,
        secrets: vec![],
        timeout,
        verify_ssl: true,
    })
    .unwrap()
}

/// Sends a small body to a receiver, and asserts what holds for every attempt.
async fn attempt(client: &Client, url: &str, timeout: Duration) -> Sent {
    let url = format!("{url}?token=hidden");
    let sent = client
        .send(
            &endpoint(&url, timeout),
            HeaderMap::new(),
            Bytes::from_static(b"{}"),
        )
        .await;
    assert_ne!(sent.status.is_some(), sent.failure.is_some(), "{sent:?}");
    assert!(
        sent.duration < timeout + Duration::from_millis(400),
        "over its deadline: {:?}",
        sent.duration
    );
    assert!(sent.body.len() <= CAP);
    if let Some(failure) = &sent.failure {
        assert!(
            !failure.message.contains("hidden"),
            "the query string shows: {}",
            failure.message
        );
    }
    sent
}

async fn answer_to(reply: &'static [u8]) -> Sent {
    let receiver = Receiver::replying(reply).await;
    attempt(&client(), &receiver.url(), Duration::from_secs(2)).await
}

fn failed(sent: &Sent, kind: FailureKind) -> String {
    let failure = sent
        .failure
        .clone()
        .unwrap_or_else(|| panic!("no failure: {sent:?}"));
    assert_eq!(failure.kind, kind, "{}", failure.message);
    failure.message
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_given_up_at_the_deadline() {
    let hangs = Receiver::new(async |mut stream| {
        let _ = read_request(&mut stream).await;
        sleep(Duration::from_secs(60)).await;
    })
    .await;
    let sent = attempt(&client(), &hangs.url(), Duration::from_millis(300)).await;
    let message = failed(&sent, FailureKind::Timeout);
    assert!(
        message.contains("300ms") && message.contains("timeout_seconds"),
        "{message}"
    );
    assert!(sent.duration >= Duration::from_millis(300));
    assert_eq!(sent.verdict(0).outcome, Outcome::Timeout);
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_and_an_endless_chain_of_1xx_are_given_up_at_the_deadline() {
    for (head, drip) in [
        ("", "HTTP/1.1 200 OK\r\nx-slow: 1111111111111"),
        ("", "HTTP/1.1 102 Processing\r\n\r\n"),
    ] {
        let receiver = Receiver::new(move |mut stream| async move {
            let _ = read_request(&mut stream).await;
            let _ = stream.write_all(head.as_bytes()).await;
            let pieces: Vec<_> = if drip.contains("102") {
                vec![drip.as_bytes()]
            } else {
                drip.as_bytes().chunks(1).collect()
            };
            for piece in pieces.iter().cycle() {
                if stream.write_all(piece).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let sent = attempt(&client(), &receiver.url(), Duration::from_millis(400)).await;
        failed(&sent, FailureKind::Timeout);
    }
}

#[tokio::test]
async fn a_connection_is_used_again_when_the_body_was_read_to_its_end() {
    let receiver = Receiver::new(async |mut stream| {
        while read_request(&mut stream).await.is_some() {
            // Exactly the cap: it must not count as cut off.
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {CAP}\r\n\r\n{}",
                "x".repeat(CAP)
            );
            let _ = stream.write_all(head.as_bytes()).await;
        }
    })
    .await;
    let client = client();
    for _ in 0..5 {
        let sent = attempt(&client, &receiver.url(), Duration::from_secs(2)).await;
        assert_eq!(
            (sent.status, sent.body.len(), sent.truncated),
            (Some(200), CAP, false)
        );
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_connection_with_an_unread_rest_is_closed() {
    let closed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&closed);
    let receiver = Receiver::new(move |mut stream| {
        let counter = Arc::clone(&counter);
        async move {
            let _ = read_request(&mut stream).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                .await;
            let _ = stream.write_all(&[b'x'; 2000]).await;
            assert!(
                read_request(&mut stream).await.is_none(),
                "a second request on a spoilt connection"
            );
            counter.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let client = client();
    for _ in 0..2 {
        assert!(
            attempt(&client, &receiver.url(), Duration::from_secs(2))
                .await
                .truncated
        );
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(
        (receiver.connections(), closed.load(Ordering::SeqCst)),
        (2, 2)
    );
}

#[tokio::test]
async fn one_hanging_receiver_does_not_delay_another() {
    let hangs = Receiver::new(async |stream| {
        sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let good = Receiver::replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let client = client();
    let (slow_url, good_url) = (hangs.url(), good.url());
    let slow = attempt(&client, &slow_url, Duration::from_secs(1));
    let fast = attempt(&client, &good_url, Duration::from_secs(1));
    let (slow, fast) = tokio::join!(slow, fast);
    failed(&slow, FailureKind::Timeout);
    assert!(fast.status == Some(200) && fast.duration < Duration::from_millis(500));
}
