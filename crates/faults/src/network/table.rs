//! An nftables table that the kernel ends with us, and whose rules it ends even if we only stand still.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use toprope_engine::fault::FaultError;
use toprope_os::nft::{LeaseId, Match, OwnedTable};

use super::blocking;

/// How long rules go on to match after the last sign of life.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// How often a sign of life is given; so often that a stall of the machine does not end the lease.
pub(crate) const RENEW: Duration = Duration::from_millis(400);

/// A table, and a lease that is renewed for as long as this value lives and this process runs.
///
/// Dropping it removes the table.
pub(crate) struct Table {
    held: Held,
    lease: LeaseId,
    lost: watch::Receiver<Option<String>>,
    keeper: AbortHandle,
}

/// `None` once it was removed.
type Held = Arc<Mutex<Option<OwnedTable>>>;

/// A name that no other table has: that of this process and a number.
pub(crate) fn unused_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("toprope-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Table {
    /// Makes an empty table.
    pub(crate) async fn create(name: &str) -> Result<Self, FaultError> {
        let name = name.to_owned();
        let made = ask(move || {
            let mut table = OwnedTable::create(name)?;
            let lease = table.add_lease("alive", LEASE)?;
            Ok((table, lease))
        });
        let (table, lease) = made.await?;
        let held: Held = Arc::new(Mutex::new(Some(table)));
        let (losing, lost) = watch::channel(None);
        let keeper = tokio::spawn(keep(held.clone(), lease.clone(), losing)).abort_handle();
        Ok(Self { held, lease, lost, keeper })
    }

    /// The condition that every rule of this table must have to end with the lease.
    pub(crate) fn alive(&self) -> Match {
        Match::Leased(self.lease.clone())
    }

    /// Asks the kernel for something; off the runtime's threads, because it takes its time to answer.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut OwnedTable) -> toprope_os::Result<T> + Send + 'static,
    ) -> Result<T, FaultError> {
        let held = self.held.clone();
        ask(move || {
            request(lock(&held).as_mut().expect("only `delete` and `drop` take it out, and both own this value"))
        })
        .await
    }

    /// Resolves, with the reason, when the kernel has ended the rules although this process lives.
    pub(crate) async fn lost(&mut self) -> String {
        let why = self.lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Ends the lease now: no rule that has it as a condition matches any more.
    pub(crate) async fn end_lease(&self) -> Result<(), FaultError> {
        // A renewal under way does no harm: it fails once the lease has ended.
        self.keeper.abort();
        let lease = self.lease.clone();
        self.with(move |table| match table.end_lease(&lease) {
            Err(toprope_os::Error::LeaseRanOut { .. }) => Ok(()),
            other => other,
        })
        .await
    }

    /// Removes the table, and returns when it is gone.
    pub(crate) async fn delete(self) -> Result<(), FaultError> {
        self.keeper.abort();
        let held = self.held.clone();
        ask(move || match lock(&held).take() {
            Some(table) => table.delete(),
            None => Ok(()),
        })
        .await
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.keeper.abort();
        drop(lock(&self.held).take());
    }
}

fn lock(held: &Held) -> std::sync::MutexGuard<'_, Option<OwnedTable>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Renews the lease until the table is gone. That a frozen process does not get here is what the lease is for.
async fn keep(held: Held, lease: LeaseId, losing: watch::Sender<Option<String>>) {
    loop {
        tokio::time::sleep(RENEW).await;
        let (held, lease) = (held.clone(), lease.clone());
        let renewed = blocking(move || lock(&held).as_mut().map(|table| table.renew_lease(&lease, LEASE)));
        match renewed.await {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => {
                let why = format!("this process stood still, so the kernel ended the fault by itself ({error})");
                losing.send_replace(Some(why));
                return;
            }
            Ok(None) | Err(_) => return,
        }
    }
}

async fn ask<T: Send + 'static>(ask: impl FnOnce() -> toprope_os::Result<T> + Send + 'static) -> Result<T, FaultError> {
    blocking(ask).await?.map_err(|e| FaultError::new(e.to_string()))
}
