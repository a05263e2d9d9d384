//! The cart: it takes orders, and must never lose one that it acknowledged.
//!
//! Two books: [`buffered`] (as shipped: weakness 4) and [`durable`] (repaired).

mod buffered;
mod durable;

use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use crate::metrics::CountedRoutes;
use crate::reply::{self, Failure, Healthy};
use crate::store::Durability;
use crate::{Error, Service};
use buffered::Buffered;
use durable::Durable;

/// Whether an order has been charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Acknowledged, and not charged yet.
    #[default]
    Pending,
    /// Charged.
    Paid,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) product: i64,
    pub(crate) quantity: i64,
    pub(crate) amount_cents: i64,
    pub(crate) status: Status,
}

/// What an order asks for; an empty body asks for one piece of product 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Wish {
    pub(crate) product: i64,
    pub(crate) quantity: i64,
    pub(crate) amount_cents: i64,
}

impl Default for Wish {
    fn default() -> Self {
        Self { product: 1, quantity: 1, amount_cents: 0 }
    }
}

/// `GET /orders` answers this.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OrderList {
    pub(crate) count: usize,
    pub(crate) orders: Vec<Order>,
}

/// Where orders are written.
pub(crate) enum Book {
    Buffered(Buffered),
    Durable(Durable),
}

impl Book {
    /// Opens the book in `data_dir`.
    pub(crate) async fn open(data_dir: &Path, fixed: bool) -> Result<Self, Error> {
        Ok(match fixed {
            false => Self::Buffered(Buffered::new(Durable::open(data_dir, Durability::Lazy).await?)),
            true => Self::Durable(Durable::open(data_dir, Durability::Full).await?),
        })
    }

    /// What must go on beside serving. Never returns.
    pub(crate) async fn keep(&self) {
        match self {
            Self::Buffered(book) => book.flush_for_ever().await,
            Self::Durable(_) => std::future::pending().await,
        }
    }

    /// Writes what is unwritten, when the service ends in good order.
    pub(crate) async fn close(&self) -> Result<(), sqlx::Error> {
        match self {
            Self::Buffered(book) => book.flush().await,
            Self::Durable(_) => Ok(()),
        }
    }

    /// Takes an order; `false` when there is one of that id, which stays as it is.
    async fn place(&self, order: &Order) -> Result<bool, sqlx::Error> {
        match self {
            Self::Buffered(book) => book.place(order).await,
            Self::Durable(book) => book.insert(order).await,
        }
    }

    async fn find(&self, id: &str) -> Result<Option<Order>, sqlx::Error> {
        match self {
            Self::Buffered(book) => book.find(id).await,
            Self::Durable(book) => book.find(id).await,
        }
    }

    async fn list(&self) -> Result<Vec<Order>, sqlx::Error> {
        match self {
            Self::Buffered(book) => book.list().await,
            Self::Durable(book) => book.list().await,
        }
    }

    /// At most `limit` orders that nobody paid, the oldest first.
    async fn pending(&self, limit: u32) -> Result<Vec<Order>, sqlx::Error> {
        match self {
            Self::Buffered(book) => book.pending(limit).await,
            Self::Durable(book) => book.pending(limit).await,
        }
    }

    async fn mark_paid(&self, id: &str) -> Result<(), sqlx::Error> {
        match self {
            Self::Buffered(book) => book.mark_paid(id).await,
            Self::Durable(book) => book.mark_paid(id).await,
        }
    }

    async fn answers(&self) -> Result<(), sqlx::Error> {
        match self {
            Self::Buffered(book) => book.answers().await,
            Self::Durable(book) => book.answers().await,
        }
    }
}

/// The cart's routes over a book.
pub(crate) fn router(book: Arc<Book>) -> Router {
    CountedRoutes::new(Service::Cart, Registry::default())
        .route("/health", get(health))
        .route("/orders", get(list))
        .route("/orders/{id}", get(find).put(place))
        .route("/orders/{id}/paid", put(paid))
        .with_state(book)
}

async fn health(State(book): State<Arc<Book>>) -> Result<Healthy, Failure> {
    book.answers().await?;
    Ok(Healthy(Service::Cart))
}

/// `?status=pending&limit=N` for what awaits its charge; without, all orders.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    status: Option<Status>,
    limit: Option<u32>,
}

async fn list(State(book): State<Arc<Book>>, Query(filter): Query<Filter>) -> Result<Json<OrderList>, Failure> {
    let orders = match filter.status {
        Some(Status::Pending) => book.pending(filter.limit.unwrap_or(u32::MAX)).await?,
        None if filter.limit.is_none() => book.list().await?,
        _ => return Err(Failure::bad_request("orders can be listed all, or with status=pending and a limit")),
    };
    Ok(Json(OrderList { count: orders.len(), orders }))
}

async fn find(State(book): State<Arc<Book>>, UrlPath(id): UrlPath<String>) -> Result<Json<Order>, Failure> {
    book.find(&id).await?.map(Json).ok_or_else(|| Failure::not_found(format!("there is no order {id}")))
}

/// Takes an order under the id that the client chose, so that a client that got no answer may ask again.
async fn place(
    State(book): State<Arc<Book>>,
    UrlPath(id): UrlPath<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Order>), Failure> {
    reply::check_order_id(&id)?;
    let Wish { product, quantity, amount_cents } = reply::body_or_default(&body)?;
    if quantity < 1 || amount_cents < 0 {
        return Err(Failure::bad_request("quantity must be at least 1, and amount_cents not negative"));
    }
    let order = Order { id, product, quantity, amount_cents, status: Status::Pending };
    if book.place(&order).await? {
        return Ok((StatusCode::CREATED, Json(order)));
    }
    let first = book.find(&order.id).await?.ok_or_else(|| Failure::not_found("the order has gone"))?;
    Ok((StatusCode::OK, Json(first)))
}

async fn paid(State(book): State<Arc<Book>>, UrlPath(id): UrlPath<String>) -> Result<Json<Order>, Failure> {
    book.mark_paid(&id).await?;
    find(State(book), UrlPath(id)).await
}
