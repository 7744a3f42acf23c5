//! Sample events that look like real ones, for `emit`, the demo and tests of webhooks.
//!
//! The shapes are webnet's: time, type, actor, and a body under the type's first word. The same type, sequence number, customer and
//! time give the same event. Pure.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

const SITES: [&str; 4] = ["fra1", "ams2", "lon1", "nyc3"];
const VENDORS: [(&str, &str); 4] = [
    ("cisco_ios", "ISR4331"),
    ("juniper_junos", "EX4300"),
    ("arista_eos", "7050SX"),
    ("cisco_nxos", "N9K-C93180"),
];
const PEOPLE: [(u64, &str); 4] = [(1, "admin"), (7, "mona"), (12, "jens"), (31, "scheduler")];
const JOBS: [&str; 4] = [
    "config_backup",
    "config_deploy",
    "compliance_check",
    "firmware_upgrade",
];
const RULES: [(&str, &str); 4] = [
    ("ntp-servers-set", "medium"),
    ("no-telnet", "critical"),
    ("snmp-v3-only", "high"),
    ("banner-present", "low"),
];

/// One event of a type, as parsed JSON. `sequence` makes it differ from the next; `customer` `null` leaves the tenant out.
/// A type that is not one of [`KNOWN_TYPES`](crate::event::KNOWN_TYPES) gets a plain body under its first word.
pub fn sample(
    event_type: &str,
    sequence: u64,
    customer: impl Into<Value>,
    now: Timestamp,
) -> Value {
    // So that ids made from it stay in range.
    let sequence = sequence % 1_000_000_000_000;
    let (actor_id, actor) = pick(&PEOPLE, sequence / 3);
    let mut event = Map::new();
    event.insert("event_type".into(), event_type.into());
    event.insert("event_timestamp".into(), text(now).into());
    event.insert("actor".into(), json!({"id": actor_id, "username": actor}));
    let customer = customer.into();
    if !customer.is_null() {
        event.insert("customer".into(), customer);
    }
    let family = family(event_type);
    let body = match family {
        "job" => job(event_type, sequence, now),
        "device" => device_event(event_type, sequence, now),
        "config" => config(event_type, sequence),
        "compliance" => compliance(event_type, sequence),
        _ => json!({"id": sequence}),
    };
    // The names of the event's own members are taken, whatever the type says.
    let member = if event.contains_key(family) || family.is_empty() {
        "data"
    } else {
        family
    };
    event.insert(member.to_owned(), body);
    Value::Object(event)
}

/// The first word of a type: `job` of `job.failed`, `task` of `task_completed`.
pub fn family(event_type: &str) -> &str {
    event_type.split(['.', '_']).next().unwrap_or(event_type)
}

/// The first of the configured topics whose last word is the type's first: `events.job` for `job.failed`.
pub fn source_topic<'a>(event_type: &str, configured: &'a [String]) -> Option<&'a str> {
    let family = family(event_type);
    configured
        .iter()
        .filter(|name| !name.starts_with('^'))
        .find(|name| name.rsplit(['.', '-', '_']).next() == Some(family))
        .map(String::as_str)
}

fn pick<T: Copy>(list: &[T; 4], number: u64) -> T {
    let [first, second, third, fourth] = *list;
    match number % 4 {
        0 => first,
        1 => second,
        2 => third,
        _ => fourth,
    }
}

fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn before(now: Timestamp, seconds: i64) -> String {
    text(
        now.checked_sub(SignedDuration::from_secs(seconds))
            .unwrap_or(now),
    )
}

fn device(sequence: u64) -> Value {
    let (vendor, model) = pick(&VENDORS, sequence);
    let site = pick(&SITES, sequence / 2);
    let number = sequence % 97;
    json!({
        "id": 400 + number,
        "hostname": format!("sw-{site}-{number:02}"),
        "mgmt_ip": format!("10.20.{}.{}", number / 16, 10 + number),
        "vendor": vendor,
        "platform": model,
        "site": site,
        "role": if number.is_multiple_of(3) { "core" } else { "access" },
    })
}

fn job(event_type: &str, sequence: u64, now: Timestamp) -> Value {
    let kind = pick(&JOBS, sequence);
    let devices = 1 + sequence % 9;
    let mut job = json!({
        "id": 1000 + sequence,
        "type": kind,
        "name": format!("{}-{}", kind.replace('_', "-"), pick(&SITES, sequence)),
        "status": "queued",
        "requested_at": before(now, 65),
        "started_at": null,
        "finished_at": null,
        "target_summary": {"device_count": devices},
        "result_summary": null,
    });
    match event_type {
        "job.started" => {
            job["status"] = "running".into();
            job["started_at"] = text(now).into();
        }
        "job.completed" => {
            job["status"] = "success".into();
            job["started_at"] = before(now, 55).into();
            job["finished_at"] = text(now).into();
            job["result_summary"] = json!({"succeeded": devices, "failed": 0});
        }
        "job.failed" => {
            job["status"] = "failed".into();
            job["started_at"] = before(now, 55).into();
            job["finished_at"] = text(now).into();
            job["result_summary"] = json!({"succeeded": devices - 1, "failed": 1});
            job["error"] =
                format!("sw-{}-04: SSH session timed out", pick(&SITES, sequence)).into();
        }
        _ => {}
    }
    job
}

fn device_event(event_type: &str, sequence: u64, now: Timestamp) -> Value {
    let mut device = device(sequence);
    device["status"] = "active".into();
    match event_type {
        "device.updated" => {
            device["changes"] = json!({"software_version": {"old": "17.6.4", "new": "17.9.3"}});
        }
        "device.deleted" => device["status"] = "decommissioned".into(),
        "device.status_changed" => {
            let (old, new) = if sequence.is_multiple_of(2) {
                ("active", "unreachable")
            } else {
                ("unreachable", "active")
            };
            device["status"] = new.into();
            device["previous_status"] = old.into();
            device["last_seen_at"] = before(now, 90).into();
        }
        _ => {}
    }
    device
}

fn config(event_type: &str, sequence: u64) -> Value {
    let mut config = json!({
        "id": 5000 + sequence,
        "device": device(sequence),
        "version": 1 + sequence % 40,
        "size_bytes": 12_000 + sequence % 900,
        "sha256": format!("{0:032x}{1:032x}", scattered(sequence), scattered(sequence + 1)),
    });
    match event_type {
        "config.changed" => {
            config["diff_summary"] = json!({"added": 2 + sequence % 5, "removed": sequence % 4});
            config["source"] = "drift_detection".into();
        }
        "config.deployed" => {
            config["job_id"] = (1000 + sequence).into();
            config["diff_summary"] = json!({"added": 3, "removed": 1});
        }
        _ => config["source"] = "scheduled_backup".into(),
    }
    config
}

/// Looks random and is not (Knuth's multiplicative hashing with the golden ratio).
fn scattered(number: u64) -> u128 {
    u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn compliance(event_type: &str, sequence: u64) -> Value {
    let (rule, severity) = pick(&RULES, sequence);
    let mut compliance = json!({
        "id": 9000 + sequence,
        "policy": {"id": 3, "name": "baseline-2025"},
        "device": device(sequence),
    });
    if event_type == "compliance.violation_detected" {
        compliance["status"] = "violation".into();
        compliance["rule"] = rule.into();
        compliance["severity"] = severity.into();
        compliance["message"] = format!("rule {rule} is not met").into();
    } else {
        let failed = sequence % 3;
        compliance["status"] = if failed == 0 {
            "compliant"
        } else {
            "non_compliant"
        }
        .into();
        compliance["summary"] = json!({"rules": 24, "passed": 24 - failed, "failed": failed});
    }
    compliance
}

/// Sets one member of an event. `path` is a JSON pointer (`/job/status`) or words with full stops between them
/// (`job.status`); objects that are missing are made. `value` is JSON, or else text as it stands.
///
/// # Errors
/// The path leads through something that has no members; the sentence says where.
pub fn set(event: &mut Value, path: &str, value: &str) -> Result<(), String> {
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    let words: Vec<String> = match path.strip_prefix('/') {
        Some(pointer) => pointer
            .split('/')
            .map(|word| word.replace("~1", "/").replace("~0", "~"))
            .collect(),
        None => path.split('.').map(str::to_owned).collect(),
    };
    let mut place = event;
    let mut at = String::new();
    for word in words {
        if word.is_empty() {
            return Err(format!(
                "the path `{path}` has an empty word; write /job/status or job.status"
            ));
        }
        place = match place {
            Value::Array(list) => {
                let count = list.len();
                word.parse::<usize>()
                    .ok()
                    .and_then(|index| list.get_mut(index))
                    .ok_or_else(|| {
                        format!("{at} is a list of {count}; `{word}` is not one of its positions")
                    })?
            }
            Value::Object(object) => object.entry(word.clone()).or_insert(Value::Null),
            Value::Null => {
                *place = Value::Object(Map::new());
                match place {
                    Value::Object(object) => object.entry(word.clone()).or_insert(Value::Null),
                    other => other,
                }
            }
            other => {
                return Err(format!(
                    "{at} is {other}, which has no member `{word}`; set {at} itself"
                ));
            }
        };
        at.push('/');
        at.push_str(&word);
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::KNOWN_TYPES;

    fn now() -> Timestamp {
        "2026-03-01T10:00:00.250Z".parse().unwrap()
    }

    #[test]
    fn every_known_type_has_its_time_type_actor_customer_and_a_body_of_its_own() {
        assert_eq!(KNOWN_TYPES.len(), 13);
        let mut seen = std::collections::BTreeSet::new();
        for event_type in KNOWN_TYPES {
            let event = sample(event_type, 4, 7, now());
            assert_eq!(event["event_type"], *event_type);
            assert_eq!(event["event_timestamp"], "2026-03-01T10:00:00.250Z");
            assert_eq!(event["customer"], 7);
            assert!(event["actor"]["username"].is_string());
            let body = &event[family(event_type)];
            assert!(body.as_object().unwrap().len() >= 5, "{event}");
            seen.insert(body.to_string());
        }
        // A device that was created and a backup are plain; all others show what happened.
        assert!(seen.len() >= 12, "{}", seen.len());
    }

    #[test]
    fn the_same_inputs_give_the_same_event_and_another_number_gives_another() {
        for event_type in KNOWN_TYPES {
            let one = sample(event_type, 5, "acme", now());
            assert_eq!(one, sample(event_type, 5, "acme", now()));
            assert_ne!(one, sample(event_type, 6, "acme", now()));
        }
    }

    #[test]
    fn an_unknown_type_gets_a_plain_body_and_never_overwrites_the_event_s_own_members() {
        let event = sample("task_completed", 3, Value::Null, now());
        assert_eq!(event["task"]["id"], 3);
        assert_eq!(event.get("customer"), None);
        for odd in ["actor.changed", "customer.left", ".x", "event_type"] {
            let event = sample(odd, 3, 1, now());
            assert_eq!(event["event_type"], odd);
            assert_eq!(event["customer"], 1);
        }
        assert_eq!(sample("customer.left", 3, 1, now())["data"]["id"], 3);
    }

    #[test]
    fn no_number_makes_it_panic() {
        for sequence in [0, 1, 2, 3, u64::MAX] {
            for event_type in KNOWN_TYPES {
                sample(event_type, sequence, 1, Timestamp::MIN);
            }
        }
    }

    #[test]
    fn a_member_is_set_by_either_spelling_of_its_path() {
        let mut event = sample("job.failed", 1, 1, now());
        set(&mut event, "job.status", "error").unwrap();
        set(&mut event, "/job/id", "42").unwrap();
        set(&mut event, "extra.deep.er", "[1, 2]").unwrap();
        set(&mut event, "extra.deep.er.1", "\"7\"").unwrap();
        set(&mut event, "/a~1b", "null").unwrap();
        assert_eq!(event["job"]["status"], "error");
        assert_eq!(event["job"]["id"], 42);
        assert_eq!(event["extra"]["deep"]["er"], json!([1, "7"]));
        assert_eq!(event["a/b"], Value::Null);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_refused_with_its_place() {
        let mut event = sample("job.failed", 1, 1, now());
        for (path, said) in [
            ("job.status.code", "/job/status is"),
            ("", "empty word"),
            ("job..id", "empty word"),
        ] {
            let refusal = set(&mut event, path, "1").unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
        event["list"] = json!([1]);
        for position in ["list.1", "list.x"] {
            let refusal = set(&mut event, position, "1").unwrap_err();
            assert!(refusal.contains("list of 1"), "{refusal}");
        }
    }
}
