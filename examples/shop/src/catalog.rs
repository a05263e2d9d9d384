//! The catalog: the products and their prices.

use std::path::Path;

use axum::extract::{Path as UrlPath, State};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;

use crate::metrics::CountedRoutes;
use crate::reply::{Failure, Healthy};
use crate::store::{self, Durability};
use crate::{Error, Service};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price_cents INTEGER NOT NULL);
    INSERT OR IGNORE INTO products VALUES
        (1, 'climbing rope, 60 m', 18900), (2, 'harness', 7900), (3, 'belay device', 3400), (4, 'helmet', 6900),
        (5, 'quickdraw set', 9900), (6, 'chalk bag', 2400), (7, 'climbing shoes', 11900), (8, 'locking carabiner', 1300);
";

/// A product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Product {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) price_cents: i64,
}

type Row = (i64, String, i64);

fn product((id, name, price_cents): Row) -> Product {
    Product { id, name, price_cents }
}

/// The catalog's routes over the store in `data_dir`.
pub(crate) async fn router(data_dir: &Path) -> Result<Router, Error> {
    let pool = store::open(data_dir, Service::Catalog.name(), SCHEMA, Durability::Lazy).await?;
    Ok(CountedRoutes::new(Service::Catalog, Registry::default())
        .route("/health", get(health))
        .route("/products", get(list))
        .route("/products/{id}", get(find))
        .with_state(pool))
}

async fn health(State(pool): State<SqlitePool>) -> Result<Healthy, Failure> {
    store::answers(&pool).await?;
    Ok(Healthy(Service::Catalog))
}

async fn list(State(pool): State<SqlitePool>) -> Result<Json<Vec<Product>>, Failure> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT id, name, price_cents FROM products ORDER BY id").fetch_all(&pool).await?;
    Ok(Json(rows.into_iter().map(product).collect()))
}

async fn find(State(pool): State<SqlitePool>, UrlPath(id): UrlPath<i64>) -> Result<Json<Product>, Failure> {
    let row: Option<Row> = sqlx::query_as("SELECT id, name, price_cents FROM products WHERE id = ?1")
        .bind(id)
        .fetch_optional(&pool)
        .await?;
    row.map(|row| Json(product(row))).ok_or_else(|| Failure::not_found(format!("there is no product {id}")))
}
