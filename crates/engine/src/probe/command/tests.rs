use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Kind;
use crate::probe::testing::{PATIENCE, ask, ask_at, context, gives_up_in_time, moment, probe, problems, try_probe};
use crate::probe::{Answer, Context, Probe};

fn shell(script: &str, more: &str) -> Arc<dyn Probe> {
    probe(&Kind, &format!("{{run: [sh, -c, {}]{more}}}", serde_json::Value::from(script)))
}

/// Waits until no process has this command line.
async fn gone(command_line: &str) {
    let deadline = Instant::now() + PATIENCE;
    let running = || {
        let all = toprope_os::process::processes().unwrap();
        all.into_iter().any(|p| p.cmdline.join(" ") == command_line)
    };
    while running() {
        assert!(Instant::now() < deadline, "`{command_line}` still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Seconds to sleep that no other process sleeps.
fn a_while(part: u32) -> String {
    format!("9{part}.{}", std::process::id())
}

#[tokio::test]
async fn exit_status_and_output_are_judged() {
    assert_eq!(ask(&shell("true", "")).await, Answer::good());
    let failed = ask(&shell("echo one >&2; echo broken pipe >&2; exit 3", "")).await;
    assert_eq!(failed, Answer::bad("exit status 3, not 0; the last it said: `broken pipe`"));
    assert_eq!(ask(&shell("exit 3", ", exit: 3")).await, Answer::good());
    assert_eq!(ask(&shell("exit 2", ", exits: [0, 1]")).await.bad.unwrap(), "exit status 2, not 0 or 1");
    let killed = ask(&shell("kill -9 $$", "")).await;
    assert!(!killed.broken && killed.bad.unwrap().starts_with("signal: 9"));
    let number = shell("echo 42", ", value: 40..50");
    assert_eq!((ask(&number).await, number.unit()), (Answer { value: Some(42.0), ..Answer::good() }, ""));
    let json = ask(&shell("echo '{\"lag\": 7}'", ", json: $.lag, value: < 5")).await;
    assert_eq!(json, Answer { value: Some(7.0), ..Answer::bad("$.lag is `7`, not < 5") });
    assert_eq!(ask(&shell("echo warning >&2", ", stderr-matches: warn")).await, Answer::good());
    assert!(ask(&shell("true", ", stderr-matches: warn")).await.bad.unwrap().contains("stderr is empty"));
}

#[tokio::test]
async fn arguments_environment_and_directory_are_as_given() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), "s3cret").unwrap();
    let context = Context { directory: directory.path().into(), ..context() };
    let yaml = "{run: [sh, -c, 'echo \"$1|$A|$B|${n}|{n}|{run}|$(pwd)\"', _, '$HOME *'], env: {A: a}, \
                secret-env: {B: {file: token}}, directory: sub, matches: nothing}";
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    let probe = try_probe(&Kind, yaml, &context).unwrap();
    let said = ask_at(&probe, moment(7)).await.bad.unwrap();
    assert!(said.starts_with("stdout is `$HOME *|a|(secret)||7|run-1|"), "{said}");
    assert!(said.contains("/sub`"), "{said}");
    assert!(!probe.asks().contains("s3cret"));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_no_evidence() {
    for yaml in ["run: [no-such-program-of-toprope]", "run: [/etc/passwd]", "{run: [ls], directory: /no/such/place}"] {
        let answer = ask(&probe(&Kind, yaml)).await;
        assert!(answer.broken, "{yaml}: {answer:?}");
        assert!(answer.bad.unwrap().contains("cannot start"), "{yaml}");
    }
}

#[tokio::test]
async fn a_program_that_never_ends_is_killed_with_its_children_when_it_is_given_up() {
    let (child, other) = (a_while(1), a_while(2));
    gives_up_in_time(&shell(&format!("sleep {child} & exec sleep {other}"), "")).await;
    gone(&format!("sleep {child}")).await;
    gone(&format!("sleep {other}")).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_ended_and_does_not_hold_the_sample_up() {
    let child = a_while(3);
    let begun = Instant::now();
    // The child holds standard output open.
    let answer = ask(&shell(&format!("sleep {child} & echo done"), ", matches: done")).await;
    assert_eq!(answer, Answer::good());
    assert!(begun.elapsed() < Duration::from_secs(30));
    gone(&format!("sleep {child}")).await;
}

#[tokio::test]
async fn a_program_that_prints_without_end_is_killed() {
    for script in ["yes", "yes >&2"] {
        let answer = ask(&shell(script, "")).await;
        assert_eq!(answer, Answer::bad("it printed more than 1048576 bytes, and was killed"));
    }
    let script = format!("yes & sleep {}", a_while(4));
    assert!(ask(&shell(&script, "")).await.bad.is_some());
    gone(&format!("sleep {}", a_while(4))).await;
}

#[tokio::test]
async fn garbage_is_output_like_any_other() {
    let answer = ask(&shell("printf '\\377\\376\\033[31m'", ", matches: ok")).await;
    assert!(answer.bad.unwrap().contains("\\u{1b}"), "it is shown escaped");
}

#[tokio::test]
async fn a_write_is_named_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let yaml = format!("{{run: [touch, '{}'], find: [test, -e, '{}']}}", at("o-{n}"), at("o-{n}"));
    let write = probe(&Kind, &yaml);
    assert!(write.can_find() && !shell("true", "").can_find());
    assert_eq!(ask_at(&write, moment(3)).await.wrote.as_deref(), Some("3"));
    assert!(Path::new(&at("o-3")).exists());
    assert_eq!(write.clone().find("3".into()).await, Ok(true));
    assert_eq!(write.find("4".into()).await, Ok(false));
    let unsure = probe(&Kind, "{run: ['true'], find: [sh, -c, 'exit 2', '{n}']}");
    assert!(unsure.find("4".into()).await.unwrap_err().0.contains("exit status: 2"));
    let failed = probe(&Kind, "{run: ['false'], find: ['true', '{n}']}");
    assert_eq!(ask(&failed).await.wrote, None);
}

#[tokio::test]
async fn whoever_is_the_invoking_user_already_needs_no_right_to_become_it() {
    let me = rustix::process::geteuid().as_raw();
    let as_me = Context { invoking_user: Some(me), ..context() };
    let probe = try_probe(&Kind, &format!("{{run: [id, -u], value: {me}}}"), &as_me).unwrap();
    let answer = ask(&probe).await;
    assert_eq!(answer.bad, None);
    assert!(super::is_me(me) && !super::is_me(me + 1));
}

#[tokio::test]
async fn root_runs_it_as_the_invoking_user() {
    let as_nobody = Context { invoking_user: Some(65534), ..context() };
    let probe = try_probe(&Kind, "{run: [id, -u], value: 65534}", &as_nobody).unwrap();
    let answer = ask(&probe).await;
    let root = rustix::process::geteuid().is_root();
    assert_eq!(answer.bad.is_none(), root, "{answer:?}");
    assert_eq!(answer.broken, !root, "without root it cannot be another user");
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    for (yaml, why) in [
        ("{}", "no program to run"),
        ("{run: []}", "no program to run"),
        ("{run: ls -l}", "a list was expected"),
        ("{run: [a], exit: 1, exits: [2]}", "exclude each other"),
        ("{run: [a], find: [b]}", "same for every write"),
        ("{run: [a], find: [b, '{id}']}", "has no meaning"),
        ("{run: [a], secret-env: {X: y}}", "named, not written"),
    ] {
        let found = problems(&Kind, yaml);
        assert!(found.contains(why), "{yaml}: {found}");
    }
    assert_eq!(probe(&Kind, "run: [sh, -c, 'a | b', '']").asks(), "sh -c \"a | b\" \"\"");
}
