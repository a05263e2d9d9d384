//! What the processes that hold a fault may do, as the kernel says.

use std::collections::BTreeMap;

use toprope_os::process::ProcessId;
use toprope_tests::{Toprope, is_root, network, skip};

/// What the kernel says of a process's rights.
struct Rights {
    /// Capabilities that it could ever get, as bits.
    bounding: u64,
    effective: u64,
    filtered: bool,
    no_new: bool,
}

fn rights(process: &ProcessId) -> Rights {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it lives");
    let lines: BTreeMap<&str, &str> =
        status.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key, value.trim())).collect();
    let set = |key: &str| u64::from_str_radix(lines[key], 16).expect("hexadecimal");
    Rights {
        bounding: set("CapBnd"),
        effective: set("CapEff"),
        filtered: lines["Seccomp"] == "2",
        no_new: lines["NoNewPrivs"] == "1",
    }
}

/// Numbers of capabilities(7).
const KILL: u64 = 1 << 5;
const DAC: u64 = 1 << 1;
const DAC_READ: u64 = 1 << 2;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const PTRACE: u64 = 1 << 19;

/// Holds a fault, and looks at its injector and guard.
fn holders_keep(method: &str, allowed: u64) {
    let toprope = Toprope::new();
    let watcher = toprope.watcher();
    let spec = format!("probes:\n- command: {{run: ['true']}}\n{watcher}\nmethod:\n- {method}");
    let experiment = toprope.experiment("held", &spec);
    let mut running = toprope.start(&["run", "--plain", experiment.to_str().expect("a path of this test")]);
    running.until_in_force();
    let holders = [running.injectors(), running.guards()].concat();
    assert_eq!(holders.len(), 2, "{method}");
    for holder in holders {
        let has = rights(&holder);
        assert_eq!(has.effective & !allowed, 0, "{method}: {holder} has {:#x}", has.effective);
        assert!(has.filtered && has.no_new, "{method}: {holder}");
        if is_root() {
            assert_eq!(has.bounding & !allowed, 0, "{method}: {holder} could get {:#x}", has.bounding);
        }
    }
    toprope.let_go();
    running.wait();
    toprope.assert_clean();
}

#[test]
fn injector_and_guard_keep_what_the_fault_names_and_a_filter() {
    holders_keep("cpu-stress: {load: 5%, cores: 1, for: 30s}", 0);
    holders_keep("memory-stress: {amount: 1MiB, for: 30s}", 0);
    let mut target = std::process::Command::new("sleep").arg("600").spawn().expect("it is installed");
    let pause = format!("process-pause: {{target: {{pid: {}}}, for: 30s}}", target.id());
    holders_keep(&pause, KILL | PTRACE | DAC_READ);
    target.kill().expect("it is ours");
    target.wait().expect("it is ours");
    let directory = tempfile::tempdir().expect("a directory");
    holders_keep(&format!("disk-fill: {{path: {}, amount: 1MiB, for: 30s}}", directory.path().display()), DAC);
}

#[test]
fn network_faults_keep_the_rights_to_networks_alone() {
    if !is_root() {
        return skip("rules of a packet filter are root's");
    }
    network::own(|| {
        holders_keep("network-partition: {from: {host: true}, to: '127.0.0.1:9', for: 30s}", NET_ADMIN | NET_RAW);
    });
}
