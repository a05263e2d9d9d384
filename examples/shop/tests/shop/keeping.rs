//! Starting the shop's processes, keeping them, and leaving none behind.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use toprope_shop::{Error, Launch, Service, Shop, free_base_port, ports};

use crate::support::{SOON, as_shipped, ask, eventually, has_ended, launch_in, open, signal};

#[test]
fn dropping_a_shop_ends_its_processes_and_even_a_stopped_one() {
    let shop = as_shipped();
    let pids: Vec<u32> = shop.shop.pids().into_values().collect();
    assert_eq!(pids.len(), 5);
    signal(shop.pid(Service::Payments), Signal::STOP);
    drop(shop);
    for pid in pids {
        assert!(has_ended(pid), "{pid}");
    }
}

#[test]
fn a_supervised_service_comes_back_after_half_a_second() {
    let shop = open(|launch| launch.supervise = true);
    let old = shop.pid(Service::Recommendations);
    let before = Instant::now();
    shop.kill(Service::Recommendations);
    eventually("it runs again", || shop.shop.pid(Service::Recommendations).is_some());
    assert!(before.elapsed() >= Duration::from_millis(500), "{:?}", before.elapsed());
    assert_ne!(shop.pid(Service::Recommendations), old);
    eventually("it answers", || {
        shop.ask(Service::Recommendations, "GET", "/health", "", SOON).is_ok_and(|(status, _)| status == 200)
    });
}

#[test]
fn a_service_that_nobody_supervises_stays_dead_until_it_is_started() {
    let shop = as_shipped();
    shop.kill(Service::Cart);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(shop.shop.pid(Service::Cart), None);
    assert_eq!(shop.shop.pids().len(), 4);
    shop.shop.restart(Service::Cart).unwrap();
    assert_eq!(shop.get(Service::Cart, "/health").0, 200);
}

#[test]
fn a_taken_port_is_told_with_what_the_service_said() {
    let dir = tempfile::tempdir().unwrap();
    let launch = launch_in(&dir);
    let _taken = TcpListener::bind(ports(launch.base_port).unwrap().of(Service::Cart)).unwrap();
    let error = Shop::start(launch).unwrap_err();
    assert!(matches!(error, Error::Exited { service: Service::Cart, .. }), "{error}");
    assert!(error.to_string().contains("cannot listen on"), "{error}");
}

#[test]
fn another_shop_at_the_same_ports_is_not_taken_for_this_one() {
    let first = as_shipped();
    let dir = tempfile::tempdir().unwrap();
    let base = first.shop.addresses().of(Service::Gateway).port();
    let error = Shop::start(Launch::new(env!("CARGO_BIN_EXE_shop"), base, dir.path())).unwrap_err();
    assert!(matches!(error, Error::Exited { service: Service::Gateway, .. }), "{error}");
    assert_eq!(first.get(Service::Gateway, "/health").0, 200);
}

#[test]
fn an_executable_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Shop::start(Launch { exe: "/nowhere/shop".into(), ..launch_in(&dir) }).unwrap_err();
    assert!(error.to_string().contains("/nowhere/shop"), "{error}");
}

#[test]
fn the_gateway_finds_a_service_where_it_is_told_to() {
    // Nothing listens on port 1, so what goes through there fails, and the service itself is well.
    let shop = open(|launch| {
        launch.via.insert(Service::Recommendations, "127.0.0.1:1".parse().unwrap());
    });
    assert_eq!(shop.get(Service::Recommendations, "/health").0, 200);
    assert_eq!(shop.get(Service::Gateway, "/product/1").0, 500);
}

/// `shop up`, and the process ids that it printed.
fn up(dir: &tempfile::TempDir) -> (Child, Vec<u32>, u16) {
    let base = free_base_port().unwrap();
    let mut up = Command::new(env!("CARGO_BIN_EXE_shop"))
        .args(["up", "--fixed", "--base-port", &base.to_string(), "--data"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(up.stdout.take().unwrap()).lines();
    let told: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.contains("Ctrl-C")).collect();
    let pids: Vec<u32> = told.iter().filter_map(|line| line.split_once("pid ")?.1.parse().ok()).collect();
    assert_eq!(pids.len(), 5, "{told:?}");
    (up, pids, base)
}

#[test]
fn shop_up_ends_in_good_order_at_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let (mut up, pids, base) = up(&dir);
    assert_eq!(ask(ports(base).unwrap().of(Service::Gateway), "GET", "/health", "", SOON).unwrap().0, 200);
    signal(up.id(), Signal::INT);
    assert!(up.wait().unwrap().success());
    assert!(pids.iter().all(|&pid| has_ended(pid)));
}

#[test]
fn a_killed_shop_up_leaves_no_process_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut up, pids, _) = up(&dir);
    up.kill().unwrap();
    up.wait().unwrap();
    eventually("all have ended", || pids.iter().all(|&pid| has_ended(pid)));
}
