//! The shop on a good day.

use std::time::{Duration, Instant};

use serde_json::json;
use toprope_shop::Service;

use crate::support::{OpenShop, SOON, as_shipped, ask, eventually, repaired};

#[test]
fn a_customer_looks_at_a_product_and_buys_it() {
    for shop in [as_shipped(), repaired()] {
        let (status, page) = shop.get(Service::Gateway, "/product/1");
        assert_eq!(status, 200, "{page}");
        assert_eq!(page["product"]["price_cents"], 18900);
        assert_eq!(page["recommendations"], json!([3, 5, 8]));
        assert_eq!(page["without"], json!([]));

        let (status, receipt) = shop.checkout(r#"{"order_id": "first", "product": 3, "quantity": 2}"#);
        assert_eq!((status, &receipt["status"]), (200, &json!("paid")), "{receipt}");
        assert_eq!(receipt["amount_cents"], 6800);
        assert_eq!(shop.get(Service::Gateway, "/orders/first").1["status"], "paid");
        assert_eq!(shop.get(Service::Payments, "/charges").1, json!([{"order_id": "first", "amount_cents": 6800}]));
    }
}

#[test]
fn the_same_order_twice_is_one_order_and_one_charge() {
    for shop in [as_shipped(), repaired()] {
        for _ in 0..2 {
            assert_eq!(shop.checkout(r#"{"order_id": "again"}"#).0, 200);
        }
        assert_eq!(shop.get(Service::Cart, "/orders").1["count"], 1);
        assert_eq!(shop.get(Service::Payments, "/charges").1.as_array().unwrap().len(), 1);
        // Nobody says which order it is: two orders.
        assert_eq!(shop.checkout("").0, 200);
        assert_eq!(shop.checkout("").0, 200);
        assert_eq!(shop.get(Service::Gateway, "/orders").1["count"], 3);
    }
}

#[test]
fn what_the_customer_did_wrong_is_told_so() {
    let shop = repaired();
    assert_eq!(shop.get(Service::Gateway, "/product/99").0, 404);
    assert_eq!(shop.get(Service::Gateway, "/orders/nowhere").0, 404);
    for body in [r#"{"produkt": 1}"#, "not JSON", r#"{"quantity": 0}"#, r#"{"order_id": "../x"}"#] {
        let (status, told) = shop.checkout(body);
        assert_eq!(status, 400, "{body}: {told}");
        assert!(told["error"].is_string(), "{body}: {told}");
    }
    assert_eq!(shop.checkout(r#"{"product": 99}"#).0, 404);
    assert_eq!(shop.get(Service::Cart, "/orders").1["count"], 0);
}

#[test]
fn every_service_has_a_name_a_health_check_and_metrics() {
    let begun = Instant::now();
    let shop = as_shipped();
    // It takes 40 ms on an idle machine.
    assert!(begun.elapsed() < Duration::from_secs(5), "the shop took {:?} to open", begun.elapsed());
    for service in Service::ALL {
        let pid = shop.pid(service);
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        assert_eq!(name.trim_end(), service.process_name());
        let command_line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().replace('\0', " ");
        assert!(command_line.contains(&format!("shop {service} --listen 127.0.0.1:")), "{command_line}");

        let (status, health) = shop.get(service, "/health");
        assert_eq!((status, &health["service"], &health["pid"]), (200, &json!(service.name()), &json!(pid)));
        assert!(metrics(&shop, service).contains(r#"shop_requests_total{path="/health",status="200"}"#));
    }
}

#[test]
fn calls_per_request_can_be_read_from_stats_and_from_metrics() {
    for shop in [as_shipped(), repaired()] {
        for _ in 0..3 {
            assert_eq!(shop.get(Service::Gateway, "/product/2").0, 200);
        }
        let stats = shop.get(Service::Gateway, "/stats").1;
        assert_eq!(stats["catalog"], json!({"requests": 3, "calls": 3, "failures": 0, "calls_per_request": 1.0}));
        let metrics = metrics(&shop, Service::Gateway);
        for line in [
            r#"shop_upstream_requests_total{upstream="catalog"} 3"#,
            r#"shop_upstream_failures_total{upstream="catalog"} 0"#,
            r#"shop_requests_total{path="/product/{id}",status="200"} 3"#,
        ] {
            assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
        }
        assert!(metrics.ends_with("# EOF\n"));
        eventually("the window moves on", || {
            shop.get(Service::Gateway, "/stats").1["catalog"]["calls_per_request"] == 0.0
        });
    }
}

fn metrics(shop: &OpenShop, service: Service) -> String {
    let (status, text) = ask(shop.shop.addresses().of(service), "GET", "/metrics", "", SOON).unwrap();
    assert_eq!(status, 200);
    text
}
