//! The gateway: what customers talk to.

mod checkout;
mod health;
mod jitter;
mod load;
mod page;
mod retry;
mod upstream;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::cart::{Order, OrderList};
use crate::metrics::CountedRoutes;
use crate::reply::{self, Failure};
use crate::{Addresses, Error, Service};
use health::Health;
use retry::Retries;
use upstream::{Counters, Upstream};

/// The gateway and the services behind it.
pub(crate) struct Gateway {
    fixed: bool,
    catalog: Upstream,
    cart: Upstream,
    payments: Upstream,
    recommendations: Upstream,
    retries: Retries,
    health: Health,
    counters: Counters,
}

impl Gateway {
    pub(crate) fn new(upstreams: &Addresses, fixed: bool) -> Result<Self, Error> {
        let client = upstream::client()?;
        let counters = Counters::default();
        let to = |service| Upstream::new(service, upstreams.of(service), &client, &counters);
        Ok(Self {
            fixed,
            catalog: to(Service::Catalog),
            cart: to(Service::Cart),
            payments: to(Service::Payments),
            recommendations: to(Service::Recommendations),
            retries: Retries::new(fixed),
            health: Health::new(fixed),
            counters,
        })
    }

    /// The gateway's routes.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        let mut registry = Registry::default();
        self.counters.register(&mut registry);
        CountedRoutes::new(Service::Gateway, registry)
            .route("/health", get(health))
            .route("/stats", get(stats))
            .route("/product/{id}", get(page::product_page))
            .route("/checkout", post(checkout::checkout))
            .route("/orders", get(orders))
            .route("/orders/{id}", get(order))
            .with_state(self)
    }

    /// What must go on beside serving: the repaired gateway settles what it owes to payments. Never returns.
    pub(crate) async fn keep(&self) {
        if self.fixed { self.settle_for_ever().await } else { std::future::pending().await }
    }
}

async fn health(State(gateway): State<Arc<Gateway>>) -> Response {
    let Gateway { catalog, cart, payments, recommendations, .. } = &*gateway;
    gateway.health.check([catalog, cart], [payments, recommendations]).await
}

async fn stats(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    Json(json!({
        "window_seconds": load::WINDOW.as_secs(),
        "catalog": gateway.catalog.summary(),
        "cart": gateway.cart.summary(),
        "payments": gateway.payments.summary(),
        "recommendations": gateway.recommendations.summary(),
    }))
}

async fn orders(State(gateway): State<Arc<Gateway>>) -> Result<Json<OrderList>, Failure> {
    let _request = gateway.cart.request();
    Ok(Json(gateway.cart.get("/orders", Some(checkout::CART_LIMIT)).await?))
}

async fn order(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Result<Json<Order>, Failure> {
    reply::check_order_id(&id)?;
    let _request = gateway.cart.request();
    Ok(Json(gateway.cart.get(&format!("/orders/{id}"), Some(checkout::CART_LIMIT)).await?))
}
