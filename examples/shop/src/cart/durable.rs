//! Orders in SQLite: an order is committed before it is acknowledged.
//!
//! Opened with full durability it is the repair of weakness 4.

use std::path::Path;

use sqlx::SqlitePool;

use super::{Order, Status};
use crate::store::{self, Durability};
use crate::{Error, Service};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS orders (
        sequence INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        product INTEGER NOT NULL,
        quantity INTEGER NOT NULL,
        amount_cents INTEGER NOT NULL,
        paid INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS pending ON orders (sequence) WHERE paid = 0;
";

const INSERT: &str = "INSERT INTO orders (id, product, quantity, amount_cents, paid) VALUES (?1, ?2, ?3, ?4, ?5) \
                      ON CONFLICT (id) DO NOTHING";

type Row = (String, i64, i64, i64, bool);

fn order((id, product, quantity, amount_cents, paid): Row) -> Order {
    let status = if paid { Status::Paid } else { Status::Pending };
    Order { id, product, quantity, amount_cents, status }
}

/// The table of orders.
pub(crate) struct Durable {
    pool: SqlitePool,
}

impl Durable {
    pub(super) async fn open(data_dir: &Path, durability: Durability) -> Result<Self, Error> {
        Ok(Self { pool: store::open(data_dir, Service::Cart.name(), SCHEMA, durability).await? })
    }

    /// Commits an order; `false` when there is one of that id.
    pub(super) async fn insert(&self, order: &Order) -> Result<bool, sqlx::Error> {
        let inserted = insertion(order).execute(&self.pool).await?;
        Ok(inserted.rows_affected() == 1)
    }

    /// Commits all of `orders`, or none. Those whose id is known already are left out.
    pub(super) async fn insert_all(&self, orders: &[Order]) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        for order in orders {
            insertion(order).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    pub(super) async fn find(&self, id: &str) -> Result<Option<Order>, sqlx::Error> {
        let row: Option<Row> =
            sqlx::query_as("SELECT id, product, quantity, amount_cents, paid FROM orders WHERE id = ?1")
                .bind(id)
                .fetch_optional(&self.pool)
                .await?;
        Ok(row.map(order))
    }

    pub(super) async fn list(&self) -> Result<Vec<Order>, sqlx::Error> {
        let rows: Vec<Row> =
            sqlx::query_as("SELECT id, product, quantity, amount_cents, paid FROM orders ORDER BY sequence")
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(order).collect())
    }

    pub(super) async fn pending(&self, limit: u32) -> Result<Vec<Order>, sqlx::Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, product, quantity, amount_cents, paid FROM orders WHERE paid = 0 ORDER BY sequence LIMIT ?1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(order).collect())
    }

    pub(super) async fn mark_paid(&self, id: &str) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE orders SET paid = 1 WHERE id = ?1").bind(id).execute(&self.pool).await.map(|_| ())
    }

    pub(super) async fn answers(&self) -> Result<(), sqlx::Error> {
        store::answers(&self.pool).await
    }
}

fn insertion(order: &Order) -> sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    sqlx::query(INSERT)
        .bind(&order.id)
        .bind(order.product)
        .bind(order.quantity)
        .bind(order.amount_cents)
        .bind(order.status == Status::Paid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn an_order(id: &str) -> Order {
        Order { id: id.into(), product: 1, quantity: 2, amount_cents: 300, status: Status::Pending }
    }

    #[tokio::test]
    async fn an_order_is_found_by_another_process_as_soon_as_it_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let book = Durable::open(dir.path(), Durability::Full).await.unwrap();
        assert!(book.insert(&an_order("a")).await.unwrap());
        assert!(!book.insert(&an_order("a")).await.unwrap(), "the same id is the same order");
        book.mark_paid("a").await.unwrap();
        book.insert(&an_order("b")).await.unwrap();

        let other = Durable::open(dir.path(), Durability::Full).await.unwrap();
        assert_eq!(other.find("a").await.unwrap().unwrap().status, Status::Paid);
        assert_eq!(other.pending(9).await.unwrap(), [an_order("b")]);
        assert_eq!(other.list().await.unwrap().len(), 2);
        assert_eq!(other.find("c").await.unwrap(), None);
    }

    #[tokio::test]
    async fn full_durability_reaches_sqlite() {
        let dir = tempfile::tempdir().unwrap();
        for (durability, expected) in [(Durability::Lazy, 1), (Durability::Full, 2)] {
            let book = Durable::open(dir.path(), durability).await.unwrap();
            let (level,): (i64,) = sqlx::query_as("PRAGMA synchronous").fetch_one(&book.pool).await.unwrap();
            assert_eq!(level, expected, "https://www.sqlite.org/pragma.html#pragma_synchronous");
        }
    }
}
