//! Journals: what is in force, and what was never undone.

use toprope_os::user::User;

use super::{Class, Finding, Scene, Survey, Unseen, at};
use crate::journal::{Journal, JournalError, Standing};

pub(super) const CLASS: Class = Class { name: "journal", own: true, look };

fn look(scene: &Scene, survey: &mut Survey) {
    scene.journals.iter().for_each(|journal| look_into(journal, survey));
}

fn look_into(journal: &Journal, survey: &mut Survey) {
    let records = match journal.records() {
        Ok(records) => records,
        Err(error) => {
            let denied = matches!(&error, JournalError::Io { error, .. }
                if error.kind() == std::io::ErrorKind::PermissionDenied);
            let help = if denied {
                "ask `sudo toprope residue`"
            } else {
                "look at it yourself, and remove it only when you know that nothing is left"
            };
            survey.unseen.push(Unseen { class: CLASS.name, own: true, what: error.to_string(), help: help.to_owned() });
            return;
        }
    };
    let owner = journal.owner().map(|uid| match User::by_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("#{uid}"),
    });
    for record in records {
        let (fault, run) = (&record.intent.fault, &record.intent.run);
        let what = match record.standing() {
            Standing::Undone => continue,
            Standing::InForce => format!("{fault} of run {run} is in force"),
            Standing::Dirty => format!("{fault} of run {run} was never undone"),
        };
        let steps: Vec<&str> = record.intent.steps.iter().map(|s| s.describe.as_str()).collect();
        survey.findings.push(Finding {
            class: CLASS.name,
            own: true,
            what,
            evidence: format!("{} ({})", record.path.display(), steps.join("; ")),
            since: Some(at(record.intent.written)),
            undo: match &owner {
                Some(owner) => format!("sudo -u {owner} toprope undo {run}"),
                None => format!("toprope undo {run}"),
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    use toprope_model::journal::{Intent, VERSION};
    use toprope_model::step::{Step, Undo};
    use toprope_os::process::ProcessId;

    fn found(journal: &Journal) -> Survey {
        let mut survey = Survey::default();
        look_into(journal, &mut survey);
        survey
    }

    #[test]
    fn a_record_in_force_is_found_and_one_that_cannot_be_read_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(directory.path().join("journal"));
        assert_eq!(found(&journal), Survey::default());
        let step = Step {
            describe: "delay".into(),
            claims: vec![],
            undo: Undo::KernelOwned("gone".into()),
            data: serde_json::json!({}),
        };
        let injector = serde_json::to_string(&ProcessId::current().unwrap()).unwrap();
        let intent = Intent {
            version: VERSION,
            run: "r".into(),
            injection: 0,
            fault: "network-latency".into(),
            user: "me".into(),
            steps: vec![step],
            injector,
            deadline_ms: 0,
            written: 1_000_000_000,
        };
        journal.begin(&intent).unwrap();
        let survey = found(&journal);
        assert_eq!(survey.findings[0].undo, "toprope undo r");
        assert_eq!(survey.findings[0].since.as_deref(), Some("2001-09-09T01:46:40Z"));

        std::fs::set_permissions(journal.directory(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let survey = found(&journal);
        assert!(survey.may_have_own() && survey.unseen[0].what.contains("not to be trusted"), "{survey:?}");
    }
}
