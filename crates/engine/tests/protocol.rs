//! The protocol of run, injector, guard and journal as a model, checked over every order of steps, deaths and hangs.
//!
//! The model is what `injector/hold.rs`, `guard.rs`, `run/inject.rs` and `undo.rs` promise one another, with time left
//! out: a deadline may pass at any moment, a heartbeat may be missed whenever the injector stands still. Processes may
//! be killed and frozen at any point, several of them, and the machine may lose its power. Each [`Mutation`] takes one
//! promise away, and the checker must then find a way to leave a fault behind: a model that cannot fail proves nothing.

use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model, Property};

/// What may go wrong in one history: enough for every pair and for all at once, and a hang before or after.
const KILLS: u8 = 3;
const FREEZES: u8 = 2;

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Life {
    NotYet,
    Alive,
    Frozen,
    Dead,
}
use Life::{Alive, Dead, Frozen, NotYet};

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Who {
    Run,
    Injector,
    Guard,
}
const EVERYONE: [Who; 3] = [Who::Run, Who::Injector, Who::Guard];

/// Who takes the fault back when its injector is gone.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Undo {
    /// The kernel, at the injector's death; and at the end of a lease that only a running injector renews.
    KernelLease,
    /// The kernel, at the injector's death alone.
    Kernel,
    /// Whoever reads the journal. It is in this boot's memory: a qdisc, a limit.
    Journal,
    /// Whoever reads the journal. It is on disk, so that a reboot brings it back.
    JournalOnDisk,
}

/// Where the injector is in its work. Each is reached by one step that may be the last.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Planned,
    Intended,
    Guarded,
    Applied,
    Ending,
    Released,
    Marked,
    Done,
}

/// How far somebody else's undo is.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
enum Rescue {
    Watching,
    Called,
    Restored,
    Done,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Written {
    Nothing,
    Intent,
    Undone,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct State {
    undo: Undo,
    run: Life,
    injector: Life,
    guard: Life,
    at: At,
    guard_at: Rescue,
    run_at: Rescue,
    sweep_at: Rescue,
    journal: Written,
    in_force: bool,
    /// The injector can know that it should end: the run is gone, said so, or the deadline passed.
    told: bool,
    kills: u8,
    freezes: u8,
    power: bool,
}

impl State {
    fn life(&mut self, who: Who) -> &mut Life {
        match who {
            Who::Run => &mut self.run,
            Who::Injector => &mut self.injector,
            Who::Guard => &mut self.guard,
        }
    }

    fn kill(&mut self, who: Who) {
        *self.life(who) = Dead;
        match who {
            Who::Run => self.told = true,
            Who::Injector if matches!(self.undo, Undo::Kernel | Undo::KernelLease) => self.in_force = false,
            _ => {}
        }
    }

    fn nobody_left(&self) -> bool {
        let gone = |life| matches!(life, Dead | NotYet);
        gone(self.run) && gone(self.injector) && gone(self.guard)
    }
}

/// One promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    /// The undo is written after the fault is applied.
    AppliesBeforeItWrites,
    /// The fault is applied before a guard is armed.
    AppliesWithoutGuard,
    /// The record goes before the fault does.
    MarksBeforeItReleases,
    /// The guard watches for the injector's death only, not for its heartbeat.
    GuardHearsNoHeartbeat,
    /// The guard undoes what a frozen injector holds without killing it first.
    GuardSparesTheInjector,
    /// The guard goes home when the injector dies.
    GuardFlees,
    /// The injector does not mind that its run is gone.
    InjectorIgnoresItsPipe,
    /// A dead guard is not replaced.
    GuardIsNotReplaced,
    /// The run trusts that somebody else ends an injector that hangs.
    RunWaitsForEver,
    /// The next start does not sweep.
    NobodySweeps,
    /// A lease of the kernel's is renewed by somebody else than who holds the fault.
    LeaseOutlivesAHang,
}
use Mutation::*;

struct Protocol {
    broken: Option<Mutation>,
}

impl Protocol {
    fn is(&self, mutation: Mutation) -> bool {
        self.broken == Some(mutation)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Injector,
    DeadlinePasses,
    LeaseEnds,
    GuardWakes,
    GuardRestores,
    GuardMarks,
    GuardIsReplaced,
    RunWakes,
    RunRestores,
    RunMarks,
    SweepRestores,
    SweepMarks,
    Kill(Who),
    KillAll,
    Freeze(Who),
    Thaw(Who),
    PowerLoss,
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let begin = |undo| State {
            undo,
            run: Alive,
            injector: Alive,
            guard: NotYet,
            at: At::Planned,
            guard_at: Rescue::Watching,
            run_at: Rescue::Watching,
            sweep_at: Rescue::Watching,
            journal: Written::Nothing,
            in_force: false,
            told: false,
            kills: KILLS,
            freezes: FREEZES,
            power: true,
        };
        [Undo::KernelLease, Undo::Kernel, Undo::Journal, Undo::JournalOnDisk].map(begin).to_vec()
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        use Action::*;
        let mut when = |possible: bool, action| {
            if possible {
                actions.push(action);
            }
        };
        let waits = s.at == At::Applied && !s.told;
        when(s.injector == Alive && s.at != At::Done && !waits, Injector);
        when(s.at == At::Applied && !s.told, DeadlinePasses);
        let leased = s.undo == Undo::KernelLease && s.injector == Frozen && !self.is(LeaseOutlivesAHang);
        when(leased && s.in_force, LeaseEnds);

        let silent = s.injector == Frozen && !self.is(GuardHearsNoHeartbeat);
        let called = (s.injector == Dead || silent) && s.at >= At::Guarded;
        when(s.guard == Alive && s.guard_at == Rescue::Watching && called && s.at != At::Done, GuardWakes);
        when(s.guard == Alive && s.guard_at == Rescue::Called, GuardRestores);
        when(s.guard == Alive && s.guard_at == Rescue::Restored, GuardMarks);
        let holds = (At::Guarded..At::Released).contains(&s.at);
        when(s.guard == Dead && s.injector == Alive && holds && !self.is(GuardIsNotReplaced), GuardIsReplaced);

        // The run sees its injector's socket close; and one that is silent long after its deadline it kills.
        let overdue = s.injector == Frozen && !self.is(RunWaitsForEver);
        when(s.run == Alive && s.run_at == Rescue::Watching && (s.injector == Dead || overdue), RunWakes);
        when(s.run == Alive && s.run_at == Rescue::Called, RunRestores);
        when(s.run == Alive && s.run_at == Rescue::Restored, RunMarks);

        let sweeps = s.nobody_left() && s.journal == Written::Intent && !self.is(NobodySweeps);
        when(sweeps && s.sweep_at == Rescue::Watching, SweepRestores);
        when(sweeps && s.sweep_at == Rescue::Restored, SweepMarks);

        for who in EVERYONE {
            let life = *s.clone().life(who);
            when(s.kills > 0 && matches!(life, Alive | Frozen), Kill(who));
            when(s.freezes > 0 && life == Alive, Freeze(who));
            // A run or a guard that hangs is let go or killed some day. The injector may hang for ever.
            when(life == Frozen, Thaw(who));
            when(life == Frozen && who != Who::Injector, Kill(who));
        }
        when(s.kills > 0, KillAll);
        when(s.power, PowerLoss);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        match action {
            Action::Injector => self.injector(&mut s),
            Action::DeadlinePasses => s.told = true,
            Action::LeaseEnds => s.in_force = false,
            Action::GuardWakes => {
                if self.is(GuardFlees) {
                    s.guard_at = Rescue::Done;
                } else {
                    if !self.is(GuardSparesTheInjector) {
                        s.kill(Who::Injector);
                    }
                    // Under the record's lock: whoever comes second finds it done.
                    s.guard_at = if s.journal == Written::Intent { Rescue::Called } else { Rescue::Done };
                }
            }
            Action::GuardRestores => {
                s.in_force = false;
                s.guard_at = Rescue::Restored;
            }
            Action::GuardMarks => {
                s.journal = Written::Undone;
                s.guard_at = Rescue::Done;
                s.guard = Dead;
            }
            Action::GuardIsReplaced => {
                s.guard = Alive;
                s.guard_at = Rescue::Watching;
            }
            Action::RunWakes => {
                s.kill(Who::Injector);
                s.run_at = if s.journal == Written::Intent { Rescue::Called } else { Rescue::Done };
            }
            Action::RunRestores => {
                s.in_force = false;
                s.run_at = Rescue::Restored;
            }
            Action::RunMarks => {
                s.journal = Written::Undone;
                s.run_at = Rescue::Done;
            }
            Action::SweepRestores => {
                s.in_force = false;
                s.sweep_at = Rescue::Restored;
            }
            Action::SweepMarks => {
                s.journal = Written::Undone;
                s.sweep_at = Rescue::Done;
            }
            Action::Kill(who) => {
                s.kills = s.kills.saturating_sub(1);
                s.kill(who);
            }
            Action::KillAll => {
                s.kills = 0;
                EVERYONE.into_iter().filter(|who| *last.clone().life(*who) != NotYet).for_each(|who| s.kill(who));
            }
            Action::Freeze(who) => {
                s.freezes -= 1;
                *s.life(who) = Frozen;
            }
            Action::Thaw(who) => *s.life(who) = Alive,
            Action::PowerLoss => {
                s.power = false;
                (s.kills, s.freezes) = (0, 0);
                EVERYONE.into_iter().filter(|who| *last.clone().life(*who) != NotYet).for_each(|who| s.kill(who));
                s.in_force &= s.undo == Undo::JournalOnDisk;
            }
        }
        (s != *last).then_some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what is in force is the kernel's to take back, or is in the journal", |_, s: &State| {
                let kernel = matches!(s.undo, Undo::Kernel | Undo::KernelLease);
                !s.in_force || kernel || s.journal == Written::Intent
            }),
            Property::always("a fault in force has a live lease or a live guard", |model: &Self, s: &State| {
                // The injector holds its lease itself while it runs, the kernel while it hangs, the guard else; where
                // more than one of them was taken at once the run is left, and where all were, the next start.
                let kernel = s.undo == Undo::KernelLease;
                let lease = s.injector == Alive || kernel && s.injector == Frozen;
                let guard = matches!(s.guard, Alive | Frozen) && s.guard_at != Rescue::Done;
                let run = matches!(s.run, Alive | Frozen);
                !s.in_force || lease || guard || run || s.injector != Frozen && s.nobody_left() || model.lost(s)
            }),
            Property::always("a live injector has a guard, or is getting one", |model: &Self, s: &State| {
                let mut next = Vec::new();
                model.actions(s, &mut next);
                let guard = matches!(s.guard, Alive | Frozen) || next.contains(&Action::GuardIsReplaced);
                !(s.in_force && s.injector == Alive) || guard
            }),
            Property::always("a live injector whose run is dead is about to end", |_, s: &State| {
                !(s.in_force && s.injector == Alive && s.run == Dead) || s.told
            }),
            Property::always("when nothing moves any more, nothing is left", |model: &Self, s: &State| {
                let mut next = Vec::new();
                model.actions(s, &mut next);
                // Chaos may stop at any point; what is left then must come to its end without it.
                let chaos =
                    |a: &Action| matches!(a, Action::Kill(_) | Action::KillAll | Action::Freeze(_) | Action::PowerLoss);
                // A hang that lasts for ever is the hard case: no thaw comes to help.
                let moves = next.iter().any(|a| !chaos(a) && *a != Action::Thaw(Who::Injector));
                let frozen_others = s.run == Frozen || s.guard == Frozen;
                // A record may wait for the injector that hangs over it; the fault may not.
                let waits = s.journal == Written::Intent && s.injector != Frozen;
                moves || frozen_others || model.lost(s) || !s.in_force && !waits
            }),
            Property::sometimes("a fault comes into force and goes", |_, s: &State| s.at == At::Done && s.told),
            Property::sometimes("a guard undoes", |_, s: &State| s.guard_at == Rescue::Done && s.guard == Dead),
            Property::sometimes("the sweep undoes", |_, s: &State| s.sweep_at == Rescue::Done),
        ]
    }
}

impl Protocol {
    /// The one case that needs a person or the injector's own luck: it hangs for ever, run and guard were both killed,
    /// and the fault is none of the kernel's leases. `toprope undo` ends it by name.
    fn lost(&self, s: &State) -> bool {
        s.injector == Frozen && s.run == Dead && matches!(s.guard, Dead | NotYet) && s.undo != Undo::KernelLease
    }

    /// The injector's next step.
    fn injector(&self, s: &mut State) {
        let apply = |s: &mut State| s.in_force = true;
        s.at = match s.at {
            At::Planned => {
                if self.is(AppliesBeforeItWrites) {
                    apply(s);
                } else {
                    s.journal = Written::Intent;
                }
                At::Intended
            }
            At::Intended => {
                if self.is(AppliesBeforeItWrites) {
                    s.journal = Written::Intent;
                }
                if self.is(AppliesWithoutGuard) {
                    apply(s);
                } else {
                    (s.guard, s.guard_at) = (Alive, Rescue::Watching);
                }
                At::Guarded
            }
            At::Guarded => {
                if self.is(AppliesWithoutGuard) {
                    (s.guard, s.guard_at) = (Alive, Rescue::Watching);
                } else {
                    apply(s);
                }
                if self.is(InjectorIgnoresItsPipe) {
                    s.told = false;
                }
                At::Applied
            }
            At::Applied => At::Ending,
            At::Ending => {
                if self.is(MarksBeforeItReleases) {
                    s.journal = Written::Undone;
                } else {
                    s.in_force = false;
                }
                At::Released
            }
            At::Released => {
                if self.is(MarksBeforeItReleases) {
                    s.in_force = false;
                } else {
                    s.journal = Written::Undone;
                }
                At::Marked
            }
            At::Marked => {
                if s.guard == Alive {
                    (s.guard, s.guard_at) = (Dead, Rescue::Done);
                }
                At::Done
            }
            At::Done => At::Done,
        };
    }
}

fn broken_promises(mutation: Option<Mutation>) -> Vec<String> {
    let checker = Protocol { broken: mutation }
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .timeout(Duration::from_secs(240))
        .spawn_bfs()
        .join();
    if mutation.is_none() {
        assert!(checker.is_done(), "every history was looked at");
        assert!(
            checker.unique_state_count() > 5_000,
            "{} states are too few to mean much",
            checker.unique_state_count()
        );
        for sometimes in ["a fault comes into force and goes", "a guard undoes", "the sweep undoes"] {
            checker.assert_any_discovery(sometimes);
        }
    }
    let always = |name: &&'static str| checker.model().property(name).expectation == stateright::Expectation::Always;
    let found = checker.discoveries();
    found.iter().filter(|(name, _)| always(name)).map(|(name, path)| format!("{name}:\n{path:?}")).collect()
}

#[test]
fn nothing_is_left_behind_in_any_order_of_deaths_and_hangs() {
    let broken = broken_promises(None);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn without_any_one_of_its_promises_something_is_left_behind() {
    let mutations = [
        AppliesBeforeItWrites,
        AppliesWithoutGuard,
        MarksBeforeItReleases,
        GuardHearsNoHeartbeat,
        GuardSparesTheInjector,
        GuardFlees,
        InjectorIgnoresItsPipe,
        GuardIsNotReplaced,
        RunWaitsForEver,
        NobodySweeps,
        LeaseOutlivesAHang,
    ];
    let survived: Vec<_> = mutations.into_iter().filter(|m| broken_promises(Some(*m)).is_empty()).collect();
    assert!(survived.is_empty(), "the model does not notice: {survived:?}");
}
