//! Network interfaces: made, taken away, set down, given another MTU.

use super::{Class, Facts, Place, program};

/// The class.
pub(super) struct Links;

impl Class for Links {
    fn name(&self) -> &'static str {
        "links"
    }

    fn look(&self, _: &Place) -> Result<Facts, String> {
        program::facts("ip", &["-oneline", "link", "show"])
    }
}
