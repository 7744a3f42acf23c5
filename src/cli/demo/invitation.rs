//! How to take part: what the demo prints when it is ready, each line to be copied as it is.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::Config;

/// The text. It shows the key of the catalog, which was made for this run and ends with it.
pub(super) fn text(config: &Config, telemetry: SocketAddr, seconds: Option<u64>) -> String {
    let servers = &config.kafka.bootstrap_servers;
    let key = config.secrets.key.expose().unwrap_or_default();
    let program = program();
    let end = match seconds {
        Some(seconds) => format!("It produces for {seconds} s; Ctrl-C ends it sooner."),
        None => "Ctrl-C ends it and sums up.".to_owned(),
    };
    format!(
        r#"
Ready: Kafka on {servers} (in memory), metrics on http://{telemetry}/metrics
{end}

Take part from another terminal, in the same folder:
  export POSTRIDER__KAFKA__BOOTSTRAP_SERVERS={servers}
  export POSTRIDER__OUTBOUND__ALLOW_NETWORKS=127.0.0.0/8
  export POSTRIDER_SECRET_KEY={key}
send an event of your own:
  {program} emit job.failed
  echo '{{"event_type":"job.failed","customer":1,"job":{{"id":7,"status":"failed"}}}}' | kcat -b {servers} -t events.job -P
receive, with a webhook of your own:
  {program} listen &
  echo '{{"webhooks":[{{"id":"wh_mine","name":"mine","url":"http://127.0.0.1:9000/","event_types":["job.*"]}}]}}' | {program} subscriptions apply -f -
look:
  {program} subscriptions list
  {program} dead-letters list

✓ delivered, with the time from the event to the receiver   ↻ to be retried   ✗ dead letter   ↺ replayed   · how it stands
"#
    )
}

/// What to type to run this program again.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else {
        return "postrider".to_owned();
    };
    let folder = std::env::current_dir().unwrap_or_default();
    let in_path = std::env::var_os("PATH").is_some_and(|folders| {
        std::env::split_paths(&folders).any(|folder| Some(folder.as_path()) == path.parent())
    });
    typed(&path, &folder, in_path)
}

fn typed(path: &Path, folder: &Path, in_path: bool) -> String {
    let shown = match path.file_name() {
        Some(name) if in_path => Path::new(name),
        _ => path.strip_prefix(folder).unwrap_or(path),
    };
    if shown.components().count() == 1 && !in_path {
        return format!("./{}", shown.display());
    }
    shown.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_called_by_what_works_in_this_folder() {
        let typed = |path: &str, in_path| typed(Path::new(path), Path::new("/home/me"), in_path);
        assert_eq!(typed("/usr/bin/postrider", true), "postrider");
        assert_eq!(
            typed("/home/me/target/release/postrider", false),
            "target/release/postrider"
        );
        assert_eq!(typed("/home/me/postrider", false), "./postrider");
        assert_eq!(typed("/opt/postrider", false), "/opt/postrider");
    }
}
