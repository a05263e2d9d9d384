//! `toprope residue`: what chaos left on this host.

use std::io::ErrorKind;

use serde_json::json;
use toprope_engine::journal::{Journal, JournalError};
use toprope_engine::residue::{Finding, Scene, Survey, survey};
use toprope_engine::state::State;
use toprope_os::user::{Identity, User};

use crate::args::ResidueArgs;
use crate::invocation::{Failure, authority, state};
use crate::show;

/// Lists what is left. Exit 0: nothing of Toprope's; 4: something of Toprope's; 3: nobody could look where something of
/// Toprope's may be. What is not Toprope's changes the exit code only with `--strict`.
pub fn residue(args: &ResidueArgs) -> Result<u8, Failure> {
    let journals = journals()?;
    // The caller's own journal must be readable, and a wrong one is an error of its own.
    match journals.first().map(Journal::records) {
        Some(Err(JournalError::Io { error, .. })) if error.kind() == ErrorKind::PermissionDenied => {}
        Some(Err(error)) => return Err(error.into()),
        _ => {}
    }
    let scene = Scene::now(journals).map_err(|e| Failure::new(e.to_string()))?;
    let survey = survey(&scene, args.own);
    if args.json {
        let clean = !survey.has_own() && !survey.may_have_own();
        let value = json!({"clean": clean, "findings": survey.findings, "unseen": survey.unseen});
        show::line(&serde_json::to_string_pretty(&value).unwrap_or_default());
    } else {
        tell(&survey);
    }
    Ok(exit(&survey, args.strict))
}

fn exit(survey: &Survey, strict: bool) -> u8 {
    if survey.has_own() {
        4
    } else if survey.may_have_own() {
        3
    } else if strict && !survey.findings.is_empty() {
        1
    } else if strict && !survey.unseen.is_empty() {
        3
    } else {
        0
    }
}

/// Every journal of this host that may hold something: that of the caller's rights first, then root's, the caller's
/// usual one, and for root those in every user's home.
fn journals() -> Result<Vec<Journal>, Failure> {
    let mut journals = vec![authority()?.journal(), state()?.journal(), State::of_root().journal()];
    journals.extend(State::of_this_user_by_default().ok().map(|state| state.journal()));
    let is_root = Identity::current().is_ok_and(|i| i.uid == 0);
    if is_root {
        // In a user namespace everybody looks like root: those who cannot be looked at are told.
        for user in User::all().unwrap_or_default().into_iter().filter(|u| u.uid != 0) {
            let directory = user.home.join(".local/state/toprope/journal");
            if directory.is_dir() {
                journals.push(Journal::of_user(directory, user.uid));
            }
        }
    }
    let mut once: Vec<Journal> = Vec::new();
    for journal in journals {
        if !once.iter().any(|j| j.directory() == journal.directory()) {
            once.push(journal);
        }
    }
    Ok(once)
}

fn tell(survey: &Survey) {
    let (own, foreign): (Vec<&Finding>, Vec<&Finding>) = survey.findings.iter().partition(|f| f.own);
    if own.is_empty() && survey.may_have_own() {
        show::line("not known to be clean: nothing of Toprope's was found, and not everything could be looked at");
    } else if own.is_empty() {
        show::line("clean: nothing of Toprope's is in force or left on this host");
    }
    own.into_iter().for_each(finding);
    if !foreign.is_empty() {
        show::line(&format!(
            "\n{} not Toprope's, which chaos or somebody's work may have left; nothing of it was touched:",
            if foreign.len() == 1 {
                "1 thing that is".to_owned()
            } else {
                format!("{} things that are", foreign.len())
            }
        ));
        foreign.into_iter().for_each(finding);
    }
    if !survey.unseen.is_empty() {
        show::line("\nnot looked at:");
        survey.unseen.iter().for_each(|u| show::line(&format!("{}\n  instead   {}", u.what, u.help)));
    }
}

fn finding(finding: &Finding) {
    show::line(&format!("{}\n  evidence  {}", finding.what, finding.evidence));
    if let Some(since) = &finding.since {
        show::line(&format!("  since     {since}"));
    }
    show::line(&format!("  {}  {}", if finding.own { "undo    " } else { "remove  " }, finding.undo));
}
