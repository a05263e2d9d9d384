//! `toprope install-guard`: the sweep at boot, and the launcher.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use toprope_engine::injector::POLICY;

use crate::args::InstallGuardArgs;
use crate::invocation::Failure;
use crate::show;

/// Where units are written.
const UNITS: &str = "/etc/systemd/system";
/// There while systemd is process 1, see sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// What a launcher begins with: nobody may anything.
const NOTHING: &str = "\
# What ordinary users of this host may inject with root's rights: nothing, until you allow it. For instance
#   - {groups: [sre], faults: [cpu-stress, network-latency], longest: 5m, with: {to: ['127.0.0.1:5432']}}
# `toprope validate` checks this file.
apiVersion: toprope.dev/v1alpha1
kind: Policy
metadata: {name: this-host}
spec:
  allow: []
";

/// Writes the units and has systemd start them at every boot.
pub fn install_guard(args: &InstallGuardArgs) -> Result<u8, Failure> {
    let program = program()?;
    let mut units = vec![("toprope-guard.service", guard(&program), "enable")];
    if args.launcher {
        units.push(("toprope-launcher.service", launcher(&program), "enable --now"));
    }
    if args.print {
        units.iter().for_each(|(_, text, _)| show::text(text));
        return Ok(0);
    }
    if !Path::new(BOOTED).is_dir() {
        return Err(Failure::new("systemd does not run this machine, so it starts no units at boot")
            .help("have your init system run `toprope undo` as root at boot, once disks are mounted"));
    }
    if args.launcher {
        write_policy(Path::new(POLICY))?;
    }
    for (name, text, enable) in units {
        let path = format!("{UNITS}/{name}");
        std::fs::write(&path, text)
            .map_err(|e| Failure::new(format!("cannot write {path}: {e}")).help("run it as root"))?;
        for arguments in ["daemon-reload".to_owned(), format!("{enable} {name}")] {
            let done = Command::new("systemctl").args(arguments.split(' ')).status();
            if !done.as_ref().is_ok_and(std::process::ExitStatus::success) {
                let why = done.map_or_else(|e| e.to_string(), |status| status.to_string());
                return Err(Failure::new(format!("{path} is written, and `systemctl {arguments}` failed: {why}")));
            }
        }
        show::line(&match name {
            "toprope-guard.service" => {
                format!("{path} is written: at every boot it undoes what root's journal says was left")
            }
            _ => format!("{path} is written: users may inject what {POLICY} allows"),
        });
    }
    Ok(0)
}

/// Writes a policy that allows nothing, where there is none.
fn write_policy(path: &Path) -> Result<(), Failure> {
    let cannot =
        |e: std::io::Error| Failure::new(format!("cannot write {}: {e}", path.display())).help("run it as root");
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(cannot)?;
    }
    match std::fs::File::create_new(path) {
        Ok(mut file) => file.write_all(NOTHING.as_bytes()).map_err(cannot),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(cannot(e)),
    }
}

/// This program's path, as a unit can name it.
fn program() -> Result<String, Failure> {
    checked(&std::fs::read_link("/proc/self/exe")?)
}

fn checked(program: &Path) -> Result<String, Failure> {
    let path = program.to_str().filter(|p| p.chars().all(|c| c.is_ascii_alphanumeric() || "/._+-".contains(c)));
    path.map(str::to_owned).ok_or_else(|| {
        Failure::new(format!("{} is no path for a unit", program.display())).help("install Toprope in /usr/local/bin")
    })
}

fn guard(program: &str) -> String {
    format!(
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
         ExecStart={program} undo\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// Only the launcher itself is stopped with its unit: a fault in force ends with its run, undone by whoever holds it.
fn launcher(program: &str) -> String {
    format!(
        "# Written by `toprope install-guard --launcher`.\n\
         [Unit]\n\
         Description=Start Toprope's injectors for users, as {POLICY} allows\n\
         Documentation=man:toprope(1)\n\
         After=toprope-guard.service\n\
         \n\
         [Service]\n\
         UnsetEnvironment=TOPROPE_HOME SUDO_UID\n\
         ExecStart={program} launcher\n\
         Restart=on-failure\n\
         KillMode=process\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_undoes_roots_journal_once_at_boot() {
        let text = guard(&checked(Path::new("/usr/local/bin/toprope")).unwrap());
        for line in [
            "ExecStart=/usr/local/bin/toprope undo",
            "Type=oneshot",
            "RequiresMountsFor=/var/lib/toprope",
            "UnsetEnvironment=TOPROPE_HOME SUDO_UID",
            "WantedBy=multi-user.target",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert!(checked(Path::new("/tmp/a b/toprope")).is_err(), "systemd would read two words");
    }

    #[test]
    fn a_launcher_begins_with_a_policy_that_allows_nothing_and_never_overwrites_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etc/policy.yaml");
        write_policy(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let node = toprope_model::parse(&mut toprope_model::Sources::default(), "", &text).unwrap();
        let policy = toprope_model::policy::Policy::read(&node, &crate::invocation::tables()).unwrap();
        assert!(policy.spec.allow.is_empty());
        std::fs::write(&path, "mine").unwrap();
        write_policy(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        assert!(launcher("/usr/bin/toprope").contains("\nExecStart=/usr/bin/toprope launcher\n"));
    }
}
