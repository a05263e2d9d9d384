//! `toprope report` and `toprope replay`

use std::path::{Path, PathBuf};

use toprope_engine::log::{FILE, Log};
use toprope_engine::report::Suite;
use toprope_engine::run::Finished;
use toprope_engine::signature;

use crate::args::{Form, OutputArgs, ReplayArgs, ReportArgs};
use crate::invocation::{Failure, state};
use crate::show;

/// Renders the report of a run, or checks or signs its log.
pub fn report(args: &ReportArgs) -> Result<u8, Failure> {
    let path = log_of(&args.run)?;
    let log = read(&path)?;
    if let Some(key) = &args.sign {
        return sign(&path, &log, key);
    }
    if args.verify {
        return verify(&path, &log, args.key.as_deref());
    }
    give(&render(&log, args.form)?, args.output.as_deref())
}

fn verify(path: &Path, log: &Log, key: Option<&Path>) -> Result<u8, Failure> {
    let (events, head) = (log.records.len(), &log.head);
    if !log.is_closed() {
        // What was cut off at its end cannot be told from what was never written.
        show::line(&format!(
            "the log is as it was written as far as it goes, and has no end: {events} events, hash {head}; its run is still going on, was killed, or the end is missing"
        ));
        return Ok(3);
    }
    let signed = match key {
        Some(key) => {
            signature::check(path, key)?;
            format!(", and signed by the owner of {}", key.display())
        }
        None if signature::of(path).exists() => {
            ", and signed: name the signer's public key by --key to check it".into()
        }
        None => String::new(),
    };
    show::line(&format!("the log is as it was written: {events} events, hash {head}{signed}"));
    Ok(0)
}

fn sign(path: &Path, log: &Log, key: &Path) -> Result<u8, Failure> {
    if !log.is_closed() {
        let why = "it has no end: its run is still going on, was killed, or the end is missing";
        return Err(Failure::new(format!("{} is not signed: {why}", path.display()))
            .help("sign it once the run has ended; `toprope undo` seals the log of a run that was killed"));
    }
    let signature = signature::sign(path, key)?;
    show::line(&format!("signed: {}", signature.display()));
    show::line("check it with `toprope report --verify --key PUBLIC.pem`, or without Toprope:");
    let (log, signature) = (path.display(), signature.display());
    show::line(&format!("  openssl pkeyutl -verify -pubin -inkey PUBLIC.pem -rawin -in {log} -sigfile {signature}"));
    Ok(0)
}

/// The same from the log alone.
pub fn replay(args: &ReplayArgs) -> Result<u8, Failure> {
    let path = PathBuf::from(&args.run);
    let path = if path.is_file() { path } else { log_of(&args.run)? };
    give(&render(&read(&path)?, args.form)?, args.output.as_deref())
}

fn log_of(run: &str) -> Result<PathBuf, Failure> {
    let state = state()?;
    Ok(state.run(&super::runs::find(&state, run)?).join(FILE))
}

fn read(path: &Path) -> Result<Log, Failure> {
    let log = toprope_engine::log::read(path)?;
    if log.records.is_empty() {
        let why = "it is empty, or was cut off within its first line";
        return Err(Failure::new(format!("there is no event in the log {}: {why}", path.display())));
    }
    Ok(log)
}

fn render(log: &Log, form: Form) -> Result<String, Failure> {
    let (records, head) = (log.records.as_slice(), log.head.as_str());
    Ok(match form {
        Form::Html => toprope_engine::report::html(records, head),
        Form::Md => toprope_engine::report::markdown(records, head),
        Form::Json => toprope_engine::report::json(records, head),
        Form::Junit => toprope_engine::report::junit(records, head),
    })
}

fn give(text: &str, output: Option<&Path>) -> Result<u8, Failure> {
    match output {
        Some(path) => write(path, text)?,
        None => show::text(text),
    }
    Ok(0)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))
}

/// Refuses, before anything is injected, what could not be written after it.
pub fn must_be_writable<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> Result<(), Failure> {
    use rustix::fs::{Access, access};
    for path in paths {
        let shown = path.display();
        if path.is_dir() {
            return Err(Failure::new(format!("cannot write {shown}: it is a directory")).help("name a file in it"));
        }
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (what, allowed) = match path.exists() {
            true => (path.as_path(), access(path, Access::WRITE_OK)),
            false => (directory, access(directory, Access::WRITE_OK | Access::EXEC_OK)),
        };
        allowed.map_err(|e| {
            let why = std::io::Error::from(e);
            Failure::new(format!("cannot write {shown}: {}: {why}", what.display()))
                .help("nothing was injected: name a file in a directory that is there and that you may write")
        })?;
    }
    Ok(())
}

impl OutputArgs {
    /// The files that are to be written.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.html, &self.md, &self.junit].into_iter().flatten()
    }
}

/// Writes the page beside the log, and whatever the command line asks for.
pub fn write_outputs(finished: &Finished, output: &OutputArgs) -> Result<(), Failure> {
    let log = read(&finished.directory.join(FILE))?;
    write(&finished.directory.join("report.html"), &render(&log, Form::Html)?)?;
    for (path, form) in [(&output.html, Form::Html), (&output.md, Form::Md), (&output.junit, Form::Junit)] {
        if let Some(path) = path {
            write(path, &render(&log, form)?)?;
        }
    }
    Ok(())
}

/// Writes the results of several runs, and what kept others from running, as one JUnit file.
pub fn write_suite(runs: &[Finished], not_run: &[(String, String)], path: &Path) -> Result<(), Failure> {
    let mut suite = Suite::new("toprope");
    for run in runs {
        let log = read(&run.directory.join(FILE))?;
        suite.run(&log.records, &log.head);
    }
    not_run.iter().for_each(|(experiment, why)| suite.not_run(experiment, why));
    write(path, &suite.xml())
}
