//! The house's own tasks: what is derived from the code, what every change must keep, what is shipped, how fast it is.

mod bench;
mod dist;
mod failure;
mod generate;
mod prove_undo;
mod tidy;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Tasks of the house
#[derive(Debug, Parser)]
#[command(name = "xtask", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Write what is derived from the code: docs/reference and schema
    Generate {
        /// Write nothing; fail if what is there is not what would be written
        #[arg(long)]
        check: bool,
        /// A built `toprope` to ask for its help, instead of building one
        #[arg(long, value_name = "FILE")]
        toprope: Option<PathBuf>,
    },
    /// Check the rules of the house that no compiler knows
    Tidy,
    /// Make the static binary and the Debian package, in target/dist
    Dist(dist::Args),
    /// Measure what the issue of speed promises, and print it as a Markdown table
    Bench(bench::Args),
    /// Prove that nothing of a fault is left, whoever is killed and whenever
    ProveUndo(prove_undo::Args),
    /// A process of a round of `prove-undo`
    #[command(hide = true, subcommand)]
    Proof(prove_undo::Part),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let workspace = Workspace::here();
    let done = match args.task {
        Task::Generate { check, toprope } => generate::generate(&workspace, check, toprope),
        Task::Tidy => tidy::tidy(&workspace),
        Task::Dist(args) => dist::dist(&workspace, &args),
        Task::Bench(args) => bench::bench(&workspace, &args),
        Task::ProveUndo(args) => prove_undo::prove(&workspace, &args),
        Task::Proof(part) => return prove_undo::part(&part),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
