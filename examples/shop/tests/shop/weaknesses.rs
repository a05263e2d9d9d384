//! Each planted weakness shows in the shop as shipped, and is gone in the repaired one.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::json;
use toprope_shop::Service;

use crate::support::{OpenShop, SOON, as_shipped, eventually, open, repaired};

/// Well beyond every timeout of the shop, and well within a customer's despair.
const FAR_TOO_LONG: Duration = Duration::from_secs(4);

#[test]
fn slow_payments_hang_the_checkout_as_shipped() {
    let shop = as_shipped();
    let paused = shop.pause(Service::Payments);
    let error = shop.ask(Service::Gateway, "POST", "/checkout", "", FAR_TOO_LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    drop(paused);
    eventually("the checkout works again", || shop.checkout("").0 == 200);
}

#[test]
fn slow_payments_leave_the_repaired_checkout_quick_and_are_settled_once() {
    let shop = repaired();
    let paused = shop.pause(Service::Payments);
    let begun = Instant::now();
    let (status, receipt) = shop.checkout(r#"{"order_id": "patient"}"#);
    assert_eq!((status, &receipt["status"]), (202, &json!("payment pending")), "{receipt}");
    assert!(begun.elapsed() < FAR_TOO_LONG, "{:?}", begun.elapsed());
    assert_eq!(shop.get(Service::Gateway, "/orders/patient").1["status"], "pending");
    drop(paused);
    eventually("the order is paid", || shop.get(Service::Gateway, "/orders/patient").1["status"] == "paid");
    assert_eq!(shop.get(Service::Payments, "/charges").1, json!([{"order_id": "patient", "amount_cents": 18900}]));
}

#[test]
fn the_queue_of_pending_payments_survives_the_gateway() {
    let shop = open(|launch| (launch.fixed, launch.supervise) = (true, true));
    let paused = shop.pause(Service::Payments);
    assert_eq!(shop.checkout(r#"{"order_id": "patient"}"#).0, 202);
    shop.kill(Service::Gateway);
    drop(paused);
    eventually("the order is paid", || shop.get(Service::Cart, "/orders/patient").1["status"] == "paid");
}

/// Calls to the catalog per product page while the catalog is dead, over `pages` pages.
fn storm(shop: &OpenShop, pages: usize) -> f64 {
    shop.kill(Service::Catalog);
    for _ in 0..pages {
        assert_eq!(shop.get(Service::Gateway, "/product/1").0, 503);
    }
    let stats = shop.get(Service::Gateway, "/stats").1;
    stats["catalog"]["calls_per_request"].as_f64().unwrap()
}

#[test]
fn a_dead_catalog_is_stormed_with_retries_as_shipped() {
    // 27, unless the machine stalls for so long that calls leave the window before their request does.
    let calls_per_request = storm(&as_shipped(), 5);
    assert!((20.0..=27.0).contains(&calls_per_request), "{calls_per_request}");
}

#[test]
fn a_dead_catalog_is_asked_again_sparingly_when_repaired() {
    let shop = repaired();
    let calls_per_request = storm(&shop, 20);
    // 20 pages earn 2 retries, and 5 were saved: 1.35.
    assert!((0.9..1.6).contains(&calls_per_request), "{calls_per_request}");
    shop.shop.restart(Service::Catalog).unwrap();
    assert_eq!(shop.get(Service::Gateway, "/product/1").0, 200);
}

#[test]
fn a_catalog_that_hangs_is_stormed_too() {
    let calls = |shop: &OpenShop| {
        let _paused = shop.pause(Service::Catalog);
        assert_eq!(shop.get(Service::Gateway, "/product/1").0, 503);
        shop.get(Service::Gateway, "/stats").1["catalog"]["calls"].as_u64().unwrap()
    };
    // 27 calls of 300 ms outlast the window of 5 s; the rest were made before it.
    let many = calls(&as_shipped());
    assert!((10..=17).contains(&many), "{many}");
    assert_eq!(calls(&repaired()), 2);
}

#[test]
fn dead_recommendations_take_the_page_down_as_shipped() {
    let shop = as_shipped();
    shop.kill(Service::Recommendations);
    let (status, page) = shop.get(Service::Gateway, "/product/1");
    assert_eq!(status, 500, "{page}");
    assert!(page["error"].as_str().unwrap().contains("recommendations"), "{page}");
    shop.shop.restart(Service::Recommendations).unwrap();
    assert_eq!(shop.get(Service::Gateway, "/product/1").0, 200);
}

#[test]
fn the_repaired_page_goes_without_recommendations_that_are_dead_or_hang() {
    let shop = repaired();
    let page_without = || {
        let (status, page) = shop.get(Service::Gateway, "/product/1");
        assert_eq!(status, 200, "{page}");
        assert_eq!(page["product"]["id"], 1);
        assert_eq!(page["without"], json!(["recommendations"]));
    };
    let paused = shop.pause(Service::Recommendations);
    page_without();
    drop(paused);
    shop.kill(Service::Recommendations);
    page_without();
}

/// Acknowledged orders that are gone after the cart was killed and started again.
fn lost(shop: &OpenShop, round: u32) -> usize {
    let ids: Vec<_> = (0..20).map(|n| format!("order-{round}-{n}")).collect();
    for id in &ids {
        assert_eq!(shop.put(Service::Cart, &format!("/orders/{id}")).0, 201, "acknowledged");
    }
    shop.kill(Service::Cart);
    eventually("the cart is back", || {
        shop.ask(Service::Cart, "GET", "/health", "", SOON).is_ok_and(|(status, _)| status == 200)
    });
    ids.iter().filter(|id| shop.get(Service::Cart, &format!("/orders/{id}")).0 == 404).count()
}

#[test]
fn a_killed_cart_loses_acknowledged_orders_as_shipped() {
    let shop = open(|launch| launch.supervise = true);
    // A flush may just have saved the orders of one round, and will not have saved those of all three.
    let lost: Vec<_> = (0..3).map(|round| lost(&shop, round)).collect();
    assert!(lost.iter().any(|&n| n > 0), "{lost:?}");
}

#[test]
fn a_killed_cart_loses_nothing_when_repaired() {
    let shop = open(|launch| (launch.fixed, launch.supervise) = (true, true));
    for round in 0..3 {
        assert_eq!(lost(&shop, round), 0);
    }
}

#[test]
fn a_deploy_hides_that_the_cart_as_shipped_loses_orders() {
    let shop = as_shipped();
    assert_eq!(shop.put(Service::Cart, "/orders/kept").0, 201);
    shop.shop.restart(Service::Cart).unwrap();
    assert_eq!(shop.get(Service::Cart, "/orders/kept").0, 200);
}

#[test]
fn the_health_check_lies_as_shipped() {
    let shop = as_shipped();
    shop.kill(Service::Catalog);
    shop.kill(Service::Cart);
    // Longer than any cache of an honest one.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(shop.get(Service::Gateway, "/health").0, 200);
    assert_eq!(shop.checkout("").0, 503);
}

#[test]
fn the_repaired_health_check_names_what_is_down() {
    let shop = repaired();
    let healthy = |status: u16, down: &[&str], degraded: &[&str]| {
        eventually(&format!("health is {status}, down {down:?}, degraded {degraded:?}"), || {
            let (got, health) = shop.get(Service::Gateway, "/health");
            got == status && health["down"] == json!(down) && health["degraded"] == json!(degraded)
        });
    };
    healthy(200, &[], &[]);
    shop.kill(Service::Payments);
    healthy(200, &[], &["payments"]);
    shop.kill(Service::Catalog);
    healthy(503, &["catalog"], &["payments"]);
    let paused = shop.pause(Service::Cart);
    healthy(503, &["catalog", "cart"], &["payments"]);
    drop(paused);
    shop.shop.restart(Service::Catalog).unwrap();
    shop.shop.restart(Service::Payments).unwrap();
    healthy(200, &[], &[]);
}
