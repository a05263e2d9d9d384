//! What holds for every fault on the network.

use std::process::Command;

use serde_json::json;
use toprope_os::sockets::{TcpState, tcp_sockets};

use super::testing::{in_own_network, server};
use crate::FAULTS;
use crate::testing::{eventually, host, params, planned};

/// All that such a fault could leave: tables, and listening sockets.
fn look() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nft is installed");
    assert!(output.status.success(), "{output:?}");
    let mut listening: Vec<String> =
        tcp_sockets(&[TcpState::Listen]).expect("they can be listed").iter().map(|s| s.local.to_string()).collect();
    listening.sort();
    format!("{} {listening:?}", String::from_utf8_lossy(&output.stdout))
}

#[test]
fn every_one_is_undone_whether_it_was_applied_or_not() {
    in_own_network("every_one_is_undone_whether_it_was_applied_or_not", || async {
        if Command::new("nft").arg("--version").output().is_err() {
            return eprintln!("SKIPPED every_one_is_undone_whether_it_was_applied_or_not: nft is not installed");
        }
        let to = server().to_string();
        let mut seen = 0;
        for fault in FAULTS.0.iter().filter(|f| f.spec().spec.kind.starts_with("network-")) {
            let kind = fault.spec().spec.kind;
            let mut parameters = json!({"from": {"host": true}, "to": to});
            let own = match kind {
                "network-latency" => Some(("delay", "10ms")),
                "network-bandwidth" => Some(("rate", "1MB/s")),
                "network-loss" => Some(("loss", "1%")),
                "network-partition" => None,
                other => panic!("say here what `{other}` takes"),
            };
            if let Some((key, value)) = own {
                parameters[key] = json!(value);
            }
            let (params, before) = (params(parameters), look());
            let (_, step) = planned(*fault, &params, &host()).await;
            let undo_twice = async || {
                for _ in 0..2 {
                    let notes = fault.undo(&step, &host()).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
                    assert!(!notes.is_empty(), "{kind}");
                }
            };
            undo_twice().await;
            assert_eq!(look(), before, "{kind}: neither a plan nor the undo of what never was changes anything");
            let injection = fault.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert_ne!(look(), before, "{kind}");
            drop(injection);
            undo_twice().await;
            // The proxy's listener is closed by the runtime, a moment later.
            eventually(kind, || look() == before);
            seen += 1;
        }
        assert_eq!(seen, 4);
    });
}
