//! PostgreSQL: one database that several instances share, by one pool of connections.
//!
//! The pool lives on a runtime of its own, so that the history blocks like SQLite does and nothing of it runs on the threads that
//! deliver. Connections that broke are replaced by the pool; the caller tries again.

use std::error::Error as _;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime as Timers};
use futures_util::future::try_join_all;
use tokio::runtime::Runtime;
use tokio_postgres::Config;
use tokio_postgres::types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked};

use super::Fault;
use super::database::{Database, Row, Statement, Value};
use super::tls::{self, Tls};

const POOL_SIZE: usize = 4;
const WAIT: Duration = Duration::from_secs(10);
/// The database ends a statement after this, so that a lock cannot stop the writer for ever.
const STATEMENT_TIMEOUT_MS: u64 = 60_000;
/// Two instances that make the tables at once would meet in the catalog of PostgreSQL; the number is ours by chance.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7305790104)";

pub(super) struct Postgres {
    pool: Pool,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A runtime must not be dropped where it would have to wait, as in an async program it may.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Parameter<'a> = &'a (dyn ToSql + Sync);

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(number) => number.to_sql(kind, out),
            Self::Real(number) => number.to_sql(kind, out),
            Self::Text(text) => text.as_ref().to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::INT8 | Type::FLOAT8 | Type::TEXT)
    }

    to_sql_checked!();
}

/// The error with its causes: tokio-postgres says only "db error" by itself.
fn fault(error: &tokio_postgres::Error) -> Fault {
    let cause = error.as_db_error().map_or_else(
        || {
            error
                .source()
                .map(|source| tls::distrust(source).unwrap_or_else(|| source.to_string()))
        },
        |known| Some(known.message().to_owned()),
    );
    Fault::Postgres(cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")))
}

impl Postgres {
    /// A pool for the database of this URL. Nothing is connected yet.
    pub(super) fn new(url: &str) -> Result<Self, Fault> {
        let (url, demands) = tls::Demands::of(url)?;
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            Fault::Setting(format!(
                "it is no URL of PostgreSQL ({error}); write postgres://user:password@host:5432/database"
            ))
        })?;
        config.ssl_mode(demands.mode);
        config.application_name("postrider").connect_timeout(WAIT);
        let options = format!(
            "{} -c statement_timeout={STATEMENT_TIMEOUT_MS}",
            config.get_options().unwrap_or_default()
        );
        config.options(options.trim());
        let manager = Manager::from_config(
            config,
            Tls::new(&demands)?,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(POOL_SIZE)
            .runtime(Timers::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .build()
            .map_err(|error| Fault::Postgres(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("history-postgres")
            .enable_all()
            .build()
            .map_err(|error| Fault::Postgres(format!("could not start a thread: {error}")))?;
        Ok(Self {
            pool,
            runtime: Some(runtime),
        })
    }

    /// Runs on the pool's own runtime, and waits here.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Fault>> + Send + 'static,
    ) -> Result<T, Fault> {
        let gone = || Fault::Postgres("its runtime has ended".to_owned());
        let runtime = self.runtime.as_ref().ok_or_else(gone)?;
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move {
            // Whoever asked may have gone.
            let _ = tell.send(work.await);
        });
        told.recv().map_err(|_| gone())?
    }
}

async fn connected(pool: Pool) -> Result<Object, Fault> {
    use deadpool_postgres::PoolError;
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) => fault(&error),
        other => Fault::Postgres(other.to_string()),
    })
}

fn parameters<'a>(values: &'a [Value<'a>]) -> Vec<Parameter<'a>> {
    values.iter().map(|value| value as Parameter<'_>).collect()
}

impl Database for Postgres {
    fn write(&self, statements: &[Statement]) -> Result<u64, Fault> {
        let pool = self.pool.clone();
        let statements: Vec<Statement> = statements.iter().map(Statement::owned).collect();
        self.wait(async move {
            let mut client = connected(pool).await?;
            let transaction = client.transaction().await.map_err(|error| fault(&error))?;
            let mut prepared = Vec::with_capacity(statements.len());
            for statement in &statements {
                let made = transaction.prepare_cached(&statement.text).await;
                prepared.push(made.map_err(|error| fault(&error))?);
            }
            let values: Vec<_> = statements
                .iter()
                .map(|statement| parameters(&statement.parameters))
                .collect();
            // All at once: sent in this order, executed in this order, without waiting for each answer.
            let running = prepared
                .iter()
                .zip(&values)
                .map(|(prepared, values)| transaction.execute(prepared, values));
            let changed = try_join_all(running).await.map_err(|error| fault(&error))?;
            transaction.commit().await.map_err(|error| fault(&error))?;
            Ok(changed.last().copied().unwrap_or(0))
        })
    }

    fn define(&self, statements: &str) -> Result<(), Fault> {
        let pool = self.pool.clone();
        let statements = format!(
            "BEGIN; {LOCK}; {}; COMMIT",
            statements.replace("{suffix}", "")
        );
        self.wait(async move {
            let client = connected(pool).await?;
            let made = client.batch_execute(&statements).await;
            if made.is_err() {
                let _ = client.batch_execute("ROLLBACK").await;
            }
            made.map_err(|error| fault(&error))
        })
    }

    fn read(&self, text: &str, values: &[Value]) -> Result<Vec<Row>, Fault> {
        let pool = self.pool.clone();
        let text = text.to_owned();
        let values: Vec<Value> = values.iter().map(Value::owned).collect();
        self.wait(async move {
            let client = connected(pool).await?;
            let prepared = client
                .prepare_cached(&text)
                .await
                .map_err(|error| fault(&error))?;
            let rows = client
                .query(&prepared, &parameters(&values))
                .await
                .map_err(|error| fault(&error))?;
            rows.iter().map(row_of).collect()
        })
    }

    fn bytes(&self) -> Result<i64, Fault> {
        let mut rows = self.read(
            "SELECT CAST(sum(pg_total_relation_size(oid)) AS BIGINT) FROM pg_class
             WHERE relkind = 'r' AND relname LIKE 'postrider\\_%' AND pg_table_is_visible(oid)",
            &[],
        )?;
        rows.pop().map_or(Ok(0), |mut row| row.number())
    }

    fn compact(&self) -> Result<(), Fault> {
        // Autovacuum does it.
        Ok(())
    }
}

fn row_of(row: &tokio_postgres::Row) -> Result<Row, Fault> {
    let mut values = Vec::with_capacity(row.len());
    for (index, column) in row.columns().iter().enumerate() {
        let value = match *column.type_() {
            Type::INT8 => row
                .try_get::<_, Option<i64>>(index)
                .map(|number| number.map_or(Value::Null, Value::Integer)),
            Type::INT4 => row
                .try_get::<_, Option<i32>>(index)
                .map(|number| number.map_or(Value::Null, |number| Value::Integer(number.into()))),
            Type::FLOAT8 => row
                .try_get::<_, Option<f64>>(index)
                .map(|number| number.map_or(Value::Null, Value::Real)),
            _ => row
                .try_get::<_, Option<String>>(index)
                .map(|text| text.map_or(Value::Null, |text| Value::Text(text.into()))),
        };
        values.push(value.map_err(|error| fault(&error))?);
    }
    Ok(Row(values.into_iter()))
}
