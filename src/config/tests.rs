//! The file that is shipped is the code's defaults; what is wrong is named with its key, its source and its cure.

mod examples;
mod secrets;
mod web;

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_text("test.toml", text, &environment(variables))
}

fn good(text: &str, variables: &[(&str, &str)]) -> Config {
    read(text, variables).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match read(text, variables) {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

/// Expects one fault and returns it.
fn problem(text: &str, variables: &[(&str, &str)]) -> String {
    let problems = problems(text, variables);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

const SHIPPED: &str = include_str!("../../config/postrider.toml");

/// `section.key` of every line of the file that gives a key.
fn keys_of_the_file() -> BTreeSet<String> {
    let mut section = "";
    let mut keys = BTreeSet::new();
    for line in SHIPPED.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let (false, Some((key, _))) = (line.starts_with('#'), line.split_once(" = ")) {
            assert!(keys.insert(format!("{section}.{key}")), "{key} twice");
        }
    }
    keys
}

#[test]
fn the_shipped_file_is_the_defaults() {
    assert_eq!(good(SHIPPED, &[]), Config::default());
    assert_eq!(good("", &[]), Config::default());
}

#[test]
fn the_shipped_file_shows_every_key_with_a_comment() {
    let Value::Object(sections) = serde_json::to_value(Config::default()).unwrap() else {
        panic!()
    };
    let mut keys = BTreeSet::new();
    for (section, table) in &sections {
        keys.extend(
            table
                .as_object()
                .unwrap()
                .keys()
                .map(|key| format!("{section}.{key}")),
        );
    }
    assert_eq!(keys_of_the_file(), keys);
    assert_eq!((sections.len(), keys.len()), (9, 47));
    let bare: Vec<&str> = SHIPPED
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#') && !line.contains("  # "))
        .collect();
    assert_eq!(bare, Vec::<&str>::new());
}

#[test]
fn every_key_can_be_overridden_by_the_environment() {
    let mut seen = 0;
    for key in keys_of_the_file() {
        let variable = format!("POSTRIDER__{}", key.replace('.', "__").to_uppercase());
        let table =
            ["kafka.properties", "kafka.consumer", "kafka.producer"].contains(&key.as_str());
        let (variable, text) = match key.as_str() {
            _ if table => (format!("{variable}__CLIENT_RACK"), "a"),
            "kafka.bootstrap_servers" => (variable, "a:1,b:2"),
            "kafka.create_topics" | "history.attempts" => (variable, "false"),
            "kafka.group_id" | "kafka.instance_id" | "kafka.topic_prefix" => (variable, "other"),
            "intake.topics" => (variable, "^a\\..*, b"),
            "intake.start" => (variable, "earliest"),
            "intake.customer_pointer" => (variable, ""),
            "outbound.allow_networks" => (variable, "10.0.0.0/8,::1"),
            "history.store" => (variable, "postgres://a:b@c/d"),
            "web.allow_anonymous" => (variable, "true"),
            "web.tokens" => (
                variable,
                "ci:admin:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
            ),
            "web.listen" => (variable, ""),
            "web.telemetry_listen" => (variable, "[::1]:9"),
            "secrets.key" => (variable, "abc"),
            // Refused without a key, which `problem` below shows.
            "secrets.old_keys" | "intake.inline_webhooks" => continue,
            "log.format" => (variable, "json"),
            "log.level" => (variable, "trace"),
            "outbound.memory_bytes" => (variable, "2097152"),
            "traces.endpoint" => (variable, "http://localhost:4318/v1/traces"),
            "traces.authorization" => (variable, "Bearer a"),
            "traces.sample_ratio" => (variable, "0.5"),
            _ => (variable, "2"),
        };
        let config = good(SHIPPED, &[(&variable, text)]);
        assert_ne!(config, Config::default(), "{variable}");
        seen += 1;
    }
    assert_eq!(seen, 45);
    let config = good(
        "",
        &[
            ("POSTRIDER__INTAKE__TOPICS", " a , ^b ,"),
            ("POSTRIDER__OUTBOUND__SHARDS", "3"),
        ],
    );
    assert_eq!(config.intake.topics, ["a", "^b"]);
    assert_eq!(config.outbound.shards, 3);
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = good(
        "[retry]\nheld_drain_per_second = 5\n",
        &[("POSTRIDER__RETRY__HELD_DRAIN_PER_SECOND", "7")],
    );
    assert_eq!(config.retry.held_drain_per_second, 7);
    // A fault in the file is not hidden by it elsewhere, and other programs' variables are none of ours.
    good(
        "",
        &[
            ("POSTRIDER_RETRY", "x"),
            ("PATH", "x"),
            ("POSTRIDER_SECRET_KEY", "x"),
        ],
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let file = problem("[retry]\nheld_drain = 5\n", &[]);
    assert_eq!(
        file,
        "retry.held_drain (test.toml): there is no such key; did you mean `held_drain_per_second`?"
    );
    let variable = problem("", &[("POSTRIDER__KAFKA__BOOTSTRAP_SERVER", "a:1")]);
    assert_eq!(
        variable,
        "kafka.bootstrap_server (POSTRIDER__KAFKA__BOOTSTRAP_SERVER): there is no such key; did you mean `bootstrap_servers`?"
    );
    assert!(problem("[outbund]\n", &[]).contains("no such section; did you mean `outbound`?"));
    assert!(problem("x = 1\n", &[]).contains("known are kafka, intake"));
    assert!(problem("", &[("POSTRIDER__KAFKA", "x")]).contains("must be a section"));
    assert!(problem("", &[("POSTRIDER__LOG__LEVEL__X", "x")]).contains("log.level"));
}

#[test]
fn wrong_values_are_refused_with_their_key_and_the_cure() {
    let cases = [
        (
            "[retry]\nheld_drain_per_second = \"5m\"",
            "retry.held_drain_per_second (test.toml): must be a whole number of deliveries from 1 to 1000000, without quotes or unit (default 1000); it is the text \"5m\"",
        ),
        ("[retry]\nheld_drain_per_second = \"5\"", "without quotes"),
        ("[retry]\nheld_drain_per_second = 5.5", "it is 5.5"),
        ("[retry]\nheld_drain_per_second = 0", "from 1 to"),
        ("[retry]\nheld_drain_per_second = -1", "it is -1"),
        ("[retry]\nheld_drain_per_second = []", "it is a list"),
        ("[retry]\nheld_drain_per_second = {}", "it is a table"),
        (
            "[retry]\nheld_drain_per_second = 1979-05-27",
            "whole number",
        ),
        ("[kafka]\ndispatch_partitions = 100000", "from 1 to 10000"),
        ("[kafka]\nreplication_factor = 0", "from 1 to 32"),
        ("[kafka]\ncreate_topics = \"yes\"", "must be true or false"),
        ("[kafka]\ngroup_id = \"a b\"", "must be 1 to 200 characters"),
        (
            "[kafka]\ninstance_id = \"pod/0\"",
            "must be 1 to 200 characters",
        ),
        (
            "[kafka]\ntopic_prefix = \"\"",
            "must be 1 to 200 characters",
        ),
        (
            "[kafka]\nbootstrap_servers = 9092",
            "must be text in quotes",
        ),
        ("[kafka]\nbootstrap_servers = \"\"", "must be host:port"),
        ("[kafka]\nbootstrap_servers = \"a:1,\"", "must be host:port"),
        (
            "[kafka]\nbootstrap_servers = \"a:port\"",
            "must be a number from 1 to 65535",
        ),
        ("[kafka]\nbootstrap_servers = \"a:0\"", "must be host:port"),
        (
            "[kafka]\nbootstrap_servers = \"http://a:1\"",
            "Kafka does not speak http",
        ),
        ("[intake]\ntopics = []", "at least one topic"),
        ("[intake]\ninline_webhooks = true", "needs secrets.key"),
        ("[intake]\ntopics = \"a\"", "must be a list"),
        ("[intake]\ntopics = [\"a b\"]", "entry 1: must be"),
        ("[intake]\ntopics = [\"^\"]", "empty regular expression"),
        ("[intake]\ntopics = [\"a\", 5]", "entry 2: must be text"),
        (
            "[intake]\ntopics = [\"postrider.dispatch\"]",
            "our own topics cannot be sources",
        ),
        ("[intake]\nstart = \"first\"", "one of latest, earliest"),
        (
            "[intake]\ncustomer_pointer = \"customer\"",
            "must be a JSON pointer",
        ),
        (
            "[intake]\ncustomer_pointer = \"/a~2\"",
            "must be a JSON pointer",
        ),
        (
            "[outbound]\nallow_networks = [\"10.0.0.0/33\"]",
            "entry 1: must be a network",
        ),
        (
            "[outbound]\nallow_networks = [\"localhost\"]",
            "entry 1: must be a network",
        ),
        ("[outbound]\nmemory_bytes = 1000", "from 1048576"),
        (
            "[outbound]\nconnect_timeout_seconds = \"5s\"",
            "whole number of seconds",
        ),
        (
            "[history]\nstore = \"mysql://u:p@host/d\"",
            "must be \"sqlite:PATH\", \"postgres://user:password@host/database\" or \"none\"",
        ),
        (
            "[web]\ntelemetry_listen = \"localhost:8081\"",
            "IP address and a port",
        ),
        ("[web]\ntelemetry_listen = 8081", "must be text in quotes"),
        (
            "[log]\nlevel = \"loud\"",
            "one of error, warn, info, debug, trace",
        ),
        ("[log]\nformat = \"xml\"", "one of text, json"),
        ("log = 5", "must be a section: write [log]"),
    ];
    for (text, part) in cases {
        let problem = problem(text, &[]);
        assert!(problem.contains(part), "{text:?}: {problem}");
    }
}

#[test]
fn every_fault_is_told_at_once() {
    let text = "[log]\nlevel = \"loud\"\n[retry]\nhold = 5\n[kafka]\ngroup_id = \"\"\n";
    assert_eq!(
        problems(text, &[("POSTRIDER__WEB__METRICS_WEBHOOKS", "many")]).len(),
        4
    );
    let message = read(text, &[]).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 4, "{message}");
}

#[test]
fn servers_networks_and_pointers_have_their_forms() {
    for servers in [
        "a",
        "a:1",
        "a:1, b:2",
        "[::1]:9092",
        "[::1]",
        "SASL_SSL://a.example:9093",
        "10.0.0.1:65535",
    ] {
        assert_eq!(
            good("", &[("POSTRIDER__KAFKA__BOOTSTRAP_SERVERS", servers)])
                .kafka
                .bootstrap_servers,
            servers
        );
    }
    let config = good(
        "[outbound]\nallow_networks = [\"10.0.0.5\", \"10.1.2.3/8\", \"fd00::1\"]",
        &[],
    );
    let networks: Vec<String> = config
        .outbound
        .allow_networks
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["10.0.0.5/32", "10.0.0.0/8", "fd00::1/128"]);
    for pointer in ["", "/", "/a/b", "/a~1b/~0"] {
        good(&format!("[intake]\ncustomer_pointer = \"{pointer}\""), &[]);
    }
}

#[test]
fn what_is_no_toml_is_refused_with_its_line_and_without_the_line_itself() {
    for text in [
        "[kafka]\n\"sasl.password\" = hidden\n",
        "[kafka]\ngroup_id = \"hidden\n",
        "[kafka]\na = \"hidden\"\na = 1\n",
    ] {
        let error = read(text, &[]).unwrap_err();
        assert!(matches!(error, ConfigError::Syntax { .. }));
        let message = error.to_string();
        assert!(
            message.starts_with("test.toml is not TOML: ") && message.contains("line "),
            "{message}"
        );
        assert!(
            !message.contains("hidden") && !message.contains('\n'),
            "{message}"
        );
    }
}

#[test]
fn the_file_is_the_named_one_else_the_variables_else_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, group: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("[kafka]\ngroup_id = \"{group}\"\n")).unwrap();
        path
    };
    let (named, by_variable) = (write("a.toml", "named"), write("b.toml", "variable"));
    let variables = environment(&[("POSTRIDER_CONFIG", by_variable.to_str().unwrap())]);
    let group = |path: Option<&Path>, variables: &Environment| {
        Config::load(path, variables).unwrap().kafka.group_id
    };
    assert_eq!(group(Some(&named), &variables), "named");
    assert_eq!(group(None, &variables), "variable");
    assert_eq!(group(None, &Environment::new()), "postrider");
    let missing = folder.path().join("none.toml");
    let error = Config::load(Some(&missing), &Environment::new())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("none.toml cannot be read") && error.contains("check the path"),
        "{error}"
    );
}
