//! `toprope test`: a directory of experiments as a suite.

use std::path::{Path, PathBuf};

use toprope_model::verdict::{Ending, Judgement, Outcome};

use super::run::setup;
use crate::args::{OutputArgs, TestArgs};
use crate::invocation::{Failure, runtime, tables, through};
use crate::{load, show};

/// Runs every experiment, one after the other; the exit code is that of the worst.
pub fn test(args: &TestArgs) -> Result<u8, Failure> {
    through(&args.launcher)?;
    let tables = tables();
    let files = files(&args.paths)?;
    // All are read before the first is run: a typing mistake in the last one must not cost an hour.
    let mut loaded = Vec::new();
    let mut bad = false;
    for file in &files {
        match load::experiment(file, &args.set, &tables) {
            Ok(l) => loaded.push((file, l)),
            Err(failure) => {
                failure.print();
                bad = true;
            }
        }
    }
    if bad {
        return Ok(2);
    }
    super::report::must_be_writable(&args.junit)?;
    let runtime = runtime()?;
    let (mut runs, mut not_run, mut worst) = (Vec::new(), Vec::new(), 0);
    for (file, loaded) in &loaded {
        show::line(&format!("{} ({})", loaded.experiment.name, file.display()));
        let output = OutputArgs { plain: true, ..OutputArgs::default() };
        let result = runtime.block_on(show::run_quietly(setup(loaded, "test")?, &output));
        let code = match result {
            Ok(finished) => {
                let judgement = &finished.judgement;
                show::line(&format!("  {}: {}", said(judgement), judgement.reasons.first().map_or("", String::as_str)));
                let code = judgement.exit_code();
                runs.push(finished);
                code
            }
            Err(error) => {
                not_run.push((loaded.experiment.name.clone(), error.to_string()));
                let failure = super::plan::at_its_place(error, loaded);
                failure.print();
                failure.exit
            }
        };
        worst = worse(worst, code);
        if args.fail_fast && code != 0 {
            break;
        }
    }
    let held = runs.iter().filter(|r| r.judgement.outcome == Outcome::Held).count();
    show::line(&format!("\n{held} of {} held", files.len()));
    if let Some(path) = &args.junit {
        // The results stand also where they cannot be written.
        if let Err(failure) = super::report::write_suite(&runs, &not_run, path) {
            failure.print();
        }
    }
    Ok(worst)
}

/// How a run ended, in a word: one that a guardrail stopped is not one that showed too little.
fn said(judgement: &Judgement) -> String {
    match (judgement.ending, judgement.outcome) {
        (Ending::NotUndone, _) => "not undone".into(),
        (Ending::Stopped, Outcome::Inconclusive) => "stopped".into(),
        (_, outcome) => outcome.to_string(),
    }
}

/// What could not be undone is worst, then what was refuted, invalid, stopped, inconclusive.
fn worse(a: u8, b: u8) -> u8 {
    let rank = |code: u8| [0u8, 3, 5, 2, 1, 4].iter().position(|c| *c == code).unwrap_or(6);
    if rank(b) > rank(a) { b } else { a }
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = files.len();
            collect(path, &mut files)?;
            if files.len() == found {
                return Err(Failure::new(format!("there is no experiment in {}", path.display())));
            }
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let entries =
        std::fs::read_dir(directory).map_err(|e| Failure::new(format!("cannot read {}: {e}", directory.display())))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if path.is_dir() {
            collect(&path, files)?;
        } else if manifest && load::kind_of(&path).is_none_or(|kind| kind == "Experiment") {
            // What does not even parse is kept, so that it is told.
            files.push(path);
        }
    }
    Ok(())
}
