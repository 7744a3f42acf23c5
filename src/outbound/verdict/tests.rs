//! Every status and every spelling of `Retry-After` has one verdict.

use super::*;
use proptest::prelude::*;

/// Sun, 06 Nov 1994 08:49:37 GMT
const NOW: u64 = 784_111_777;

fn waits(values: &[&str]) -> Option<u64> {
    let values = values.iter().map(|value| value.as_bytes());
    match judge_status(429, values, NOW).next {
        Next::Retry { not_before } => not_before.map(|wait| wait.as_secs()),
        other => panic!("429 gave {other:?}"),
    }
}

#[test]
fn only_a_2xx_is_delivered_and_only_the_listed_statuses_are_rejected() {
    let rejected = [400, 401, 403, 404, 405, 410, 413, 422];
    let mut judged = 0;
    for status in 100..=999_u16 {
        let next = judge_status(status, [], NOW).next;
        let expected = match status {
            200..=299 => Next::Delivered,
            status if rejected.contains(&status) => Next::Reject(DeadReason::Rejected),
            _ => Next::Retry { not_before: None },
        };
        assert_eq!(next, expected, "status {status}");
        judged += 1;
    }
    assert_eq!(judged, 900);
}

#[test]
fn every_class_of_status_has_its_outcome() {
    let cases = [
        (100, Outcome::Protocol),
        (101, Outcome::Protocol),
        (200, Outcome::Success),
        (204, Outcome::Success),
        (299, Outcome::Success),
        (301, Outcome::Redirect),
        (308, Outcome::Redirect),
        (400, Outcome::ClientError),
        (408, Outcome::ClientError),
        (425, Outcome::ClientError),
        (429, Outcome::RateLimited),
        (499, Outcome::ClientError),
        (500, Outcome::ServerError),
        (503, Outcome::ServerError),
        (600, Outcome::Protocol),
        (999, Outcome::Protocol),
    ];
    for (status, outcome) in cases {
        assert_eq!(
            judge_status(status, [], NOW).outcome,
            outcome,
            "status {status}"
        );
    }
}

#[test]
fn a_blocked_address_is_never_tried_again_and_every_other_failure_is() {
    let cases = [
        (FailureKind::Timeout, Outcome::Timeout),
        (FailureKind::Dns, Outcome::Dns),
        (FailureKind::Connect, Outcome::Connect),
        (FailureKind::Tls, Outcome::Tls),
        (FailureKind::Protocol, Outcome::Protocol),
    ];
    for (kind, outcome) in cases {
        assert_eq!(
            judge_failure(kind),
            Verdict {
                outcome,
                next: Next::Retry { not_before: None }
            }
        );
    }
    let blocked = judge_failure(FailureKind::Blocked);
    assert_eq!(blocked.outcome, Outcome::Blocked);
    assert_eq!(blocked.next, Next::Reject(DeadReason::BlockedAddress));
}

#[test]
fn retry_after_is_honoured_on_429_and_503_only() {
    for status in 300..=599_u16 {
        let next = judge_status(status, [b"7".as_slice()], NOW).next;
        let honoured = next
            == Next::Retry {
                not_before: Some(Duration::from_secs(7)),
            };
        assert_eq!(honoured, status == 429 || status == 503, "status {status}");
    }
}

#[test]
fn retry_after_is_read_in_every_spelling_and_clamped() {
    let day = 24 * 3600;
    let cases: [(&[&str], Option<u64>); 18] = [
        (&[], None),
        (&["0"], Some(1)),
        (&["120"], Some(120)),
        (&[" 120 "], Some(120)),
        (&["1000000000"], Some(day)),
        (&["100000000000000000000"], Some(day)),
        (&["-1"], None),
        (&["+5"], None),
        (&["1.5"], None),
        (&["1e9"], None),
        (&[""], None),
        (&["soon"], None),
        (&["Sun, 06 Nov 1994 08:50:37 GMT"], Some(60)),
        (&["Sun, 06 Nov 1994 08:49:00 GMT"], Some(1)),
        (&["Fri, 31 Dec 9999 23:59:59 GMT"], Some(day)),
        (&["Sun, 99 Nov 1994 08:50:37 GMT"], None),
        (&["5", "30"], Some(30)),
        (&["30", "garbage"], Some(30)),
    ];
    for (values, expected) in cases {
        assert_eq!(waits(values), expected, "{values:?}");
    }
    assert_eq!(
        judge_status(429, [b"\xff\xfe".as_slice()], NOW).next,
        Next::Retry { not_before: None },
        "bytes that are no text"
    );
}

#[test]
fn the_words_are_those_of_the_contract() {
    let words: Vec<_> = Outcome::ALL
        .iter()
        .map(|outcome| outcome.as_str())
        .collect();
    assert_eq!(
        words.join(" "),
        "success redirect client_error server_error rate_limited timeout dns connect tls blocked protocol"
    );
    assert_eq!(DeadReason::Rejected.as_str(), "rejected");
    assert_eq!(DeadReason::BlockedAddress.as_str(), "blocked_address");
}

proptest! {
    #[test]
    fn any_retry_after_is_absent_or_between_a_second_and_a_day(value in prop::collection::vec(any::<u8>(), 0..40), now in any::<u64>()) {
        if let Next::Retry { not_before: Some(wait) } = judge_status(503, [value.as_slice()], now).next {
            prop_assert!((SHORTEST_RETRY_AFTER..=LONGEST_RETRY_AFTER).contains(&wait));
        }
    }
}
