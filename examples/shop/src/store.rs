//! Opening a service's SQLite store.

use std::path::Path;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::Error;

/// What a commit promises when the machine loses power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The last commits may be lost, the store stays sound.
    Lazy,
    /// A commit is on disk when it returns.
    Full,
}

/// Opens `NAME.db` in `data_dir` and applies `schema`, which must be harmless when it has been applied before.
///
/// One connection: SQLite has one writer anyway, and a queue in front of it is fairer than its busy handler's sleeps.
pub(crate) async fn open(
    data_dir: &Path,
    name: &str,
    schema: &'static str,
    durability: Durability,
) -> Result<SqlitePool, Error> {
    let path = data_dir.join(format!("{name}.db"));
    let synchronous = match durability {
        Durability::Lazy => SqliteSynchronous::Normal,
        Durability::Full => SqliteSynchronous::Full,
    };
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous);
    let opened = async {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await?;
        sqlx::raw_sql(schema).execute(&pool).await?;
        Ok(pool)
    };
    opened.await.map_err(|source| Error::Store { path, source })
}

/// Whether the store still answers: what an honest health check of its service asks.
pub(crate) async fn answers(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1").execute(pool).await.map(|_| ())
}
