//! `toprope install-guard`: the sweep at boot.

use std::path::Path;
use std::process::Command;

use crate::args::InstallGuardArgs;
use crate::invocation::Failure;
use crate::show;

/// Where the unit is written.
const UNIT: &str = "/etc/systemd/system/toprope-guard.service";
/// There while systemd is process 1, see sd_booted(3).
const BOOTED: &str = "/run/systemd/system";

/// Writes the unit and has systemd start it at every boot.
pub fn install_guard(args: &InstallGuardArgs) -> Result<u8, Failure> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let unit = unit(&program)?;
    if args.print {
        show::text(&unit);
        return Ok(0);
    }
    if !Path::new(BOOTED).is_dir() {
        return Err(Failure::new("systemd does not run this machine, so it starts no units at boot")
            .help("have your init system run `toprope undo` as root at boot, once disks are mounted"));
    }
    std::fs::write(UNIT, unit).map_err(|e| Failure::new(format!("cannot write {UNIT}: {e}")).help("run it as root"))?;
    for arguments in [&["daemon-reload"][..], &["enable", "toprope-guard.service"]] {
        let done = Command::new("systemctl").args(arguments).status();
        if !done.as_ref().is_ok_and(std::process::ExitStatus::success) {
            let why = done.map_or_else(|e| e.to_string(), |status| status.to_string());
            return Err(Failure::new(format!(
                "{UNIT} is written, and `systemctl {}` failed: {why}",
                arguments.join(" ")
            )));
        }
    }
    show::line(&format!("{UNIT} is written: at every boot it undoes what root's journal says was left"));
    Ok(0)
}

/// The unit for a program.
fn unit(program: &Path) -> Result<String, Failure> {
    let path = program.to_str().filter(|p| p.chars().all(|c| c.is_ascii_alphanumeric() || "/._+-".contains(c)));
    let path = path.ok_or_else(|| {
        Failure::new(format!("{} is no path for a unit", program.display())).help("install Toprope in /usr/local/bin")
    })?;
    Ok(format!(
        "# Written by `toprope install-guard`.\n\
         [Unit]\n\
         Description=Undo what Toprope had in force when this machine went down\n\
         Documentation=man:toprope(1)\n\
         RequiresMountsFor=/var/lib/toprope\n\
         After=local-fs.target\n\
         ConditionDirectoryNotEmpty=/var/lib/toprope/journal\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         UnsetEnvironment=TOPROPE_HOME SUDO_UID\n\
         ExecStart={path} undo\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_undoes_roots_journal_once_at_boot() {
        let text = unit(Path::new("/usr/local/bin/toprope")).unwrap();
        for line in [
            "ExecStart=/usr/local/bin/toprope undo",
            "Type=oneshot",
            "RequiresMountsFor=/var/lib/toprope",
            "UnsetEnvironment=TOPROPE_HOME SUDO_UID",
            "WantedBy=multi-user.target",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert!(unit(Path::new("/tmp/a b/toprope")).is_err(), "systemd would read two words");
    }
}
