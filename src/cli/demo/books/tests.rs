//! The judge must be able to say "lost", or its zero means nothing.

use serde_json::json;

use super::*;

fn webhook(id: &str) -> WebhookId {
    WebhookId::new(id).unwrap()
}

fn books() -> Books {
    let wants = |types: &[&str], customer: Option<&str>| Entry {
        event_types: types.iter().map(|text| (*text).to_owned()).collect(),
        customer: customer.map(str::to_owned),
        filter: None,
    };
    Books::new([
        (webhook("wh_all"), wants(&["*"], None)),
        (webhook("wh_jobs"), wants(&["job.*"], Some("1"))),
    ])
}

fn event(event_type: &str, customer: &str) -> Event {
    Event {
        event_type: event_type.to_owned(),
        customer: Some(customer.to_owned()),
        body: json!({}),
        inline: None,
    }
}

fn source(offset: i64) -> Source {
    Source {
        topic: "events.job".into(),
        partition: 0,
        offset,
    }
}

fn id(offset: i64, to: &str) -> String {
    delivery_id(&source(offset), &webhook(to))
}

fn all(books: &Books) -> Counts {
    books.tally(&HashSet::new()).all
}

#[test]
fn what_nobody_got_is_lost() {
    let mut books = books();
    books.produced(source(0), &event("job.failed", "1"));
    books.accepted(&id(0, "wh_all"), &webhook("wh_all"));
    let tally = books.tally(&HashSet::new());
    assert_eq!(
        (tally.all.wanted, tally.all.delivered, tally.all.lost),
        (2, 1, 1)
    );
    let (_, jobs) = tally
        .webhooks
        .iter()
        .find(|(id, _)| id.as_str() == "wh_jobs")
        .unwrap();
    assert_eq!(jobs.lost, 1);
    assert!(!books.is_settled());
}

#[test]
fn only_the_webhooks_that_want_an_event_are_waited_for() {
    let mut books = books();
    books.produced(source(0), &event("job.failed", "2"));
    books.produced(source(1), &event("device.created", "1"));
    assert_eq!(all(&books).wanted, 2);
    assert_eq!(books.open().get(&webhook("wh_all")), Some(&2));
    assert_eq!(books.open().get(&webhook("wh_jobs")), None);
}

#[test]
fn an_event_that_is_told_twice_counts_once() {
    let mut books = books();
    books.produced(source(0), &event("job.failed", "1"));
    books.produced(source(0), &event("job.failed", "1"));
    assert_eq!(books.tally(&HashSet::new()).events, 1);
    assert_eq!(all(&books).wanted, 2);
    assert_eq!(books.caused_by(&source(0)).len(), 2);
}

#[test]
fn a_receiver_that_is_faster_than_the_producers_acknowledgement_is_believed() {
    let mut books = books();
    let wh_all = webhook("wh_all");
    assert_eq!(books.accepted(&id(0, "wh_all"), &wh_all), Acceptance::First);
    assert_eq!(all(&books).others, 1);
    books.produced(source(0), &event("device.created", "1"));
    assert_eq!(
        all(&books),
        Counts {
            wanted: 1,
            delivered: 1,
            ..Counts::default()
        }
    );
    assert!(books.is_settled());
}

#[test]
fn a_dead_letter_is_an_ending_until_it_is_replayed() {
    let mut books = books();
    let wh_all = webhook("wh_all");
    let one = id(0, "wh_all");
    books.produced(source(0), &event("device.created", "1"));
    books.arrived(&one, &wh_all, 1);
    books.arrived(&one, &wh_all, 2);
    books.died(&one, &wh_all);
    assert!(books.is_settled());
    assert!(books.may_replay(&one));

    books.replayed(&one);
    assert!(!books.may_replay(&one));
    assert_eq!(all(&books).lost, 1, "it is on its way again");

    books.arrived(&one, &wh_all, 1);
    assert_eq!(books.accepted(&one, &wh_all), Acceptance::AfterReplay);
    let counts = all(&books);
    assert_eq!(
        counts,
        Counts {
            wanted: 1,
            delivered: 1,
            retried: 1,
            dead_lettered: 1,
            replayed: 1,
            ..Counts::default()
        }
    );
}

#[test]
fn a_letter_that_dies_again_is_not_replayed_again() {
    let mut books = books();
    let wh_all = webhook("wh_all");
    let one = id(0, "wh_all");
    books.produced(source(0), &event("device.created", "1"));
    books.died(&one, &wh_all);
    books.replayed(&one);
    books.died(&one, &wh_all);
    assert!(!books.may_replay(&one));
    assert!(books.is_settled());
}

#[test]
fn a_copy_is_counted_as_repeated() {
    let mut books = books();
    let wh_all = webhook("wh_all");
    let one = id(0, "wh_all");
    books.produced(source(0), &event("device.created", "1"));
    books.accepted(&one, &wh_all);
    assert_eq!(books.accepted(&one, &wh_all), Acceptance::Repeated);
    assert_eq!((all(&books).delivered, all(&books).repeated), (1, 1));
}

#[test]
fn what_is_in_a_topic_waits_and_is_not_lost() {
    let mut books = books();
    books.produced(source(0), &event("device.created", "1"));
    let in_topics = HashSet::from([id(0, "wh_all")]);
    let counts = books.tally(&in_topics).all;
    assert_eq!((counts.waiting, counts.lost), (1, 0));
}

#[test]
fn a_deleted_webhook_loses_nothing() {
    let mut books = books();
    books.produced(source(0), &event("device.created", "1"));
    books.dropped(&id(0, "wh_all"), &webhook("wh_all"));
    assert_eq!(all(&books).lost, 0);
}

#[test]
fn a_webhook_that_somebody_changed_is_not_judged() {
    let mut books = books();
    books.changed("wh_all");
    books.produced(source(0), &event("device.created", "1"));
    let tally = books.tally(&HashSet::new());
    assert_eq!(tally.all.lost, 0);
    assert_eq!(tally.changed, [webhook("wh_all")]);
    assert!(books.is_settled());
}

#[test]
fn webhooks_of_others_are_none_of_our_business() {
    let mut books = books();
    books.accepted("dlv_x", &webhook("wh_mine"));
    books.died("dlv_y", &webhook("wh_mine"));
    assert_eq!(all(&books), Counts::default());
}
