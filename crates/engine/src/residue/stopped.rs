//! Processes that stand still: stopped by a signal, or held by a tracer.

use toprope_os::process::{ProcessInfo, State, tracer};

use super::{Class, Finding, Scene, Survey, named, started};

pub(super) const CLASS: Class = Class { name: "stopped-process", own: false, look };

fn look(scene: &Scene, survey: &mut Survey) {
    for process in scene.processes.iter().filter(|p| matches!(p.state, State::Stopped | State::Traced)) {
        let tracer = tracer(&process.id).ok().flatten();
        let tracer = tracer.map(|pid| (pid, scene.processes.iter().find(|p| p.id.pid() == pid)));
        // What an injector of ours holds is in the journal.
        if tracer.is_some_and(|(_, info)| info.is_some_and(|p| p.exe.is_some() && p.exe == scene.executable)) {
            continue;
        }
        survey.findings.push(finding(process, tracer));
    }
}

fn finding(process: &ProcessInfo, tracer: Option<(u32, Option<&ProcessInfo>)>) -> Finding {
    let pid = process.id.pid();
    let (evidence, undo) = match tracer {
        Some((tracer, info)) => {
            let who = info.map_or_else(|| format!("process {tracer}"), named);
            (format!("state t in /proc/{pid}/stat; traced by {who}"), format!("end its tracer, process {tracer}"))
        }
        None => {
            let text = "state T in /proc/PID/stat: SIGSTOP, or Ctrl-Z in somebody's shell; its parent is process";
            (format!("{text} {}", process.ppid).replace("PID", &pid.to_string()), format!("kill -CONT {pid}"))
        }
    };
    let what = format!("{} stands still", named(process));
    Finding { class: CLASS.name, own: false, what, evidence, since: started(process), undo }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{about, look};
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn a_stopped_process_is_found_until_it_goes_on() {
        let mut child = Command::new("sleep").arg("61.25").spawn().unwrap();
        let word = format!("process {} (", child.id());
        let found = || about(&look(CLASS), &word);
        assert_eq!(found(), []);
        let wait_for = |count: usize| {
            let until = Instant::now() + Duration::from_secs(20);
            while found().len() != count {
                assert!(Instant::now() < until, "{:?}", found());
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        wait_for(1);
        assert_eq!(found()[0].undo, format!("kill -CONT {}", child.id()));
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        wait_for(0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
