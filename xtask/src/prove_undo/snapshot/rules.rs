//! Rules that choose among tables of routes.

use super::{Class, Facts, Place, program};

/// The class.
pub(super) struct Rules;

impl Class for Rules {
    fn name(&self) -> &'static str {
        "rules"
    }

    fn look(&self, _: &Place) -> Result<Facts, String> {
        let mut lines = program::lines("ip", &["-4", "rule", "show"])?;
        lines.extend(program::lines("ip", &["-6", "rule", "show"])?);
        Ok(program::counted(lines))
    }
}
