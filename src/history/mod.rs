//! Stage 5, what happened: a view of the topics of attempts, dead letters and held deliveries, in a database that can be asked.
//!
//! In: rows that were read from those topics, with the places they were read at. Out: lists, one delivery with its attempts,
//! statistics. The topics stay the truth: the view can be deleted and read again (`postrider history rebuild`). Promise 7 (no tenant
//! sees another's data) is kept by [`Scope`], without which nothing can be asked.
//!
//! All calls block and belong on a thread that may; in an async program use `spawn_blocking`.

mod database;
mod delivery_queries;
mod postgres;
pub mod query;
pub mod rows;
mod schema;
mod sqlite;
pub mod store;
mod tls;
pub mod view;
pub mod webhook_queries;

pub use query::Scope;
pub use store::Store;

/// Our faults with the database. None of them ends the process: the writer tries again, and a question is answered with the fault.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// SQLite refused.
    #[error("the history in {file}: {fault}; check the folder's permissions and free space")]
    Sqlite {
        file: String,
        fault: rusqlite::Error,
    },
    /// PostgreSQL refused or is away.
    #[error("the history in PostgreSQL: {0}")]
    Postgres(String),
    /// The setting does not name a store.
    #[error("history.store: {0}")]
    Setting(String),
    /// The view has another form than this version writes.
    #[error(
        "the history has the form {found} and this version writes {wanted}; make it anew with `postrider history rebuild`"
    )]
    Form { found: i64, wanted: i64 },
    /// A row that this program cannot have written.
    #[error(
        "a row of the history cannot be read: {0}; make it anew with `postrider history rebuild`"
    )]
    Row(&'static str),
}
