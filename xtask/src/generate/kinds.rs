//! The pages of all faults and all probes.

use std::fmt::Write;

use toprope_model::experiment::{FaultCommon, ProbeCommon};
use toprope_model::kind::{Danger, FaultSpec, KindSpec, Need, Tables, UndoKind};

use super::NOTICE;
use super::fields::table;

/// The page of faults.
pub(super) fn faults(tables: &Tables) -> String {
    let intro = "A fault is one item of an experiment's `method`: a map with one key, its kind. The same words make \
                 `toprope inject KIND key=value… --for 30s`. `toprope faults KIND` shows a kind's section in a terminal.";
    let specs: Vec<&KindSpec> = tables.faults.iter().map(|f| &f.spec).collect();
    let mut text = beginning("Faults", intro, &specs);
    for fault in &tables.faults {
        section(&mut text, &fault.spec, &facts(fault));
    }
    ending(&mut text, "fault", &FaultCommon::fields());
    text
}

/// The page of probes.
pub(super) fn probes(tables: &Tables) -> String {
    let intro = "A probe is one item of an experiment's `probes`: a map with one key, its kind. `toprope probes KIND` \
                 shows a kind's section in a terminal.";
    let mut text = beginning("Probes", intro, &tables.probes);
    for probe in &tables.probes {
        section(&mut text, probe, "");
    }
    ending(&mut text, "probe", &ProbeCommon::fields());
    text
}

fn beginning(title: &str, intro: &str, specs: &[&KindSpec]) -> String {
    let mut text = format!("# {title}\n\n{NOTICE}\n\n{intro}\n\n| kind | |\n| --- | --- |\n");
    for spec in specs {
        let row = format!("[`{0}`](#{0}) | {1}", spec.kind, spec.summary.replace('|', "\\|"));
        writeln!(text, "| {row} |").expect("writing to a string cannot fail");
    }
    text
}

fn section(text: &mut String, spec: &KindSpec, facts: &str) {
    let parameters = table(&(spec.fields)());
    write!(
        text,
        "\n## {}\n\n{}\n\n{}\n\n{facts}```yaml\n{}\n```\n\n{parameters}",
        spec.kind,
        spec.summary,
        spec.docs.trim(),
        spec.example.trim(),
    )
    .expect("writing to a string cannot fail");
}

fn ending(text: &mut String, what: &str, common: &[toprope_model::Field]) {
    write!(text, "\n## What every {what} takes\n\n{}", table(common)).expect("writing to a string cannot fail");
}

/// What a reader must know of a fault before using it, as a list.
fn facts(fault: &FaultSpec) -> String {
    let lasts = if fault.lasting { "for the time that `for` says, which must be given" } else { "one instant" };
    let undo = match fault.undo {
        UndoKind::KernelOwned => "by the kernel, as soon as the process that holds it is gone",
        UndoKind::Journalled => {
            "by its injector, else its guard, else `toprope undo`, from what the journal says was found"
        }
        UndoKind::Irreversible => "it cannot be undone; the plan says what it leaves",
    };
    let reach = match fault.danger {
        Danger::Contained => "its target at most, and only while it lasts",
        Danger::SharesHost => "other users of the same host feel it too",
        Danger::Lasting => "something is lost for good: a process, a connection, unsaved data",
    };
    let probes = if fault.recovers { "expected to recover from it" } else { "expected to stay unaffected" };
    let needs: Vec<&str> = fault.needs.iter().map(|need| capabilities(*need)).collect();
    let needs = if needs.is_empty() { "none".into() } else { needs.join("; ") };
    let ramps: Vec<String> = fault.ramps.iter().map(|name| format!("`{name}`")).collect();
    let ramps = if ramps.is_empty() { String::new() } else { format!("- **Can ramp**: {}\n", ramps.join(", ")) };
    format!(
        "- **Lasts**: {lasts}\n- **Undone**: {undo}\n- **At worst**: {reach}\n- **Probes** are by default {probes}\n\
         {ramps}- **Privileges** that it uses: {needs}\n\n"
    )
}

fn capabilities(need: Need) -> &'static str {
    match need {
        Need::NetAdmin => "CAP_NET_ADMIN (also had inside a user namespace, over its own network)",
        Need::Bpf => "CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN",
        Need::Kill => "CAP_KILL, for processes of other users",
        Need::Ptrace => "CAP_SYS_PTRACE, for processes of other users",
        Need::DacOverride => "CAP_DAC_OVERRIDE, to write where the user may not",
        Need::SetUser => "CAP_SETUID and CAP_SETGID, to run as the user who wrote the manifest",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toprope_faults::FAULTS;

    #[test]
    fn every_fault_has_its_section_and_a_way_to_it() {
        let page = faults(&Tables { faults: FAULTS.specs(), probes: vec![] });
        for spec in FAULTS.specs() {
            let kind = spec.spec.kind;
            assert!(page.contains(&format!("\n## {kind}\n")), "{kind}");
            assert!(page.contains(&format!("(#{kind})")), "{kind}");
        }
    }
}
