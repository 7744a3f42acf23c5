//! Tokens of the configuration, and who may ask without one.

use super::{good, problem};

const HASH: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

#[test]
fn tokens_are_read_from_the_file_and_from_the_environment_alike() {
    let file = format!(
        "[web]\ntokens = [{{ name = \"ci\", sha256 = \"{HASH}\", role = \"operator\", customer = 7 }}]"
    );
    let variable = format!("ci:operator:{HASH}:7");
    let config = good(&file, &[]);
    assert_eq!(config, good("", &[("POSTRIDER__WEB__TOKENS", &variable)]));
    assert_eq!(config.web.tokens[0].customer.as_deref(), Some("7"));
}

#[test]
fn a_wrong_token_is_told_and_never_repeated() {
    for (entry, said) in [
        (
            "{ name = \"a\", sha256 = \"prt_hidden\", role = \"admin\" }".to_owned(),
            "64 hexadecimal",
        ),
        (
            format!("{{ name = \"a\", sha256 = \"{HASH}\", role = \"root\" }}"),
            "viewer, operator or admin",
        ),
        (
            format!("{{ name = \"a\", sha256 = \"{HASH}\" }}"),
            "`role` is missing",
        ),
        (
            format!("{{ name = \"a\", sha256 = \"{HASH}\", role = \"admin\", custmer = \"1\" }}"),
            "custmer",
        ),
        (
            format!("{{ name = \"a\", sha256 = \"{HASH}\", role = \"admin\", customer = \"\" }}"),
            "leave it out",
        ),
        ("\"prt_hidden\"".to_owned(), "must be {"),
    ] {
        let found = problem(&format!("[web]\ntokens = [{entry}]"), &[]);
        assert!(found.contains(said) && !found.contains("hidden"), "{found}");
    }
}

#[test]
fn everybody_may_do_everything_only_on_the_machine_itself() {
    let found = problem(
        "[web]\nallow_anonymous = true\nlisten = \"0.0.0.0:8080\"",
        &[],
    );
    assert!(
        found.contains("loopback") && found.contains("token new"),
        "{found}"
    );
    assert!(
        good("[web]\nallow_anonymous = true", &[])
            .web
            .allow_anonymous
    );
}
