//! What the jobs' records say about a letter.

use super::*;
use crate::record::{Header, Record, SourceOffset};

fn letter(offset: i64, reason: &str) -> DeadLetter {
    DeadLetter::from_record(Record {
        topic: "postrider.dead-letters".into(),
        partition: 0,
        offset: SourceOffset(offset),
        timestamp_ms: Some(offset * 10),
        key: None,
        payload: None,
        headers: vec![
            Header::text("postrider-reason", reason.to_owned()),
            Header::text("postrider-delivery-id", format!("dlv_{offset}")),
            Header::text("postrider-source", "events.job/0/1"),
            Header::text("postrider-event-type", "job.failed"),
            Header::text("postrider-webhook-id", "wh_a"),
            Header::text("postrider-last-status", "500"),
        ],
    })
}

fn job(filter: LetterFilter, next: i64) -> Job {
    Job {
        id: "rp_1".to_owned(),
        topic: "postrider.dead-letters".to_owned(),
        deed: Deed::Replay,
        filter,
        to: None,
        into: None,
        to_webhook: None,
        missed: None,
        again: false,
        reason: String::new(),
        rate: None,
        max_replays: None,
        runner: Runner::Command,
        note: String::new(),
        state: State::Running,
        created_at_ms: 1,
        updated_at_ms: 1,
        reached_at_ms: 0,
        resumptions: Vec::new(),
        undone_at_ms: None,
        stretches: BTreeMap::from([(
            0,
            Stretch {
                from: 0,
                to: 100,
                next,
            },
        )]),
        done: 0,
        total: 100,
    }
}

#[test]
fn a_letter_that_a_job_has_passed_is_replayed_and_the_next_one_waits() {
    let jobs = Jobs(vec![job(LetterFilter::default(), 5)]);
    assert_eq!(jobs.fate(&letter(4, "exhausted")), Fate::Replayed);
    assert_eq!(jobs.fate(&letter(5, "exhausted")), Fate::Waiting);
}

#[test]
fn a_letter_that_a_job_did_not_mean_still_waits() {
    let filter = LetterFilter {
        reason: Some("rejected".to_owned()),
        ..LetterFilter::default()
    };
    let jobs = Jobs(vec![job(filter, 100)]);
    assert_eq!(jobs.fate(&letter(4, "exhausted")), Fate::Waiting);
    assert_eq!(jobs.fate(&letter(4, "rejected")), Fate::Replayed);
}

#[test]
fn every_field_of_a_filter_counts() {
    let letter = letter(4, "exhausted");
    let fits = |filter: LetterFilter| filter.matches(&letter);
    let none = LetterFilter::default;
    assert!(fits(none()));
    assert!(fits(LetterFilter {
        event_type: Some("job.*".into()),
        ..none()
    }));
    assert!(!fits(LetterFilter {
        event_type: Some("device.*".into()),
        ..none()
    }));
    assert!(fits(LetterFilter {
        webhook: Some("wh_a".into()),
        status: Some(500),
        ..none()
    }));
    assert!(!fits(LetterFilter {
        webhook: Some("wh_b".into()),
        ..none()
    }));
    assert!(!fits(LetterFilter {
        status: Some(404),
        ..none()
    }));
    assert!(fits(LetterFilter {
        since_ms: Some(40),
        until_ms: Some(41),
        ..none()
    }));
    assert!(!fits(LetterFilter {
        since_ms: Some(41),
        ..none()
    }));
    assert!(!fits(LetterFilter {
        until_ms: Some(40),
        ..none()
    }));
    assert!(!fits(LetterFilter {
        delivery: Some("dlv_x".into()),
        ..none()
    }));
}

#[test]
fn a_job_survives_its_record() {
    let job = job(LetterFilter::default(), 5);
    let text = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
}

/// Another job like it, made at another time.
fn later(id: &str, created_at_ms: i64, job: Job) -> Job {
    Job {
        id: id.to_owned(),
        created_at_ms,
        ..job
    }
}

#[test]
fn a_letter_that_no_replay_can_send_waits_until_it_is_discarded() {
    let mut undecodable = letter(4, "undecodable");
    undecodable.delivery = None;
    let replay = job(LetterFilter::default(), 100);
    assert_eq!(Jobs(vec![replay.clone()]).fate(&undecodable), Fate::Waiting);
    let discard = Job {
        deed: Deed::Discard,
        ..later("rp_2", 2, replay.clone())
    };
    assert_eq!(
        Jobs(vec![discard, replay]).fate(&undecodable),
        Fate::Discarded
    );
}

#[test]
fn a_discard_that_is_taken_back_lets_the_letter_wait_even_where_a_replay_passed_it_by() {
    let discard = Job {
        deed: Deed::Discard,
        ..job(LetterFilter::default(), 10)
    };
    let replay = later("rp_2", 2, job(LetterFilter::default(), 100));
    let jobs = Jobs(vec![discard.clone(), replay.clone()]);
    assert_eq!(jobs.fate(&letter(4, "exhausted")), Fate::Discarded);
    assert_eq!(jobs.fate(&letter(50, "exhausted")), Fate::Replayed);

    let undone = Job {
        undone_at_ms: Some(3),
        ..discard
    };
    let jobs = Jobs(vec![undone.clone(), replay.clone()]);
    assert_eq!(jobs.fate(&letter(4, "exhausted")), Fate::Waiting);
    assert_eq!(jobs.fate(&letter(50, "exhausted")), Fate::Replayed);

    let after = later("rp_3", 4, replay);
    let jobs = Jobs(vec![undone, after]);
    assert_eq!(jobs.fate(&letter(4, "exhausted")), Fate::Replayed);
}

#[test]
fn a_resumed_job_did_nothing_to_what_another_did_while_it_stood_still() {
    let resumed = Job {
        resumptions: vec![Resumption {
            at_ms: 3,
            from: BTreeMap::from([(0, 5)]),
        }],
        ..job(LetterFilter::default(), 100)
    };
    let between = Job {
        deed: Deed::Discard,
        ..later("rp_2", 2, job(LetterFilter::default(), 100))
    };
    let jobs = Jobs(vec![resumed, between]);
    assert_eq!(jobs.fate(&letter(4, "exhausted")), Fate::Replayed);
    assert_eq!(jobs.fate(&letter(5, "exhausted")), Fate::Discarded);
}

#[test]
fn a_job_on_another_topic_says_nothing() {
    let other = Job {
        topic: "other".to_owned(),
        ..job(LetterFilter::default(), 100)
    };
    assert_eq!(
        Jobs(vec![other]).fate(&letter(4, "exhausted")),
        Fate::Waiting
    );
}

#[test]
fn two_jobs_are_in_each_others_way_only_where_both_may_come_to_the_same_letter() {
    let of = |webhook: &str| LetterFilter {
        webhook: Some(webhook.to_owned()),
        ..LetterFilter::default()
    };
    let one = job(of("wh_a"), 5);
    assert!(one.overlaps(&job(LetterFilter::default(), 0)));
    assert!(one.overlaps(&job(of("wh_a"), 99)));
    assert!(!one.overlaps(&job(of("wh_b"), 0)));
    assert!(!one.overlaps(&job(of("wh_a"), 100)));
}

#[test]
fn a_job_that_says_nothing_for_long_has_died() {
    let job = job(LetterFilter::default(), 5);
    assert!(job.is_alive(SILENT_AFTER_MS));
    assert!(!job.is_alive(SILENT_AFTER_MS + 1));
}

#[test]
fn a_letter_of_a_webhook_that_may_not_be_seen_is_not_meant() {
    let seen = |webhooks: &[&str]| LetterFilter {
        webhooks: Some(webhooks.iter().map(|id| (*id).to_owned()).collect()),
        ..LetterFilter::default()
    };
    let mut letter = letter(4, "exhausted");
    assert!(seen(&["wh_a", "wh_b"]).matches(&letter));
    assert!(!seen(&["wh_b"]).matches(&letter));
    assert!(!seen(&[]).matches(&letter));
    letter.webhook = None;
    assert!(!seen(&["wh_a"]).matches(&letter));
}

#[test]
fn a_letter_of_a_webhook_that_an_event_carried_is_its_customers() {
    let of = |customer: &str| LetterFilter {
        webhooks: Some(BTreeSet::new()),
        customer: Some(customer.to_owned()),
        ..LetterFilter::default()
    };
    let mut letter = letter(4, "exhausted");
    letter.webhook = Some("inline_ab".to_owned());
    assert!(!of("1").matches(&letter), "it is nobody's");
    letter.customer = Some("1".to_owned());
    assert!(of("1").matches(&letter));
    assert!(!of("2").matches(&letter));
    letter.webhook = Some("inlined".to_owned());
    assert!(!of("1").matches(&letter));
    // Two jobs of a customer may meet in it.
    let one = LetterFilter {
        webhook: Some("inline_ab".to_owned()),
        ..of("1")
    };
    assert!(!of("1").excludes(&one) && !one.excludes(&of("1")));
    assert!(of("2").excludes(&of("1")));
}

#[test]
fn the_fleet_does_what_is_wished_and_nothing_to_jobs_of_a_command() {
    let wish = |want, at_ms| Some(Wish { want, at_ms });
    let mut job = Job {
        updated_at_ms: 10,
        ..job(LetterFilter::default(), 5)
    };
    assert_eq!(job.duty(wish(Want::Cancel, 20)), Duty::Nothing);
    job.runner = Runner::Fleet;
    assert_eq!(job.duty(None), Duty::Work);
    assert_eq!(job.duty(wish(Want::Pause, 20)), Duty::End(State::Stopped));
    job.state = State::Stopped;
    assert_eq!(job.duty(wish(Want::Pause, 20)), Duty::Nothing);
    assert_eq!(job.duty(wish(Want::Run, 20)), Duty::Work);
    assert_eq!(
        job.duty(wish(Want::Run, 9)),
        Duty::Nothing,
        "it stopped after the wish"
    );
    assert_eq!(job.duty(None), Duty::Nothing);
    assert_eq!(job.duty(wish(Want::Cancel, 1)), Duty::End(State::Cancelled));
    for state in [State::Finished, State::Cancelled] {
        job.state = state;
        assert_eq!(job.duty(wish(Want::Run, 99)), Duty::Nothing);
    }
}

#[test]
fn what_the_fleet_runs_counts_as_alive_however_long_it_is_silent() {
    let job = Job {
        runner: Runner::Fleet,
        ..job(LetterFilter::default(), 5)
    };
    assert!(job.is_alive(SILENT_AFTER_MS * 100));
}
