//! Each invariant can fail: a history that breaks it is told, and the oracle says so.

use super::ending::{Copies, Standing};
use super::{Hit, Key, Kind, LONGEST_SILENCE_MS, Oracle, Place, Rule};

const ONE: Place = Place {
    source: 0,
    partition: 2,
    offset: 40,
};

/// One webhook: three attempts, a backoff of a second, two requests in a second and a burst of one.
fn oracle() -> Oracle {
    let mut oracle = Oracle::new(vec![Rule {
        id: "wh_one".into(),
        max_attempts: 3,
        backoff_ms: 1000,
        limit: Some((2, 1, 1)),
        deleted: false,
        steady: true,
    }]);
    oracle.produced = 10;
    oracle.acknowledged(1, ONE, 1, 0);
    oracle
}

fn hit(at_ms: u32, attempt: u8, status: u16) -> Hit {
    Hit {
        event: 1,
        webhook: 0,
        attempt,
        status,
        instance: 1,
        at_ms,
        late_ms: 0,
        retry_after: 0,
        id: 7,
        whole: true,
    }
}

fn record(oracle: &mut Oracle, topic: &str, offset: u64, appended_ms: i64, kind: Kind) {
    oracle.record(topic, 0, offset, appended_ms, Key::new(0, ONE), &kind);
}

fn ended(word: &str) -> Kind {
    Kind::Ending(word.into())
}

fn letter(reason: &str, attempts: u32) -> Kind {
    Kind::Letter {
        reason: reason.into(),
        attempts,
    }
}

/// The numbers of what is broken at the end.
fn broken(mut oracle: Oracle, copies: Copies) -> Vec<usize> {
    oracle.conclude(copies, &[]);
    (1..10)
        .filter(|number| oracle.failed[*number] > 0)
        .collect()
}

fn good() -> Oracle {
    let mut oracle = oracle();
    record(
        &mut oracle,
        "dispatch",
        0,
        10,
        Kind::Dispatch { created_ms: 1 },
    );
    oracle.hit(hit(20, 1, 500));
    record(&mut oracle, "delay", 0, 30, Kind::Delay);
    record(
        &mut oracle,
        "dispatch",
        1,
        1040,
        Kind::Dispatch { created_ms: 1 },
    );
    oracle.hit(hit(1030, 2, 200));
    record(&mut oracle, "attempts", 1, 1060, ended("delivered"));
    oracle.committed("dispatch", 0, 2);
    oracle.committed("delay", 0, 1);
    oracle.committed_source(0, 2, 41);
    oracle
}

#[test]
fn a_history_without_fault_is_passed() {
    assert_eq!(broken(good(), Copies::None), Vec::<usize>::new());
}

#[test]
fn a_key_holds_webhook_and_place() {
    let place = Place {
        source: 1,
        partition: 300,
        offset: 1 << 35,
    };
    let key = Key::new(23, place);
    assert_eq!((key.webhook(), key.place()), (23, place));
}

#[test]
fn a_delivery_without_an_ending_is_lost() {
    assert_eq!(broken(oracle(), Copies::None), [1]);
    let mut failed = oracle();
    failed.hit(hit(20, 1, 500));
    assert_eq!(broken(failed, Copies::None), [1]);
}

#[test]
fn an_arrival_without_a_recorded_ending_is_told() {
    let mut oracle = oracle();
    oracle.hit(hit(20, 1, 200));
    assert_eq!(broken(oracle, Copies::None), [1]);
}

#[test]
fn an_ending_that_no_receiver_knows_of_is_told_at_once() {
    let mut oracle = oracle();
    record(&mut oracle, "attempts", 0, 10, ended("delivered"));
    assert_eq!(oracle.failed[1], 1);
}

#[test]
fn a_dead_ending_without_its_letter_is_told() {
    let mut oracle = good();
    record(&mut oracle, "attempts", 2, 1070, ended("dead_lettered"));
    assert_eq!(broken(oracle, Copies::None), [1]);
}

#[test]
fn what_nobody_produced_or_wanted_is_told() {
    let mut changed = good();
    changed.hit(Hit {
        whole: false,
        event: 2,
        ..hit(5000, 1, 200)
    });
    assert_eq!(changed.failed[2], 1);
    let mut renamed = good();
    renamed.hit(Hit {
        id: 8,
        ..hit(5000, 2, 500)
    });
    assert_eq!(renamed.failed[2], 1);
    let mut unwanted = good();
    unwanted.acknowledged(2, Place { offset: 41, ..ONE }, 0, 0);
    unwanted.hit(Hit {
        event: 2,
        ..hit(5000, 1, 200)
    });
    assert_eq!(broken(unwanted, Copies::None), [2]);
    let mut nowhere = good();
    nowhere.record(
        "dispatch",
        0,
        9,
        10,
        Key::new(0, Place { offset: 99, ..ONE }),
        &Kind::Dispatch { created_ms: 1 },
    );
    assert_eq!(broken(nowhere, Copies::None), [2]);
}

#[test]
fn a_dead_letter_before_its_attempts_are_spent_is_told() {
    for (kind, faults) in [
        (letter("exhausted", 2), 1),
        (letter("exhausted", 3), 0),
        (letter("rejected", 1), 0),
        (letter("tired", 3), 1),
    ] {
        let mut oracle = oracle();
        record(&mut oracle, "letters", 0, 10, kind);
        assert_eq!(oracle.failed[3], faults);
    }
}

#[test]
fn a_commit_past_what_nothing_followed_from_is_told() {
    let mut oracle = oracle();
    oracle.committed_source(0, 2, 41);
    assert_eq!(
        oracle.failed[4], 0,
        "offsets below 40 are not acknowledged yet"
    );
    let mut first = Oracle::new(oracle.rules.clone());
    first.acknowledged(1, Place { offset: 0, ..ONE }, 1, 0);
    first.committed_source(0, 2, 1);
    assert_eq!(first.failed[4], 1, "never dispatched");
    record(
        &mut oracle,
        "dispatch",
        0,
        10,
        Kind::Dispatch { created_ms: 1 },
    );
    oracle.committed("dispatch", 0, 0);
    assert_eq!(oracle.failed[4], 0);
    oracle.committed("dispatch", 0, 1);
    assert_eq!(oracle.failed[4], 1, "nothing followed");
}

#[test]
fn a_group_that_is_not_at_the_end_is_told() {
    let mut oracle = good();
    let standing = |committed, end| Standing {
        place: "delay/0".into(),
        committed,
        end,
    };
    oracle.conclude(
        Copies::None,
        &[
            standing(Some(4), 5),
            standing(None, 1),
            standing(None, 0),
            standing(Some(5), 5),
        ],
    );
    assert_eq!(oracle.failed[5], 2);
}

#[test]
fn copies_beyond_the_bound_are_told() {
    let doubled = || {
        let mut oracle = good();
        oracle.hit(hit(9000, 2, 200));
        oracle
    };
    assert_eq!(broken(doubled(), Copies::None), [6]);
    assert_eq!(broken(doubled(), Copies::Below(0.2)), [6]);
    assert_eq!(broken(doubled(), Copies::Below(1.0)), Vec::<usize>::new());
    let mut endings = good();
    record(&mut endings, "attempts", 2, 1070, ended("delivered"));
    assert_eq!(broken(endings, Copies::None), [6]);
}

#[test]
fn an_attempt_before_it_is_due_is_told_by_the_routers_own_clock() {
    let retried = |at_ms, step: Option<(u32, i64)>| {
        let mut oracle = oracle();
        oracle.hit(hit(20_000, 1, 500));
        if let Some((at_ms, offset_ms)) = step {
            oracle.clock_stepped(at_ms, offset_ms);
        }
        oracle.hit(hit(at_ms, 2, 200));
        oracle.failed[7]
    };
    assert_eq!(retried(20_990, None), 1);
    assert_eq!(retried(21_010, None), 0);
    assert_eq!(
        retried(20_500, Some((20_400, 3_600_000))),
        0,
        "the clock made it due"
    );
    let mut asked = oracle();
    asked.hit(Hit {
        retry_after: 2,
        ..hit(0, 1, 429)
    });
    asked.hit(hit(1500, 2, 200));
    assert_eq!(asked.failed[7], 1);
}

#[test]
fn a_silence_is_told_once() {
    let mut oracle = good();
    oracle.silence(20_000, 0);
    assert_eq!(oracle.failed[8], 0);
    oracle.silence(1030 + LONGEST_SILENCE_MS + 1, 0);
    oracle.silence(1030 + LONGEST_SILENCE_MS + 2, 0);
    assert_eq!(oracle.failed[8], 1);
    let mut excused = good();
    excused.silence(60_000, 59_000);
    assert_eq!(excused.failed[8], 0);
}

#[test]
fn more_than_limit_and_burst_in_a_second_is_told() {
    let mut oracle = oracle();
    for at_ms in [0, 100, 200] {
        oracle.hit(hit(at_ms, 1, 200));
    }
    assert_eq!(oracle.failed[9], 0);
    oracle.hit(Hit {
        instance: 2,
        ..hit(300, 1, 200)
    });
    assert_eq!(
        oracle.failed[9], 0,
        "one may have been in flight at the hand-over"
    );
    oracle.hit(Hit {
        instance: 2,
        ..hit(400, 1, 200)
    });
    assert_eq!(oracle.failed[9], 1);
    oracle.hit(Hit {
        instance: 2,
        ..hit(1500, 1, 200)
    });
    assert_eq!(oracle.failed[9], 1);
}

#[test]
fn what_the_receivers_kept_waiting_is_not_held_against_the_routers() {
    let mut oracle = oracle();
    for late_ms in [0, 0, 0, 500] {
        oracle.hit(Hit {
            late_ms,
            ..hit(1000, 1, 200)
        });
    }
    assert_eq!(oracle.failed[9], 0, "half a second at 2/s");
    oracle.hit(hit(1000, 1, 200));
    assert_eq!(oracle.failed[9], 1);
}

#[test]
fn a_bucket_that_is_full_at_a_hand_over_is_told() {
    let mut oracle = oracle();
    oracle.rules[0].limit = Some((2, 40, 4));
    for number in 0..40 {
        oracle.hit(hit(number * 500, 1, 200));
    }
    assert_eq!(oracle.failed[9], 0);
    for number in 0..20 {
        oracle.hit(Hit {
            instance: 2,
            ..hit(20_000 + number * 10, 1, 200)
        });
    }
    assert!(oracle.failed[9] > 0, "within burst and limit of a second");
}

#[test]
fn a_zombie_that_repeats_what_others_did_is_counted_and_told() {
    let mut oracle = oracle();
    oracle.hit(Hit {
        instance: 2,
        ..hit(5000, 1, 200)
    });
    oracle.slept(1, 1000, 10_000);
    for number in 0..17 {
        oracle.hit(hit(11_000 + number * 200, 1, 200));
    }
    assert_eq!(oracle.zombies, 17);
    assert_eq!(oracle.failed[6], 1);
}
