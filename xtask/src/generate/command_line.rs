//! The page of the command line: what `toprope` itself says when it is asked for help.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use super::NOTICE;
use crate::failure::Failure;
use crate::workspace::output;

/// The page, from a built `toprope`.
pub(super) fn page(toprope: &Path) -> Result<String, Failure> {
    let main = help(toprope, &[])?;
    let commands = commands(&main);
    if commands.is_empty() {
        return Err(Failure::Found(format!("{} --help lists no commands", toprope.display())));
    }
    let mut text = format!("# Command line\n\n{NOTICE}\n\n```text\n{main}\n```\n");
    for command in commands {
        let help = help(toprope, &[command])?;
        write!(text, "\n## toprope {command}\n\n```text\n{help}\n```\n").expect("writing to a string cannot fail");
    }
    Ok(text)
}

fn help(toprope: &Path, command: &[&str]) -> Result<String, Failure> {
    // Colours and widths of whoever runs this do not belong on the page.
    let text = output(Command::new(toprope).args(command).arg("--help").env_clear())?;
    Ok(text.trim_end().to_owned())
}

/// The names in the list of commands: the first word of each of its lines that is indented by two.
fn commands(help: &str) -> Vec<&str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let entries = list.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    entries.filter_map(|entry| entry.split_whitespace().next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_from_the_list() {
        let help =
            "About\n\nUsage: x\n\nCommands:\n  run   Run it,\n          to its end\n  plan  Plan\n\nOptions:\n  -h";
        assert_eq!(commands(help), ["run", "plan"]);
        assert!(commands("no list").is_empty());
    }
}
