//! Faults on traffic.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::super::sandbox::{Inside, XTASK};
use super::super::target::is_prompt;
use super::{Mechanism, Said, Scenario, Stage, Started, nothing, peer, processes_may_end, start, target, wait_until};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("network-partition", "reject", Mechanism::OwnerTable, reject),
    scenario("network-partition", "drop", Mechanism::OwnerTable, drop_all),
    scenario("network-loss", "", Mechanism::OwnerTable, loss),
    scenario("network-latency", "by-nftables", Mechanism::OwnerTable, latency_of_host),
    Scenario {
        missing: no_bpf,
        host_pids: true,
        ..scenario("network-latency", "by-bpf", Mechanism::BpfLink, latency_of_process)
    },
    Scenario {
        missing: no_bpf,
        host_pids: true,
        // A process in a crash loop is another one every time.
        leaves: processes_may_end,
        ..scenario("network-latency", "crash-loop", Mechanism::BpfLink, latency_of_crash_loop)
    },
    scenario("network-latency", "by-listener", Mechanism::Listener, latency_by_listener),
    scenario("network-bandwidth", "", Mechanism::OwnerTable, bandwidth),
];

const fn scenario(
    fault: &'static str,
    variant: &'static str,
    mechanism: Mechanism,
    stage: fn(&Inside) -> Result<Stage, String>,
) -> Scenario {
    Scenario { fault, variant, mechanism, stage, leaves: nothing, host_pids: false, missing: no_nftables }
}

/// The service under test.
const SERVICE: &str = "127.0.0.1:7001";

fn service() -> SocketAddr {
    SERVICE.parse().expect("an address")
}

fn no_nftables() -> Option<String> {
    toprope_os::nft::supported().err().map(|e| e.to_string())
}

fn no_bpf() -> Option<String> {
    toprope_os::bpf::supported().err().map(|e| e.to_string())
}

fn served() -> Result<Started, String> {
    let served = peer(&["serve", SERVICE])?;
    wait_until("the service answers", || is_prompt(service()))?;
    Ok(served)
}

/// A stage whose fault hinders whoever asks the service, the agent too.
fn hinders(method: &str) -> Result<Stage, String> {
    let served = served()?;
    Ok(Stage::new(method, vec![served], || !is_prompt(service())))
}

fn reject(_: &Inside) -> Result<Stage, String> {
    hinders("network-partition: {from: {host: true}, to: '127.0.0.1:7001', action: reject, for: {for}}")
}

fn drop_all(_: &Inside) -> Result<Stage, String> {
    hinders("network-partition: {from: {host: true}, to: '127.0.0.1:7001', action: drop, for: {for}}")
}

fn loss(_: &Inside) -> Result<Stage, String> {
    hinders("network-loss: {from: {host: true}, to: '127.0.0.1:7001', loss: 100%, for: {for}}")
}

fn latency_of_host(_: &Inside) -> Result<Stage, String> {
    hinders("network-latency: {from: {host: true}, to: '127.0.0.1:7001', delay: 10s, for: {for}}")
}

fn bandwidth(_: &Inside) -> Result<Stage, String> {
    hinders("network-bandwidth: {from: {host: true}, to: '127.0.0.1:7001', rate: 1B/s, for: {for}}")
}

fn latency_of_process(inside: &Inside) -> Result<Stage, String> {
    let served = served()?;
    let mut client = target(inside, &["client", SERVICE])?;
    let mut said = Said::by(&mut client.carrier)?;
    wait_until("the client is served", || said.last() == Some(b'+'))?;
    let pid = client.inside;
    let method = format!("network-latency: {{from: {{pid: {pid}}}, to: '127.0.0.1:7001', delay: 10s, for: {{for}}}}");
    Ok(Stage::new(method, vec![served, client], move || said.last() == Some(b'-')))
}

/// Other tools' rules stayed for good when their target was in a crash loop.
fn latency_of_crash_loop(inside: &Inside) -> Result<Stage, String> {
    let served = served()?;
    // Other sandboxes may have such clients at the same time, and in the host's pid namespace they are all seen.
    let tag = std::process::id();
    let client = format!("{XTASK} proof target client {SERVICE} --crash-after 1500 --tag {tag}");
    let supervisor = format!("while :; do {client}; done");
    let mut supervisor = start(inside, inside.command("sh").args(["-c", &supervisor]))?;
    let mut said = Said::by(&mut supervisor.carrier)?;
    wait_until("the client is served", || said.last() == Some(b'+'))?;
    let method = format!(
        "network-latency: {{from: {{command-line: '^{client}$'}}, to: '127.0.0.1:7001', delay: 10s, for: {{for}}}}"
    );
    Ok(Stage::new(method, vec![served, supervisor], move || said.last() == Some(b'-')))
}

fn latency_by_listener(_: &Inside) -> Result<Stage, String> {
    let served = served()?;
    let proxy: SocketAddr = "127.0.0.1:7002".parse().expect("an address");
    let listens = move || TcpStream::connect_timeout(&proxy, Duration::from_millis(10)).is_ok();
    let method = "network-latency: {listen: '127.0.0.1:7002', to: '127.0.0.1:7001', delay: 10ms, for: {for}}";
    Ok(Stage::new(method, vec![served], listens))
}
