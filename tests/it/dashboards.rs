//! What operators look at is true: every metric is documented and shown or marked, every query of dashboards and alerts names only
//! metrics and labels that exist, and every alert has its section in the runbook. (That the queries are PromQL, and that the alerts
//! fire, is for promtool: `make deploy-check`.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use postrider::metrics::Metrics;
use serde_json::Value;

/// Metrics that no dashboard and no alert shows, each with why.
const NOT_SHOWN: [(&str, &str); 0] = [];
/// Of the process collector of the crate `prometheus`, and of Prometheus itself.
const FOREIGN: [&str; 6] = [
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
    "process_threads",
];
/// Labels that Prometheus adds, and that of histograms.
const ADDED: [&str; 3] = ["instance", "job", "le"];
const DASHBOARDS: [&str; 3] = ["overview.json", "webhook.json", "kafka-and-process.json"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|fault| panic!("{path}: {fault}"))
}

/// Where it stands, and the query.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(&read(&format!("dashboards/{name}"))).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let place = format!("{name}, {}", panel["title"].as_str().unwrap());
                found.push((place, target["expr"].as_str().unwrap().to_owned()));
            }
        }
    }
    for (name, query) in rules() {
        found.push((name, query));
    }
    found
}

/// Alerts and records: name and query.
fn rules() -> Vec<(String, String)> {
    let rules: Value =
        serde_saphyr::from_str(&read("dashboards/alerts/postrider.rules.yaml")).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let all = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    all.map(|rule| {
        let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap();
        (name.to_owned(), rule["expr"].as_str().unwrap().to_owned())
    })
    .collect()
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

/// The words of a query outside of its strings, each with what follows it.
fn words(query: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(letter) = rest.chars().next() {
        if letter == '"' {
            let end = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
            rest = &rest[end..];
        } else if is_word(letter) || letter == '$' {
            let end = rest[1..]
                .find(|letter| !is_word(letter))
                .map_or(rest.len(), |end| end + 1);
            found.push((rest[..end].to_owned(), rest[end..].trim_start().to_owned()));
            rest = &rest[end..];
        } else {
            rest = &rest[letter.len_utf8()..];
        }
    }
    found
}

/// The metrics of a query, each with the labels that its selector names; and the labels of its groupings.
fn named(query: &str) -> (Vec<(String, Vec<String>)>, Vec<String>) {
    let (mut metrics, mut grouped) = (Vec::new(), Vec::new());
    for (word, after) in words(query) {
        if ["by", "on", "without", "ignoring"].contains(&word.as_str()) {
            let inner = after
                .trim_start_matches('(')
                .split(')')
                .next()
                .unwrap_or_default();
            grouped.extend(inner.split(',').map(|label| label.trim().to_owned()));
        } else if word.contains(':') && !word.starts_with(|letter: char| letter.is_ascii_digit())
            || ["postrider_", "process_", "up"]
                .iter()
                .any(|start| word.starts_with(start))
        {
            let selector = after
                .strip_prefix('{')
                .and_then(|rest| rest.split('}').next());
            let labels = words(selector.unwrap_or_default());
            metrics.push((word, labels.into_iter().map(|(label, _)| label).collect()));
        }
    }
    (metrics, grouped)
}

/// A histogram's series belong to the histogram.
fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| {
            let family = name.strip_suffix(end)?;
            Metrics::DESCRIPTIONS
                .iter()
                .find(|metric| metric.name == family && metric.kind == "histogram")?;
            Some(family)
        })
        .unwrap_or(name)
}

/// What is wrong with a query; nothing when all that it names exists.
fn faults(query: &str) -> Vec<String> {
    let recorded: BTreeSet<String> = rules().into_iter().map(|(name, _)| name).collect();
    let (metrics, grouped) = named(query);
    let mut faults = Vec::new();
    let mut allowed: BTreeSet<&str> = ADDED.into();
    if metrics.is_empty() {
        faults.push("names no metric".to_owned());
    }
    for (name, labels) in &metrics {
        let described = Metrics::DESCRIPTIONS
            .iter()
            .find(|metric| metric.name == family(name));
        let own = match described {
            Some(metric) => metric.labels,
            None if recorded.contains(name) || FOREIGN.contains(&name.as_str()) => &[],
            None => {
                faults.push(format!("there is no metric {name}"));
                continue;
            }
        };
        allowed.extend(own);
        for label in labels {
            if !own.contains(&label.as_str()) && !ADDED.contains(&label.as_str()) {
                faults.push(format!("{name} has no label {label}"));
            }
        }
    }
    for label in grouped
        .iter()
        .filter(|label| !allowed.contains(label.as_str()))
    {
        faults.push(format!("grouped by {label}, which none of its metrics has"));
    }
    faults
}

#[test]
fn every_query_names_only_metrics_and_labels_that_exist() {
    let queries = queries();
    assert!(
        queries.len() > 60,
        "only {} queries were found",
        queries.len()
    );
    let wrong: Vec<String> = queries
        .iter()
        .flat_map(|(place, query)| {
            faults(query)
                .into_iter()
                .map(move |fault| format!("{place}: {fault}"))
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_query_with_a_mistake_is_found() {
    for (query, said) in [
        (
            "sum(rate(postrider_attempt_total[5m]))",
            "there is no metric postrider_attempt_total",
        ),
        (
            "postrider_attempts_total{outcom=\"success\"}",
            "has no label outcom",
        ),
        (
            "sum by (webhook) (postrider_attempts_total)",
            "grouped by webhook",
        ),
        (
            "postrider_held_bucket",
            "there is no metric postrider_held_bucket",
        ),
        (
            "postrider:no_such:record > 1",
            "there is no metric postrider:no_such:record",
        ),
        ("vector(1)", "names no metric"),
    ] {
        let faults = faults(query);
        assert!(
            faults.iter().any(|fault| fault.contains(said)),
            "{query}: {faults:?}"
        );
    }
}

#[test]
fn every_alert_says_what_it_means_and_has_its_section_in_the_runbook() {
    let rules: Value =
        serde_saphyr::from_str(&read("dashboards/alerts/postrider.rules.yaml")).unwrap();
    let runbook = read("deploy/RUNBOOK.md");
    let tests = read("dashboards/alerts/postrider.rules.test.yaml");
    let mut seen = 0;
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let Some(name) = rule["alert"].as_str() else {
                continue;
            };
            seen += 1;
            for part in ["summary", "meaning", "runbook"] {
                assert!(
                    rule["annotations"][part].is_string(),
                    "{name} has no {part}"
                );
            }
            let section = format!("deploy/RUNBOOK.md#{}", name.to_lowercase());
            assert_eq!(
                rule["annotations"]["runbook"].as_str(),
                Some(section.as_str())
            );
            assert!(
                ["page", "ticket"].contains(&rule["labels"]["severity"].as_str().unwrap()),
                "{name}"
            );
            assert!(
                runbook.contains(&format!("\n### {name}\n")),
                "deploy/RUNBOOK.md has no section {name}"
            );
            assert!(
                tests.matches(&format!("alertname: {name}\n")).count() >= 1,
                "no test fires {name}"
            );
        }
    }
    assert!(seen >= 12, "only {seen} alerts were read");
}

/// The page that `dashboards/METRICS.md` should be.
fn page() -> String {
    let mut shown: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let queries = queries();
    for (place, query) in &queries {
        for (name, _) in named(query).0 {
            let place = place.split(',').next().unwrap_or(place).to_owned();
            let known = Metrics::DESCRIPTIONS
                .iter()
                .find(|metric| metric.name == family(&name));
            if let Some(metric) = known {
                shown.entry(metric.name).or_default().insert(place);
            }
        }
    }
    let mut text = String::from(
        "# Metrics\n\nServed at `/metrics` on `web.telemetry_listen`. Made from `src/metrics.rs` by `make dashboards`; a test holds the two together.\n\
         Durations are in seconds, sizes in bytes, everything else counts. Webhook labels are ids, of at most `web.metrics_webhooks` webhooks: a page with 1,000 of them takes 23 ms (`make bench`, on a busy machine), however many there are beyond.\n\
         Besides these there are the usual `process_*`.\n",
    );
    for metric in Metrics::DESCRIPTIONS {
        let places: Vec<String> = match shown.get(metric.name) {
            Some(places) => places.iter().map(|place| format!("`{place}`")).collect(),
            None => NOT_SHOWN
                .iter()
                .filter(|(name, _)| *name == metric.name)
                .map(|(_, why)| format!("nowhere: {why}"))
                .collect(),
        };
        assert!(
            !places.is_empty(),
            "{} is on no dashboard, in no alert and not in NOT_SHOWN",
            metric.name
        );
        let unit = if metric.name.contains("_seconds") {
            "seconds"
        } else {
            "count"
        };
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let labels = if labels.is_empty() {
            "no labels".to_owned()
        } else {
            labels.join(", ")
        };
        text.push_str(&format!(
            "\n## {}\n{}, {unit}; {labels}. {}\n\n*When it moves:* {}\n\n*Shown in:* {}\n",
            metric.name,
            metric.kind,
            metric.meaning,
            metric.action,
            places.join(", ")
        ));
    }
    text
}

#[test]
fn every_metric_is_documented_and_shown_or_marked() {
    let page = page();
    if std::env::var_os("POSTRIDER_WRITE_METRICS").is_some() {
        std::fs::write(root().join("dashboards/METRICS.md"), &page).unwrap();
    }
    assert!(
        read("dashboards/METRICS.md") == page,
        "dashboards/METRICS.md is not what src/metrics.rs says; run `make dashboards`"
    );
}

#[test]
fn the_dashboards_have_fixed_ids_a_data_source_variable_and_no_panel_twice() {
    let mut ids = BTreeSet::new();
    for name in DASHBOARDS {
        let text = read(&format!("dashboards/{name}"));
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let uid = dashboard["uid"].as_str().unwrap().to_owned();
        assert!(uid.starts_with("postrider-") && ids.insert(uid), "{name}");
        assert_eq!(
            dashboard["templating"]["list"][0]["type"], "datasource",
            "{name}"
        );
        let panels = dashboard["panels"].as_array().unwrap();
        let titles: BTreeSet<&str> = panels
            .iter()
            .map(|panel| panel["title"].as_str().unwrap())
            .collect();
        assert_eq!(titles.len(), panels.len(), "{name} has a title twice");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}");
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{name}");
        }
    }
}
