//! The binary `toprope`: composition only. What it does is in the engine, the faults and the probes.

mod args;
mod command;
mod invocation;
mod load;
mod process;
mod reach;
mod render;
mod show;
mod view;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    toprope_os::lookup::without_modules();
    // These processes take no arguments but their name: what they do comes over a socket.
    match std::env::args().nth(1).as_deref() {
        Some("injector") => return process::injector(),
        Some("guard") => return process::guard(),
        Some("pass-through") => return process::pass_through(),
        Some("starter") => return process::starter(),
        Some("reach") => return process::reach(),
        _ => {}
    }
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors; everything else is invalid input.
            let code = if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
            let _ = error.print();
            return code;
        }
    };
    match command::dispatch(args.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit)
        }
    }
}
