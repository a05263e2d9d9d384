//! Refuse: a service that is not there.

use super::{Admission, Rule};

/// Resets new connections as they are accepted, before the upstream is called. Those that are open go on.
///
/// The kernel has answered the handshake by then: a client sees its connect succeed and the first read or write fail
/// with `ECONNRESET`, where a closed port would fail the connect with `ECONNREFUSED`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refuse;

impl Rule for Refuse {
    fn admit(&self) -> Admission {
        Admission::Reset
    }
}
