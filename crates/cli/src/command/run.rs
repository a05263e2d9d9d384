//! `toprope run`

use toprope_engine::injector::Launch;
use toprope_engine::run::{Setup, StopSwitch};
use toprope_faults::FAULTS;
use toprope_model::event::Event;
use toprope_os::user::Identity;

use super::plan::at_its_place;
use crate::args::RunArgs;
use crate::invocation::{Failure, directory, launch, runtime, state, tables, through, user};
use crate::load::{self, Loaded};
use crate::show;

/// Runs an experiment to its verdict.
pub fn run(args: &RunArgs) -> Result<u8, Failure> {
    through(&args.launcher)?;
    let (mut loaded, again) = match (&args.file, &args.again) {
        (Some(file), _) => (load::experiment(file, &args.set, &tables())?, None),
        (None, Some(run)) => again(run)?,
        (None, None) => return Err(Failure::new("neither a file nor --again was given")),
    };
    if let Some(search) = &args.search {
        loaded = with_search(&loaded, search)?;
    }
    let mut setup = setup(&loaded, "run")?;
    setup.again = again.as_ref().map(|(run, _)| run.clone());
    setup.seed = args.seed.or(again.map(|(_, seed)| seed));
    execute(&loaded, setup, &args.output)
}

/// Runs what was set up, shows it, and writes what was asked for.
pub fn execute(loaded: &Loaded, setup: Setup, output: &crate::args::OutputArgs) -> Result<u8, Failure> {
    super::report::must_be_writable(output.files())?;
    let stop = StopSwitch::default();
    let finished =
        runtime()?.block_on(show::run_shown(setup, stop, output)).map_err(|error| at_its_place(error, loaded))?;
    // The verdict stands also where its report cannot be written: the exit code is the verdict's.
    if let Err(failure) = super::report::write_outputs(&finished, output) {
        failure.print();
    }
    Ok(finished.judgement.exit_code())
}

/// What the engine needs for an experiment that was loaded.
pub fn setup(loaded: &Loaded, command: &'static str) -> Result<Setup, Failure> {
    let (launch, journal) = launch()?;
    Ok(Setup {
        experiment: loaded.experiment.clone(),
        topology: loaded.topology.clone(),
        tables: tables(),
        faults: FAULTS,
        state: state()?,
        journal,
        launch: launch.clone(),
        command,
        directory: directory(),
        user: user(),
        // Injectors are root's then, and what the manifest has them run is not.
        invoking_user: match launch {
            Launch::Direct(_) => None,
            Launch::Launcher(_) => Identity::current().ok().map(|i| i.uid),
        },
        again: None,
        seed: None,
        person: None,
    })
}

/// The manifest and seed of a recorded run.
fn again(text: &str) -> Result<(Loaded, Option<(String, u64)>), Failure> {
    let state = state()?;
    let run = super::runs::find(&state, text)?;
    let log = toprope_engine::log::read(&state.run(&run).join(toprope_engine::log::FILE))?;
    let Some(Event::RunStarted(started)) = log.records.first().map(|r| &r.event) else {
        return Err(Failure::new(format!("the log of run {run} does not begin with its manifest")));
    };
    Ok((load::from_json(&started.manifest, started.topology.as_ref(), &tables())?, Some((run, started.seed))))
}

/// The same experiment with a search.
fn with_search(loaded: &Loaded, text: &str) -> Result<Loaded, Failure> {
    let Some((parameter, range)) = text.split_once('=') else {
        return Err(Failure::new(format!("--search {text}: write PARAMETER=LOW..HIGH, for instance delay=50ms..2s")));
    };
    let mut json = loaded.experiment.node.to_json();
    json["spec"]["search"] = serde_json::json!({ parameter: range });
    let topology = loaded.topology.as_ref().map(|t| t.node.to_json());
    load::from_json(&json, topology.as_ref(), &tables())
}

#[cfg(test)]
mod tests {
    use toprope_model::{Node, Sources};

    use super::*;

    #[test]
    fn a_manifest_survives_its_way_through_the_log() {
        let text = include_str!("../../../../examples/first.yaml");
        let mut sources = Sources::default();
        let node = toprope_model::parse(&mut sources, "first.yaml", text).unwrap();
        let again = load::from_json(&node.to_json(), None, &tables()).unwrap();
        assert_eq!(again.experiment.node.to_json(), Node::to_json(&node));
    }
}
