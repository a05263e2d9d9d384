//! The product page: a product and, beside it, what others bought with it.
//!
//! Weakness 3: the page cannot be shown without the recommendations. The repaired one can.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;

use super::Gateway;
use super::upstream::CallError;
use crate::catalog::Product;
use crate::recommendations::Recommendations;
use crate::reply::Failure;

/// How long the page as shipped waits for its recommendations before it fails.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the repaired page waits before it goes without: they are not worth more of a customer's time.
const OPTIONAL_PATIENCE: Duration = Duration::from_millis(150);

/// The product page.
#[derive(Serialize)]
pub(super) struct Page {
    product: Product,
    recommendations: Vec<i64>,
    /// The services that the page had to do without.
    without: Vec<&'static str>,
}

pub(super) async fn product_page(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<i64>,
) -> Result<Json<Page>, Failure> {
    let _requests = (gateway.catalog.request(), gateway.recommendations.request());
    if gateway.fixed {
        let (product, recommended) =
            tokio::join!(gateway.retries.product(&gateway.catalog, id), gateway.recommended(id, OPTIONAL_PATIENCE));
        let product = product?;
        return Ok(Json(match recommended {
            Ok(recommendations) => Page { product, recommendations, without: vec![] },
            Err(_) => {
                Page { product, recommendations: vec![], without: vec![gateway.recommendations.service().name()] }
            }
        }));
    }
    let product = gateway.retries.product(&gateway.catalog, id).await?;
    let recommendations = gateway.recommended(id, PATIENCE).await.map_err(|error| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the page cannot be shown: {error}"))
    })?;
    Ok(Json(Page { product, recommendations, without: vec![] }))
}

impl Gateway {
    async fn recommended(&self, id: i64, limit: Duration) -> Result<Vec<i64>, CallError> {
        let found: Recommendations = self.recommendations.get(&format!("/recommendations/{id}"), Some(limit)).await?;
        Ok(found.also_bought)
    }
}
