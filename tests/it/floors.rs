//! The house's floors: imports point one way, and files stay readable (design.md, "The house").
//!
//! rustc permits cycles, so the sources are read and the rule is asserted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const STAGES: [&str; 6] = ["intake", "matching", "outbound", "retry", "history", "web"];
/// What stands below the stages.
const NOUNS: [&str; 9] = [
    "json",
    "event",
    "subscription",
    "delivery",
    "attempt",
    "record",
    "metrics",
    "token",
    "traces",
];
const LINES: usize = 360;
/// Longer than the rule, each with what would have to happen. Shorten one and take it out of here.
const TOO_LONG: [(&str, usize); 1] = [("subscription/read/tests.rs", 378)];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
        (name.to_owned(), std::fs::read_to_string(&path).unwrap())
    };
    found.into_iter().map(read).collect()
}

fn is_test(name: &str) -> bool {
    name.split(['/', '.']).any(|part| part == "tests")
}

/// The code without tests, comments and blank lines.
fn code(text: &str) -> Vec<&str> {
    // A module of tests is the last thing in its file.
    let end = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end]
        .lines()
        .filter(|line| {
            let line = line.trim_start();
            !line.is_empty() && !line.starts_with("//")
        })
        .collect()
}

/// The part of the house that a file belongs to: `outbound/guard.rs` to outbound, `event.rs` to event.
fn part(name: &str) -> &str {
    name.split(['/', '.']).next().unwrap()
}

/// The parts of the house that a file names by `crate::`, in whatever grouping.
fn imports(code: &[&str]) -> BTreeSet<String> {
    let text = code.join("\n");
    let mut found = BTreeSet::new();
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect()
    };
    for (place, _) in text.match_indices("crate::") {
        let rest = &text[place + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            // `use crate::{a::b, c::{d, e}}`: the words at depth 1 that begin an item.
            let mut depth = 1;
            let mut begins = true;
            for (at, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => begins = true,
                    letter if begins && letter.is_alphabetic() => {
                        found.insert(word(&group[at..]));
                        begins = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            found.insert(word(rest));
        }
    }
    // A re-export or a `super::super` path out of the part would be a way round; there is no reason for either.
    found
}

#[test]
fn imports_point_one_way() {
    let sources = sources();
    let mut faults = Vec::new();
    let mut seen = 0;
    let mut edges = 0;
    for (name, text) in sources.iter().filter(|(name, _)| !is_test(name)) {
        seen += 1;
        let here = part(name);
        let code = code(text);
        let imports = imports(&code);
        edges += imports.len();
        let forbidden: Vec<&str> = if STAGES.contains(&here) {
            let others = STAGES.iter().filter(|stage| **stage != here);
            others.copied().chain(["pipeline", "app", "cli"]).collect()
        } else if NOUNS.contains(&here) || here == "kafka" {
            let above = ["pipeline", "app", "cli", "config"];
            let kafka = (here != "kafka").then_some("kafka");
            STAGES.into_iter().chain(above).chain(kafka).collect()
        } else if here == "pipeline" {
            vec!["app", "cli", "web"]
        } else if here == "app" {
            vec!["cli"]
        } else {
            Vec::new()
        };
        for import in imports
            .iter()
            .filter(|import| forbidden.contains(&import.as_str()))
        {
            faults.push(format!("{name} imports {import}"));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    // So that a change of the layout cannot make this test look at nothing.
    assert!(seen >= 60, "only {seen} files were read");
    assert!(edges >= 80, "only {edges} imports were found");
    for stage in STAGES {
        assert!(
            sources.iter().any(|(name, _)| part(name) == stage),
            "there is no {stage}"
        );
    }
}

#[test]
fn only_the_kafka_part_knows_the_kafka_client() {
    let mut users = 0;
    for (name, text) in sources().into_iter().filter(|(name, _)| !is_test(name)) {
        if code(&text)
            .iter()
            .any(|line| line.contains("rdkafka::") || line.contains("rdkafka_"))
        {
            assert_eq!(part(&name), "kafka", "{name} uses rdkafka");
            users += 1;
        }
    }
    assert!(
        users >= 6,
        "only {users} files use rdkafka: is it looked for by the right name?"
    );
}

#[test]
fn pure_files_import_no_runtime_and_no_client() {
    const PURE: [&str; 20] = [
        "kafka/finished.rs",
        "kafka/ledger.rs",
        "retry/ladder.rs",
        "retry/dead_letter.rs",
        "retry/release.rs",
        "matching/index.rs",
        "matching/filter.rs",
        "outbound/lane.rs",
        "outbound/breaker.rs",
        "outbound/window.rs",
        "outbound/notice.rs",
        "subscription/condition.rs",
        "outbound/limiter.rs",
        "outbound/verdict.rs",
        "outbound/signature.rs",
        "intake/decode.rs",
        "delivery.rs",
        "traces/context.rs",
        "traces/names.rs",
        "traces/span.rs",
    ];
    let sources = sources();
    for pure in PURE {
        let found = sources.iter().find(|(name, _)| name == pure);
        let (_, text) = found.unwrap_or_else(|| panic!("there is no {pure}; name it anew here"));
        for client in [
            "tokio",
            "rdkafka",
            "reqwest",
            "SystemTime::now",
            "Instant::now",
        ] {
            let uses = code(text).into_iter().find(|line| line.contains(client));
            assert_eq!(uses, None, "{pure} uses {client}");
        }
    }
}

#[test]
fn files_stay_short_and_say_why_they_exist() {
    let mut seen = 0;
    for (name, text) in sources() {
        seen += 1;
        assert!(
            text.starts_with("//! "),
            "{name} does not open with why it exists"
        );
        let lines = code(&text).len();
        let known = TOO_LONG.iter().find(|(long, _)| *long == name);
        match known {
            None => assert!(
                lines <= LINES,
                "{name} has {lines} lines of code, more than {LINES}"
            ),
            Some((_, most)) => {
                assert!(
                    lines > LINES,
                    "{name} is short enough: take it out of the list"
                );
                assert!(
                    lines <= *most,
                    "{name} has grown from {most} to {lines} lines of code"
                );
            }
        }
    }
    assert!(seen >= 80, "only {seen} files were read");
}
