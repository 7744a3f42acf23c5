//! The history on both databases: the same test body, once on SQLite in a temporary folder and once on a real PostgreSQL.

mod identity;
mod live;
mod queries;
mod tls;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use postrider::history::Store;
use postrider::history::query::{Begin, DeliveryFilter, Scope, Told};
use postrider::history::rows::DeliveryRow;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/postgres.sh");
const SOON: Duration = Duration::from_secs(30);

fn script(action: &str, folder: &std::path::Path) -> String {
    run(Command::new(SCRIPT).arg(action).arg(folder))
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("tests/postgres.sh can be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A PostgreSQL server for one test alone, to be stopped and brought back.
struct OwnServer {
    folder: tempfile::TempDir,
    url: String,
}

impl OwnServer {
    fn start() -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let url = script("start", folder.path());
        Self { folder, url }
    }

    /// One that takes connections by TLS only, with `server.pem` and `server.key` of this folder.
    fn start_with_tls(certificates: &std::path::Path) -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let mut command = Command::new(SCRIPT);
        command.env("POSTGRES_TLS", certificates);
        let url = run(command.arg("start").arg(folder.path()));
        Self { folder, url }
    }

    fn stop(&self) {
        script("stop", self.folder.path());
    }

    fn restart(&self) {
        script("restart", self.folder.path());
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The server that all tests share: `DATABASE_URL`, as `make test` sets it.
fn server() -> String {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => panic!(
            "DATABASE_URL is not set: these tests need a real PostgreSQL. Run `make test`, or `tests/postgres.sh run -- tests/broker.sh run \
             -- cargo test --test it history`"
        ),
    })
    .clone()
}

/// A place for one test's history.
pub struct Base {
    setting: String,
    sqlite: Option<(tempfile::TempDir, PathBuf)>,
    database: Option<String>,
}

fn administer(statement: &str) {
    let statement = statement.to_owned();
    let url = server();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
                .await
                .unwrap();
            tokio::spawn(connection);
            client.batch_execute(&statement).await.unwrap();
        });
    });
    thread.join().unwrap();
}

impl Base {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        Self {
            setting: format!("sqlite:{}", path.display()),
            sqlite: Some((folder, path)),
            database: None,
        }
    }

    fn postgres() -> Self {
        let name = format!("t{}", uuid::Uuid::now_v7().simple());
        administer(&format!("CREATE DATABASE {name}"));
        let server = server();
        let (before, _) = server.rsplit_once('/').unwrap();
        Self {
            setting: format!("{before}/{name}"),
            sqlite: None,
            database: Some(name),
        }
    }

    /// For a router's configuration.
    fn config(&self) -> String {
        format!("history.store = {:?}\n", self.setting)
    }

    fn store(&self) -> Store {
        Store::open(&self.setting.parse().unwrap())
            .unwrap()
            .unwrap()
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        if let Some(name) = &self.database
            && !std::thread::panicking()
        {
            administer(&format!("DROP DATABASE {name} WITH (FORCE)"));
        }
    }
}

/// Everything that a store tells, for comparing.
fn everything(store: &Store) -> Vec<Told> {
    let page = store
        .deliveries(&Scope::All, &DeliveryFilter::default(), &Begin::Newest, 200)
        .unwrap();
    assert_eq!(page.next(), None, "the tests keep to one page");
    let told = |row: DeliveryRow| store.delivery(&Scope::All, &row.id).unwrap().unwrap();
    page.rows.into_iter().map(told).collect()
}

/// Each body as two tests.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&crate::history::Base::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $name() { super::$name(&crate::history::Base::postgres()); })*
        }
    };
}
use on_both;
