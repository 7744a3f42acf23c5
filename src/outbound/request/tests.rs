//! Every header of the contract arrives, once.

use super::*;
use proptest::prelude::*;

const BODY: &[u8] = br#"{"event_type":"job.failed"}"#;

pub(super) fn settings() -> EndpointSettings<'static> {
    EndpointSettings {
        url: Url::parse("https://hooks.example.com/in?token=abc").unwrap(),
        method: Method::POST,
        headers: vec![],
        cookies: vec![],
        auth: Auth::None,
        secrets: vec![],
        timeout: Duration::from_secs(10),
        verify_ssl: true,
    }
}

fn attempt() -> Attempt<'static> {
    Attempt {
        delivery_id: "dlv_1",
        event_type: "job.failed",
        number: 3,
        unix_seconds: 1_700_000_000,
        traceparent: None,
        tracestate: None,
        body: BODY,
    }
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

#[test]
fn an_unsigned_attempt_carries_exactly_the_headers_of_the_contract() {
    let endpoint = Endpoint::new(settings()).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        shown(&attempt_headers(&endpoint, &attempt())),
        [
            "content-type: application/json".to_owned(),
            format!("user-agent: Postrider/{version}"),
            "webhook-id: dlv_1".to_owned(),
            "webhook-timestamp: 1700000000".to_owned(),
            "x-webhook-attempt: 3".to_owned(),
            "x-webhook-event: job.failed".to_owned(),
        ]
    );
}

#[test]
fn a_secret_adds_both_signatures() {
    let endpoint = Endpoint::new(EndpointSettings {
        secrets: vec!["s3cret"],
        ..settings()
    })
    .unwrap();
    let headers = attempt_headers(&endpoint, &attempt());
    let key = SigningKey::new("s3cret").unwrap();
    assert_eq!(headers["x-webhook-signature"], key.plain(BODY));
    assert_eq!(
        headers["webhook-signature"],
        key.standard("dlv_1", 1_700_000_000, BODY)
    );
}

#[test]
fn while_a_secret_is_rotated_the_standard_header_carries_both_and_the_plain_one_the_newest() {
    let endpoint = Endpoint::new(EndpointSettings {
        secrets: vec!["new", "old"],
        ..settings()
    })
    .unwrap();
    let headers = attempt_headers(&endpoint, &attempt());
    let signatures = headers["webhook-signature"].to_str().unwrap();
    assert_eq!(signatures.split(' ').count(), 2);
    for secret in ["new", "old"] {
        let key = SigningKey::new(secret).unwrap();
        assert_eq!(
            key.verify_standard("dlv_1", "1700000000", signatures, BODY, 1_700_000_000),
            Ok(())
        );
    }
    assert_eq!(
        headers["x-webhook-signature"],
        SigningKey::new("new").unwrap().plain(BODY)
    );
}

#[test]
fn custom_headers_cookies_and_every_form_of_auth_are_sent() {
    let base = || EndpointSettings {
        headers: vec![
            ("X-Team", "net ops"),
            ("Content-Type", "application/cloudevents+json"),
            ("User-Agent", "mine"),
        ],
        cookies: vec![("session", "abc"), ("region", "eu")],
        ..settings()
    };
    let sent = |auth| {
        attempt_headers(
            &Endpoint::new(EndpointSettings { auth, ..base() }).unwrap(),
            &attempt(),
        )
    };
    let headers = sent(Auth::Bearer { token: "tok" });
    assert_eq!(headers["x-team"], "net ops");
    assert_eq!(
        headers.get_all("content-type").iter().collect::<Vec<_>>(),
        ["application/cloudevents+json"]
    );
    assert_eq!(headers["user-agent"], "mine");
    assert_eq!(headers["cookie"], "session=abc; region=eu");
    assert_eq!(headers["authorization"], "Bearer tok");
    assert_eq!(
        sent(Auth::ApiKey {
            header: None,
            token: "k"
        })["x-api-key"],
        "k"
    );
    assert_eq!(
        sent(Auth::ApiKey {
            header: Some("X-Token"),
            token: "k"
        })["x-token"],
        "k"
    );
    let basic = sent(Auth::Basic {
        username: "Aladdin",
        password: "open sesame",
    });
    assert_eq!(
        basic["authorization"], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "RFC 7617 section 2"
    );
}

#[test]
fn a_traceparent_is_passed_on_and_a_broken_one_is_left_out() {
    let endpoint = Endpoint::new(settings()).unwrap();
    let sent = |traceparent| {
        let headers = attempt_headers(
            &endpoint,
            &Attempt {
                traceparent,
                ..attempt()
            },
        );
        headers
            .get("traceparent")
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(sent(Some(good)).as_deref(), Some(good));
    for broken in ["", "a b", "a\r\nX-Evil: 1", "é"] {
        assert_eq!(sent(Some(broken)), None, "{broken:?}");
    }
}

#[test]
fn a_tracestate_goes_with_a_traceparent_and_a_broken_one_is_left_out() {
    let endpoint = Endpoint::new(settings()).unwrap();
    let sent = |traceparent, tracestate| {
        let with = Attempt {
            traceparent,
            tracestate: Some(tracestate),
            ..attempt()
        };
        let headers = attempt_headers(&endpoint, &with);
        let value = headers.get("tracestate")?;
        Some(value.to_str().unwrap().to_owned())
    };
    let parent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let longest = "a".repeat(512);
    for good in ["vendor=00f067aa0ba902b7", "a=1, b=2", &longest] {
        assert_eq!(sent(parent, good).as_deref(), Some(good));
        assert_eq!(sent(None, good), None);
    }
    for broken in ["", "a\r\nX-Evil: 1", "é", &format!("{longest}a")] {
        assert_eq!(sent(parent, broken), None, "{broken:?}");
    }
}

#[test]
fn ids_and_types_that_are_no_header_text_are_percent_encoded_and_signed_as_sent() {
    let endpoint = Endpoint::new(EndpointSettings {
        secrets: vec!["s"],
        ..settings()
    })
    .unwrap();
    let odd = Attempt {
        delivery_id: "a\r\nb",
        event_type: "größe 100%",
        ..attempt()
    };
    let headers = attempt_headers(&endpoint, &odd);
    assert_eq!(headers["webhook-id"], "a%0D%0Ab");
    assert_eq!(headers["x-webhook-event"], "gr%C3%B6%C3%9Fe%20100%25");
    let signature = headers["webhook-signature"].to_str().unwrap();
    let key = SigningKey::new("s").unwrap();
    assert_eq!(
        key.verify_standard("a%0D%0Ab", "1700000000", signature, BODY, 1_700_000_000),
        Ok(())
    );
}

#[test]
fn no_secret_shows_when_an_endpoint_or_its_headers_are_printed() {
    let endpoint = Endpoint::new(EndpointSettings {
        headers: vec![("X-Token", "hidden1")],
        cookies: vec![("a", "hidden2")],
        auth: Auth::Bearer { token: "hidden3" },
        secrets: vec!["hidden4"],
        ..settings()
    })
    .unwrap();
    let printed = format!("{endpoint:?} {:?}", attempt_headers(&endpoint, &attempt()));
    assert!(
        !printed.contains("hidden") && !printed.contains("token=abc"),
        "{printed}"
    );
}

proptest! {
    #[test]
    fn no_id_type_or_trace_makes_it_panic_or_lose_a_header(id in any::<String>(), event_type in any::<String>(), traceparent in any::<String>()) {
        let endpoint = Endpoint::new(EndpointSettings { secrets: vec!["s"], ..settings() }).unwrap();
        let odd = Attempt { delivery_id: &id, event_type: &event_type, traceparent: Some(&traceparent), ..attempt() };
        let headers = attempt_headers(&endpoint, &odd);
        prop_assert!(headers.contains_key("webhook-id") && headers.contains_key("x-webhook-event"));
        prop_assert!(headers.contains_key("webhook-signature"));
    }

    #[test]
    fn an_accepted_header_is_one_line(name in any::<String>(), value in any::<String>()) {
        if check_header(&name, &value).is_ok() {
            let line = [name, value].concat();
            prop_assert!(!line.contains(['\r', '\n', '\0']));
        }
    }
}
