//! SQLite: one file beside the program, one connection that writes and as many as are wanted that read, which WAL lets happen
//! at the same time (<https://sqlite.org/wal.html>). `synchronous=NORMAL` can lose the newest transactions when the
//! machine dies; positions go with their rows, so those are read again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

use super::Fault;
use super::database::{Database, Row, Statement, Value};

/// How long a statement waits for another process (the command line) that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections that are kept for questions.
const MOST_IDLE_READERS: usize = 4;

pub(super) struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl Sqlite {
    /// Opens the file, and makes it where it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let writer = connect(path)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::default(),
        })
    }

    fn fault(&self) -> impl Fn(rusqlite::Error) -> Fault {
        fault_in(&self.path)
    }
}

fn fault_in(path: &Path) -> impl Fn(rusqlite::Error) -> Fault {
    let file = path.display().to_string();
    move |fault| Fault::Sqlite {
        file: file.clone(),
        fault,
    }
}

fn connect(path: &Path) -> Result<Connection, Fault> {
    let set_up = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // These two have an effect on a new file only. Larger pages are split less often and make flatter trees.
        connection.pragma_update(None, "page_size", 8192)?;
        // Without it a smaller file would need a VACUUM, which copies everything.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        // 64 MiB of pages: what the newest deliveries' trees need, not the whole file.
        connection.pragma_update(None, "cache_size", -65_536)?;
        // 64 MiB of log: a page that changes with every batch is then copied into the file once in many.
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 8192, |_| Ok(()))?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    };
    set_up().map_err(fault_in(path))
}

impl Database for Sqlite {
    fn write(&self, statements: &[Statement]) -> Result<u64, Fault> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut run = || {
            let transaction =
                writer.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let mut changed = 0;
            // Those of one text stand together: to look a long statement up costs as much as to run it.
            for run in statements.chunk_by(|one, next| one.text.as_ptr() == next.text.as_ptr()) {
                let Some(first) = run.first() else { continue };
                let mut prepared = transaction.prepare_cached(&first.text)?;
                for statement in run {
                    changed = prepared.execute(params_from_iter(&statement.parameters))?;
                }
            }
            transaction.commit()?;
            Ok(changed)
        };
        let changed = run().map_err(self.fault())?;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }

    fn define(&self, statements: &str) -> Result<(), Fault> {
        let statements = statements.replace("{suffix}", "WITHOUT ROWID");
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.execute_batch(&statements).map_err(self.fault())
    }

    fn read(&self, text: &str, parameters: &[Value]) -> Result<Vec<Row>, Fault> {
        let idle = self
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let reader = idle.map_or_else(|| connect(&self.path), Ok)?;
        let rows = rows_of(&reader, text, parameters).map_err(self.fault())?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < MOST_IDLE_READERS {
            readers.push(reader);
        }
        Ok(rows)
    }

    fn bytes(&self) -> Result<i64, Fault> {
        // What is in the write-ahead log too, for that is where new rows are first.
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
        Ok(i64::try_from(size(&self.path) + size(Path::new(&log))).unwrap_or(i64::MAX))
    }

    fn compact(&self) -> Result<(), Fault> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Each step of the statement gives back one page, so it is stepped to its end; 2,000 pages are 8 MB.
        let run = || {
            let mut statement = writer.prepare("PRAGMA incremental_vacuum(2000)")?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        run().map_err(self.fault())
    }
}

fn rows_of(
    reader: &Connection,
    text: &str,
    parameters: &[Value],
) -> Result<Vec<Row>, rusqlite::Error> {
    let mut statement = reader.prepare_cached(text)?;
    let columns = statement.column_count();
    let mut rows = statement.query(params_from_iter(parameters))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(columns);
        for column in 0..columns {
            values.push(match row.get_ref(column)? {
                ValueRef::Null | ValueRef::Blob(_) => Value::Null,
                ValueRef::Integer(number) => Value::Integer(number),
                ValueRef::Real(number) => Value::Real(number),
                ValueRef::Text(text) => {
                    Value::Text(String::from_utf8_lossy(text).into_owned().into())
                }
            });
        }
        found.push(Row(values.into_iter()));
    }
    Ok(found)
}
