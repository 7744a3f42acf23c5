//! Secrets and the properties of librdkafka: where they come from, what is refused, and that none is printed.

use super::{SHIPPED, good, problem};

#[test]
fn properties_of_librdkafka_become_text() {
    let text = "[kafka.properties]\n\"security.protocol\" = \"SASL_SSL\"\n\"linger.ms\" = 5\n\"log_level\" = 7\n\
                \"socket.keepalive.enable\" = true\n\"sasl.password\" = { env = \"PASSWORD\" }\n[kafka.consumer]\n\"fetch.min.bytes\" = 1\n";
    let config = good(
        text,
        &[
            ("PASSWORD", "hidden\n"),
            ("POSTRIDER__KAFKA__PROPERTIES__LINGER_MS", "9"),
        ],
    );
    let properties: Vec<_> = config.kafka.properties.iter().collect();
    let wanted = [
        ("linger.ms", "9"),
        ("log_level", "7"),
        ("sasl.password", "hidden"),
        ("security.protocol", "SASL_SSL"),
        ("socket.keepalive.enable", "true"),
    ];
    assert_eq!(properties, wanted);
    assert_eq!(config.kafka.consumer.get("fetch.min.bytes"), Some("1"));
    assert!(!format!("{config:?} {}", serde_json::to_string(&config).unwrap()).contains("hidden"));
}

#[test]
fn properties_on_which_promises_rest_are_refused_with_the_reason() {
    for (name, part) in [
        ("enable.auto.commit", "ledger"),
        ("enable.auto.offset.store", "ledger"),
        ("group.id", "kafka.group_id"),
        ("enable.idempotence", "always on"),
        ("acks", "always `all`"),
        ("partitioner", "murmur2_random"),
        ("bootstrap.servers", "kafka.bootstrap_servers"),
        ("auto.offset.reset", "intake.start"),
    ] {
        for table in ["properties", "consumer", "producer"] {
            let problem = problem(&format!("[kafka.{table}]\n\"{name}\" = \"x\"\n"), &[]);
            assert!(
                problem.starts_with(&format!(
                    "kafka.{table}.{name} (test.toml): cannot be set: "
                )),
                "{problem}"
            );
            assert!(problem.contains(part), "{problem}");
        }
    }
    let variable = "POSTRIDER__KAFKA__CONSUMER__GROUP_ID";
    assert!(
        problem("", &[(variable, "x")])
            .starts_with(&format!("kafka.consumer.group.id ({variable}): "))
    );
    assert!(
        problem("[kafka.properties]\nsasl.password = \"hidden\"\n", &[])
            .contains("whole name in quotes")
    );
    assert!(problem("[kafka]\nproperties = 5\n", &[]).contains("must be a table"));
    assert!(problem("[kafka.properties]\nx = [1]\n", &[]).contains("must be text"));
}

#[test]
fn the_key_comes_from_text_file_or_environment() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "from a file\n").unwrap();
    let path = file.path().display();
    let by_file = format!("[secrets]\nkey = {{ file = \"{path}\" }}\n");
    let default = ("POSTRIDER_SECRET_KEY", "by default");
    for (text, variables, wanted) in [
        ("", vec![], None),
        ("", vec![("POSTRIDER_SECRET_KEY", " ")], None),
        ("", vec![default], Some("by default")),
        (SHIPPED, vec![default], Some("by default")),
        (SHIPPED, vec![], None),
        (
            "[secrets]\nkey = \"as text\"",
            vec![default],
            Some("as text"),
        ),
        (
            "[secrets]\nkey = { env = \"OTHER\" }",
            vec![("OTHER", "named"), default],
            Some("named"),
        ),
        (by_file.as_str(), vec![default], Some("from a file")),
        (
            SHIPPED,
            vec![("POSTRIDER__SECRETS__KEY", "overridden"), default],
            Some("overridden"),
        ),
    ] {
        let config = good(text, &variables);
        assert_eq!(config.secrets.key.expose(), wanted, "{text}");
        if let Some(secret) = wanted {
            assert!(
                !format!("{config:?} {}", serde_json::to_string(&config).unwrap()).contains(secret)
            );
        }
    }
}

#[test]
fn a_key_that_cannot_be_had_is_refused() {
    for (key, part) in [
        (
            "{ env = \"OTHER\" }",
            "the environment variable OTHER is not set",
        ),
        ("{ env = \"EMPTY\" }", "the secret is empty"),
        (
            "{ file = \"/nowhere/at/all\" }",
            "the file /nowhere/at/all cannot be read",
        ),
        ("{ path = \"x\" }", "must be text, { file"),
        ("{ env = \"A\", file = \"b\" }", "must be text, { file"),
        ("{}", "must be text, { file"),
        ("5", "must be text, { file"),
        ("\"\"", "the secret is empty"),
    ] {
        let problem = problem(&format!("[secrets]\nkey = {key}\n"), &[("EMPTY", "")]);
        assert!(
            problem.starts_with("secrets.key (test.toml): ") && problem.contains(part),
            "{problem}"
        );
    }
}

#[test]
fn old_keys_are_a_list_of_keys_and_stand_beside_a_new_one() {
    let keys = |config: &crate::config::Config| -> Vec<String> {
        let keys = config.secrets.old_keys.iter();
        keys.map(|key| key.expose().unwrap().to_owned()).collect()
    };
    let text = "[secrets]\nkey = \"new\"\nold_keys = [{ env = \"OLD\" }, \"older\"]\n";
    let config = good(text, &[("OLD", "hidden-key")]);
    assert_eq!(keys(&config), ["hidden-key", "older"]);
    let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!shown.contains("hidden-key") && !shown.contains("older"));
    let variables = [
        ("POSTRIDER_SECRET_KEY", "new"),
        ("POSTRIDER__SECRETS__OLD_KEYS", " a, b ,"),
    ];
    assert_eq!(keys(&good("", &variables)), ["a", "b"]);

    for (text, part) in [
        ("old_keys = [\"a\"]", "give secrets.key the new key too"),
        ("key = \"k\"\nold_keys = \"a\"", "must be a list such as"),
        (
            "key = \"k\"\nold_keys = [\"a\", 5]",
            "entry 2: must be text",
        ),
        (
            "key = \"k\"\nold_keys = [{ env = \"OLD\" }]",
            "entry 1: the environment variable OLD is not set",
        ),
    ] {
        let problem = problem(&format!("[secrets]\n{text}\n"), &[]);
        assert!(
            problem.starts_with("secrets.old_keys (test.toml): ") && problem.contains(part),
            "{problem}"
        );
    }
}
