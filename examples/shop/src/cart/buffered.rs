//! Weakness 4: orders are acknowledged from memory and written every two seconds.
//!
//! It came as a speed-up ("one transaction for many orders"), passes every test, and survives every deploy, because a
//! service that is asked to end flushes first. A killed one cannot.

use std::time::Duration;

use tokio::sync::Mutex;

use super::durable::Durable;
use super::{Order, Status};

/// How long an acknowledged order may live in memory only.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

/// A table of orders with the newest ones still in memory.
pub(crate) struct Buffered {
    table: Durable,
    /// Locked while it is flushed, so that no order is in both places or in neither.
    recent: Mutex<Vec<Order>>,
}

impl Buffered {
    pub(super) fn new(table: Durable) -> Self {
        Self { table, recent: Mutex::new(Vec::new()) }
    }

    /// Acknowledges an order that is in memory only.
    pub(super) async fn place(&self, order: &Order) -> Result<bool, sqlx::Error> {
        let mut recent = self.recent.lock().await;
        if recent.iter().any(|known| known.id == order.id) || self.table.find(&order.id).await?.is_some() {
            return Ok(false);
        }
        recent.push(order.clone());
        Ok(true)
    }

    pub(super) async fn find(&self, id: &str) -> Result<Option<Order>, sqlx::Error> {
        let recent = self.recent.lock().await;
        match recent.iter().find(|order| order.id == id) {
            Some(order) => Ok(Some(order.clone())),
            None => self.table.find(id).await,
        }
    }

    pub(super) async fn list(&self) -> Result<Vec<Order>, sqlx::Error> {
        let recent = self.recent.lock().await;
        let mut orders = self.table.list().await?;
        orders.extend(recent.iter().cloned());
        Ok(orders)
    }

    pub(super) async fn pending(&self, limit: u32) -> Result<Vec<Order>, sqlx::Error> {
        let recent = self.recent.lock().await;
        let mut orders = self.table.pending(limit).await?;
        orders.extend(recent.iter().filter(|order| order.status == Status::Pending).cloned());
        orders.truncate(limit as usize);
        Ok(orders)
    }

    pub(super) async fn mark_paid(&self, id: &str) -> Result<(), sqlx::Error> {
        let mut recent = self.recent.lock().await;
        match recent.iter_mut().find(|order| order.id == id) {
            Some(order) => {
                order.status = Status::Paid;
                Ok(())
            }
            None => self.table.mark_paid(id).await,
        }
    }

    pub(super) async fn answers(&self) -> Result<(), sqlx::Error> {
        self.table.answers().await
    }

    pub(super) async fn flush(&self) -> Result<(), sqlx::Error> {
        let mut recent = self.recent.lock().await;
        if !recent.is_empty() {
            self.table.insert_all(&recent).await?;
            recent.clear();
        }
        Ok(())
    }

    pub(super) async fn flush_for_ever(&self) {
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            if let Err(error) = self.flush().await {
                crate::serve::say(crate::Service::Cart, format_args!("orders stay in memory: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Durability;

    fn an_order(id: &str) -> Order {
        Order { id: id.into(), product: 1, quantity: 1, amount_cents: 100, status: Status::Pending }
    }

    #[tokio::test]
    async fn an_acknowledged_order_is_in_memory_only_until_the_flush() {
        let dir = tempfile::tempdir().unwrap();
        let book = Buffered::new(Durable::open(dir.path(), Durability::Lazy).await.unwrap());
        let on_disk = Durable::open(dir.path(), Durability::Lazy).await.unwrap();
        assert!(book.place(&an_order("a")).await.unwrap());
        assert!(!book.place(&an_order("a")).await.unwrap());
        assert!(book.find("a").await.unwrap().is_some(), "it looks as if it were there");
        assert_eq!(on_disk.find("a").await.unwrap(), None, "a kill would lose it now");

        book.flush().await.unwrap();
        assert!(on_disk.find("a").await.unwrap().is_some());
        assert!(!book.place(&an_order("a")).await.unwrap());
        assert_eq!(book.list().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_payment_finds_its_order_in_memory_and_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let book = Buffered::new(Durable::open(dir.path(), Durability::Lazy).await.unwrap());
        book.place(&an_order("written")).await.unwrap();
        book.flush().await.unwrap();
        book.place(&an_order("in-memory")).await.unwrap();
        assert_eq!(book.pending(9).await.unwrap().len(), 2);
        book.mark_paid("written").await.unwrap();
        book.mark_paid("in-memory").await.unwrap();
        assert_eq!(book.pending(9).await.unwrap(), []);
        book.flush().await.unwrap();
        assert_eq!(book.find("in-memory").await.unwrap().unwrap().status, Status::Paid);
    }
}
