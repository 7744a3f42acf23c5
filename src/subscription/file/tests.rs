//! Files: what is read, and that a fault says where it is.

use jiff::Timestamp;

use super::*;
use crate::subscription::Auth;

fn environment(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("from the environment".to_owned()),
        "NESTED" => Some("${TOKEN}".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn good(text: &str) -> Vec<Draft> {
    load("w.yaml", text, &environment).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn faults(text: &str) -> Vec<String> {
    load("w.yaml", text, &environment)
        .expect_err(text)
        .iter()
        .map(ToString::to_string)
        .collect()
}

const TWO: &str = "\
webhooks:
  - name: one
    customer: 1
    url: https://example.com/one
    event_types: [job.*]
    headers:
      X-Token: ${TOKEN}
  - id: wh_two
    url: https://example.com/two
    event_types: ['*']
";

#[test]
fn a_file_is_read_in_order_and_ids_are_stable() {
    let drafts = good(TWO);
    assert_eq!(drafts.len(), 2);
    assert_eq!(drafts[0].id(), good(TWO)[0].id());
    assert!(drafts[0].id().starts_with("wh_") && drafts[0].has_given_id());
    assert_eq!(drafts[1].id().as_str(), "wh_two");
    assert_eq!(
        drafts[0].wanted().headers["X-Token"],
        "from the environment"
    );
    assert_eq!(drafts[1].pointer(), "/webhooks/1");
}

#[test]
fn json_is_read_too_even_with_tabs() {
    let drafts = good(
        "{\n\t\"webhooks\": [\n\t\t{\"id\": \"a\", \"url\": \"https:\\/\\/example.com\\u002Fx\",\n\t\t\"event_types\": [\"*\"], \
         \"filter\": {\"n\": 18446744073709551615, \"f\": 1.5, \"t\": true, \"z\": null}}\n\t]\n}\n",
    );
    assert_eq!(drafts[0].wanted().url.as_str(), "https://example.com/x");
    let filter = serde_json::json!({"n": u64::MAX, "f": 1.5, "t": true, "z": null});
    assert_eq!(drafts[0].wanted().filter, Some(filter));
}

#[test]
fn words_that_only_old_yaml_takes_for_something_else_stay_text() {
    let drafts =
        good("webhooks:\n- {name: no, customer: 0042, url: http://a.example, event_types: [on]}\n");
    assert_eq!(drafts[0].wanted().name, "no");
    assert_eq!(drafts[0].wanted().customer.as_deref(), Some("0042"));
    assert_eq!(drafts[0].wanted().event_types, ["on"]);
}

#[test]
fn anchors_can_be_kept_aside_and_merged() {
    let drafts = good(
        "x-common: &common\n  max_retries: 7\n  timeout_seconds: 3\nwebhooks:\n- <<: *common\n  name: a\n  url: http://a.example\n  \
         event_types: ['*']\n  max_retries: 8\n",
    );
    assert_eq!(drafts[0].wanted().max_retries, 8);
    assert_eq!(drafts[0].wanted().timeout.as_secs(), 3);
}

#[test]
fn every_fault_names_file_line_column_and_field() {
    let faults = faults(
        "webhooks:
  - name: one
    url: ftp://example.com
    event_types: [job.*, 5]
    headers:
      X-A: fine
      Host: example.com
  - event_types: ['*']
    url: http://a.example
    timeout_second: 5
",
    );
    let starts: Vec<&str> = faults
        .iter()
        .filter_map(|fault| fault.split_whitespace().next())
        .collect();
    assert_eq!(
        starts,
        ["w.yaml:3:5:", "w.yaml:4:26:", "w.yaml:7:7:", "w.yaml:10:5:"]
    );
    assert!(faults[1].contains("/webhooks/0/event_types/1: "));
    assert!(faults[3].ends_with("/webhooks/1/timeout_second: there is no field \"timeout_second\"; did you mean `timeout_seconds`?"));
}

#[test]
fn a_missing_field_is_placed_at_its_webhook() {
    let faults = faults("webhooks:\n\n  - name: a\n    event_types: ['*']\n");
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].starts_with("w.yaml:3:5: /webhooks/0/url: `url` is missing"),
        "{faults:?}"
    );
}

#[test]
fn one_fault_anywhere_gives_nothing() {
    assert!(load("w", &TWO.replace("/two", "/ two"), &environment).is_err());
}

#[test]
fn variables_are_replaced_once_and_can_be_escaped() {
    let described = |text: &str| {
        let text = format!(
            "webhooks:\n- name: a\n  url: http://a.example\n  event_types: ['*']\n  description: \"{text}\"\n"
        );
        load("w", &text, &environment).map(|drafts| drafts[0].wanted().description.clone())
    };
    for (written, read) in [
        ("a ${TOKEN}!", "a from the environment!"),
        ("${NESTED}", "${TOKEN}"),
        ("[${EMPTY}]", "[]"),
        (
            "${TOKEN}${EMPTY}${TOKEN}",
            "from the environmentfrom the environment",
        ),
        ("$${TOKEN}", "${TOKEN}"),
        ("$$${TOKEN}", "$${TOKEN}"),
        ("$ $$ {x} $TOKEN $", "$ $$ {x} $TOKEN $"),
    ] {
        assert_eq!(described(written).unwrap(), read, "{written}");
    }
    for (written, part) in [
        (
            "${MISSING}",
            "the environment variable MISSING is not set; set it, or write $${MISSING}",
        ),
        ("${TOKEN", "is not closed"),
        ("${}", "must be the name"),
        ("${a b}", "must be the name"),
        ("${1A}", "must be the name"),
    ] {
        let errors = described(written).unwrap_err();
        assert_eq!(
            (errors.len(), errors[0].line, errors[0].pointer.as_str()),
            (1, 5, "/webhooks/0/description")
        );
        assert!(errors[0].message.contains(part), "{errors:?}");
    }
}

#[test]
fn a_missing_variable_is_one_fault_even_where_the_text_would_be_wrong_too() {
    let faults = faults("webhooks:\n- name: a\n  url: ${MISSING}\n  event_types: ['*']\n");
    assert_eq!(faults.len(), 1);
    assert!(faults[0].contains("MISSING is not set"));
}

#[test]
fn two_webhooks_that_would_be_one_are_refused() {
    let same_id = "webhooks:\n- {id: a, url: http://a.example, event_types: ['*']}\n- {id: a, url: http://b.example, event_types: ['*']}\n";
    let same_name = "webhooks:\n- {name: a, customer: 1, url: http://a.example, event_types: ['*']}\n- {name: a, customer: '1', url: http://b.example, event_types: ['*']}\n";
    assert_eq!(
        faults(same_id),
        ["w.yaml:3:3: /webhooks/1: /webhooks/0 has the same `id`; choose another"]
    );
    assert!(faults(same_name)[0].contains("/webhooks/0 has the same customer and name"));
    good(&same_name.replace("'1'", "2"));
}

#[test]
fn a_webhook_without_id_and_name_is_refused() {
    let faults = faults("webhooks:\n- {url: http://a.example, event_types: ['*']}\n");
    assert!(faults[0].contains("neither `id` nor `name`"));
}

#[test]
fn documents_of_another_shape_are_refused() {
    let cases = [
        ("", "must be one document with a list `webhooks:`"),
        ("[]", "must be one document"),
        ("{}", "there is no list `webhooks:`"),
        ("webhooks:\n", "must be a list; write []"),
        ("webhooks: {}\n", "must be a list"),
        (
            "webhooks: []\nwebhook: []\n",
            "there is no field \"webhook\"; did you mean `webhooks`?",
        ),
        (
            "webhooks: [5]\n",
            "/webhooks/0: a webhook must be an object",
        ),
    ];
    for (text, part) in cases {
        assert!(
            faults(text)[0].contains(part),
            "{text:?}: {:?}",
            faults(text)
        );
    }
    assert!(good("webhooks: []").is_empty());
}

#[test]
fn text_that_is_no_yaml_is_refused_with_its_line_and_without_the_line_itself() {
    let cases = [
        ("webhooks:\n  - a: [hidden\n", "w.yaml:"),
        ("webhooks:\n- a: 1\n  a: hidden\n", "w.yaml:3:"),
        ("webhooks:\n- a: \"hidden\n", "w.yaml:"),
        ("webhooks: []\n---\nwebhooks: []\n", "w.yaml:"),
        ("webhooks:\n- a: .nan\n", "w.yaml:2:"),
        ("webhooks:\n- *nothing\n", "w.yaml:2:"),
        ("\u{0}", "w.yaml:1:"),
    ];
    for (text, start) in cases {
        let faults = faults(text);
        assert_eq!(faults.len(), 1);
        assert!(
            !faults[0].contains("Policy") && !faults[0].contains("from_str"),
            "{faults:?}"
        );
        assert!(faults[0].starts_with(start), "{text:?}: {faults:?}");
        assert!(
            !faults[0].contains("hidden") && !faults[0].contains('\n'),
            "{faults:?}"
        );
    }
}

#[test]
fn bombs_are_refused() {
    let deep = format!("webhooks: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(load("w", &deep, &environment).is_err());
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        laughs.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            vec![below; 9].join(", ")
        ));
    }
    assert!(load("w", &laughs, &environment).is_err());
}

#[test]
fn what_is_written_can_be_read_again_and_changes_nothing() {
    let now = Timestamp::from_second(1_000).unwrap();
    let stored: Vec<Subscription> = good(
        "webhooks:
  - {name: 'no', customer: '0042', url: 'http://a.example/$${x}', event_types: ['*', 'job.*'], secret: generate}
  - name: \"yes: # $${TOKEN}\"
    description: \"two\\nlines\"
    url: https://example.com/
    event_types: [a]
    filter: {a: {$eq: '$${x}', $in: ['1', 1, null, true, 1.5]}, '$or': [{b: '~'}]}
    auth: ['u$${x}', p]
    headers: {X-A: '* secret'}
    rate_limit: {requests: 1}
    timeout_seconds: 2.5
",
    )
    .into_iter()
    .map(|draft| draft.create(now).unwrap().subscription)
    .collect();
    assert_eq!(
        stored[1].auth,
        Auth::Basic {
            username: "u${x}".into(),
            password: "p".into()
        }
    );
    let text = write(&stored).unwrap();
    assert!(
        !text.contains("* secret") && !text.contains("whsec_"),
        "{text}"
    );
    assert!(text.contains("secret: \"***\""), "{text}");
    assert!(
        text.starts_with("webhooks:\n") && text.find("id:") < text.find("url:"),
        "{text}"
    );
    for (draft, stored) in load("export.yaml", &text, &|_| None)
        .unwrap()
        .into_iter()
        .zip(&stored)
    {
        let again = draft.update(stored, now).unwrap();
        assert_eq!(
            (again.changed, &again.subscription),
            (Vec::new(), stored),
            "{text}"
        );
    }
}

#[test]
fn the_example_file_loads_and_has_the_four_event_families() {
    let text = include_str!("../../../config/subscriptions.example.yaml");
    let given = |name: &str| match name {
        "NOC_CHAT_URL" => Some("https://chat.example.com/hooks/abc".to_owned()),
        "TICKETS_TOKEN" | "CMDB_PASSWORD" | "BACKUP_API_KEY" | "AUDIT_SECRET" => {
            Some("x".to_owned())
        }
        _ => None,
    };
    let drafts = load("config/subscriptions.example.yaml", text, &given)
        .unwrap_or_else(|errors| panic!("{errors:#?}"));
    assert_eq!(drafts.len(), 7);
    for family in ["job.", "device.", "config.", "compliance."] {
        let wants = |draft: &Draft| {
            draft
                .wanted()
                .event_types
                .iter()
                .any(|pattern| pattern.starts_with(family))
        };
        assert!(drafts.iter().any(wants), "{family}");
    }
    let missing = load("config/subscriptions.example.yaml", text, &|_| None).unwrap_err();
    assert_eq!(missing.len(), 5);
}
