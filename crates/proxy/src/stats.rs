//! What really happened to the traffic: the measured effect of the rules.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::{Moment, nanoseconds};
use crate::rules::Way;

/// What a proxy saw, from its start or, by [`Stats::since`], over an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// The time that these figures cover.
    pub elapsed: Duration,
    /// The connections.
    pub connections: Connections,
    /// From the clients to the upstream.
    pub up: Flow,
    /// From the upstream to the clients.
    pub down: Flow,
}

/// Counts of connections. All but `open` count events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Accepted from clients.
    pub accepted: u64,
    /// Open now, those whose upstream is still being called among them.
    pub open: u64,
    /// Refused by a rule, or with bytes under one at some time: with `accepted`, the share that the rules reached.
    pub affected: u64,
    /// Reset as they came, by a rule.
    pub refused: u64,
    /// Reset because the upstream refused the connection.
    pub upstream_refused: u64,
    /// Reset because the upstream did not answer in time.
    pub upstream_timed_out: u64,
    /// Reset because the upstream could not be named or reached, or a socket could not be made.
    pub upstream_failed: u64,
    /// Ended by both sides in order.
    pub finished: u64,
    /// Ended by a side's reset, which was passed on.
    pub reset: u64,
    /// Cut by the proxy, because it was dropped or a drain ran out of time.
    pub cut: u64,
    /// Calls of accept that failed, by lack of file descriptors for instance.
    pub accept_errors: u64,
}

/// Traffic in one direction, over all connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Bytes read from the sender.
    pub received: u64,
    /// Bytes written to the receiver. What lies between is held by rules, or the receiver is slower than the sender.
    pub delivered: u64,
    /// The delay of each chunk that was held back: from being read to being written, so that the wait for a slow
    /// receiver counts too. Chunks that no rule held are not in here.
    pub delay: Delays,
    /// Bytes among `delivered` that were held back.
    pub held: u64,
    /// The time during which connections had bytes held back, summed over them.
    pub busy: Duration,
    /// For how long, at the longest, a chunk has been held back that is not delivered yet; `None` where there is none.
    /// It is not among `delay`.
    pub waiting: Option<Duration>,
    /// How long chunks were held back that were never delivered, because an end of their connection was gone before.
    /// They are not among `delay`.
    pub given_up: Delays,
}

impl Flow {
    /// Bytes per second that a connection got while it had bytes held back: under a bandwidth rule and load, its
    /// rate. `None` if nothing was held.
    pub fn busy_rate(&self) -> Option<f64> {
        (!self.busy.is_zero()).then(|| self.held as f64 / self.busy.as_secs_f64())
    }

    fn since(&self, earlier: &Flow) -> Flow {
        Flow {
            received: self.received.saturating_sub(earlier.received),
            delivered: self.delivered.saturating_sub(earlier.delivered),
            delay: self.delay.since(&earlier.delay),
            held: self.held.saturating_sub(earlier.held),
            busy: self.busy.saturating_sub(earlier.busy),
            waiting: self.waiting,
            given_up: self.given_up.since(&earlier.given_up),
        }
    }
}

impl Stats {
    /// What happened after `earlier`, an older snapshot of the same proxy. `connections.open` stays what it is now; what
    /// waits since before counts from `earlier` on.
    #[must_use]
    pub fn since(&self, earlier: &Stats) -> Stats {
        let (now, then) = (&self.connections, &earlier.connections);
        let elapsed = self.elapsed.saturating_sub(earlier.elapsed);
        let flow = |now: &Flow, then: &Flow| Flow { waiting: now.waiting.map(|w| w.min(elapsed)), ..now.since(then) };
        Stats {
            elapsed,
            connections: Connections {
                open: now.open,
                accepted: now.accepted.saturating_sub(then.accepted),
                affected: now.affected.saturating_sub(then.affected),
                refused: now.refused.saturating_sub(then.refused),
                upstream_refused: now.upstream_refused.saturating_sub(then.upstream_refused),
                upstream_timed_out: now.upstream_timed_out.saturating_sub(then.upstream_timed_out),
                upstream_failed: now.upstream_failed.saturating_sub(then.upstream_failed),
                finished: now.finished.saturating_sub(then.finished),
                reset: now.reset.saturating_sub(then.reset),
                cut: now.cut.saturating_sub(then.cut),
                accept_errors: now.accept_errors.saturating_sub(then.accept_errors),
            },
            up: flow(&self.up, &earlier.up),
            down: flow(&self.down, &earlier.down),
        }
    }

    /// Bytes per second delivered in both directions over these figures' time, up first.
    pub fn rates(&self) -> (f64, f64) {
        let seconds = self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        (self.up.delivered as f64 / seconds, self.down.delivered as f64 / seconds)
    }
}

/// A distribution of delays, in microseconds with three significant digits.
#[derive(Clone, Debug, PartialEq)]
pub struct Delays(Histogram<u64>);

impl Delays {
    fn new() -> Delays {
        Delays(Histogram::new(3).expect("three significant digits are within the histogram's one to five"))
    }

    fn record(&mut self, delay: Duration) {
        // An hour and more counts as an hour: it bounds the histogram to 180 KiB.
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX).min(3_600_000_000);
        self.0.record(micros).expect("a histogram made without bounds grows with its values");
    }

    /// How many chunks were delayed.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The smallest delay; `None`, as for all that follow, if there is none.
    pub fn min(&self) -> Option<Duration> {
        self.some(self.0.min())
    }

    /// The largest delay.
    pub fn max(&self) -> Option<Duration> {
        self.some(self.0.max())
    }

    /// The arithmetic mean.
    pub fn mean(&self) -> Option<Duration> {
        self.some(self.0.mean().round() as u64)
    }

    /// The delay that this share (0 to 1) of the chunks did not exceed: 0.99 for the 99th percentile.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        self.some(self.0.value_at_quantile(share))
    }

    /// The whole distribution: delays in rising order, each with the number of chunks that had it.
    pub fn counts(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.0.iter_recorded().map(|at| (Duration::from_micros(at.value_iterated_to()), at.count_at_value()))
    }

    fn some(&self, micros: u64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_micros(micros))
    }

    fn since(&self, earlier: &Delays) -> Delays {
        let mut since = Delays::new();
        for at in self.0.iter_recorded() {
            let value = at.value_iterated_to();
            let count = at.count_at_value().saturating_sub(earlier.count_at(value));
            // To record a value no times at all would still make it the smallest or largest.
            if count > 0 {
                since.0.record_n(value, count).expect("a histogram made without bounds grows with its values");
            }
        }
        since
    }

    fn count_at(&self, micros: u64) -> u64 {
        // Where a histogram does not reach it answers for the largest value that it can hold.
        if micros > self.0.max() { 0 } else { self.0.count_at(micros) }
    }
}

/// Counts what passes in one direction.
pub(crate) struct Meter {
    received: AtomicU64,
    delivered: AtomicU64,
    held: AtomicU64,
    busy: AtomicU64,
    delay: Mutex<Delays>,
    given_up: Mutex<Delays>,
    /// By the connection's number, the arrival of the oldest chunk that it holds back.
    waiting: Mutex<BTreeMap<u64, Moment>>,
}

impl Meter {
    fn new() -> Meter {
        Meter {
            received: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            held: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            delay: Mutex::new(Delays::new()),
            given_up: Mutex::new(Delays::new()),
            waiting: Mutex::new(BTreeMap::new()),
        }
    }

    pub(crate) fn received(&self, len: usize) {
        self.received.fetch_add(len as u64, Relaxed);
    }

    pub(crate) fn delivered(&self, len: usize) {
        self.delivered.fetch_add(len as u64, Relaxed);
    }

    /// `len` bytes went out that had been held back, after the connection had been busy with them for `busy`.
    pub(crate) fn held(&self, len: usize, busy: Duration) {
        self.held.fetch_add(len as u64, Relaxed);
        self.busy.fetch_add(nanoseconds(busy), Relaxed);
    }

    /// The oldest chunk that a connection holds back arrived then; `None` once it holds none.
    pub(crate) fn waits(&self, connection: u64, since: Option<Moment>) {
        let mut waiting = self.waiting.lock().expect("nothing panics while it notes a wait");
        match since {
            Some(since) => drop(waiting.insert(connection, since)),
            None => drop(waiting.remove(&connection)),
        }
    }

    /// Chunks will never be delivered that were held back since these moments.
    pub(crate) fn gave_up(&self, since: impl Iterator<Item = Moment>) {
        let now = Moment::now();
        let mut given_up = self.given_up.lock().expect("nothing panics while it records a delay");
        since.for_each(|since| given_up.record(now.since(since)));
    }

    /// A place to record the delays of several chunks.
    pub(crate) fn recorder(&self) -> Recorder<'_> {
        Recorder(self.delays())
    }

    fn delays(&self) -> MutexGuard<'_, Delays> {
        self.delay.lock().expect("nothing panics while it records a delay")
    }

    fn read(&self) -> Flow {
        // Delivered first: a byte that is counted there is counted as received by the time that is read.
        let delivered = self.delivered.load(Relaxed);
        let waiting = self.waiting.lock().expect("nothing panics while it notes a wait").values().min().copied();
        Flow {
            waiting: waiting.map(|since| Moment::now().since(since)),
            given_up: self.given_up.lock().expect("nothing panics while it records a delay").clone(),
            delivered,
            received: self.received.load(Relaxed).max(delivered),
            delay: self.delays().clone(),
            held: self.held.load(Relaxed),
            busy: Duration::from_nanos(self.busy.load(Relaxed)),
        }
    }
}

/// Records delays under one lock.
pub(crate) struct Recorder<'a>(MutexGuard<'a, Delays>);

impl Recorder<'_> {
    pub(crate) fn delayed(&mut self, by: Duration) {
        self.0.record(by);
    }
}

/// An event in a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Accepted,
    Affected,
    Refused,
    UpstreamRefused,
    UpstreamTimedOut,
    UpstreamFailed,
    Finished,
    Reset,
    Cut,
    AcceptError,
    /// Left the proxy, in whatever way.
    Gone,
}

const EVENTS: usize = Event::Gone as usize + 1;

/// All counters of a proxy.
pub(crate) struct Counters {
    started: Moment,
    events: [AtomicU64; EVENTS],
    up: Meter,
    down: Meter,
}

impl Counters {
    pub(crate) fn new() -> Counters {
        Counters {
            started: Moment::now(),
            events: [const { AtomicU64::new(0) }; EVENTS],
            up: Meter::new(),
            down: Meter::new(),
        }
    }

    /// Counts one more, and tells how many there were before.
    pub(crate) fn count(&self, event: Event) -> u64 {
        self.events[event as usize].fetch_add(1, Relaxed)
    }

    pub(crate) fn meter(&self, way: Way) -> &Meter {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    pub(crate) fn connections(&self) -> Connections {
        let of = |event: Event| self.events[event as usize].load(Relaxed);
        // Gone first: who left had been accepted.
        let gone = of(Event::Gone);
        let accepted = of(Event::Accepted);
        Connections {
            accepted,
            open: accepted.saturating_sub(gone),
            affected: of(Event::Affected),
            refused: of(Event::Refused),
            upstream_refused: of(Event::UpstreamRefused),
            upstream_timed_out: of(Event::UpstreamTimedOut),
            upstream_failed: of(Event::UpstreamFailed),
            finished: of(Event::Finished),
            reset: of(Event::Reset),
            cut: of(Event::Cut),
            accept_errors: of(Event::AcceptError),
        }
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            elapsed: Moment::now().since(self.started),
            connections: self.connections(),
            up: self.up.read(),
            down: self.down.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_snapshot_minus_an_earlier_one() {
        let counters = Counters::new();
        let meter = counters.meter(Way::Up);
        for millis in 1..=100 {
            meter.recorder().delayed(Duration::from_millis(millis));
        }
        meter.received(70);
        counters.count(Event::Accepted);
        let before = counters.read();
        for _ in 0..10 {
            meter.recorder().delayed(Duration::from_secs(2));
        }
        meter.received(30);
        meter.delivered(60);
        meter.held(60, Duration::from_millis(20));
        counters.count(Event::Accepted);
        counters.count(Event::Gone);
        let after = counters.read();
        let since = after.since(&before);

        assert_eq!((since.connections.accepted, since.connections.open), (1, 1));
        assert_eq!((since.up.received, since.up.delivered), (30, 60));
        assert_eq!(since.up.busy_rate(), Some(3_000.0));
        assert_eq!(since.up.delay.count(), 10);
        assert!(since.up.delay.min() >= Some(Duration::from_millis(1_999)));
        assert_eq!(since.down.busy_rate(), None);
        assert_eq!(before.since(&before).up.delay.max(), None);
    }

    #[test]
    fn what_waits_is_told_by_its_oldest_chunk_and_what_was_given_up_apart() {
        let counters = Counters::new();
        let meter = counters.meter(Way::Down);
        let (begin, now) = (Moment::START, Moment::now());
        let uptime = now.since(begin);
        assert_eq!(counters.read().down.waiting, None);
        meter.waits(1, Some(now));
        meter.waits(2, Some(begin));
        let before = counters.read();
        assert!(before.down.waiting >= Some(uptime));
        meter.waits(2, None);
        meter.gave_up([begin, begin].into_iter());
        let after = counters.read();
        assert!(after.down.waiting.is_some_and(|w| w < uptime), "{:?}", after.down.waiting);
        assert_eq!((after.down.given_up.count(), after.down.delay.count(), after.up.waiting), (2, 0, None));
        let since = after.since(&before);
        assert!(since.down.waiting <= Some(since.elapsed), "the time before does not count");
        assert_eq!(since.down.given_up.count(), 2);
    }

    #[test]
    fn delays_are_summed_up() {
        let mut delays = Delays::new();
        assert_eq!((delays.min(), delays.mean(), delays.quantile(0.5)), (None, None, None));
        for millis in 1..=1_000 {
            delays.record(Duration::from_millis(millis));
        }
        let near = |value: Option<Duration>, millis: f64| {
            let got = value.expect("not empty").as_secs_f64() * 1e3;
            assert!((got / millis - 1.0).abs() < 0.002, "{got} for {millis}");
        };
        assert_eq!(delays.count(), 1_000);
        near(delays.min(), 1.0);
        near(delays.mean(), 500.5);
        near(delays.quantile(0.5), 500.0);
        near(delays.quantile(0.99), 990.0);
        near(delays.max(), 1_000.0);
        assert_eq!(delays.counts().map(|(_, count)| count).sum::<u64>(), 1_000);
        delays.record(Duration::MAX);
        assert!(delays.max() <= Some(Duration::from_secs(3_605)));
    }
}
