use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use toprope_os::process::{Pidfd, Signal};

use super::*;
use crate::testing::{Victim, eventually, host, known_effect, params, planned};

/// A service under a name that nothing else has, and how to restart it.
struct Service {
    directory: tempfile::TempDir,
    name: &'static str,
    first: Option<Victim>,
}

impl Service {
    fn start(name: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let sleep = std::env::split_paths(&std::env::var_os("PATH").expect("a PATH"))
            .map(|d| d.join("sleep"))
            .find(|p| p.exists())
            .expect("sleep is installed");
        let program = directory.path().join(name);
        std::fs::copy(sleep, &program).expect("space for a small file");
        let mut first = None;
        // Another thread's fork may hold the freshly written program open for a moment.
        eventually("it starts", || {
            let status = Command::new(&program).arg("0").status();
            status.is_ok_and(|s| s.success())
        });
        first.replace(Victim::run(Command::new(&program).arg("600")));
        Self { directory, name, first }
    }

    fn host(&self) -> Host {
        Host { directory: PathBuf::from(self.directory.path()), ..host() }
    }

    fn fault(&self, script: &str) -> Params {
        params(json!({"command": ["sh", "-c", script], "target": {"process": self.name}, "within": "10s"}))
    }

    fn running(&self) -> Vec<ProcessId> {
        let all = toprope_os::process::processes().expect("/proc is mounted");
        all.iter().filter(|p| p.name == self.name && p.id.is_alive()).map(|p| p.id).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.first.take());
        for pidfd in self.running().iter().filter_map(|id| Pidfd::open(id).ok()) {
            drop(pidfd.signal(Signal::KILL));
        }
    }
}

#[tokio::test]
async fn the_old_process_goes_and_a_new_one_comes() {
    let service = Service::start("tpf-restarted");
    let old = service.first.as_ref().expect("it runs").id();
    let params = service.fault(&format!("kill {}; sleep 0.2; ./tpf-restarted 600 &", old.pid()));
    let (plan, step) = planned(&ProcessRestart, &params, &service.host()).await;
    assert!(old.is_alive() && plan.targets.len() == 1);
    assert!(matches!(step.undo, Undo::Irreversible { .. }));
    let mut injection = ProcessRestart.apply(&step, &params, &service.host()).await.unwrap_or_else(|e| panic!("{e}"));
    let effect = known_effect(injection.as_mut()).await;
    assert_eq!((effect.took, effect.reached), (Some(true), Some(1.0)), "{effect:?}");
    let (stop, back) = (effect.measures[0].measured, effect.measures[1].measured);
    assert!(back >= 190.0 && stop <= back, "{effect:?}");
    assert!(!old.is_alive());
    injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
    let running = service.running();
    assert!(running.len() == 1 && running[0] != old, "{running:?}");
    for _ in 0..2 {
        let notes = ProcessRestart.undo(&step, &service.host()).await.expect("there is nothing to restore");
        assert!(notes[0].contains("was replaced"), "{notes:?}");
    }
}

#[tokio::test]
async fn a_command_that_fails_or_restarts_nothing_did_not_take() {
    let service = Service::start("tpf-unmoved");
    for (script, within, says) in [("exit 4", "10s", "exit code 4"), ("true", "300ms", "still running: tpf-unmoved")] {
        let mut params = service.fault(script);
        params.node.set("within", Node::from_json(&json!(within)));
        let (_, step) = planned(&ProcessRestart, &params, &service.host()).await;
        let mut injection =
            ProcessRestart.apply(&step, &params, &service.host()).await.unwrap_or_else(|e| panic!("{e}"));
        let effect = known_effect(injection.as_mut()).await;
        assert_eq!(effect.took, Some(false));
        assert!(effect.note.as_ref().is_some_and(|n| n.contains(says)), "{effect:?}");
        let notes = ProcessRestart.undo(&step, &service.host()).await.expect("there is nothing to restore");
        assert!(notes[0].ends_with("still runs"), "{notes:?}");
    }
}

#[tokio::test]
async fn a_restart_is_not_cut_short_by_our_end() {
    let service = Service::start("tpf-unbroken");
    let old = service.first.as_ref().expect("it runs").id();
    let params = service.fault(&format!("kill {}; sleep 0.3; ./tpf-unbroken 600 &", old.pid()));
    let (_, step) = planned(&ProcessRestart, &params, &service.host()).await;
    let injection = ProcessRestart.apply(&step, &params, &service.host()).await.unwrap_or_else(|e| panic!("{e}"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(injection);
    eventually("the new one comes nevertheless", || service.running().iter().any(|id| *id != old));
}

#[tokio::test]
async fn units_are_for_hosts_that_have_them() {
    let params = params(json!({"unit": "toprope-no-such-unit"}));
    let refused = ProcessRestart.plan(&params, &host()).await.expect_err("there is no such unit");
    let systemd = std::path::Path::new("/run/systemd/system").is_dir();
    let says = if systemd { "no process matches: unit toprope-no-such-unit" } else { "not started by systemd" };
    assert!(refused.message.contains(says) && refused.help.is_some(), "{refused}");
    let restart: Restart = crate::testing::params(json!({"unit": "nginx"})).read().expect("valid");
    let (_, argv, _) = restart.parts().expect("one of both");
    assert_eq!(argv.to_string(), "systemctl --no-ask-password restart -- nginx");
}

#[test]
fn exactly_one_way_of_restarting_is_wanted() {
    for (json, says) in [
        (json!({}), "neither `unit` nor `command`"),
        (json!({"unit": "x", "command": ["y"]}), "exclude each other"),
        (json!({"unit": "x", "target": {"pid": 5}}), "the unit's processes are the target"),
        (json!({"command": ["y"]}), "`target` is missing"),
        (json!({"command": ["y"], "target": {"process": "z", "pick": "one"}}), "all that match"),
        (json!({"unit": "--now"}), "no unit's name"),
    ] {
        let mut problems = Problems::default();
        check(&Node::from_json(&json), &mut problems);
        assert!(problems.to_string().contains(says), "{json}: {problems}");
    }
    let mut problems = Problems::default();
    check(&Node::from_json(&json!({"unit": "nginx"})), &mut problems);
    check(&Node::from_json(&json!({"command": ["y"], "target": {"process": "z"}})), &mut problems);
    assert!(problems.0.is_empty(), "{problems}");
}
