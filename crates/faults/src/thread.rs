//! Threads for work that blocks: the injector's own must stay free to hear that it is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use toprope_engine::fault::FaultError;

/// Does something short that blocks. Where the caller goes away, it is done all the same.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FaultError> + Send + 'static,
) -> Result<T, FaultError> {
    let (sender, receiver) = oneshot::channel();
    let thread = Builder::new().name("blocking".into()).spawn(move || drop(sender.send(work())));
    thread.map_err(|e| FaultError::because("a thread cannot be started", e))?;
    receiver.await.map_err(|_| FaultError::new("a thread of the injector panicked"))?
}

/// Between two steps.
const PAUSE: Duration = Duration::from_millis(1);

/// Whether work that is done step by step has more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more.
    More,
    /// That was all.
    Last,
}

/// Work of many steps, until the last one, a failure, or its drop, which waits for the step under way.
#[derive(Debug)]
pub(crate) struct Steps {
    stop: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<FaultError>>>,
    thread: Option<JoinHandle<()>>,
}

impl Steps {
    /// Begins.
    pub(crate) fn start(
        name: &str,
        mut step: impl FnMut() -> Result<Step, FaultError> + Send + 'static,
    ) -> Result<Self, FaultError> {
        let (stop, failure) = (Arc::<AtomicBool>::default(), Arc::<Mutex<_>>::default());
        let (stopped, failed) = (Arc::clone(&stop), Arc::clone(&failure));
        let run = move || {
            while !stopped.load(Ordering::Relaxed) {
                match step() {
                    // Whoever waits for a lock that the steps take gets it now: the kernel gives it to who asks first.
                    Ok(Step::More) => std::thread::sleep(PAUSE),
                    Ok(Step::Last) => break,
                    Err(e) => {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                        break;
                    }
                }
            }
        };
        let thread = Builder::new().name(name.into()).spawn(run);
        let thread = thread.map_err(|e| FaultError::because("a thread cannot be started", e))?;
        Ok(Self { stop, failure, thread: Some(thread) })
    }

    /// Whether steps are still being made.
    pub(crate) fn running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Why the work ended before its last step.
    pub(crate) fn failure(&self) -> Option<FaultError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has ended, which is all that is wanted.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::testing::eventually;

    #[tokio::test]
    async fn what_blocks_answers_fails_or_panics() {
        assert_eq!(blocking(|| Ok(7)).await, Ok(7));
        let failed: Result<(), _> = blocking(|| Err(FaultError::new("no"))).await;
        assert_eq!(failed, Err(FaultError::new("no")));
        let panicked: Result<(), _> = blocking(|| panic!("on purpose")).await;
        assert!(panicked.is_err_and(|e| e.message.contains("panicked")));
    }

    #[test]
    fn steps_end_by_themselves_by_failure_or_by_drop() {
        let made = Arc::new(AtomicU32::new(0));
        let counted = |last: u32, end: Result<Step, FaultError>| {
            let made = Arc::clone(&made);
            made.store(0, Ordering::Relaxed);
            Steps::start("test", move || match made.fetch_add(1, Ordering::Relaxed) + 1 == last {
                true => end.clone(),
                false => Ok(Step::More),
            })
        };
        let steps = counted(3, Ok(Step::Last)).expect("a thread");
        eventually("all steps were made", || !steps.running());
        assert_eq!((made.load(Ordering::Relaxed), steps.failure()), (3, None));
        let steps = counted(2, Err(FaultError::new("broken"))).expect("a thread");
        eventually("it failed", || !steps.running());
        assert_eq!(steps.failure(), Some(FaultError::new("broken")));
        let steps = counted(0, Ok(Step::Last)).expect("a thread");
        assert!(steps.running());
        drop(steps);
        let after = made.load(Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(made.load(Ordering::Relaxed), after);
    }
}
