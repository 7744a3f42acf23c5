//! A changed configuration for a running instance: which keys it takes over, and which differ.
//!
//! Only what is a limit, a token or a log level: what a topic, a group, an address or a thread hangs on needs a restart.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Config;

impl Config {
    /// Takes over the values of another configuration that a running instance can.
    pub fn adopt(&mut self, other: &Self) {
        self.outbound.max_in_flight = other.outbound.max_in_flight;
        self.outbound.memory_bytes = other.outbound.memory_bytes;
        self.outbound.breaker_failures = other.outbound.breaker_failures;
        self.outbound.breaker_probe_seconds = other.outbound.breaker_probe_seconds;
        self.outbound.disable_after_seconds = other.outbound.disable_after_seconds;
        self.retry.held_drain_per_second = other.retry.held_drain_per_second;
        self.retry.hold_after_seconds = other.retry.hold_after_seconds;
        self.web.tokens.clone_from(&other.web.tokens);
        self.log.level.clone_from(&other.log.level);
    }

    /// `section.key` of whatever differs from another configuration, in order.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (keys(self), keys(other));
        let mut found: BTreeSet<String> = ours
            .iter()
            .zip(&theirs)
            .filter(|(ours, theirs)| ours != theirs)
            .map(|(ours, _)| ours.0.clone())
            .collect();
        // These are masked where they are shown, so that two can differ and look alike.
        let (ours, theirs) = (&self.kafka, &other.kafka);
        let masked = [
            ("kafka.properties", ours.properties != theirs.properties),
            ("kafka.consumer", ours.consumer != theirs.consumer),
            ("kafka.producer", ours.producer != theirs.producer),
            ("secrets.key", self.secrets.key != other.secrets.key),
            (
                "secrets.old_keys",
                self.secrets.old_keys != other.secrets.old_keys,
            ),
            ("history.store", self.history.store != other.history.store),
        ];
        found.extend(
            masked
                .into_iter()
                .filter(|(_, differs)| *differs)
                .map(|(key, _)| key.to_owned()),
        );
        found.into_iter().collect()
    }
}

/// Every key with its value as it is shown. The same keys for every configuration, in one order.
fn keys(config: &Config) -> Vec<(String, Value)> {
    let Ok(Value::Object(sections)) = serde_json::to_value(config) else {
        return Vec::new();
    };
    let mut keys = Vec::new();
    for (section, table) in sections {
        let Value::Object(table) = table else {
            continue;
        };
        for (key, value) in table {
            keys.push((format!("{section}.{key}"), value));
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::super::Environment;
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_text("test.toml", text, &Environment::new()).unwrap()
    }

    /// What every key that can be reloaded is set to, none its default.
    const RELOADABLE: &str = "
        log.level = \"warn,web=debug\"
        outbound.breaker_failures = 3
        outbound.breaker_probe_seconds = 4
        outbound.disable_after_seconds = 5
        outbound.max_in_flight = 6
        outbound.memory_bytes = 2097152
        retry.held_drain_per_second = 7
        retry.hold_after_seconds = 8
        web.tokens = [{ name = \"ci\", role = \"admin\", sha256 = \"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\" }]
    ";

    #[test]
    fn what_can_be_reloaded_is_adopted_and_nothing_else() {
        let before = config("");
        let after = config(&format!(
            "{RELOADABLE}\nlog.format = \"json\"\nkafka.group_id = \"other\""
        ));
        let mut running = before.clone();
        running.adopt(&after);
        let mut wanted: Vec<&str> = RELOADABLE
            .lines()
            .filter_map(|line| Some(line.split_once(" = ")?.0.trim()))
            .collect();
        wanted.sort_unstable();
        assert_eq!(wanted.len(), 9);
        assert_eq!(before.differences(&running), wanted);
        assert_eq!(
            running.differences(&after),
            ["kafka.group_id", "log.format"]
        );
        assert_eq!(running.differences(&running), Vec::<String>::new());
    }

    #[test]
    fn a_secret_that_differs_is_told_though_it_looks_alike() {
        for (key, one, other) in [
            ("secrets.key", "\"a\"", "\"b\""),
            (
                "history.store",
                "\"postgres://u:one@h/d\"",
                "\"postgres://u:two@h/d\"",
            ),
            (
                "kafka.properties",
                "{ \"sasl.password\" = \"a\" }",
                "{ \"sasl.password\" = \"b\" }",
            ),
        ] {
            let (one, other) = (
                config(&format!("{key} = {one}")),
                config(&format!("{key} = {other}")),
            );
            assert_eq!(one.differences(&other), [key]);
        }
    }
}
