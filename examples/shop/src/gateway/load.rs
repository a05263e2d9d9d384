//! How many calls the gateway makes to a service for each of its own requests: the number that a retry storm moves.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// How far back [`Load::summary`] looks.
pub(super) const WINDOW: Duration = Duration::from_secs(5);

/// What one service got from the gateway lately.
#[derive(Default)]
pub(super) struct Load(Mutex<Events>);

#[derive(Default)]
struct Events {
    calls: VecDeque<Instant>,
    failures: VecDeque<Instant>,
    /// When requests that needed the service ended.
    ended: VecDeque<Instant>,
    /// Requests that need the service and go on.
    in_flight: usize,
}

/// What `/stats` tells of one service.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Requests that needed the service and went on at some time in the window.
    requests: usize,
    /// Calls made to the service in the window, retries included.
    calls: usize,
    /// Calls that failed in the window.
    failures: usize,
    /// Calls per request; 0 when there was none. A request that lasts longer than the window counts with those of its
    /// calls that are in the window, so the number may tell too little of a storm, and never too much.
    calls_per_request: f64,
}

impl Load {
    /// A request begins to need the service; it does so until the returned value is dropped.
    #[must_use]
    pub(super) fn request(&self) -> InFlight<'_> {
        self.events(|events, _| events.in_flight += 1);
        InFlight(self)
    }

    pub(super) fn called(&self) {
        self.events(|events, now| events.calls.push_back(now));
    }

    pub(super) fn failed(&self) {
        self.events(|events, now| events.failures.push_back(now));
    }

    pub(super) fn summary(&self) -> Summary {
        self.events(|events, _| {
            let (requests, calls) = (events.ended.len() + events.in_flight, events.calls.len());
            let calls_per_request = if requests == 0 { 0.0 } else { calls as f64 / requests as f64 };
            Summary { requests, calls, failures: events.failures.len(), calls_per_request }
        })
    }

    fn events<T>(&self, what: impl FnOnce(&mut Events, Instant) -> T) -> T {
        // A panic elsewhere leaves counts that are still counts.
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let Events { calls, failures, ended, .. } = &mut *events;
        for times in [calls, failures, ended] {
            while times.front().is_some_and(|&at| now.duration_since(at) > WINDOW) {
                times.pop_front();
            }
        }
        what(&mut events, now)
    }
}

/// A request that needs a service.
pub(super) struct InFlight<'a>(&'a Load);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.events(|events, now| {
            events.in_flight -= 1;
            events.ended.push_back(now);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_per_request_whether_it_goes_on_or_has_ended() {
        let load = Load::default();
        assert_eq!(load.summary().calls_per_request, 0.0);
        let going_on = load.request();
        load.called();
        load.called();
        load.failed();
        assert_eq!(load.summary(), Summary { requests: 1, calls: 2, failures: 1, calls_per_request: 2.0 });
        drop(going_on);
        let _other = load.request();
        load.called();
        assert_eq!(load.summary(), Summary { requests: 2, calls: 3, failures: 1, calls_per_request: 1.5 });
    }
}
