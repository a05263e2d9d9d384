//! `command`: runs a program.

mod output;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use toprope_model::target::Pattern;
use toprope_model::{Comparison, KindSpec, Node, Problems, fields};
use toprope_os::spawn::Spawn;
use toprope_os::user::{Identity, User};

use self::output::{Ended, MAX_OUTPUT, Stopped, run};
use super::expect::{Expect, JsonPath, shown};
use super::params::{self, Params};
use super::secret::{Revealed, Secret, redact};
use super::template::{Fill, Template};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};

fields! {
    /// Parameters of `command`.
    struct Command {
        /// The program and its arguments, each as it is: no shell reads them. For a shell, write `[sh, -c, 'a | b']`. In
        /// them, `{n}` is the number of the sample, from 0, and `{run}` the id of the run.
        run: Vec<Template>,
        /// The exit status that is good; 0 if neither this nor `exits` is given.
        exit: Option<i32>,
        /// The exit statuses that are good.
        exits: Vec<i32>,
        /// What it must print, or what `json` finds in that: a comparison or a range. Its number is then the sample's
        /// value, instead of the time that it took.
        value: Option<Comparison>,
        /// What it, or what `json` finds in that, may be: one of these.
        in_: Vec<Comparison>,
        /// A regular expression that must be found in what it prints, or in what `json` finds there.
        matches: Option<Pattern>,
        /// Where in printed JSON to look (RFC 9535). If a number is there, it is the sample's value.
        json: Option<JsonPath>,
        /// A regular expression that must be found in what it prints to standard error.
        stderr_matches: Option<Pattern>,
        /// Variables of its environment, beside those of this process.
        env: BTreeMap<String, String>,
        /// Variables whose values are secrets, each by reference.
        secret_env: BTreeMap<String, Secret>,
        /// Let what it prints through to this process's standard error as it comes, without a limit; its last part is
        /// kept for the judgement. For a test suite.
        show: bool = "false",
        /// Where it runs; where the run was started, if this is not given.
        directory: Option<String>,
        /// Makes `run` a write: the program, with `{n}` in its arguments, that looks for an acknowledged write, for
        /// `loses`. Exit status 0 is found, 1 is lost.
        find: Vec<Template>,
    }
}

impl Params for Command {
    fn verify(&self, node: &Node, problems: &mut Problems) {
        let mut wrong = |key: &str, message: &str, label: &str| {
            let span = node.get(key).map_or(node.span, |n| n.span);
            problems.add(span, message, label);
        };
        if self.run.first().is_none_or(|program| program.fill(Fill { run: "", n: "" }).is_empty()) {
            wrong("run", "there is no program to run", "write [PROGRAM, ARGUMENT, …]");
        }
        if self.exit.is_some() && !self.exits.is_empty() {
            wrong("exits", "`exit` and `exits` exclude each other", "only one of them");
        }
        if !self.find.is_empty() && !self.find.iter().any(Template::names_write) {
            wrong("find", "`find` is the same for every write", "{n} is in none of its arguments");
        }
        if self.run.iter().chain(&self.find).any(Template::takes_id) {
            wrong("find", "`{id}` has no meaning here", "name the write by {n}");
        }
    }
}

static SPEC: KindSpec = KindSpec {
    kind: "command",
    summary: "Runs a program and judges its exit status and what it prints.",
    docs: "\
The program runs as the user who started the run, in a session of its own, with nothing on standard input. When the sample
ends, all that it started and that did not leave its process group is killed with it, as it is when the sample takes longer
than `timeout`.

The value of a sample is the time that it took in milliseconds, unless `value` or `json` reads a number out of what it
printed to standard output. Secrets in `secret-env` are blotted out of what is shown.

**Good** is exit status 0 (or one that `exit` or `exits` names) and output as asked for. **Bad**: another status, a signal,
more than 1 MiB of output (unless `show` lets it through), upon which it is killed. **No evidence**: the program is missing or cannot be started.

```yaml
- command: {run: [pg_isready, -h, 127.0.0.1], exit: 0}
- command: {run: [sh, -c, 'df --output=pcent /data | tail -1 | tr -d %'], value: < 90}
- command:
    run: [./order, --create, '{run}-{n}']
    find: [./order, --exists, '{run}-{n}']
    loses: 0
```",
    example: "\
- command:
    run: [redis-cli, -h, 127.0.0.1, ping]
    matches: ^PONG$
",
    fields: Command::fields,
    check: params::check::<Command>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let params: Command = params::read(params)?;
        let mut environment = params.env;
        let mut secrets = Vec::new();
        for (name, secret) in params.secret_env {
            let secret = secret.read(context)?;
            environment.insert(name, secret.expose().to_owned());
            secrets.push(secret);
        }
        let exits: Vec<i32> = params.exit.into_iter().chain(params.exits).collect();
        Ok(Box::new(CommandProbe {
            run: params.run,
            find: params.find,
            exits: if exits.is_empty() { vec![0] } else { exits },
            expect: Expect { value: params.value, in_: params.in_, matches: params.matches, json: params.json },
            stderr_matches: params.stderr_matches,
            environment,
            secrets,
            directory: params.directory.map_or_else(|| context.directory.clone(), |d| context.directory.join(d)),
            identity: context.invoking_user.filter(|uid| !is_me(*uid)).map(identity).transpose()?,
            run_id: context.run.clone(),
            show: params.show,
        }))
    }
}

/// Whether this process is that user already, as under sudo, where the run became the invoking user: then there is
/// nobody to become, and no right to.
fn is_me(uid: u32) -> bool {
    Identity::current().is_ok_and(|me| me.uid == uid)
}

/// The user with their groups. A number that has no name, as in a container, has itself as its group.
fn identity(uid: u32) -> Result<Identity, ProbeError> {
    let cannot = |e| ProbeError(format!("commands cannot be run as user {uid}: {e}"));
    match User::by_uid(uid).map_err(cannot)? {
        Some(user) => user.identity().map_err(cannot),
        None => Ok(Identity { uid, gid: uid, groups: vec![] }),
    }
}

struct CommandProbe {
    run: Vec<Template>,
    find: Vec<Template>,
    exits: Vec<i32>,
    expect: Expect,
    stderr_matches: Option<Pattern>,
    environment: BTreeMap<String, String>,
    secrets: Vec<Revealed>,
    directory: PathBuf,
    identity: Option<Identity>,
    run_id: String,
    show: bool,
}

impl CommandProbe {
    /// What is started. Nothing of it is kept for the next one.
    fn spawn(&self, command: &[Template], n: &str) -> Spawn {
        let mut words = command.iter().map(|word| word.fill(Fill { run: &self.run_id, n }).into_owned());
        let program = words.next().expect("a command without a program is refused");
        let mut spawn = Spawn::new(program).args(words).directory(&self.directory);
        for (name, value) in &self.environment {
            spawn = spawn.variable(name, value);
        }
        match &self.identity {
            Some(identity) => spawn.identity(identity.clone()),
            None => spawn,
        }
    }

    async fn ask(&self, number: u64) -> Answer {
        let number = number.to_string();
        let ended = match run(self.spawn(&self.run, &number), self.show).await {
            Ok(ended) => ended,
            Err(Stopped::NotStarted(why)) => return Answer::broken(why),
            Err(Stopped::Flood) => {
                return Answer::bad(format!("it printed more than {MAX_OUTPUT} bytes, and was killed"));
            }
        };
        let mut answer = self.judge(&ended);
        answer.wrote = (answer.bad.is_none() && !self.find.is_empty()).then_some(number);
        answer.bad = answer.bad.map(|why| redact(&self.secrets, why));
        answer
    }

    fn judge(&self, ended: &Ended) -> Answer {
        let said = || match ended.stderr.trim().lines().last() {
            Some(last) => format!("; the last it said: {}", shown(last)),
            None => String::new(),
        };
        match ended.exit {
            Some(code) if self.exits.contains(&code) => {}
            Some(code) => return Answer::bad(format!("exit status {code}, not {}{}", self.exits_in_words(), said())),
            None => return Answer::bad(format!("{}{}", ended.how, said())),
        }
        let found = self.expect.judge("stdout", &ended.stdout);
        let stderr = self.stderr_matches.as_ref().filter(|pattern| !pattern.0.is_match(&ended.stderr));
        let stderr =
            stderr.map(|pattern| format!("stderr is {}, which does not match /{pattern}/", shown(&ended.stderr)));
        Answer { bad: found.bad.or(stderr), value: found.value, ..Answer::good() }
    }

    fn exits_in_words(&self) -> String {
        self.exits.iter().map(i32::to_string).collect::<Vec<_>>().join(" or ")
    }

    async fn look_for(&self, written: &str) -> Result<bool, ProbeError> {
        if self.find.is_empty() {
            return Err(ProbeError::new("`find` is missing: it says how to look"));
        }
        match run(self.spawn(&self.find, written), false).await {
            Ok(Ended { exit: Some(0), .. }) => Ok(true),
            Ok(Ended { exit: Some(1), .. }) => Ok(false),
            Ok(ended) => Err(ProbeError(format!("`find` says neither 0 (found) nor 1 (lost): {}", ended.how))),
            Err(Stopped::NotStarted(why)) => Err(ProbeError(why)),
            Err(Stopped::Flood) => Err(ProbeError(format!("`find` printed more than {MAX_OUTPUT} bytes"))),
        }
    }
}

impl Probe for CommandProbe {
    fn asks(&self) -> String {
        let word = |word: &Template| {
            let text = word.to_string();
            let plain =
                !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "'\"".contains(c));
            if plain { text } else { format!("{text:?}") }
        };
        let words: Vec<String> = self.run.iter().map(word).collect();
        let text = words.join(" ");
        if text.chars().count() > 200 { format!("{}…", text.chars().take(200).collect::<String>()) } else { text }
    }

    fn tolerates(&self) -> String {
        std::iter::once(format!("exit status {}", self.exits_in_words()))
            .chain(self.expect.describe("stdout"))
            .chain(self.stderr_matches.as_ref().map(|pattern| format!("stderr matches /{pattern}/")))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn unit(&self) -> &'static str {
        if self.expect.reads_value() { "" } else { "ms" }
    }

    fn sample(self: Arc<Self>, moment: Moment) -> BoxFuture<'static, Answer> {
        Box::pin(async move { self.ask(moment.number).await })
    }

    fn find(self: Arc<Self>, written: String) -> BoxFuture<'static, Result<bool, ProbeError>> {
        Box::pin(async move { self.look_for(&written).await })
    }

    fn can_find(&self) -> bool {
        !self.find.is_empty()
    }
}

#[cfg(test)]
mod tests;
