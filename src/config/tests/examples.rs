//! The examples of config/ for clusters that are not open: each is a configuration, and none of their secrets is shown.

use std::collections::BTreeMap;

use crate::config::Config;

#[test]
fn each_example_of_a_secured_cluster_can_be_read_and_shows_no_secret() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    let environment = BTreeMap::from(
        [
            "KAFKA_PASSWORD",
            "KAFKA_CLIENT_SECRET",
            "KAFKA_KEY_PASSWORD",
        ]
        .map(|name| (name.to_owned(), "hush".to_owned())),
    );
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("kafka.") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let config = Config::from_text(&name, &text, &environment).unwrap();
        let properties = &config.kafka.properties;
        let protocol = properties.get("security.protocol").unwrap();
        assert_eq!(
            protocol.starts_with("SASL"),
            name.contains("sasl"),
            "{name}"
        );
        assert_eq!(
            text.contains("{ env"),
            format!("{properties:?}").contains("***"),
            "{name}"
        );
        assert!(!format!("{config:?}").contains("hush"), "{name}");
        seen.push(name);
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            "kafka.mtls.toml",
            "kafka.sasl-oauthbearer.toml",
            "kafka.sasl-plain.toml",
            "kafka.sasl-scram.toml",
            "kafka.tls.toml"
        ]
    );
}
