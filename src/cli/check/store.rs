//! The place of the history: whether it can be written, without making it.

use std::fs::{self, OpenOptions};
use std::path::Path;

use super::Line;
use crate::app;
use crate::config::Config;
use crate::history::store::Kind;

const NAME: &str = "history";

pub(super) async fn check(config: &Config) -> Line {
    match config.history.store.expose().parse() {
        Ok(Kind::None) => Line::ok(NAME, "none is kept"),
        Ok(Kind::Sqlite(path)) => file(&path),
        Ok(Kind::Postgres(_)) => database(config).await,
        Err(why) => Line::wrong(NAME, why, ""),
    }
}

/// SQLite writes beside its file too, so the folder must be writable even where the file is there.
fn file(path: &Path) -> Line {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let probe = folder.join(format!(".postrider-check-{}", std::process::id()));
    let tried = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)
        .and_then(|_| fs::remove_file(&probe));
    if let Err(fault) = tried {
        return Line::wrong(
            NAME,
            format!("the folder {} cannot be written: {fault}", folder.display()),
            "make it and give this user the right to write there, or name another in history.store",
        );
    }
    if path.exists()
        && let Err(fault) = OpenOptions::new().write(true).open(path)
    {
        return Line::wrong(
            NAME,
            format!("{} cannot be written: {fault}", path.display()),
            "give this user the right to write it, or name another file in history.store",
        );
    }
    Line::ok(NAME, format!("{} can be written", path.display()))
}

/// The router starts without its database and waits for it, hence no more than a warning.
async fn database(config: &Config) -> Line {
    let asked = async {
        let Some(store) = app::open_store(config)? else {
            return Ok(());
        };
        // The question blocks on a runtime of its own.
        let joined = tokio::task::spawn_blocking(move || store.bytes()).await;
        joined.map_or(Ok(()), |answer| answer.map(|_| ()))
    };
    let answer: Result<(), crate::history::Fault> = asked.await;
    match answer {
        Ok(()) => Line::ok(NAME, "the database answers"),
        Err(fault) => Line::warning(
            NAME,
            fault.to_string(),
            "the router starts without it and waits; check the address, user and password in history.store",
        ),
    }
}
