//! The demo shop by itself: `shop up` runs all five services, `shop SERVICE --listen ADDRESS` one of them.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// A small shop with five planted weaknesses, to practise chaos engineering on.
#[derive(Parser)]
#[command(name = "shop", version)]
struct Cli {
    #[command(subcommand)]
    command: toprope_shop::cli::Command,
}

fn main() -> ExitCode {
    match toprope_shop::cli::execute(Cli::parse().command, &[]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading; the exit code tells all the same.
            let _ = writeln!(std::io::stderr(), "shop: {error}");
            ExitCode::FAILURE
        }
    }
}
