//! `toprope halt`, `toprope stop`: stop levers.

use std::time::{Duration, Instant};

use toprope_engine::halt::{Levers, Reach, Scope};
use toprope_engine::run::{Life, life};

use crate::args::{HaltArgs, StopArgs};
use crate::invocation::{Failure, levers, state, user};
use crate::show;

/// How long a run may take to end: its undo and its last samples.
const ENDING: Duration = Duration::from_secs(30);

/// Halts runs, or allows them again.
pub fn halt(args: &HaltArgs) -> Result<u8, Failure> {
    let levers = levers()?;
    let scope = args.service.clone().map_or(Scope::All, Scope::Service);
    if args.list {
        return Ok(list(&levers));
    }
    if args.lift {
        let lifted = levers.lift(&scope).map_err(|e| {
            Failure::from(e).help("the order is another user's: ask them, or lift it with `sudo toprope halt --lift`")
        })?;
        show::line(&if lifted { format!("{scope} may begin again") } else { format!("{scope} were not halted") });
        return Ok(0);
    }
    let by = user();
    let lift = args.service.as_ref().map_or(String::new(), |name| format!(" --service {name}"));
    match levers.pull(&scope, &by, &args.why)? {
        Reach::Host => {
            show::line(&format!("{scope} on this host are stopped, and none begins until `toprope halt{lift} --lift`"))
        }
        Reach::Own => {
            show::line(&format!("{scope} of {by} are stopped, and none begins until `toprope halt{lift} --lift`"));
            show::note(
                "other users' runs go on: `sudo toprope halt` stops them, and lets every user halt from then on",
            );
        }
    }
    Ok(0)
}

fn list(levers: &Levers) -> u8 {
    let orders = levers.orders();
    if orders.is_empty() {
        show::line("nothing is halted");
    }
    for order in &orders {
        show::line(&format!("{order}\n  {}", order.path.display()));
    }
    0
}

/// Stops one run, and waits until it has ended.
pub fn stop(args: &StopArgs) -> Result<u8, Failure> {
    let (state, levers) = (state()?, levers()?);
    let Some(run) = state.find_run(&args.run) else {
        return foreign(&levers, args);
    };
    let directory = state.run(&run);
    match life(&directory) {
        Life::Running => {}
        Life::Ended => return Err(Failure::new(format!("run {run} has ended already"))),
        Life::Killed => {
            let what = format!("run {run} was killed, so there is nothing to stop");
            return Err(Failure::new(what).help(format!("`toprope undo {run}` undoes what it may have left")));
        }
    }
    let scope = Scope::Run(run.clone());
    levers.pull_own(&scope, &user(), &args.why)?;
    let asked = Instant::now();
    while life(&directory) == Life::Running && asked.elapsed() < ENDING {
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = life(&directory) != Life::Running;
    // Its order has been heard, or never will be.
    levers.lift(&scope)?;
    if !ended {
        let what = format!("run {run} did not end within {ENDING:?}");
        return Err(Failure::new(what).exit(4).help(format!("`toprope undo {run}` ends its faults without it")));
    }
    show::line(&format!("run {run} has ended; `toprope report {run}` says how"));
    Ok(0)
}

/// A run that is not in this user's state can only be asked to end, by its whole id.
fn foreign(levers: &Levers, args: &StopArgs) -> Result<u8, Failure> {
    let unknown = || {
        Failure::new(format!("there is no run `{}` of this user, or more than one", args.run))
            .help("`toprope runs` lists them; another user's run is stopped by its whole id")
    };
    // As `new_run_id` makes them.
    let whole = args.run.len() == 20 && args.run.starts_with(|c: char| c.is_ascii_digit());
    if !whole {
        return Err(unknown());
    }
    let scope = Scope::Run(args.run.clone());
    match levers.pull(&scope, &user(), &args.why)? {
        Reach::Host => {
            show::line(&format!("whoever runs {} on this host is told to stop it", args.run));
            // Long enough to be heard; an id is never used again.
            std::thread::sleep(Duration::from_secs(2));
            levers.lift(&scope)?;
            Ok(0)
        }
        Reach::Own => {
            levers.lift(&scope)?;
            Err(unknown())
        }
    }
}
