//! Asking the catalog again when it fails: weakness 2, the retry storm, and its repair.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::jitter;
use super::upstream::{CallError, Upstream};
use crate::catalog::Product;

/// How long one call to the catalog may take.
const LIMIT: Duration = Duration::from_millis(300);

/// The gateway's way to the catalog.
pub(super) enum Retries {
    /// Weakness 2: three layers, each of which means well and tries three times, at once.
    Layered,
    /// Repaired: one retry at most, later, and only while few retries are made at all.
    Budgeted(Budget),
}

impl Retries {
    pub(super) fn new(fixed: bool) -> Self {
        if fixed { Self::Budgeted(Budget::full()) } else { Self::Layered }
    }

    /// Finds a product.
    pub(super) async fn product(&self, catalog: &Upstream, id: i64) -> Result<Product, CallError> {
        match self {
            Self::Layered => page_layer(catalog, id).await,
            Self::Budgeted(budget) => {
                budget.deposit();
                match call(catalog, id).await {
                    Err(error) if error.is_transient() && budget.withdraw() => {
                        tokio::time::sleep(jitter::between(Duration::from_millis(50), Duration::from_millis(150)))
                            .await;
                        call(catalog, id).await
                    }
                    result => result,
                }
            }
        }
    }
}

/// The page tries three times, for a customer should not see a hiccup...
async fn page_layer(catalog: &Upstream, id: i64) -> Result<Product, CallError> {
    three_times(|| client_layer(catalog, id)).await
}

/// ...with the catalog's client library, which tries three times, for the catalog was flaky once...
async fn client_layer(catalog: &Upstream, id: i64) -> Result<Product, CallError> {
    three_times(|| transport_layer(catalog, id)).await
}

/// ...over a transport that tries three times, for that was its default: 27 calls to a service that is down already.
async fn transport_layer(catalog: &Upstream, id: i64) -> Result<Product, CallError> {
    three_times(|| call(catalog, id)).await
}

async fn call(catalog: &Upstream, id: i64) -> Result<Product, CallError> {
    catalog.get(&format!("/products/{id}"), Some(LIMIT)).await
}

async fn three_times<T, F: Future<Output = Result<T, CallError>>>(call: impl Fn() -> F) -> Result<T, CallError> {
    let mut result = call().await;
    for _ in 1..3 {
        match &result {
            Err(error) if error.is_transient() => result = call().await,
            _ => break,
        }
    }
    result
}

/// A retry budget: each request pays in a tenth of a retry, so retries add a tenth to the load of a service that fails
/// for long, while a hiccup finds enough saved for everybody.
pub(super) struct Budget {
    tenths: AtomicU32,
}

impl Budget {
    /// Retries that can be saved at most, in tenths.
    const MOST: u32 = 50;

    fn full() -> Self {
        Self { tenths: AtomicU32::new(Self::MOST) }
    }

    fn deposit(&self) {
        self.change(|tenths| Some((tenths + 1).min(Self::MOST)));
    }

    /// Takes one retry, if there is one.
    fn withdraw(&self) -> bool {
        self.change(|tenths| tenths.checked_sub(10))
    }

    fn change(&self, how: impl FnMut(u32) -> Option<u32>) -> bool {
        // Relaxed: the number guards nothing but itself.
        self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, how).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_lets_a_hiccup_through_and_a_tenth_of_an_outage() {
        let budget = Budget::full();
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 5, "what was saved");
        let retries = (0..1000)
            .filter(|_| {
                budget.deposit();
                budget.withdraw()
            })
            .count();
        assert_eq!(retries, 100);
        for _ in 0..1000 {
            budget.deposit();
        }
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 5, "no more is saved than that");
    }

    #[tokio::test]
    async fn layers_multiply_and_a_budget_does_not() {
        // Nothing listens on port 1, so each call fails at once.
        let client = super::super::upstream::client().unwrap();
        let calls = async |retries: Retries| {
            let catalog = Upstream::new(
                crate::Service::Catalog,
                "127.0.0.1:1".parse().unwrap(),
                &client,
                &super::super::upstream::Counters::default(),
            );
            let request = catalog.request();
            retries.product(&catalog, 1).await.unwrap_err();
            drop(request);
            serde_json::to_value(catalog.summary()).unwrap()["calls_per_request"].as_f64().unwrap()
        };
        assert_eq!(calls(Retries::Layered).await, 27.0);
        assert_eq!(calls(Retries::Budgeted(Budget::full())).await, 2.0);
        assert_eq!(calls(Retries::Budgeted(Budget { tenths: AtomicU32::new(0) })).await, 1.0);
    }
}
