//! Routes of all tables, blackholes among them.

use super::{Class, Facts, Place, program};

/// The class.
pub(super) struct Routes;

impl Class for Routes {
    fn name(&self) -> &'static str {
        "routes"
    }

    fn look(&self, _: &Place) -> Result<Facts, String> {
        let mut lines = program::lines("ip", &["-4", "route", "show", "table", "all"])?;
        lines.extend(program::lines("ip", &["-6", "route", "show", "table", "all"])?);
        Ok(program::counted(lines))
    }
}
