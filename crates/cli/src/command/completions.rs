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

/// Prints the manual page: one for all commands.
pub fn man() -> Result<u8, Failure> {
    print(&page()?)
}

fn page() -> std::io::Result<Vec<u8>> {
    let command = Args::command();
    let man = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    // Not the list of subcommands: it names a page for each, and there is only this one.
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        let name = format!("toprope {}", sub.get_name());
        let man = clap_mangen::Man::new(sub.clone().bin_name(&name));
        let mut section = Vec::new();
        man.render_synopsis_section(&mut section)?;
        man.render_description_section(&mut section)?;
        man.render_options_section(&mut section)?;
        writeln!(text, ".SH \"{name}\"")?;
        text.extend(String::from_utf8_lossy(&section).replace(".SH ", ".SS ").into_bytes());
    }
    man.render_version_section(&mut text)?;
    Ok(text)
}

fn print(text: &[u8]) -> Result<u8, Failure> {
    // `toprope man | head` is no error.
    let _ = std::io::stdout().write_all(text);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_page_has_every_command_and_names_no_other_page() {
        let text = String::from_utf8(page().expect("memory is written to")).expect("it is text");
        for command in ["run", "plan", "undo", "exec"] {
            assert!(text.contains(&format!(".SH \"toprope {command}\"")), "{command}: {text}");
        }
        assert!(!text.contains("(1)"), "{text}");
        assert_eq!(text.matches(".TH ").count(), 1);
    }
}
