//! Each way in delivers an event, and each mistake at the door is one line with the cure.

use serde_json::json;

use super::rights::everything;
use super::{CERTIFICATE, Doors};
use crate::commands::Setting;
use crate::harness::{Receiver, Router, Sent, eventually, run_to_its_end};

#[test]
fn an_event_is_delivered_by_each_way_in_and_a_mistake_at_the_door_is_one_line_with_its_cure() {
    let doors = Doors::open("doors");
    doors.admin.add_user("scram", "scram-secret");
    doors.cluster.create_topic("events.job", 1, &[]);
    let router = Router::idle(&doors.cluster, &["events.job"], "");
    let rights = everything(&doors.cluster);
    for principal in ["User:scram", "User:plain", "User:token", CERTIFICATE] {
        doors.admin.grant(principal, &rights);
    }
    let ways = [
        ("SCRAM", doors.by_scram("scram", "scram-secret")),
        (
            "PLAIN",
            doors.by_sasl("PLAIN", "plain", "plain-secret", "ca.pem"),
        ),
        ("OAUTHBEARER", doors.by_token("token")),
        ("certificate", doors.by_certificate()),
    ];
    let receiver = Receiver::accepting();
    router.subscribe("wh_doors", &receiver.url("/"), json!({}));
    for (number, (way, config)) in ways.iter().enumerate() {
        let process = crate::harness::Process::start(config);
        doors.cluster.produce(
            &doors.cluster.name("events.job"),
            &Sent::new(format!(
                r#"{{"event_type": "job.created", "customer": 1, "job": {{"way": "{way}"}}}}"#
            )),
        );
        eventually(way, std::time::Duration::from_secs(60), || {
            (receiver.requests().len() == number + 1).then_some(())
        });
        let log = process.log();
        assert!(
            !log.contains("WARN") && !log.contains("ERROR"),
            "{way}: {log}"
        );
        let (status, _) = process.terminate();
        assert!(status.success(), "{way}: {status}");
        let output = Setting::of(config).run(&["check"]);
        assert_eq!(output.code, 0, "{way}: {}", output.stdout);
        assert!(
            !output.stdout.contains("warning"),
            "{way}: {}",
            output.stdout
        );
    }

    let mistakes = [
        (
            doors.by_scram("scram", "wrong"),
            "the user or the password is refused",
            "sasl.password",
        ),
        (
            doors.by_sasl("SCRAM-SHA-512", "scram", "scram-secret", "stranger.pem"),
            "its certificate is signed by nobody that is trusted",
            "ssl.ca.location",
        ),
        (
            doors.config(
                &doors.mtls,
                &[
                    ("security.protocol", "SSL"),
                    ("ssl.ca.location", &doors.file("ca.pem")),
                ],
                "",
            ),
            "client certificate",
            "ssl.certificate.location",
        ),
        (
            doors.config(&doors.sasl, &[("reconnect.backoff.max.ms", "500")], ""),
            "as one that wants TLS does",
            "set security.protocol",
        ),
    ];
    for (config, what, cure) in mistakes {
        let checked = Setting::of(&config).run(&["check"]);
        assert_eq!(checked.code, 1);
        let wrong: Vec<&str> = checked
            .stdout
            .lines()
            .filter(|line| line.starts_with("wrong"))
            .collect();
        assert_eq!(wrong.len(), 1, "{}", checked.stdout);
        assert!(
            wrong[0].contains(what) && wrong[0].contains(cure),
            "{}",
            wrong[0]
        );
        let run = run_to_its_end(&config);
        assert_eq!(run.status.code(), Some(1));
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(what) && said.contains(cure), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}
