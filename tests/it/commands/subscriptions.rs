//! The catalog by the command line: a file is applied whole or not at all, secrets are shown once or never, and what a command
//! changes is what routers then do.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::Digest as _;

use super::{Output, Setting};
use crate::harness::{Cluster, Receiver, Record, Router, Sent, config_text};

const TWO: &str = "webhooks:
  - name: First
    url: https://example.com/in?token=hidden
    event_types: ['job.*']
    secret: generate
    headers: {X-Key: hidden}
  - id: wh_second
    name: Second
    customer: 4
    url: https://example.com/second
    event_types: [device.created]
";

/// A corner of the broker with our topics, and the way to say `postrider subscriptions …` in it.
struct Corner {
    cluster: Cluster,
    setting: Setting,
}

impl Corner {
    fn named(name: &str) -> Self {
        let cluster = Cluster::named(name);
        let setting = Setting::of(&config_text(&cluster, &["events.job"], ""));
        let output = setting.run(&["topics", "apply"]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        Self { cluster, setting }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.setting.run(&[&["subscriptions"], arguments].concat())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.setting.json(&[&["subscriptions"], arguments].concat())
    }

    fn file(&self, text: &str) -> String {
        self.setting.file("webhooks.yaml", text.as_bytes())
    }

    fn apply(&self, text: &str) -> Value {
        let file = self.file(text);
        self.json(&["apply", "-f", &file])
    }

    fn records(&self) -> Vec<Record> {
        let topic = self.cluster.name("postrider.subscriptions");
        self.cluster.consume_all(&topic)
    }
}

fn actions(answer: &Value) -> Vec<&str> {
    let webhooks = answer["webhooks"].as_array().unwrap().iter();
    webhooks
        .map(|webhook| webhook["action"].as_str().unwrap())
        .collect()
}

#[test]
fn a_file_is_applied_once_and_a_second_time_changes_nothing() {
    let corner = Corner::named("apply");
    let file = corner.file(TWO);
    let dry = corner.json(&["apply", "-f", &file, "--dry-run"]);
    assert_eq!(actions(&dry), ["created", "created"]);
    assert!(!dry.to_string().contains("whsec_"), "{dry}");
    assert_eq!(corner.records().len(), 0);

    let first = corner.apply(TWO);
    assert_eq!(actions(&first), ["created", "created"]);
    let secret = first["webhooks"][0]["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"));
    let again = corner.run(&["apply", "-f", &file]);
    assert!(
        again
            .stdout
            .contains("0 created, 0 changed, 2 unchanged, 0 pruned"),
        "{}",
        again.stdout
    );
    assert!(!again.stdout.contains("whsec_"), "{}", again.stdout);
    let records = corner.records();
    assert_eq!(records.len(), 2);
    for record in records {
        assert!(!record.text().contains("X-Key"), "{}", record.text());
        assert!(!record.text().contains(secret), "{}", record.text());
    }
}

#[test]
fn nothing_is_applied_unless_all_is_valid_and_every_fault_has_its_line() {
    let corner = Corner::named("apply-faults");
    let file = corner.file(
        "webhooks:
  - {name: Good, url: 'https://example.com/', event_types: ['*']}
  - name: Private
    url: http://10.0.0.5/in
    event_types: ['*']
    filter: {job: {status: {$im: [failed]}}}
  - name: Headers
    url: https://example.com/
    event_types: ['*']
    headers:
      X-Break: \"a\\r\\nInjected: b\"
      X-Nul: \"a\\0b\"
      \"X Name\": c
  - name: Mask
    url: https://example.com/
    event_types: ['*']
    headers: {X-Stored: '***'}
  - {name: Unset, url: 'https://example.com/${POSTRIDER_TEST_NOT_SET}', event_types: ['*']}
",
    );
    for command in ["apply", "diff"] {
        let output = corner.run(&[command, "-f", &file]);
        assert_eq!(output.code, 1);
        let faults: Vec<&str> = output.stderr.lines().skip(1).map(str::trim).collect();
        let expected = [
            ("4:5: /webhooks/1/url: ", "outbound.allow_networks"),
            (
                "6:29: /webhooks/1/filter/job/status/$im: ",
                "did you mean `$in`?",
            ),
            ("11:7: /webhooks/2/headers/X-Break: ", "line break or NUL"),
            ("12:7: /webhooks/2/headers/X-Nul: ", "line break or NUL"),
            ("13:7: /webhooks/2/headers/X Name: ", "no space"),
            ("17:15: /webhooks/3/headers/X-Stored: ", "no stored webhook"),
            (
                "18:19: /webhooks/4/url: ",
                "POSTRIDER_TEST_NOT_SET is not set",
            ),
        ];
        assert_eq!(faults.len(), expected.len(), "{}", output.stderr);
        for (fault, (place, text)) in faults.iter().zip(expected) {
            assert!(fault.contains(place), "{place}: {fault}");
            assert!(fault.contains(text), "{text}: {fault}");
        }
    }
    assert_eq!(corner.records().len(), 0);
}

#[test]
fn a_private_address_may_be_applied_where_the_configuration_names_its_network() {
    let corner = Corner::named("apply-network");
    let text = "webhooks:\n  - {name: A, url: 'http://127.0.0.1:9000/', event_types: ['*']}\n";
    // The configuration of tests allows loopback.
    assert_eq!(actions(&corner.apply(text)), ["created"]);
}

#[test]
fn pruning_deletes_what_the_file_does_not_name_and_only_then() {
    let corner = Corner::named("prune");
    corner.apply(TWO);
    let one = "webhooks:\n  - {id: wh_second, name: Second, customer: 5, url: 'https://example.com/second', event_types: [device.created]}\n";
    let kept = corner.apply(one);
    assert_eq!(actions(&kept), ["changed"]);
    assert_eq!(kept["webhooks"][0]["fields"], json!(["customer"]));
    assert_eq!(kept["kept"], 1);
    let file = corner.file(one);
    let pruned = corner.json(&["apply", "-f", &file, "--prune"]);
    assert_eq!(actions(&pruned), ["unchanged", "pruned"]);
    let left = corner.json(&["list"]);
    assert_eq!(left.as_array().unwrap().len(), 1);
    assert_eq!(left[0]["id"], "wh_second");
    assert_eq!(left[0]["version"], 2);
}

#[test]
fn a_diff_shows_old_and_new_and_no_secret() {
    let corner = Corner::named("diff");
    corner.apply(TWO);
    let changed = TWO
        .replace("{X-Key: hidden}", "{X-Key: hidden2, X-More: hidden3}")
        .replace("customer: 4", "customer: 5")
        .replace("token=hidden", "token=hidden4");
    let file = corner.file(&changed);
    let output = corner.run(&["diff", "-f", &file]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    for line in [
        "    customer: 4 -> 5",
        "    headers.X-Key: \"***\" -> \"*** (another)\"",
        "    headers.X-More: null -> \"***\"",
        "    url: \"https://example.com/in?***\" -> \"https://example.com/in?*** (another)\"",
        "0 to create, 2 to change, 0 to delete, 0 unchanged",
    ] {
        assert!(output.stdout.contains(line), "{line}: {}", output.stdout);
    }
    assert!(!output.stdout.contains("hidden"), "{}", output.stdout);
    assert_eq!(corner.run(&["diff", "-f", &file, "--exit-code"]).code, 1);
    corner.apply(&changed);
    let same = corner.run(&["diff", "-f", &file, "--exit-code"]);
    assert_eq!(same.code, 0, "{}", same.stdout);
    assert_eq!(corner.records().len(), 4);
}

#[test]
fn an_export_shows_no_secret_and_applies_as_no_change() {
    let corner = Corner::named("export");
    corner.apply(TWO);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.yaml");
    let path = path.to_str().unwrap();
    assert_eq!(corner.run(&["export", "-o", path]).code, 0);
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(corner.run(&["export"]).stdout, text);
    assert!(!text.contains("whsec_"), "{text}");
    assert!(text.contains("X-Key: \"***\""), "{text}");
    let again = corner.json(&["apply", "-f", path, "--prune"]);
    assert_eq!(actions(&again), ["unchanged", "unchanged"]);
    // Where nothing is stored a webhook must not come to stand without its secret.
    let only_signed = text.replace("X-Key: \"***\"", "X-Key: again");
    let empty = Corner::named("export-to");
    let refused = empty.run(&["apply", "-f", &empty.file(&only_signed)]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(
        refused.stderr.contains("no secret is stored"),
        "{}",
        refused.stderr
    );
    assert_eq!(empty.records().len(), 0);
}

#[test]
fn what_a_command_changes_is_in_the_audit_trail_with_who_and_where_and_no_secret() {
    let corner = Corner::named("audit");
    corner.apply(TWO);
    for arguments in [
        ["pause", "wh_second"],
        ["resume", "wh_second"],
        ["delete", "wh_second"],
    ] {
        assert_eq!(corner.run(&arguments).code, 0);
    }
    // Nothing changes, and nothing is noted.
    corner.json(&["apply", "-f", &corner.file(TWO), "--dry-run"]);
    let records = corner
        .cluster
        .consume_all(&corner.cluster.name("postrider.audit"));
    let noted: Vec<Value> = records
        .iter()
        .map(|record| serde_json::from_str(&record.text()).unwrap())
        .collect();
    let of_second = noted
        .iter()
        .filter(|record| record["subject"] == "wh_second");
    let actions: Vec<&str> = of_second
        .map(|record| record["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "webhook.apply",
            "webhook.pause",
            "webhook.resume",
            "webhook.delete"
        ]
    );
    assert_eq!(noted.len(), 5);
    for record in &noted {
        assert_eq!(record["actor"]["command"], true, "{record}");
        assert!(record["actor"]["host"].is_string(), "{record}");
        assert!(!record.to_string().contains("whsec_"), "{record}");
        assert!(
            !record["before"].is_null() || !record["after"].is_null(),
            "{record}"
        );
    }
    let pause = noted
        .iter()
        .find(|record| record["action"] == "webhook.pause");
    let pause = pause.unwrap();
    assert_eq!(
        (&pause["before"]["paused"], &pause["after"]["paused"]),
        (&json!(false), &json!(true))
    );
}

#[test]
fn list_and_show_give_the_contracts_fields_and_no_secret() {
    let corner = Corner::named("list");
    let none = corner.run(&["list"]);
    assert!(
        none.stdout.starts_with("there are no webhooks"),
        "{}",
        none.stdout
    );
    corner.apply(TWO);
    let list = corner.run(&["list"]);
    let rows: Vec<&str> = list.stdout.lines().collect();
    assert_eq!(rows.len(), 3);
    let header: Vec<&str> = rows[0].split_whitespace().collect();
    assert_eq!(
        header,
        ["ID", "CUSTOMER", "NAME", "URL", "TYPES", "STATE", "VERSION"]
    );
    assert!(
        list.stdout.contains("https://example.com/in  "),
        "{}",
        list.stdout
    );
    let shown = corner.json(&["show", "wh_second"]);
    assert_eq!(shown["customer"], 4);
    assert_eq!(shown["state"], "passing");
    assert_eq!(shown["signed"], false);
    for output in [list, corner.run(&["show", "wh_second"])] {
        assert_eq!(output.code, 0);
        assert!(!output.stdout.contains("hidden"), "{}", output.stdout);
        assert!(!output.stdout.contains("whsec_"), "{}", output.stdout);
    }
}

#[test]
fn the_state_tells_what_routers_have_learnt_of_the_endpoint_and_why() {
    let corner = Corner::named("state");
    corner.apply(TWO);
    let digest = sha2::Sha256::digest(corner.json(&["show", "wh_second"])["url"].as_str().unwrap());
    let endpoint: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let condition = |endpoint: &str| {
        let value = serde_json::json!({"state": "tripped", "since_ms": 5, "last_failure_at_ms": 0, "reason": "it fails", "endpoint": endpoint});
        let topic = corner.cluster.name("postrider.subscriptions");
        let sent = Sent::new(value.to_string()).key("state/wh_second");
        corner.cluster.produce(&topic, &sent);
        corner.json(&["show", "wh_second"])
    };
    let shown = condition(&endpoint);
    assert_eq!(shown["state"], "tripped");
    assert_eq!(shown["state_reason"], "it fails");
    assert_eq!(shown["last_failure_at"], "1970-01-01T00:00:00Z");
    assert_eq!(shown.get("last_success_at"), None);
    let list = corner.run(&["list"]).stdout;
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.contains("tripped"), "{list}");
    // What was learnt of another URL is not told of this one.
    assert_eq!(condition("0123456789abcdef")["state"], "passing");
}

#[test]
fn an_unknown_id_is_refused_with_the_nearest_and_nothing_is_changed() {
    let corner = Corner::named("unknown-id");
    corner.apply(TWO);
    let before = corner.records();
    for command in ["show", "delete", "pause", "resume", "test"] {
        let output = corner.run(&[command, "wh_secnd"]);
        assert_eq!(output.code, 1, "{command}");
        assert!(
            output.stderr.contains("did you mean wh_second?"),
            "{command}: {}",
            output.stderr
        );
    }
    let output = corner.run(&["delete", "wh_second", "wh_secnd"]);
    assert_eq!(output.code, 1);
    assert_eq!(corner.records(), before);
}

#[test]
fn a_catalog_that_is_not_there_is_refused_with_the_command_that_makes_it() {
    let cluster = Cluster::named("no-catalog");
    let setting = Setting::of(&config_text(&cluster, &["events.job"], ""));
    let file = setting.file("webhooks.yaml", TWO.as_bytes());
    for arguments in [&["list"][..], &["apply", "-f", &file], &["test", "wh_a"]] {
        let output = setting.run(&[&["subscriptions"], arguments].concat());
        assert_eq!(output.code, 1);
        assert!(
            output.stderr.contains("postrider topics apply"),
            "{arguments:?}: {}",
            output.stderr
        );
    }
}

#[test]
fn secrets_need_their_key_and_a_lost_key_can_be_replaced() {
    let corner = Corner::named("keys");
    let text = config_text(&corner.cluster, &["events.job"], "");
    let key_line = text
        .lines()
        .find(|line| line.starts_with("secrets.key"))
        .unwrap();
    let keyless = Setting::of(&text.replace(key_line, ""));
    let file = corner.file(TWO);
    // One that needs no key stands before the one that does: it must not be written either.
    let plain_first = TWO.replace(
        "webhooks:\n",
        "webhooks:\n  - {name: Plain, url: 'https://example.com/', event_types: ['*']}\n",
    );
    let plain_first = keyless.file("webhooks.yaml", plain_first.as_bytes());
    let refused = keyless.run(&["subscriptions", "apply", "-f", &plain_first]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("there is no key to encrypt them"),
        "{}",
        refused.stderr
    );
    assert_eq!(corner.records().len(), 0);

    corner.apply(TWO);
    let other = "secrets.key = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"";
    let other = Setting::of(&text.replace(key_line, other));
    for arguments in [
        &["apply", "-f", &file][..],
        &["diff", "-f", &file],
        &["export"],
        &["list"],
    ] {
        let output = other.run(&[&["subscriptions"], arguments].concat());
        assert_eq!(output.code, 1, "{arguments:?}");
        assert!(
            output.stderr.contains("the key given is"),
            "{arguments:?}: {}",
            output.stderr
        );
    }
    assert_eq!(corner.records().len(), 2);
    let list = other.run(&["subscriptions", "list"]);
    assert!(
        list.stdout.contains("unreadable") && list.stdout.contains("wh_second"),
        "{}",
        list.stdout
    );

    let replaced = other.json(&[
        "subscriptions",
        "apply",
        "-f",
        &file,
        "--replace-unreadable",
    ]);
    assert_eq!(actions(&replaced), ["created", "unchanged"]);
    assert!(replaced["webhooks"][0]["secret"].is_string());
    assert_eq!(other.run(&["subscriptions", "list"]).code, 0);
}

#[test]
fn a_test_event_goes_the_way_of_deliveries_and_waits_while_its_webhook_is_paused() {
    let cluster = Cluster::named("test-event");
    let receiver = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], "");
    let setting = Setting::of(&config_text(&cluster, &["events.job"], ""));
    let file = setting.file(
        "webhooks.yaml",
        format!(
            "webhooks:\n  - {{id: wh_try, name: Try, customer: 7, url: '{}', event_types: ['config.*'], filter: {{never: 1}}}}\n",
            receiver.url("/in")
        )
        .as_bytes(),
    );
    let run = |arguments: &[&str]| {
        let output = setting.run(&[&["subscriptions"], arguments].concat());
        assert_eq!(output.code, 0, "{}", output.stderr);
        output
    };
    run(&["apply", "-f", &file]);

    let sent = setting.json(&["subscriptions", "test", "wh_try"]);
    let request = &receiver.wait_for(1, Duration::from_secs(20))[0];
    assert_eq!(request.header("webhook-id"), sent["delivery_id"].as_str());
    assert_eq!(
        request.header("x-webhook-event"),
        Some("config.backup_created")
    );
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["test"], true);
    assert_eq!(body["customer"], 7);
    assert_eq!(body["event_type"], "config.backup_created");

    assert_eq!(run(&["pause", "wh_try"]).stdout, "paused wh_try\n");
    assert_eq!(run(&["pause", "wh_try"]).stdout, "unchanged wh_try\n");
    let held = run(&["test", "wh_try"]);
    assert!(held.stderr.contains("is paused"), "{}", held.stderr);
    cluster.consume_until(&router.topics().held, Duration::from_secs(20), |records| {
        records
            .iter()
            .any(|record| record.header("postrider-delivery-id") == Some(held.stdout.trim()))
    });
    assert_eq!(receiver.requests().len(), 1);
    assert_eq!(run(&["resume", "wh_try"]).stdout, "resumed wh_try\n");
    let requests = receiver.wait_for(2, Duration::from_secs(30));
    assert_eq!(requests[1].header("webhook-id"), Some(held.stdout.trim()));
    assert_eq!(run(&["delete", "wh_try"]).stdout, "deleted wh_try\n");
    assert_eq!(setting.json(&["subscriptions", "list"]), json!([]));
}
