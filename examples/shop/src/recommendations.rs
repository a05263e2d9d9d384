//! Recommendations: what others bought with a product. It keeps no state.

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use crate::Service;
use crate::metrics::CountedRoutes;
use crate::reply::Healthy;

/// What others bought with a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recommendations {
    pub(crate) product: i64,
    /// Product ids.
    pub(crate) also_bought: Vec<i64>,
}

/// The service's routes.
pub(crate) fn router() -> Router {
    CountedRoutes::new(Service::Recommendations, Registry::default())
        .route("/health", get(async || Healthy(Service::Recommendations)))
        .route("/recommendations/{product}", get(find))
        .with_state(())
}

async fn find(Path(product): Path<i64>) -> Json<Recommendations> {
    Json(Recommendations { product, also_bought: also_bought(product) })
}

/// Climbers buy a rope with whatever holds it, and everything with chalk.
fn also_bought(product: i64) -> Vec<i64> {
    let together: &[i64] = match product {
        1 => &[3, 5, 8],
        2 | 4 | 7 => &[6],
        3 => &[1, 8],
        5 | 8 => &[1, 3],
        _ => &[],
    };
    together.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_buy_the_same_again() {
        for product in 1..=8 {
            assert!(!also_bought(product).contains(&product), "{product}");
        }
        assert_eq!(also_bought(99), Vec::<i64>::new());
    }
}
