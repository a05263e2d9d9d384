//! `sql`: asks a database.

mod database;

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use toprope_model::target::Pattern;
use toprope_model::{Comparison, KindSpec, Node, Problems, fields, text_type};

use self::database::{Connection, Database, Rows, problem};
use super::expect::{Expect, Found, JsonPath};
use super::kept::Kept;
use super::params::{self, Params, exactly_one};
use super::secret::Secret;
use super::template::{Fill, Template};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};

/// A URL of a database as it stands in a manifest: without a password.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SqlUrl(String);

impl std::str::FromStr for SqlUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if Database::holds_password(text) {
            return Err("it holds a password: give it under `password`, or the URL under `url-from`".into());
        }
        Database::parse(text, None, Path::new("."))?;
        Ok(Self(text.into()))
    }
}

text_type!(SqlUrl, "the URL of a database", "postgres://app@127.0.0.1:5432/shop");

fields! {
    /// Parameters of `sql`.
    struct Sql {
        /// The database: `postgres://user@host:port/database`, `mysql://…` or `sqlite:path`. Without a password.
        url: Option<SqlUrl>,
        /// The same by reference, where it holds a password.
        url_from: Option<Secret>,
        /// The password, by reference.
        password: Option<Secret>,
        /// What is asked. It can only read: it runs in a transaction that writes nothing.
        query: Option<Template>,
        /// A statement that writes, with `{n}` (the number of the sample) and `{run}` (the id of the run) in it.
        write: Option<Template>,
        /// The query that looks for an acknowledged write, for `loses`, with the same `{n}`. It is found if there is a
        /// row: `select 1 from orders where id = {n}`.
        find: Option<Template>,
        /// How many rows there must be; with `write`, how many it must have affected.
        rows: Option<Comparison>,
        /// What the first column of the first row must be, or what `json` finds in it: a comparison or a range. Its
        /// number is then the sample's value, instead of the latency.
        value: Option<Comparison>,
        /// What the first column of the first row, or what `json` finds in it, may be: one of these.
        in_: Vec<Comparison>,
        /// A regular expression that must be found in the first column of the first row, or in what `json` finds in it.
        matches: Option<Pattern>,
        /// Where to look if the first column of the first row is JSON (RFC 9535). If a number is there, it is the
        /// sample's value.
        json: Option<JsonPath>,
        /// Use a connection again. If not, each sample makes a new one, as a new client would.
        keepalive: bool = "false",
    }
}

impl Params for Sql {
    fn verify(&self, node: &Node, problems: &mut Problems) {
        exactly_one(node, &["url", "url-from"], problems);
        exactly_one(node, &["query", "write"], problems);
        let mut wrong = |key: &str, message: &str, label: &str| {
            let span = node.get(key).map_or(node.span, |n| n.span);
            problems.add(span, message, label);
        };
        let texts = [("query", &self.query), ("write", &self.write), ("find", &self.find)];
        for (key, text) in texts.iter().filter_map(|(key, text)| Some((*key, text.as_ref()?))) {
            if database::statement(&text.fill(Fill { run: "run", n: "0" })).is_empty() {
                wrong(key, "there is no statement in it", "empty");
            }
            if text.takes_id() {
                wrong(key, "`{id}` has no meaning here", "name the write by {n}");
            }
        }
        let Some(find) = &self.find else { return };
        if self.write.is_none() {
            wrong("find", "`find` looks for what was written, and this writes nothing", "only with `write`");
        }
        if !find.names_write() {
            wrong("find", "`find` is the same for every write", "{n} is missing in it");
        }
        let text = find.to_string().to_lowercase();
        if text.contains("count(") && !text.contains("having") {
            wrong("find", "a count is always a row, so every write would be found", "select 1 from … where … = {n}");
        }
    }
}

static SPEC: KindSpec = KindSpec {
    kind: "sql",
    summary: "Asks a PostgreSQL, MySQL (MariaDB) or SQLite database and judges the rows.",
    docs: "\
Each sample makes a new connection, login included, as a new client would; `keepalive: true` uses a connection again. The
value of a sample is its latency in milliseconds, unless `value` or `json` reads a number out of the first column of the
first row. Values are judged as the database writes them; booleans of PostgreSQL as `true` and `false`, NULL as `null`.

`query` cannot write: it runs in a read-only transaction (PostgreSQL), in a session that is read-only (MySQL) or on a file
opened for reading (SQLite). `write` runs as it is.

**Good** is any result that is as asked for; **no rows** are good unless `rows`, `value`, `in`, `matches` or `json` asks for
some. **Bad**: an error of the database, a refused or broken connection, a file of SQLite that is missing. **No evidence**:
this host is out of ports, files or memory.

A sample with `write` that was good is an acknowledged write; each is looked for with `find` after the recovery. Placeholders
are put into the text as they are.

TLS is asked for in the URL (`sslmode`, `sslrootcert`; `ssl-mode` and `ssl-ca` for MySQL), as by the databases' own clients.
MySQL's `caching_sha2_password` needs TLS or a socket.

```yaml
- sql: {url-from: {env: DATABASE_URL}, query: select count(*) from jobs where state = 'stuck', value: 0}
- sql:
    url: postgres://app@127.0.0.1:5432/shop
    password: {file: /run/secrets/db}
    write: insert into orders (id) values ('{run}-{n}')
    find: select 1 from orders where id = '{run}-{n}'
    loses: 0
```",
    example: "\
- sql:
    url: postgres://app@127.0.0.1:5432/shop
    query: select 1
    p95: < 50ms
",
    fields: Sql::fields,
    check: params::check::<Sql>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let params: Sql = params::read(params)?;
        let password = params.password.map(|secret| secret.read(context)).transpose()?;
        let database = match (params.url, params.url_from) {
            (Some(SqlUrl(url)), _) => {
                Database::parse(&url, password.as_ref(), &context.directory).map_err(ProbeError)?
            }
            (None, Some(secret)) => {
                let url = secret.read(context)?;
                Database::parse(url.expose(), password.as_ref(), &context.directory)
                    .map_err(|why| ProbeError(format!("{secret} holds no URL of a database: {why}")))?
            }
            (None, None) => return Err(ProbeError::new("`url` or `url-from` is missing")),
        };
        let (text, writes) = match (params.query, params.write) {
            (Some(query), _) => (query, false),
            (None, Some(write)) => (write, true),
            (None, None) => return Err(ProbeError::new("`query` or `write` is missing")),
        };
        Ok(Box::new(SqlProbe {
            database,
            text,
            writes,
            find: params.find,
            rows: params.rows,
            expect: Expect { value: params.value, in_: params.in_, matches: params.matches, json: params.json },
            kept: Kept::new(params.keepalive),
            run: context.run.clone(),
        }))
    }
}

struct SqlProbe {
    database: Database,
    text: Template,
    writes: bool,
    find: Option<Template>,
    rows: Option<Comparison>,
    expect: Expect,
    kept: Kept<Connection>,
    run: String,
}

impl SqlProbe {
    async fn rows(&self, text: &Template, writes: bool, n: &str) -> Result<Rows, Answer> {
        let text = text.fill(Fill { run: &self.run, n });
        let mut connection = match self.kept.take() {
            Some(kept) => kept,
            // Also what looks for a write of this probe may use a connection that can write.
            None => self.database.connect(self.writes).await.map_err(|e| problem("cannot connect", &e))?,
        };
        let rows = if writes { connection.write(&text).await } else { connection.read(&text).await };
        let rows = rows.map_err(|e| problem("the connection broke off", &e))?;
        if let Some(connection) = self.kept.put(connection) {
            connection.close().await;
        }
        Ok(rows)
    }

    async fn ask(&self, number: u64) -> Result<Answer, Answer> {
        let number = number.to_string();
        let rows = self.rows(&self.text, self.writes, &number).await?;
        let found = self.judge(&rows);
        let wrote = (found.bad.is_none() && self.find.is_some()).then_some(number);
        Ok(Answer { bad: found.bad, value: found.value, wrote, ..Answer::good() })
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
    fn judge(&self, rows: &Rows) -> Found {
        let mut found = match &rows.first {
            _ if self.expect.is_empty() => Found::default(),
            Some(first) => self.expect.judge("the first value", first),
            None => Found { bad: Some("there is no row with a value".into()), ..Found::default() },
        };
        if let Some(bound) = self.rows.as_ref().filter(|bound| !bound.holds(rows.count as f64)) {
            let rows = if rows.count == 1 { "1 row".into() } else { format!("{} rows", rows.count) };
            found.bad.get_or_insert_with(|| format!("{rows}, not {bound}"));
        }
        found
    }
}

impl Probe for SqlProbe {
    fn asks(&self) -> String {
        let text: String = self.text.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = text.chars().take(200).collect();
        let rest = if short.len() < text.len() { "…" } else { "" };
        format!("{}{rest} at {}", short.escape_debug(), self.database)
    }

    fn tolerates(&self) -> String {
        let what = if self.writes { "rows affected" } else { "rows" };
        let parts: Vec<String> = self
            .rows
            .iter()
            .map(|bound| format!("{what} {bound}"))
            .chain(self.expect.describe("first value"))
            .collect();
        if parts.is_empty() { "no error".into() } else { parts.join(", ") }
    }

    fn unit(&self) -> &'static str {
        if self.expect.reads_value() { "" } else { "ms" }
    }

    fn sample(self: Arc<Self>, moment: Moment) -> BoxFuture<'static, Answer> {
        Box::pin(async move { self.ask(moment.number).await.unwrap_or_else(|failed| failed) })
    }

    fn find(self: Arc<Self>, written: String) -> BoxFuture<'static, Result<bool, ProbeError>> {
        Box::pin(async move {
            let find = self.find.as_ref().ok_or_else(|| ProbeError::new("`find` is missing: it says how to look"))?;
            let rows = self.rows(find, false, &written).await;
            Ok(rows.map_err(|answer| ProbeError(answer.bad.unwrap_or_default()))?.count > 0)
        })
    }

    fn can_find(&self) -> bool {
        self.find.is_some()
    }
}

#[cfg(test)]
mod tests;
