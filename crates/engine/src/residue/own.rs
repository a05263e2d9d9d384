//! Injectors, guards and pass-throughs that no run started, or whose run is gone.

use super::{Class, Finding, Scene, Survey, started};

pub(super) const CLASS: Class = Class { name: "process", own: true, look };

fn look(scene: &Scene, survey: &mut Survey) {
    for process in &scene.processes {
        let (role, article) = match process.cmdline.get(1).map(String::as_str) {
            Some("injector") => ("injector", "an"),
            Some("guard") => ("guard", "a"),
            Some("pass-through") => ("pass-through", "a"),
            _ => continue,
        };
        let us = process.id.pid() == std::process::id();
        if us || process.exe.is_none() || process.exe != scene.executable {
            continue;
        }
        survey.findings.push(Finding {
            class: CLASS.name,
            own: true,
            what: format!("{article} {role} is running"),
            evidence: format!("process {}: {}", process.id.pid(), process.cmdline.join(" ")),
            since: started(process),
            undo: format!("it ends with its run; else `kill {}`", process.id.pid()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn an_injector_of_the_same_program_is_found() {
        // A program that waits for its input whatever it is told, under the name of ours.
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("toprope");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut scene = Scene::now(vec![]).unwrap();
        scene.executable = Some(program.clone());
        let mut before = Survey::default();
        look(&scene, &mut before);
        assert_eq!(before, Survey::default());

        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut process = toprope_os::process::ProcessInfo::of(child.id()).unwrap();
        process.exe = Some(program);
        process.cmdline = vec!["toprope".into(), "injector".into()];
        scene.processes.push(process);
        let mut after = Survey::default();
        look(&scene, &mut after);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(after.findings.len(), 1, "{after:?}");
        assert!(after.has_own() && after.findings[0].what == "an injector is running");
    }
}
