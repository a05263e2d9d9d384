use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use toprope_model::step::Undo;

use super::*;
use crate::testing::{eventually, host, params, planned};

/// A directory in which everybody may write, and a fault that is a file in it.
fn playground() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).expect("our own");
    directory
}

fn in_directory(directory: &Path) -> Host {
    Host { directory: directory.into(), ..host() }
}

fn file_fault() -> serde_json::Value {
    json!({"apply": ["touch", "flag"], "check": ["test", "-e", "flag"], "undo": ["rm", "flag"]})
}

#[tokio::test]
async fn it_is_applied_seen_and_undone_where_the_run_was_started() {
    let directory = playground();
    let (host, flag) = (in_directory(directory.path()), directory.path().join("flag"));
    let params = params(file_fault());
    let (plan, step) = planned(&Command, &params, &host).await;
    assert!(!flag.exists(), "planning changes nothing");
    assert_eq!(plan.steps[0].describe, "touch flag; undone by rm flag");
    let Undo::Restore(found) = &step.undo else { panic!("{step:?}") };
    assert_eq!(found["undo"], json!(["rm", "flag"]));
    let mut injection = Command.apply(&step, &params, &host).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(flag.exists());
    assert_eq!(injection.observe().await.expect("it answers").took, Some(true));
    std::fs::remove_file(&flag).expect("somebody else takes it away");
    assert_eq!(injection.observe().await.expect("it answers").took, Some(false));
    std::fs::write(&flag, "").expect("it is back");
    injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(!flag.exists());
}

#[tokio::test]
async fn it_is_undone_from_every_state() {
    let directory = playground();
    let (host, flag) = (in_directory(directory.path()), directory.path().join("flag"));
    let params = params(file_fault());
    let (_, step) = planned(&Command, &params, &host).await;
    // `rm` fails where there is nothing, which is no failure of the undo.
    let notes = Command.undo(&step, &host).await.expect("it was never applied");
    assert!(notes[0].contains("finds nothing in force"), "{notes:?}");
    drop(Command.apply(&step, &params, &host).await.unwrap_or_else(|e| panic!("{e}")));
    assert!(flag.exists(), "the injector was killed, so it is still there");
    for _ in 0..2 {
        Command.undo(&step, &host).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(!flag.exists());
    }
}

#[tokio::test]
async fn what_is_in_force_already_is_refused() {
    let directory = playground();
    std::fs::write(directory.path().join("flag"), "somebody else's").expect("our own");
    let refused = Command.plan(&params(file_fault()), &in_directory(directory.path())).await.expect_err("it is there");
    assert!(refused.message.contains("in force already") && refused.help.is_some(), "{refused}");
    assert!(directory.path().join("flag").exists());
}

#[tokio::test]
async fn an_undo_that_does_not_undo_is_told_soon() {
    let directory = playground();
    let host = in_directory(directory.path());
    let mut fault = file_fault();
    fault["undo"] = json!(["true"]);
    let params = params(fault);
    let (_, step) = planned(&Command, &params, &host).await;
    drop(Command.apply(&step, &params, &host).await.unwrap_or_else(|e| panic!("{e}")));
    // Far less than a program may take (30 seconds), and less than the guard waits for a release and one more try.
    let failed = tokio::time::timeout(Duration::from_secs(15), Command.undo(&step, &host)).await.expect("it is told");
    let failed = failed.expect_err("it is still there");
    assert!(failed.message.contains("`true` was done, and") && failed.help.is_some(), "{failed}");
}

#[tokio::test]
async fn an_undo_that_does_not_undo_is_an_error_that_says_what_to_do() {
    let directory = playground();
    let host = in_directory(directory.path());
    for (undo, says) in
        [(json!(["true"]), "was done, and"), (json!(["sh", "-c", "echo no way; exit 3"]), "exit code 3: no way")]
    {
        let mut fault = file_fault();
        fault["undo"] = undo;
        fault["timeout"] = json!("300ms");
        let params = params(fault);
        let (_, step) = planned(&Command, &params, &host).await;
        let injection = Command.apply(&step, &params, &host).await.unwrap_or_else(|e| panic!("{e}"));
        let failed = injection.release(Duration::ZERO).await.err().expect("it is still there");
        assert!(failed.message.contains(says) && failed.message.contains("still in force"), "{failed}");
        assert!(failed.help.expect("what to do").starts_with("do it by hand"));
        std::fs::remove_file(directory.path().join("flag")).expect("by hand");
    }
}

#[tokio::test]
async fn a_program_that_fails_says_why() {
    let directory = playground();
    let host = in_directory(directory.path());
    let mut fault = file_fault();
    fault["apply"] = json!(["sh", "-c", "echo first; echo 'no \u{1b}[31mluck' >&2; exit 7"]);
    let params = params(fault.clone());
    let (_, step) = planned(&Command, &params, &host).await;
    let failed = Command.apply(&step, &params, &host).await.err().expect("it fails");
    assert!(failed.message.contains("exit code 7: first | no"), "{failed}");
    assert!(!failed.message.contains('\u{1b}'), "what a terminal would obey is not passed on");
    fault["undo"] = json!(["no-such-program-of-toprope"]);
    let missing = Command.plan(&crate::testing::params(fault), &host).await.expect_err("it is not there");
    assert!(missing.message.contains("no-such-program-of-toprope") && missing.help.is_some(), "{missing}");
}

#[tokio::test]
async fn output_without_end_and_programs_without_end_are_bounded() {
    let directory = playground();
    let host = in_directory(directory.path());
    let mut fault = file_fault();
    fault["apply"] = json!(["sh", "-c", "sleep 613 & echo $! > pid; yes endless"]);
    fault["timeout"] = json!("400ms");
    let params = params(fault);
    let (_, step) = planned(&Command, &params, &host).await;
    let started = Instant::now();
    let failed = Command.apply(&step, &params, &host).await.err().expect("it does not end");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(failed.message.contains("did not end within 400ms") && failed.message.contains("endless"), "{failed}");
    assert!(failed.message.len() < 4096, "only the end is kept");
    let pid = std::fs::read_to_string(directory.path().join("pid")).expect("it was written before");
    let pid: u32 = pid.trim().parse().expect("a number");
    eventually("what it started is killed with it", || {
        !toprope_os::process::ProcessId::of(pid).is_ok_and(|id| id.is_alive())
    });
}

#[tokio::test]
async fn what_a_program_leaves_running_may_print() {
    let directory = playground();
    let host = in_directory(directory.path());
    let count = "while :; do echo noise || exit; echo x >> count; sleep 0.01; done";
    let fault = json!({
        "apply": ["sh", "-c", format!("sh -c '{count}' & echo $! > pid")],
        "check": ["sh", "-c", "kill -0 $(cat pid)"],
        "undo": ["sh", "-c", "kill -9 $(cat pid)"],
    });
    let params = params(fault);
    let (_, step) = planned(&Command, &params, &host).await;
    let injection = Command.apply(&step, &params, &host).await.unwrap_or_else(|e| panic!("{e}"));
    let length = || std::fs::metadata(directory.path().join("count")).map_or(0, |m| m.len());
    let before = length();
    let deadline = Instant::now() + Duration::from_secs(20);
    while length() < before + 20 {
        assert!(Instant::now() < deadline, "it was ended by its output");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn programs_run_as_the_user_who_wrote_them() {
    if !toprope_os::user::Identity::current().is_ok_and(|i| i.uid == 0) {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let directory = playground();
    chown(directory.path(), Some(65534), None).expect("root may");
    let host = Host { invoking_user: Some(65534), ..in_directory(directory.path()) };
    let params = params(file_fault());
    let (_, step) = planned(&Command, &params, &host).await;
    drop(Command.apply(&step, &params, &host).await.unwrap_or_else(|e| panic!("{e}")));
    let owner = std::fs::metadata(directory.path().join("flag")).expect("it was applied").uid();
    assert_eq!(owner, 65534);
    // Also in the guard, whose host knows of nobody.
    Command.undo(&step, &in_directory(Path::new("/"))).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(!directory.path().join("flag").exists());
}

#[test]
fn an_argv_that_names_no_program_is_refused() {
    use toprope_model::{FromNode, Node, Problems};
    for wrong in [json!([]), json!([""]), json!("rm -rf x"), json!(["a\0b"])] {
        let mut problems = Problems::default();
        assert!(Argv::from_node(&Node::from_json(&wrong), &mut problems).is_none(), "{wrong}");
        assert!(!problems.0.is_empty());
    }
    let mut problems = Problems::default();
    let argv = Argv::from_node(&Node::from_json(&json!(["sh", "-c", "it's"])), &mut problems).expect("three words");
    assert_eq!(argv.to_string(), "sh -c 'it'\\''s'");
}
