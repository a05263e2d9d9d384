//! What the faults on the network share: whose traffic, where to, and the two ways to get hold of it: a proxy that TCP
//! streams are led through, and the kernel's packet filter.

mod census;
mod clients;
mod destination;
mod family;
mod filter;
mod gone;
mod interception;
mod packets;
mod pass_through;
mod renamed;
mod streams;
mod table;

#[cfg(test)]
mod hosts;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use toprope_engine::fault::FaultError;
use toprope_model::choice;

pub(crate) use filter::{Filter, Selected, Treatment};
pub(crate) use packets::{Protocol, Traffic};
pub(crate) use streams::{Listen, Reach, Shape, apply, check_reach, pass_through, passage, plan, undo};

choice! {
    /// One way of a conversation or both, as seen from those who are meant by `from`.
    pub(crate) enum Direction {
        /// What comes back to them.
        In = "in",
        /// What they send.
        Out = "out",
        /// Both.
        Both = "both",
    }
}

impl Direction {
    /// The same, as the proxy calls it.
    pub(crate) fn of_the_proxy(self) -> toprope_proxy::Direction {
        match self {
            Self::In => toprope_proxy::Direction::Down,
            Self::Out => toprope_proxy::Direction::Up,
            Self::Both => toprope_proxy::Direction::Both,
        }
    }
}

/// Runs what blocks off the runtime's threads: requests to the kernel, which it answers within milliseconds (or after
/// 10 s, when the wait for netlink's answer ends), and listings of `/proc`.
#[expect(clippy::disallowed_methods, reason = "its time is bounded, and a release must wait for it anyway")]
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T, FaultError> {
    tokio::task::spawn_blocking(run).await.map_err(|e| FaultError::because("the kernel cannot be asked", e))
}
