//! Who is killed in a round.

use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use toprope_os::process::{Pidfd, ProcessId, ProcessInfo};

use super::dice::Dice;
use super::members::members;
use super::sandbox::{GROUP, Inside};

/// What a process of Toprope does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Runs the experiment.
    Run,
    /// Holds the fault.
    Injector,
    /// Can undo in the injector's place.
    Guard,
    /// `toprope undo`.
    Undo,
    /// Starts injectors for a run without privileges, or does something else.
    Other,
}

/// Every process of Toprope that lives in this sandbox, with what it does.
pub(crate) fn ours() -> Vec<(Role, ProcessId)> {
    let role = |word: &str| match word {
        "run" => Role::Run,
        "injector" => Role::Injector,
        "guard" => Role::Guard,
        "undo" => Role::Undo,
        _ => Role::Other,
    };
    // A process that was killed has no program from the moment on at which its memory is being freed.
    let is_ours = |p: &ProcessInfo| match &p.exe {
        Some(exe) => exe.file_name().is_some_and(|name| name == "toprope"),
        None => matches!(p.name.as_str(), "toprope" | "exe"),
    };
    members()
        .into_iter()
        .filter(|p| is_ours(p) && p.id.is_alive())
        .map(|p| (role(p.cmdline.get(1).map_or("", String::as_str)), p.id))
        .collect()
}

/// Who is killed, or what else befalls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Victims {
    /// The run.
    Run,
    /// The injector: a helper that is evicted.
    Injector,
    /// The guard.
    Guard,
    /// The run, then the injector.
    RunInjector,
    /// The injector, then the run.
    InjectorRun,
    /// The run, then the guard.
    RunGuard,
    /// The guard, then the run.
    GuardRun,
    /// The injector, then the guard.
    InjectorGuard,
    /// The guard, then the injector.
    GuardInjector,
    /// All, one after the other without a pause.
    All,
    /// The whole control group at once: a job that CI cancels.
    ControlGroup,
    /// The pid namespace: a container that is removed, with its targets.
    PidNamespace,
    /// The injector is stopped and not killed: it hangs.
    Frozen,
    /// The run is interrupted as by Ctrl-C: an experiment that is aborted half way.
    Interrupted,
    /// All, and then the first `toprope undo` in the midst of its work.
    Sweep,
    /// All; then the manifest and the run's directory are removed, so that only the journal knows.
    Forgotten,
}

impl Victims {
    /// All kinds.
    pub(crate) const ALL: [Self; 16] = [
        Self::Run,
        Self::Injector,
        Self::Guard,
        Self::RunInjector,
        Self::InjectorRun,
        Self::RunGuard,
        Self::GuardRun,
        Self::InjectorGuard,
        Self::GuardInjector,
        Self::All,
        Self::ControlGroup,
        Self::PidNamespace,
        Self::Frozen,
        Self::Interrupted,
        Self::Sweep,
        Self::Forgotten,
    ];

    /// The kind of a seed: seeds that follow one another go through all.
    pub(crate) fn of(seed: u64) -> Self {
        let index = usize::try_from(seed % Self::ALL.len() as u64).expect("it is less than the number of kinds");
        Self::ALL[index]
    }

    /// Whom it means, in order.
    fn roles(self) -> &'static [Role] {
        use Role::{Guard, Injector, Run};
        match self {
            Self::Run | Self::Interrupted => &[Run],
            Self::Injector | Self::Frozen => &[Injector],
            Self::Guard => &[Guard],
            Self::RunInjector => &[Run, Injector],
            Self::InjectorRun => &[Injector, Run],
            Self::RunGuard => &[Run, Guard],
            Self::GuardRun => &[Guard, Run],
            Self::InjectorGuard => &[Injector, Guard],
            Self::GuardInjector => &[Guard, Injector],
            Self::All | Self::ControlGroup | Self::PidNamespace | Self::Sweep | Self::Forgotten => {
                &[Run, Injector, Guard]
            }
        }
    }

    /// Whether nobody of Toprope is to be left alive.
    pub(crate) fn are_all(self) -> bool {
        self.roles().len() == 3
    }

    /// Whether the run is one of them.
    pub(crate) fn include_the_run(self) -> bool {
        self.roles().contains(&Role::Run)
    }

    /// Whether the fault goes on until its own end: nobody who ends it earlier is hit, so it is short.
    pub(crate) fn let_it_end(self) -> bool {
        self == Self::Guard
    }

    /// Strikes now; between two of them a moment of chance passes. Returns who was there to be hit.
    ///
    /// # Errors
    /// Why a process that lives cannot be signalled.
    pub(crate) fn strike(self, inside: &mut Inside, dice: &mut Dice) -> Result<Vec<(Role, ProcessId)>, String> {
        let there = ours();
        let mut hit: Vec<(Role, ProcessId)> = Vec::new();
        for role in self.roles() {
            hit.extend(there.iter().filter(|(its, _)| its == role));
        }
        match self {
            Self::ControlGroup => {
                std::fs::write(format!("{GROUP}/cgroup.kill"), "1").map_err(|e| format!("{GROUP}/cgroup.kill: {e}"))?;
                return Ok(there);
            }
            Self::PidNamespace => {
                inside.kill();
                return Ok(there);
            }
            _ => {}
        }
        let signal = match self {
            Self::Frozen => Signal::STOP,
            Self::Interrupted => Signal::INT,
            _ => Signal::KILL,
        };
        let in_order = self.roles().len() == 2;
        let held: Vec<(Role, Pidfd)> =
            hit.iter().filter_map(|(role, id)| Some((*role, Pidfd::open(id).ok()?))).collect();
        let mut last = None;
        for (role, process) in &held {
            if in_order && last.is_some_and(|last| last != *role) {
                std::thread::sleep(dice.below(Duration::from_millis(5)));
            }
            last = Some(*role);
            match process.signal(signal) {
                // It ended at this moment by itself.
                Ok(()) | Err(toprope_os::Error::ProcessGone(_)) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        if self.are_all() {
            self.kill_the_rest()?;
        }
        Ok(hit)
    }

    /// Whoever was being started at that moment is one of all.
    fn kill_the_rest(self) -> Result<(), String> {
        for _ in 0..200 {
            let rest = ours();
            if rest.is_empty() {
                return Ok(());
            }
            for (_, id) in rest {
                if let Ok(process) = Pidfd::open(&id) {
                    let _ = process.signal(Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("processes of Toprope do not die".into())
    }
}

impl std::fmt::Display for Victims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Run => "the run",
            Self::Injector => "the injector",
            Self::Guard => "the guard",
            Self::RunInjector => "the run, then the injector",
            Self::InjectorRun => "the injector, then the run",
            Self::RunGuard => "the run, then the guard",
            Self::GuardRun => "the guard, then the run",
            Self::InjectorGuard => "the injector, then the guard",
            Self::GuardInjector => "the guard, then the injector",
            Self::All => "all",
            Self::ControlGroup => "the control group",
            Self::PidNamespace => "the pid namespace",
            Self::Frozen => "the injector, by SIGSTOP",
            Self::Interrupted => "the run, by SIGINT",
            Self::Sweep => "all, then `toprope undo`",
            Self::Forgotten => "all, then the run's files",
        })
    }
}
