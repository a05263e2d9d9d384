//! One file for each command.

mod completions;
mod demo;
mod exec;
mod halt;
mod init;
mod inject;
mod install_guard;
mod kinds;
pub(crate) mod launcher;
mod plan;
mod report;
mod residue;
mod run;
mod runs;
mod schema;
mod test;
mod undo;
mod validate;

use crate::args::Command;
use crate::invocation::Failure;

/// Does what the command line says; returns the exit code.
pub fn dispatch(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Exec(args) => exec::exec(&args),
        Command::Init(args) => init::init(&args),
        Command::Validate(args) => validate::validate(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Run(args) => run::run(&args),
        Command::Inject(args) => inject::inject(&args),
        Command::Test(args) => test::test(&args),
        Command::Runs(args) => runs::runs(&args),
        Command::Report(args) => report::report(&args),
        Command::Replay(args) => report::replay(&args),
        Command::Halt(args) => halt::halt(&args),
        Command::Stop(args) => halt::stop(&args),
        Command::Undo(args) => undo::undo(&args),
        Command::Residue(args) => residue::residue(&args),
        Command::InstallGuard(args) => install_guard::install_guard(&args),
        Command::Launcher(args) => launcher::launcher(&args),
        Command::Faults(args) => kinds::faults(&args),
        Command::Probes(args) => kinds::probes(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Shop(args) => demo::shop(&args),
        Command::Schema(args) => schema::schema(&args),
        Command::Completions { shell } => completions::completions(shell),
        Command::Man => completions::man(),
    }
}
