//! Payments: one charge per order, however often it is asked for.

use std::path::Path;

use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;

use crate::metrics::CountedRoutes;
use crate::reply::{self, Failure, Healthy};
use crate::store::{self, Durability};
use crate::{Error, Service};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS charges (order_id TEXT PRIMARY KEY, amount_cents INTEGER NOT NULL) WITHOUT ROWID;
";

/// What one order costs its customer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Charge {
    pub(crate) order_id: String,
    pub(crate) amount_cents: i64,
}

type Row = (String, i64);

fn charge((order_id, amount_cents): Row) -> Charge {
    Charge { order_id, amount_cents }
}

/// Payments' routes over the store in `data_dir`.
pub(crate) async fn router(data_dir: &Path) -> Result<Router, Error> {
    let pool = store::open(data_dir, Service::Payments.name(), SCHEMA, Durability::Full).await?;
    Ok(CountedRoutes::new(Service::Payments, Registry::default())
        .route("/health", get(health))
        .route("/charges", get(list).post(create))
        .route("/charges/{order_id}", get(find))
        .with_state(pool))
}

async fn health(State(pool): State<SqlitePool>) -> Result<Healthy, Failure> {
    store::answers(&pool).await?;
    Ok(Healthy(Service::Payments))
}

async fn list(State(pool): State<SqlitePool>) -> Result<Json<Vec<Charge>>, Failure> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT order_id, amount_cents FROM charges ORDER BY order_id").fetch_all(&pool).await?;
    Ok(Json(rows.into_iter().map(charge).collect()))
}

async fn find(State(pool): State<SqlitePool>, UrlPath(id): UrlPath<String>) -> Result<Json<Charge>, Failure> {
    let charge = stored(&pool, &id).await?;
    charge.map(Json).ok_or_else(|| Failure::not_found(format!("order {id} was not charged")))
}

/// The order id is the idempotency key: who asks again, after a timeout, gets the first charge and not a second one.
async fn create(State(pool): State<SqlitePool>, body: Bytes) -> Result<(StatusCode, Json<Charge>), Failure> {
    let asked: Charge = reply::body_or_default(&body)?;
    reply::check_order_id(&asked.order_id)?;
    if asked.amount_cents < 0 {
        return Err(Failure::bad_request("amount_cents is negative"));
    }
    let inserted = sqlx::query("INSERT INTO charges VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .bind(&asked.order_id)
        .bind(asked.amount_cents)
        .execute(&pool)
        .await?;
    if inserted.rows_affected() == 1 {
        return Ok((StatusCode::CREATED, Json(asked)));
    }
    match stored(&pool, &asked.order_id).await? {
        Some(first) if first == asked => Ok((StatusCode::OK, Json(first))),
        _ => Err(Failure::new(
            StatusCode::CONFLICT,
            format!("order {} was charged another amount before", asked.order_id),
        )),
    }
}

async fn stored(pool: &SqlitePool, order_id: &str) -> Result<Option<Charge>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as("SELECT order_id, amount_cents FROM charges WHERE order_id = ?1")
        .bind(order_id)
        .fetch_optional(pool)
        .await?;
    Ok(row.map(charge))
}
