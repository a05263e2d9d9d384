//! Programs that are there to use up a resource, or that chaos tools leave running.

use toprope_os::process::ProcessInfo;

use super::{Class, Finding, Scene, Survey, named, started};

pub(super) const CLASS: Class = Class { name: "stress-process", own: false, look };

/// Whole names of programs.
const NAMES: [&str; 8] = ["stress", "stress-ng", "stressapptest", "memStress", "chaosd", "pumba", "gremlind", "blade"];
/// How names begin: ChaosBlade's workers are `chaos_burncpu`, `chaos_filldisk` and so on; stress-ng's `stress-ng-cpu`.
const BEGINNINGS: [&str; 2] = ["chaos_", "stress-ng-"];

fn look(scene: &Scene, survey: &mut Survey) {
    for process in scene.processes.iter().filter(|p| is_stress(p)) {
        survey.findings.push(Finding {
            class: CLASS.name,
            own: false,
            what: format!("{} uses up resources, or is a chaos tool's", named(process)),
            evidence: format!(
                "its name, {}; {:.1} s of processor time so far",
                process.name,
                process.cpu_time.as_secs_f64()
            ),
            since: started(process),
            undo: format!("kill {}", process.id.pid()),
        });
    }
}

fn is_stress(process: &ProcessInfo) -> bool {
    let first = process.cmdline.first().map(|word| word.rsplit('/').next().unwrap_or_default());
    let names = [Some(process.name.as_str()), first];
    names.into_iter().flatten().any(|name| NAMES.contains(&name) || BEGINNINGS.iter().any(|b| name.starts_with(b)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{about, look};
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_with_a_stress_tools_name_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("chaos_burncpu");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let path = program.to_str().unwrap();
        assert_eq!(about(&look(CLASS), path), []);
        let mut child = Command::new(&program).arg("60").spawn().unwrap();
        let found = about(&look(CLASS), path);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].undo, format!("kill {}", child.id()));
        assert_eq!(about(&look(CLASS), path), []);
    }
}
