//! `redis`: sends a command to a Redis.

mod address;
mod resp;

use std::sync::Arc;

use futures::future::BoxFuture;
use toprope_model::target::Pattern;
use toprope_model::{Comparison, KindSpec, Node, Problems, fields};

use self::address::{Address, Credentials, RedisUrl};
use self::resp::{Connection, Reply, Trouble};
use super::blame::failed;
use super::expect::{Expect, Found, JsonPath, shown};
use super::kept::Kept;
use super::params::{self, Params, exactly_one};
use super::secret::Secret;
use super::template::{Fill, Template};
use super::tls::{self, Tls};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};

fields! {
    /// Parameters of `redis`.
    struct Redis {
        /// The server: `redis://host:port/database`, `rediss://` for TLS, `unix:///path` for a socket. Without a password.
        url: Option<RedisUrl>,
        /// The same by reference, where it holds a password.
        url_from: Option<Secret>,
        /// The user, where it is not the default one.
        user: Option<String>,
        /// The password, by reference.
        password: Option<Secret>,
        /// The command that is asked, word by word; `[PING]` if neither this nor `write` is given.
        command: Vec<Template>,
        /// A command that writes, with `{n}` (the number of the sample) in it, for `loses`.
        write: Vec<Template>,
        /// The command that looks for an acknowledged write, with the same `{n}`. Nil, 0 and an empty list are lost,
        /// every other reply is found.
        find: Vec<Template>,
        /// What the reply must be, or what `json` finds in it: a comparison or a range. Its number is then the sample's
        /// value, instead of the latency.
        value: Option<Comparison>,
        /// What the reply, or what `json` finds in it, may be: one of these.
        in_: Vec<Comparison>,
        /// A regular expression that must be found in the reply, or in what `json` finds in it.
        matches: Option<Pattern>,
        /// Where to look in a reply that is JSON or a list (RFC 9535). If a number is there, it is the sample's value.
        json: Option<JsonPath>,
        /// Use a connection again. If not, each sample makes a new one, as a new client would.
        keepalive: bool = "false",
        /// How to speak TLS.
        tls: Option<Tls>,
    }
}

impl Params for Redis {
    fn verify(&self, node: &Node, problems: &mut Problems) {
        exactly_one(node, &["url", "url-from"], problems);
        let mut wrong = |key: &str, message: &str, label: &str| {
            let span = node.get(key).map_or(node.span, |n| n.span);
            problems.add(span, message, label);
        };
        if !self.command.is_empty() && !self.write.is_empty() {
            wrong("write", "`command` and `write` exclude each other", "only one of them");
        }
        if self.find.is_empty() != self.write.is_empty() {
            wrong("find", "`write` and `find` belong together", "one of them is missing");
        } else if !self.write.is_empty() {
            for (key, words) in [("write", &self.write), ("find", &self.find)] {
                if !words.iter().any(Template::names_write) {
                    wrong(key, "every write is the same", "{n} is missing in it");
                }
            }
        }
        if self.command.iter().chain(&self.write).chain(&self.find).any(Template::takes_id) {
            wrong("find", "`{id}` has no meaning here", "name the write by {n}");
        }
    }
}

static SPEC: KindSpec = KindSpec {
    kind: "redis",
    summary: "Sends a command to a Redis (or what speaks its protocol) and judges the reply.",
    docs: "\
Each sample is one command on a new connection, login and choice of the database included, as a new client would make it;
`keepalive: true` uses a connection again. The value of a sample is its latency in milliseconds, unless `value` or `json`
reads a number out of the reply. A list is judged as JSON; nil is judged as the text `nil`. Of a reply, 1 MiB is read.

**Good** is any reply that is no error and that is as asked for. **Bad**: an error of the server (also `LOADING`,
`READONLY`, `NOAUTH`), a refused or broken connection, garbage. **No evidence**: this host is out of ports, files or memory.

A sample with `write` that was good is an acknowledged write; each is looked for with `find` after the recovery.

```yaml
- redis: {url: redis://127.0.0.1:6379, command: [LLEN, jobs], value: < 1000}
- redis:
    url-from: {env: REDIS_URL}
    write: [SET, 'toprope:{run}:{n}', '1', EX, '600']
    find: [EXISTS, 'toprope:{run}:{n}']
    loses: 0
```",
    example: "\
- redis:
    url: redis://127.0.0.1:6379
    command: [PING]
    p95: < 20ms
",
    fields: Redis::fields,
    check: params::check::<Redis>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let params: Redis = params::read(params)?;
        let (mut address, mut credentials) = match (params.url, params.url_from) {
            (Some(RedisUrl(address)), _) => (address, Credentials::default()),
            (None, Some(secret)) => Address::parse(secret.read(context)?.expose())
                .map_err(|why| ProbeError(format!("{secret} holds no URL of a Redis: {why}")))?,
            (None, None) => return Err(ProbeError::new("`url` or `url-from` is missing")),
        };
        credentials.user = params.user.or(credentials.user);
        if let Some(password) = params.password {
            credentials.password = Some(password.read(context)?.expose().to_owned());
        }
        if address.is_tls() {
            address.set_tls(tls::config(params.tls.as_ref(), context)?, params.tls.and_then(|tls| tls.server_name))?;
        }
        let command = [params.command, params.write].concat();
        Ok(Box::new(RedisProbe {
            address,
            credentials,
            command: if command.is_empty() { vec![Template::from("PING")] } else { command },
            find: params.find,
            expect: Expect { value: params.value, in_: params.in_, matches: params.matches, json: params.json },
            kept: Kept::new(params.keepalive),
            run: context.run.clone(),
        }))
    }
}

struct RedisProbe {
    address: Address,
    credentials: Credentials,
    command: Vec<Template>,
    find: Vec<Template>,
    expect: Expect,
    kept: Kept<Connection>,
    run: String,
}

/// The answer of a sample for what went wrong with a connection.
fn troubled(trouble: &Trouble) -> Answer {
    match trouble {
        Trouble::Io(e) => failed("the connection broke off", e),
        Trouble::Garbage(what) => Answer::bad(format!("the reply is not Redis's protocol: {what}")),
        Trouble::TooLong => Answer::bad("the reply is too long"),
    }
}

impl RedisProbe {
    async fn connect(&self) -> Result<Connection, Answer> {
        let stream = self.address.connect().await.map_err(|e| failed("cannot connect", &e))?;
        let mut connection = Connection::new(stream);
        let login = self.credentials.login().into_iter().chain(self.address.select());
        let commands: Vec<Vec<String>> = login.collect();
        let replies = connection.ask_all(&commands).await.map_err(|e| troubled(&e))?;
        for (command, reply) in commands.iter().zip(replies) {
            if let Reply::Error(why) = reply {
                return Err(Answer::bad(format!("{} is refused: {}", command[0], shown(&why))));
            }
        }
        Ok(connection)
    }

    async fn reply(&self, command: &[Template], n: &str) -> Result<Reply, Answer> {
        let fill = Fill { run: &self.run, n };
        let words: Vec<String> = command.iter().map(|word| word.fill(fill).into_owned()).collect();
        let mut connection = match self.kept.take() {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let reply = connection.ask(&words).await.map_err(|e| troubled(&e))?;
        if connection.is_idle() {
            drop(self.kept.put(connection));
        }
        match reply {
            Reply::Error(why) => Err(Answer::bad(format!("the server answers: {}", shown(&why)))),
            reply => Ok(reply),
        }
    }

    async fn ask(&self, number: u64) -> Result<Answer, Answer> {
        let number = number.to_string();
        let reply = self.reply(&self.command, &number).await?;
        let found =
            if self.expect.is_empty() { Found::default() } else { self.expect.judge("the reply", &reply.text()) };
        let wrote = (found.bad.is_none() && !self.find.is_empty()).then_some(number);
        Ok(Answer { bad: found.bad, value: found.value, wrote, ..Answer::good() })
    }
}

impl Probe for RedisProbe {
    fn asks(&self) -> String {
        let words: Vec<String> = self.command.iter().map(ToString::to_string).collect();
        format!("{} at {}", words.join(" ").escape_debug(), self.address)
    }

    fn tolerates(&self) -> String {
        let parts = self.expect.describe("reply");
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
            if self.find.is_empty() {
                return Err(ProbeError::new("`find` is missing: it says how to look"));
            }
            let reply = self.reply(&self.find, &written).await;
            let reply = reply.map_err(|answer| ProbeError(answer.bad.unwrap_or_default()))?;
            Ok(!reply.is_nothing())
        })
    }

    fn can_find(&self) -> bool {
        !self.find.is_empty()
    }
}

#[cfg(test)]
mod tests;
