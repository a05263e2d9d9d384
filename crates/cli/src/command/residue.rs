//! `toprope residue`: what chaos left on this host.

use serde_json::json;
use toprope_engine::journal::Standing;
use toprope_os::process::{ProcessId, processes};

use crate::args::ResidueArgs;
use crate::invocation::{Failure, state};
use crate::show;

/// One thing that is left.
struct Finding {
    what: String,
    evidence: String,
    undo: String,
}

/// Lists what is left of Toprope's own injections; exit 0 means clean.
pub fn residue(args: &ResidueArgs) -> Result<u8, Failure> {
    let mut findings = Vec::new();
    journal(&mut findings)?;
    own_processes(&mut findings)?;
    if args.json {
        let row = |f: &Finding| json!({"what": f.what, "evidence": f.evidence, "undo": f.undo});
        let list: Vec<_> = findings.iter().map(row).collect();
        show::line(&serde_json::to_string_pretty(&list).unwrap_or_default());
    } else if findings.is_empty() {
        show::line("clean: nothing of Toprope's is in force or left on this host");
    } else {
        for f in &findings {
            show::line(&format!("{}\n  evidence  {}\n  undo      {}", f.what, f.evidence, f.undo));
        }
    }
    Ok(if findings.is_empty() { 0 } else { 4 })
}

fn journal(findings: &mut Vec<Finding>) -> Result<(), Failure> {
    for record in state()?.journal().records()? {
        let (fault, run) = (&record.intent.fault, &record.intent.run);
        let what = match record.standing() {
            Standing::Undone => continue,
            Standing::InForce => format!("{fault} of run {run} is in force"),
            Standing::Dirty => format!("{fault} of run {run} was never undone"),
        };
        let steps: Vec<&str> = record.intent.steps.iter().map(|s| s.describe.as_str()).collect();
        let evidence = format!("{} ({})", record.path.display(), steps.join("; "));
        findings.push(Finding { what, evidence, undo: format!("toprope undo {run}") });
    }
    Ok(())
}

/// Injectors and guards that no run started, or whose run is gone.
fn own_processes(findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let me = std::fs::read_link("/proc/self/exe").ok();
    let all = processes().map_err(|e| Failure::new(e.to_string()))?;
    let this = ProcessId::current().map_err(|e| Failure::new(e.to_string()))?;
    for process in all {
        let role = process.cmdline.get(1).map(String::as_str).unwrap_or_default();
        if process.exe != me || process.id == this || !matches!(role, "injector" | "guard") {
            continue;
        }
        findings.push(Finding {
            what: format!("an {role} is running").replace("an guard", "a guard"),
            evidence: format!("process {}: {}", process.id.pid(), process.cmdline.join(" ")),
            undo: format!("it ends with its run; else `kill {}`", process.id.pid()),
        });
    }
    Ok(())
}
