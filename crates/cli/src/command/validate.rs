//! `toprope validate`

use std::path::Path;

use crate::args::ValidateArgs;
use crate::invocation::{Failure, tables};
use crate::{load, show};

/// Checks manifests and says which are fine. All are checked, also after one that is not.
pub fn validate(args: &ValidateArgs) -> Result<u8, Failure> {
    let tables = tables();
    let mut bad = 0;
    for file in &args.files {
        let name = file.display();
        let kind = if file == Path::new("-") { None } else { load::kind_of(file) };
        let checked = match kind.as_deref() {
            Some("Topology") => load::topology(file, &args.set)
                .map(|t| format!("{name}: topology {}, {} services", t.name, t.spec.services.len())),
            Some("Policy") => load::policy(file, &tables)
                .map(|policy| format!("{name}: policy, {}", show::count(policy.spec.allow.len(), "permission"))),
            _ => load::experiment(file, &args.set, &tables).map(|loaded| {
                let spec = &loaded.experiment.spec;
                let (probes, faults) = (spec.probes.len(), loaded.experiment.faults().len());
                format!(
                    "{name}: experiment {}, {}, {}",
                    loaded.experiment.name,
                    show::count(probes, "probe"),
                    show::count(faults, "fault")
                )
            }),
        };
        match checked {
            Ok(text) => show::line(&text),
            Err(failure) => {
                failure.print();
                bad += 1;
            }
        }
    }
    Ok(if bad == 0 { 0 } else { 2 })
}
