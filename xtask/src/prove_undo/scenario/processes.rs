//! Faults on processes.

use toprope_os::process::{ProcessId, State, thread_states};

use super::super::sandbox::{Inside, OUT, XTASK};
use super::{Mechanism, Scenario, Stage, never, nothing, processes_may_end, start, target, wait_until};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "process-kill",
        variant: "",
        mechanism: Mechanism::Irreversible,
        stage: kill,
        leaves: processes_may_end,
        host_pids: false,
        missing: never,
    },
    Scenario {
        fault: "process-pause",
        variant: "",
        mechanism: Mechanism::Ptrace,
        stage: pause,
        leaves: nothing,
        host_pids: false,
        missing: never,
    },
    Scenario {
        fault: "process-pause",
        variant: "by-signal",
        mechanism: Mechanism::JournalSignal,
        stage: pause_by_signal,
        leaves: nothing,
        host_pids: false,
        missing: never,
    },
    Scenario {
        fault: "process-restart",
        variant: "",
        mechanism: Mechanism::Irreversible,
        stage: restart,
        leaves: processes_may_end,
        host_pids: false,
        missing: never,
    },
];

fn kill(inside: &Inside) -> Result<Stage, String> {
    let target = target(inside, &["idle"])?;
    let method = format!("process-kill: {{target: {{pid: {}}}}}", target.inside);
    Ok(Stage::new(method, vec![target], || false))
}

fn pause(inside: &Inside) -> Result<Stage, String> {
    let target = target(inside, &["idle"])?;
    let id = ProcessId::of(target.pid).map_err(|e| e.to_string())?;
    let stands = move || {
        let states = thread_states(&id).unwrap_or_default();
        states.iter().any(|state| matches!(state, State::Stopped | State::Traced))
    };
    let method = format!("process-pause: {{target: {{pid: {}}}, for: {{for}}}}", target.inside);
    Ok(Stage::new(method, vec![target], stands))
}

/// Without the right to trace, Toprope stops by signal.
fn pause_by_signal(inside: &Inside) -> Result<Stage, String> {
    let stage = pause(inside)?;
    let wrap = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"].map(str::to_owned).to_vec();
    Ok(Stage { wrap, ..stage })
}

/// A service that its supervisor starts again when it ends.
fn restart(inside: &Inside) -> Result<Stage, String> {
    let pid_file = format!("{OUT}/service.pid");
    let supervisor = format!("while :; do {XTASK} proof target idle & echo $! >{pid_file}; wait; done");
    let supervisor = start(inside, inside.command("sh").args(["-c", &supervisor]))?;
    wait_until("the service runs", || std::fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n')))?;
    let method = format!(
        "process-restart: {{target: {{command-line: 'proof target idle$'}}, command: [sh, -c, 'kill $(cat {pid_file})'], \
         within: 3s}}"
    );
    Ok(Stage::new(method, vec![supervisor], || false))
}
