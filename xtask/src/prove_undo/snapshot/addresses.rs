//! Addresses of network interfaces.

use super::{Class, Facts, Place, program};

/// The class.
pub(super) struct Addresses;

impl Class for Addresses {
    fn name(&self) -> &'static str {
        "addresses"
    }

    fn look(&self, _: &Place) -> Result<Facts, String> {
        program::facts("ip", &["-oneline", "address", "show"])
    }
}
