//! The checkout: find the price, take the order, charge it.
//!
//! Weakness 1: the charge is waited for without a limit. The repaired checkout waits half a second; then the customer
//! has an order whose payment is pending. The queue of such orders is the cart's store, so it survives the gateway, and
//! payments charges an order once however often it is asked, so settling may be tried until it succeeds.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::upstream::CallError;
use super::{Gateway, jitter};
use crate::Service;
use crate::cart::{Order, OrderList, Status, Wish};
use crate::payments::Charge;
use crate::reply::{self, Failure};

/// How long the cart may take.
pub(super) const CART_LIMIT: Duration = Duration::from_secs(1);

/// How long a customer waits for payments, in the repaired shop.
const CHARGE_LIMIT: Duration = Duration::from_millis(500);

/// How long the charge of a pending order may take: nobody waits for it.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// How often pending orders are looked for.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// Pending orders that are settled in one go.
const SETTLE_AT_ONCE: u32 = 50;

/// What a customer sends; an empty body buys one piece of product 1.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Purchase {
    /// The order's id, so that a client that got no answer may ask again; made up when it is left out.
    order_id: Option<String>,
    product: i64,
    quantity: u32,
}

impl Default for Purchase {
    fn default() -> Self {
        Self { order_id: None, product: 1, quantity: 1 }
    }
}

/// What a customer gets.
#[derive(Debug, Serialize)]
pub(super) struct Receipt {
    order_id: String,
    amount_cents: i64,
    /// `paid`, or `payment pending`.
    status: &'static str,
}

pub(super) async fn checkout(
    State(gateway): State<Arc<Gateway>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Receipt>), Failure> {
    let purchase: Purchase = reply::body_or_default(&body)?;
    if !(1..=1000).contains(&purchase.quantity) {
        return Err(Failure::bad_request("quantity must be from 1 to 1000"));
    }
    let id = purchase.order_id.unwrap_or_else(|| format!("order-{:016x}", jitter::bits()));
    reply::check_order_id(&id)?;
    let _requests = (gateway.catalog.request(), gateway.cart.request(), gateway.payments.request());

    let product = gateway.retries.product(&gateway.catalog, purchase.product).await?;
    let quantity = i64::from(purchase.quantity);
    let wish = Wish { product: product.id, quantity, amount_cents: product.price_cents * quantity };
    let order: Order = gateway.cart.send_json(Method::PUT, &format!("/orders/{id}"), &wish, Some(CART_LIMIT)).await?;
    // A repeated checkout of the same id is the same order, at the price that it was ordered at.
    if order.status == Status::Paid {
        return Ok(receipt(order, StatusCode::OK, "paid"));
    }

    // Weakness 1 is this `None`.
    let limit = if gateway.fixed { Some(CHARGE_LIMIT) } else { None };
    match gateway.settle(&order, limit).await {
        Ok(()) => Ok(receipt(order, StatusCode::OK, "paid")),
        Err(error) if gateway.fixed && error.is_transient() => {
            Ok(receipt(order, StatusCode::ACCEPTED, "payment pending"))
        }
        Err(error) => Err(error.into()),
    }
}

fn receipt(order: Order, code: StatusCode, status: &'static str) -> (StatusCode, Json<Receipt>) {
    (code, Json(Receipt { order_id: order.id, amount_cents: order.amount_cents, status }))
}

impl Gateway {
    /// Charges an order and has the cart note it. May be repeated: an order is charged once.
    async fn settle(&self, order: &Order, limit: Option<Duration>) -> Result<(), CallError> {
        let charge = Charge { order_id: order.id.clone(), amount_cents: order.amount_cents };
        let _: Charge = self.payments.send_json(Method::POST, "/charges", &charge, limit).await?;
        let path = format!("/orders/{}/paid", order.id);
        let _: Order = self.cart.send_json(Method::PUT, &path, &(), Some(CART_LIMIT)).await?;
        Ok(())
    }

    /// Settles what is pending, again and again.
    pub(super) async fn settle_for_ever(&self) {
        let path = format!("/orders?status=pending&limit={SETTLE_AT_ONCE}");
        loop {
            tokio::time::sleep(SETTLE_EVERY).await;
            // The gateway's own errand is a request too, or `/stats` would put its calls on the customers' account.
            let _request = self.cart.request();
            // A cart that is down is asked again at the next round.
            let Ok(pending) = self.cart.get::<OrderList>(&path, Some(CART_LIMIT)).await else { continue };
            for order in pending.orders {
                let _requests = (self.cart.request(), self.payments.request());
                match self.settle(&order, Some(SETTLE_LIMIT)).await {
                    Ok(()) => {}
                    // Payments is in trouble: the rest would meet the same.
                    Err(error) if error.is_transient() => break,
                    Err(error) => {
                        crate::serve::say(Service::Gateway, format_args!("order {} stays pending: {error}", order.id));
                    }
                }
            }
        }
    }
}
