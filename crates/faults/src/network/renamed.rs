//! A host name that comes to stand for other addresses while its fault is in force: what goes to them is not reached.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use toprope_engine::fault::FaultError;
use toprope_os::address::Cidr;

use super::destination::{Destination, addresses};

/// How often the name is looked up anew.
const EVERY: Duration = Duration::from_secs(5);

/// Looks a destination's name up again and again for as long as this lives. It does so beside the measurements, which must not
/// wait for it: the fault may well be on the way to the name server.
#[derive(Debug)]
pub(crate) struct Renamed {
    name: Option<String>,
    /// Addresses that it had not when the fault began.
    found: Arc<Mutex<Vec<Cidr>>>,
    looking: Option<AbortHandle>,
}

impl Renamed {
    /// Begins to look; nothing where the destination has no name.
    pub(crate) fn follow(destination: &Destination) -> Self {
        let name = destination.name().map(str::to_owned);
        let host = name.clone().unwrap_or_default();
        Self::by(name, destination.networks.clone(), EVERY, move || {
            let host = host.clone();
            async move { addresses(&host).await }
        })
    }

    fn by<F: Future<Output = Result<Vec<Cidr>, FaultError>> + Send>(
        name: Option<String>,
        known: Vec<Cidr>,
        every: Duration,
        look_up: impl Fn() -> F + Send + 'static,
    ) -> Self {
        let found = Arc::new(Mutex::new(Vec::new()));
        let looking = name.as_ref().map(|_| {
            let found = found.clone();
            let look = async move {
                loop {
                    tokio::time::sleep(every).await;
                    // A name server that does not answer tells nothing.
                    let now = look_up().await.unwrap_or_default();
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    for address in now {
                        if !known.contains(&address) && !found.contains(&address) {
                            found.push(address);
                        }
                    }
                }
            };
            tokio::spawn(look).abort_handle()
        });
        Self { name, found, looking }
    }

    /// The addresses that it has got since the fault began, as far as is known.
    pub(crate) fn found(&self) -> Vec<Cidr> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What whoever reads of the effect should know.
    pub(crate) fn note(&self) -> Option<String> {
        let found: Vec<String> = self.found().iter().map(Cidr::to_string).collect();
        let name = self.name.as_ref().filter(|_| !found.is_empty())?;
        Some(format!("`{name}` has also been {} since the fault began, which is not reached", found.join(", ")))
    }
}

impl Drop for Renamed {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::testing::PATIENCE;

    fn address(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_address_that_a_name_gets_later_is_found_and_told() {
        let asked = Arc::new(AtomicUsize::new(0));
        let look_up = {
            let asked = asked.clone();
            move || {
                let answer = match asked.fetch_add(1, Ordering::SeqCst) {
                    0 => Ok(vec![address("10.0.0.7")]),
                    1 => Err(FaultError::new("no server answers")),
                    _ => Ok(vec![address("10.0.0.9"), address("10.0.0.7")]),
                };
                async { answer }
            }
        };
        let name = Some("db.internal".to_owned());
        let renamed = Renamed::by(name, vec![address("10.0.0.7")], Duration::from_millis(5), look_up);
        assert_eq!((renamed.found(), renamed.note()), (vec![], None));
        let found = async {
            while renamed.found().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("it is looked up again");
        assert_eq!(renamed.found(), [address("10.0.0.9")]);
        let note = renamed.note().unwrap();
        assert_eq!(note, "`db.internal` has also been 10.0.0.9 since the fault began, which is not reached");
    }

    #[tokio::test]
    async fn what_has_no_name_is_not_looked_up() {
        let renamed = Renamed::by(None, vec![], Duration::ZERO, || async { Ok(vec![address("10.0.0.9")]) });
        assert!(renamed.looking.is_none() && renamed.note().is_none());
    }
}
