//! Connections that are used again, where a manifest says `keepalive: true`.

use std::sync::{Mutex, PoisonError};

/// At most one connection between two samples. Samples that overlap have each their own.
#[derive(Debug)]
pub(super) struct Kept<C> {
    keep: bool,
    slot: Mutex<Option<C>>,
}

impl<C> Kept<C> {
    /// Keeps connections, or none.
    pub(super) fn new(keep: bool) -> Self {
        Self { keep, slot: Mutex::new(None) }
    }

    /// The connection that was kept, for whoever asks first.
    pub(super) fn take(&self) -> Option<C> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps a connection on which nothing is outstanding; returns it where it is not to be kept.
    pub(super) fn put(&self, connection: C) -> Option<C> {
        if !self.keep {
            return Some(connection);
        }
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).replace(connection)
    }
}
