//! Three kinds of databases, asked in the same way.
//!
//! Statements are sent as text and not prepared: the values then come back as the database writes them, whatever their
//! type, and poolers between client and server need not know of prepared statements.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use futures::{StreamExt, TryStreamExt};
use reqwest::Url;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Either, Executor, Row, TypeInfo, ValueRef};

use crate::probe::Answer;
use crate::probe::blame::failed;
use crate::probe::expect::shown;
use crate::probe::secret::Revealed;

/// A database to connect to.
pub(super) struct Database {
    options: Options,
    /// Its URL without password and parameters.
    shown: String,
}

enum Options {
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
    Sqlite(Box<SqliteConnectOptions>),
}

/// A connection to one.
pub(super) enum Connection {
    Postgres(Box<PgConnection>),
    MySql(Box<MySqlConnection>),
    Sqlite(Box<SqliteConnection>),
}

/// What a statement yields.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// How many rows; of a statement that writes, how many it affected.
    pub(super) count: u64,
    /// The first column of the first row as text.
    pub(super) first: Option<String>,
}

impl Database {
    /// Whether a password stands in a URL.
    pub(super) fn holds_password(url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        url.password().is_some() || url.query_pairs().any(|(key, _)| key.contains("password"))
    }

    /// Reads a URL; paths of SQLite files begin in `directory`. The errors do not repeat it.
    pub(super) fn parse(url: &str, password: Option<&Revealed>, directory: &Path) -> Result<Self, String> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let invalid = |e: sqlx::Error| match e {
            sqlx::Error::Configuration(why) => why.to_string(),
            other => other.to_string(),
        };
        let options = match scheme {
            "postgres" | "postgresql" => {
                let options = PgConnectOptions::from_str(url).map_err(invalid)?.disable_statement_logging();
                // Poolers such as PgBouncer refuse a connection that asks for `extra_float_digits`.
                let options = options.application_name("toprope").extra_float_digits(None);
                Options::Postgres(Box::new(match password {
                    Some(password) => options.password(password.expose()),
                    None => options,
                }))
            }
            "mysql" | "mariadb" => {
                let options = MySqlConnectOptions::from_str(url).map_err(invalid)?.disable_statement_logging();
                Options::MySql(Box::new(match password {
                    Some(password) => options.password(password.expose()),
                    None => options,
                }))
            }
            "sqlite" => {
                let options = SqliteConnectOptions::from_str(url).map_err(invalid)?.disable_statement_logging();
                let path = directory.join(options.get_filename());
                Options::Sqlite(Box::new(options.filename(path).create_if_missing(false)))
            }
            _ => return Err("it begins neither with postgres:// nor with mysql:// nor with sqlite:".into()),
        };
        Ok(Self { options, shown: without_secrets(url) })
    }

    /// Connects; for reading only unless `writes`.
    pub(super) async fn connect(&self, writes: bool) -> sqlx::Result<Connection> {
        Ok(match &self.options {
            Options::Postgres(options) => Connection::Postgres(Box::new(options.connect().await?)),
            Options::MySql(options) => Connection::MySql(Box::new(options.connect().await?)),
            Options::Sqlite(options) => {
                Connection::Sqlite(Box::new(options.as_ref().clone().read_only(!writes).connect().await?))
            }
        })
    }
}

/// The URL as it may be shown.
fn without_secrets(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    match Url::parse(plain) {
        Ok(mut url) if url.password().is_some() => {
            // It cannot fail for a URL that has one.
            let _ = url.set_password(None);
            url.to_string()
        }
        _ => plain.to_owned(),
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A statement without what ends it, so that another can follow.
pub(super) fn statement(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == ';')
}

impl Connection {
    /// Asks; nothing can be written.
    pub(super) async fn read(&mut self, sql: &str) -> sqlx::Result<Rows> {
        let sql = statement(sql);
        // One message for all three statements; the line's end closes a comment in the one in the middle.
        match self {
            Self::Postgres(connection) => {
                let sql = format!("BEGIN READ ONLY; {sql}\n; COMMIT");
                rows(connection.as_mut(), sql, first_of_postgres).await
            }
            Self::MySql(connection) => {
                // In a transaction of MariaDB, what changes a table's form would first commit it, and then be done.
                let sql = format!("SET SESSION TRANSACTION READ ONLY; {sql}\n; SET SESSION TRANSACTION READ WRITE");
                rows(connection.as_mut(), sql, first_of_mysql).await
            }
            Self::Sqlite(connection) => rows(connection.as_mut(), sql.to_owned(), first_of_sqlite).await,
        }
        .map(|(rows, _)| rows)
    }

    /// Writes. What it yields (`returning`) is its value; the count is that of the rows it affected.
    pub(super) async fn write(&mut self, sql: &str) -> sqlx::Result<Rows> {
        let sql = statement(sql).to_owned();
        let (rows, affected) = match self {
            Self::Postgres(connection) => rows(connection.as_mut(), sql, first_of_postgres).await?,
            Self::MySql(connection) => rows(connection.as_mut(), sql, first_of_mysql).await?,
            Self::Sqlite(connection) => rows(connection.as_mut(), sql, first_of_sqlite).await?,
        };
        Ok(Rows { count: affected, ..rows })
    }

    /// Says goodbye, which spares the server a complaint in its log.
    pub(super) async fn close(self) {
        // The sample has its answer.
        let _ = match self {
            Self::Postgres(connection) => connection.close().await,
            Self::MySql(connection) => connection.close().await,
            Self::Sqlite(connection) => connection.close().await,
        };
    }
}

/// What a statement's result says about affected rows.
trait Affected {
    fn affected(&self) -> u64;
}

macro_rules! affected {
    ($($result:ty),*) => {$(
        impl Affected for $result {
            fn affected(&self) -> u64 {
                self.rows_affected()
            }
        }
    )*};
}
affected!(sqlx::postgres::PgQueryResult, sqlx::mysql::MySqlQueryResult, sqlx::sqlite::SqliteQueryResult);

/// Counts rows without keeping them, and the rows that were affected.
async fn rows<'c, E, DB>(executor: E, sql: String, first: fn(&DB::Row) -> Option<String>) -> sqlx::Result<(Rows, u64)>
where
    DB: sqlx::Database<QueryResult: Affected>,
    E: Executor<'c, Database = DB>,
{
    // The statement is the manifest's, which the user wrote to be executed.
    let mut results = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(executor).boxed();
    let (mut rows, mut affected) = (Rows::default(), 0);
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Left(result) => affected += result.affected(),
            Either::Right(row) => {
                if rows.count == 0 {
                    rows.first = first(&row);
                }
                rows.count += 1;
            }
        }
    }
    Ok((rows, affected))
}

const NULL: &str = "null";

fn first_of_postgres(row: &PgRow) -> Option<String> {
    let value = row.try_get_raw(0).ok()?;
    if value.is_null() {
        return Some(NULL.into());
    }
    let text = String::from_utf8_lossy(value.as_bytes().ok()?).into_owned();
    Some(match (value.type_info().name(), text.as_str()) {
        ("BOOL", "t") => "true".into(),
        ("BOOL", "f") => "false".into(),
        _ => text,
    })
}

fn first_of_mysql(row: &MySqlRow) -> Option<String> {
    let value: Option<Vec<u8>> = row.try_get_unchecked(0).ok()?;
    Some(value.map_or_else(|| NULL.into(), |bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn first_of_sqlite(row: &SqliteRow) -> Option<String> {
    let value: Option<String> = row.try_get_unchecked(0).ok()?;
    Some(value.unwrap_or_else(|| NULL.into()))
}

/// The answer of a sample for an error.
pub(super) fn problem(what: &str, error: &sqlx::Error) -> Answer {
    match error {
        sqlx::Error::Database(e) => {
            let code = e.code().map(|code| format!(" ({code})")).unwrap_or_default();
            Answer::bad(format!("the database answers: {}{code}", shown(e.message())))
        }
        other => failed(what, other),
    }
}
