//! Queueing disciplines (tc(8)) with their classes and filters: where delay, loss and limits of other tools live.

use super::{Class, Facts, Place, program};

/// The class.
pub(super) struct Qdiscs;

impl Class for Qdiscs {
    fn name(&self) -> &'static str {
        "qdiscs"
    }

    fn look(&self, _: &Place) -> Result<Facts, String> {
        let mut lines = program::lines("tc", &["qdisc", "show"])?;
        // An interface has filters and classes only where it has a discipline that is not the kernel's own default.
        let mut interfaces: Vec<String> = lines
            .iter()
            .filter(|line| !line.contains("noqueue"))
            .filter_map(|line| Some(line.split_once(" dev ")?.1.split(' ').next()?.to_owned()))
            .collect();
        interfaces.dedup();
        for interface in interfaces {
            let of = |what: &str, line: String| format!("{what} of {interface}: {line}");
            lines.extend(
                program::lines("tc", &["class", "show", "dev", &interface])?.into_iter().map(|l| of("class", l)),
            );
            for side in ["root", "ingress", "egress"] {
                // A side that the interface does not have is an error to some versions, and no filter to others.
                let filters = program::lines("tc", &["filter", "show", "dev", &interface, side]).unwrap_or_default();
                lines.extend(filters.into_iter().map(|l| of(&format!("{side} filter"), l)));
            }
        }
        Ok(program::counted(lines))
    }
}
