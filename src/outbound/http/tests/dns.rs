//! Names that answer one thing now and another later. What may be reached is decided by the address that is connected to,
//! each time a connection is made.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use super::*;
use crate::delivery::DeadReason;

/// May be reached, as a public address; all others of loopback stand for private ones.
const PUBLIC: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PRIVATE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

type Found = Result<Vec<Ipv4Addr>, io::ErrorKind>;

/// A client whose resolver gives these answers in turn, and the last one for ever.
fn client_told(answers: Vec<Found>) -> (Client, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let answers = Mutex::new(VecDeque::from(answers));
    let names = Names::asking(Duration::from_secs(5), move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        };
        let found = answer.unwrap()?.into_iter();
        Ok(found.map(|address| (address, 0).into()).collect())
    });
    (client_asking(names, Duration::from_secs(5)), asked)
}

fn client_asking(names: Names, connect_timeout: Duration) -> Client {
    let guard = Arc::new(Guard::new(vec!["127.0.0.1/32".parse().unwrap()]));
    Client::resolving_by(names, None, guard, connect_timeout, CAP).unwrap()
}

/// One receiver at the public and one at the private address, on the same port. Each connection serves one request, or
/// all that come.
async fn both(keeps_open: bool) -> (Receiver, Receiver, String) {
    let serve = move |mut stream: TcpStream| async move {
        while read_request(&mut stream).await.is_some() {
            let connection = if keeps_open { "keep-alive" } else { "close" };
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: {connection}\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(head.as_bytes()).await.is_err() || !keeps_open {
                return;
            }
        }
    };
    let public = Receiver::at((PUBLIC, 0).into(), serve).await;
    let private = Receiver::at((PRIVATE, public.port()).into(), serve).await;
    let url = format!("http://hooks.example:{}/", public.port());
    (public, private, url)
}

async fn once(client: &Client, url: &str) -> Sent {
    attempt(client, url, Duration::from_secs(5)).await
}

fn refused(sent: &Sent) {
    let message = failed(sent, FailureKind::Blocked);
    let words = "hooks.example resolves to 127.0.0.2, a loopback address";
    assert!(message.contains(words), "{message}");
    assert_eq!(
        sent.verdict(0).next,
        Next::Reject(DeadReason::BlockedAddress)
    );
}

#[tokio::test]
async fn a_name_that_was_public_and_is_private_when_it_is_sent_to_is_refused() {
    let (public, private, url) = both(false).await;
    let (client, _) = client_told(vec![Ok(vec![PUBLIC]), Ok(vec![PRIVATE])]);
    assert_eq!(once(&client, &url).await.status, Some(200));
    refused(&once(&client, &url).await);
    assert_eq!((public.connections(), private.connections()), (1, 0));
}

#[tokio::test]
async fn of_a_mixed_answer_the_private_address_is_never_connected_to() {
    let (public, private, url) = both(false).await;
    let mixed = vec![PRIVATE, PUBLIC, PRIVATE];
    let (client, _) = client_told(vec![Ok(mixed)]);
    for _ in 0..3 {
        assert_eq!(once(&client, &url).await.status, Some(200));
    }
    assert_eq!((public.connections(), private.connections()), (3, 0));
    // Not even when the public one does not answer.
    drop(public);
    sleep(Duration::from_millis(50)).await;
    failed(&once(&client, &url).await, FailureKind::Connect);
    assert_eq!(private.connections(), 0);
}

#[tokio::test]
async fn a_name_that_does_not_exist_and_then_is_private_is_refused() {
    let (_public, private, url) = both(false).await;
    let (client, _) = client_told(vec![Err(io::ErrorKind::NotFound), Ok(vec![PRIVATE])]);
    let absent = once(&client, &url).await;
    let message = failed(&absent, FailureKind::Dns);
    assert!(message.contains("check the host in the URL"), "{message}");
    assert_eq!(absent.verdict(0).next, Next::Retry { not_before: None });
    refused(&once(&client, &url).await);
    assert_eq!(private.connections(), 0);
}

#[tokio::test]
async fn a_name_that_changes_while_a_connection_is_kept_is_reached_at_the_address_that_was_checked()
{
    let (public, private, url) = both(true).await;
    let (client, asked) = client_told(vec![Ok(vec![PUBLIC]), Ok(vec![PRIVATE])]);
    for _ in 0..5 {
        assert_eq!(once(&client, &url).await.status, Some(200));
    }
    // One connection, to what the guard let through; the name is asked for when the next one is made.
    assert_eq!((public.connections(), asked.load(Ordering::SeqCst)), (1, 1));
    let (first, second) = tokio::join!(once(&client, &url), once(&client, &url));
    let both = [first, second];
    assert!(both.iter().any(|sent| sent.status == Some(200)), "{both:?}");
    assert_eq!((public.connections(), private.connections()), (1, 0));
}

#[tokio::test]
async fn a_resolver_that_hangs_is_a_failure_of_the_name_and_not_of_connecting() {
    // Over at the end of the test, for its runtime waits for it.
    let (opens, opened) = std::sync::mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let names = Names::asking(Duration::from_millis(300), move |_| {
        let _ = opened.lock().unwrap().recv();
        Ok(vec![])
    });
    let client = client_asking(names, Duration::from_secs(5));
    let sent = once(&client, "http://hooks.example/").await;
    let message = failed(&sent, FailureKind::Dns);
    assert!(message.contains("did not answer within 300ms"), "{message}");
    drop(opens);
}
