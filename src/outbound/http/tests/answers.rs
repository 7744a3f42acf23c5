//! What an answer is worth: the status decides, whatever becomes of the body, and a redirect is only an answer.

use super::*;

#[tokio::test]
async fn the_body_goes_out_untouched_and_the_answer_comes_back() {
    let receiver = Receiver::new(async |mut stream| {
        let request = read_request(&mut stream).await.unwrap();
        assert!(request.starts_with(b"PUT /in?a=b%20c HTTP/1.1\r\n"));
        assert!(request.ends_with(b"\r\n\r\n{\"a\" : 1.0,  \"\xff\0\"}"));
        stream
            .write_all(b"HTTP/1.1 202 Accepted\r\nx-one: 1\r\ncontent-length: 5\r\n\r\nhello")
            .await
            .unwrap();
    })
    .await;
    let mut endpoint = endpoint(
        &format!("{}in?a=b%20c", receiver.url()),
        Duration::from_secs(2),
    );
    endpoint.method = Method::PUT;
    let sent = client()
        .send(
            &endpoint,
            HeaderMap::new(),
            Bytes::from_static(b"{\"a\" : 1.0,  \"\xff\0\"}"),
        )
        .await;
    assert_eq!(
        (sent.status, sent.body.as_ref(), sent.truncated),
        (Some(202), b"hello".as_slice(), false)
    );
    assert_eq!(sent.headers["x-one"], "1");
    assert_eq!(sent.verdict(0).next, Next::Delivered);
}

#[tokio::test]
async fn a_get_carries_the_body_too() {
    let receiver = Receiver::new(async |mut stream| {
        let request = read_request(&mut stream).await.unwrap();
        assert!(request.starts_with(b"GET ") && request.ends_with(b"\r\n\r\n{}"));
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .unwrap();
    })
    .await;
    let mut endpoint = endpoint(&receiver.url(), Duration::from_secs(2));
    endpoint.method = Method::GET;
    let sent = client()
        .send(&endpoint, HeaderMap::new(), Bytes::from_static(b"{}"))
        .await;
    assert_eq!(sent.status, Some(204));
}

#[tokio::test]
async fn a_2xx_whose_body_never_ends_is_a_success_and_is_read_to_the_cap_only() {
    let receiver = Receiver::new(async |mut stream| {
        let _ = read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let sent = attempt(&client(), &receiver.url(), Duration::from_secs(5)).await;
    assert_eq!(
        (sent.status, sent.body.len(), sent.truncated),
        (Some(200), CAP, true)
    );
    assert!(
        sent.duration < Duration::from_millis(900),
        "the rest was not waited for"
    );
}

#[tokio::test]
async fn a_2xx_whose_body_hangs_is_a_success_after_a_second_or_what_is_left() {
    for (timeout, longest) in [
        (Duration::from_secs(5), 1400),
        (Duration::from_millis(300), 600),
    ] {
        let receiver = Receiver::new(async |mut stream| {
            let _ = read_request(&mut stream).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun")
                .await;
            sleep(Duration::from_secs(60)).await;
        })
        .await;
        let sent = attempt(&client(), &receiver.url(), timeout).await;
        assert_eq!(
            (sent.status, sent.body.as_ref(), sent.truncated),
            (Some(200), b"begun".as_slice(), true)
        );
        assert!(
            sent.duration < Duration::from_millis(longest),
            "{:?}",
            sent.duration
        );
    }
}

#[tokio::test]
async fn a_2xx_that_is_cut_off_or_garbled_in_its_body_is_a_success() {
    let cut = answer_to(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
    assert_eq!(
        (cut.status, cut.body.as_ref(), cut.truncated),
        (Some(200), b"abc".as_slice(), true)
    );
    let garbled = answer_to(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZZ\r\n").await;
    assert_eq!((garbled.status, garbled.truncated), (Some(200), true));
    let reset = Receiver::new(async |mut stream| {
        let _ = read_request(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\nabc")
            .await;
        sleep(Duration::from_millis(50)).await;
        receiver::reset(stream);
    })
    .await;
    let sent = attempt(&client(), &reset.url(), Duration::from_secs(2)).await;
    assert_eq!((sent.status, sent.truncated), (Some(201), true));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Receiver::replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for status in [301, 302, 303, 307, 308] {
        let location = target.url();
        let receiver = Receiver::new(move |mut stream| {
            let location = location.clone();
            async move {
                let _ = read_request(&mut stream).await;
                let head = format!(
                    "HTTP/1.1 {status} Go\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes()).await;
            }
        })
        .await;
        let sent = attempt(&client(), &receiver.url(), Duration::from_secs(2)).await;
        assert_eq!(
            (sent.status, sent.verdict(0).outcome),
            (Some(status), Outcome::Redirect)
        );
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn retry_after_headers_come_back_all_of_them() {
    let sent = answer_to(
        b"HTTP/1.1 503 Later\r\nretry-after: 7\r\nretry-after: 90\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(sent.retry_after.len(), 2);
    assert_eq!(
        sent.verdict(0).next,
        Next::Retry {
            not_before: Some(Duration::from_secs(90))
        }
    );
}

#[tokio::test]
async fn response_headers_are_kept_up_to_a_limit() {
    let sent = answer_to(
        Box::leak(
            format!(
                "HTTP/1.1 200 OK\r\nx-big: {}\r\ncontent-length: 0\r\n\r\n",
                "b".repeat(20_000)
            )
            .into_boxed_str(),
        )
        .as_bytes(),
    )
    .await;
    assert_eq!(
        (sent.status, sent.headers.contains_key("x-big")),
        (Some(200), false)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_for_an_answer_give_one_verdict(reply in prop::collection::vec(any::<u8>(), 0..200), head in prop::option::of(200..600_u16)) {
        let mut bytes = head.map(|status| format!("HTTP/1.1 {status} x\r\n").into_bytes()).unwrap_or_default();
        bytes.extend(reply);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let receiver = Receiver::new(move |mut stream: TcpStream| { let bytes = bytes.clone(); async move {
                let _ = read_request(&mut stream).await;
                let _ = stream.write_all(&bytes).await;
            } })
            .await;
            attempt(&client(), &receiver.url(), Duration::from_secs(5)).await.verdict(0)
        });
    }
}
