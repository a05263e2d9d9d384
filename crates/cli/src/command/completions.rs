//! `toprope completions` and `toprope man`

use std::io::Write;

use clap::CommandFactory;

use crate::args::Args;
use crate::invocation::Failure;

/// Prints the completions for a shell.
pub fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "toprope", &mut text);
    print(&text)
}

/// Prints the manual page, with a section for each command.
pub fn man() -> Result<u8, Failure> {
    let command = Args::command();
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        let man = clap_mangen::Man::new(sub.clone()).title(format!("toprope {}", sub.get_name()));
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_options_section(&mut text)?;
    }
    print(&text)
}

fn print(text: &[u8]) -> Result<u8, Failure> {
    // `toprope man | head` is no error.
    let _ = std::io::stdout().write_all(text);
    Ok(0)
}
