//! A command of Toprope in the sandbox, with a person at its terminal where it needs one.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use super::super::sandbox::{GROUP, HOME, Inside, OUT, WORK, toprope_inside};
use super::super::scenario::Stage;

/// Writes a manifest; returns its path.
///
/// # Errors
/// It cannot be written.
pub(super) fn manifest(name: &str, method: &str, time: &str) -> Result<String, String> {
    let path = format!("{WORK}/{name}.yaml");
    let method = method.replace("{for}", time);
    let text = format!(
        "apiVersion: toprope.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: {name}}}\nspec:\n  \
         hypothesis: nothing is left\n  \
         probes:\n  - command: {{run: ['true'], interval: 100ms}}\n  \
         steady-state: {{for: 100ms}}\n  recovery: {{within: 2s}}\n  method:\n  - {method}\n"
    );
    fs::write(&path, text).map_err(|e| format!("{path}: {e}"))?;
    Ok(path)
}

/// What a command printed.
pub(super) fn read_back(name: &str) -> String {
    let bytes = fs::read(format!("{OUT}/{name}.txt")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A command that was started.
pub(super) struct Job {
    name: String,
    child: Child,
    code: Option<Option<i32>>,
    person: Option<Person>,
}

impl Job {
    /// Starts a command inside, in a control group that can be killed as a whole.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(inside: &Inside, stage: &Stage, args: &[&str], name: &str) -> Result<Self, String> {
        let cannot = |e: std::io::Error| format!("`toprope {}` cannot be started: {e}", args.join(" "));
        let out = File::create(format!("{OUT}/{name}.txt")).map_err(cannot)?;
        let mut words: Vec<&str> = stage.wrap.iter().map(String::as_str).collect();
        let toprope = toprope_inside().map_err(cannot)?.display().to_string();
        words.push(&toprope);
        words.extend(args);
        let joined = words.join(" ");
        let mut command = inside.command("sh");
        let join = if Path::new(GROUP).is_dir() { format!("echo $$ >{GROUP}/cgroup.procs; ") } else { String::new() };
        if stage.person {
            // A terminal of its own, which is all that script(1) is for.
            command.args(["-c", &format!("{join}exec script --quiet --flush --return --command '{joined}' /dev/null")]);
            command.stdin(Stdio::piped());
        } else {
            command.args(["-c", &format!("{join}exec {joined}")]);
        }
        command.env("TOPROPE_HOME", HOME).env("NO_COLOR", "1").env("TERM", "dumb");
        command.stdout(out.try_clone().map_err(cannot)?).stderr(out);
        let mut child = command.spawn().map_err(cannot)?;
        let person = child.stdin.take().map(|answers| Person { answers, heard: 0 });
        Ok(Self { name: name.to_owned(), child, code: None, person })
    }

    /// Whether it has ended. Until then, the person does what they are asked for.
    pub(super) fn poll(&mut self) -> bool {
        if self.code.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.code = Some(status.code());
        }
        if let Some(person) = &mut self.person
            && self.code.is_none()
        {
            person.listen(&read_back(&self.name));
        }
        self.code.is_some()
    }

    /// Waits for its end; kills it after some time.
    pub(super) fn end(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        while !self.poll() {
            if Instant::now() > until {
                // Its carrier: whoever is inside shows up as a process that is left.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What is wrong, unless it ended with this code.
    pub(super) fn unless_ended_with(&self, code: i32) -> Option<String> {
        (self.code != Some(Some(code))).then(|| self.how_it_ended())
    }

    /// How it ended, and what it said.
    pub(super) fn how_it_ended(&self) -> String {
        let how = match self.code {
            None => "does not end".to_owned(),
            Some(None) => "was killed".to_owned(),
            Some(Some(code)) => format!("ended with {code}"),
        };
        format!("{how}: {}", read_back(&self.name).trim())
    }
}

/// A person at the terminal, who makes a flag and removes it.
struct Person {
    answers: ChildStdin,
    heard: usize,
}

impl Person {
    fn listen(&mut self, said: &str) {
        let questions: Vec<&str> =
            said.lines().filter_map(|line| line.split_once("do this by hand: ")).map(|q| q.1).collect();
        let flag = format!("{WORK}/flag");
        for question in questions.iter().skip(self.heard) {
            let done = match question.trim() {
                "Make the flag" => fs::write(&flag, ""),
                _ => fs::remove_file(&flag)
                    .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) }),
            };
            // Who asked may be gone by now.
            let _ = done.and_then(|()| self.answers.write_all(b"y\n"));
        }
        self.heard = questions.len();
    }
}
