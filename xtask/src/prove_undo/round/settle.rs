//! After the blow: how long the fault is still felt, and when those who survived have ended.

use std::time::{Duration, Instant};

use super::super::scenario::Stage;
use super::super::victims::ours;
use super::Blow;
use super::job::Job;

/// How long those who survived may take. The longest that they are allowed is a guard's wait for heartbeats, then a
/// plan that nobody answers.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long the kernel may take, when nobody is left, until the sweep.
const KERNEL: Duration = Duration::from_secs(2);
/// A fault that is felt so often in a row is felt; less often, the machine was busy.
const SURELY: u32 = 5;

/// Since when it is clean, from the blow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clean(pub(super) Duration);

/// How it went.
#[derive(Debug)]
pub(super) struct Settled {
    /// When the fault was not felt any more, if it was felt before.
    pub(super) clean: Option<Clean>,
    /// Whether it is felt.
    pub(super) in_force: bool,
    /// Whether nobody of ours is left.
    pub(super) ended: bool,
}

/// Waits until the fault is not felt and nobody of ours is left.
pub(super) fn settle(blow: &Blow, stage: &mut Stage, job: &mut Job) -> Settled {
    let mut felt_ever = blow.was_in_force;
    let mut in_a_row = 0;
    let mut clean: Option<Clean> = None;
    let mut alone_since: Option<Instant> = None;
    let mut looked_for_ours = Instant::now();
    loop {
        let at = Instant::now();
        let in_force = (stage.in_force)();
        if in_force {
            in_a_row += 1;
            if in_a_row >= SURELY {
                felt_ever = true;
                clean = None;
            }
        } else {
            in_a_row = 0;
            if felt_ever && clean.is_none() {
                // The look may have taken some time itself: it was clean when the look began or during it.
                clean = Some(Clean(at.saturating_duration_since(blow.struck).max(Duration::from_micros(1))));
            }
        }
        job.poll();
        stage.reap();
        if looked_for_ours.elapsed() > Duration::from_millis(5) || blow.all_dead {
            looked_for_ours = Instant::now();
            if ours().is_empty() {
                alone_since.get_or_insert_with(Instant::now);
            }
        }
        let ended = alone_since.is_some();
        let over = match alone_since {
            Some(since) => !in_force || since.elapsed() > KERNEL,
            None => blow.struck.elapsed() > PATIENCE,
        };
        if over {
            job.end(Duration::from_secs(5));
            let in_force = in_force && is_surely_felt(stage);
            return Settled { clean: clean.filter(|_| !in_force), in_force, ended };
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Whether a fault is felt again and again for some time: a client on a busy machine, or between two of its lives, may
/// say so once or twice of itself.
pub(super) fn is_surely_felt(stage: &mut Stage) -> bool {
    let until = Instant::now() + KERNEL;
    while Instant::now() < until {
        if !(stage.in_force)() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
