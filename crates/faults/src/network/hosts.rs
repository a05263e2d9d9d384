//! Faults between two hosts on one link, and for some of a host's programs only: each parameter by what it does, as seen
//! from the other end.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use toprope_os::namespace::Namespace;

use super::testing::{
    DELAY, STRAIGHT, ask_as, ask_by_datagrams, datagram_echo, datagram_echo_at, echo, in_force, in_own_network,
    observed, server,
};
use crate::network_latency::NetworkLatency;
use crate::network_loss::NetworkLoss;
use crate::network_partition::NetworkPartition;
use crate::testing::{PATIENCE, Victim, eventually};

/// How long a test waits for what does not come.
const SHORT: Duration = Duration::from_millis(400);

/// A network of its own on a link to the calling thread's, with the addresses 10.9.0.2, 10.9.0.3, and fd09::2 and ::3. Ours
/// end with 1.
struct OtherHost {
    network: Namespace,
    _resident: Victim,
}

impl OtherHost {
    /// Makes one; nothing where `ip` cannot.
    fn new(test: &str) -> Option<Self> {
        let network = Namespace::new_net().expect("root");
        let resident = network.run(Victim::sleeping).expect("entered");
        let link = format!("link add toprope0 type veth peer name toprope1 netns {}", resident.pid());
        let made = ip(&link).and_then(|()| addresses("toprope0", &[1]));
        let made = made.and_then(|()| network.run(|| addresses("toprope1", &[2, 3])).expect("entered"));
        if let Err(why) = made {
            eprintln!("SKIPPED {test}: {why}");
            return None;
        }
        Some(Self { network, _resident: resident })
    }

    /// Runs something there.
    fn run<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        self.network.run(run).expect("entered")
    }
}

fn addresses(interface: &str, numbers: &[u32]) -> Result<(), String> {
    for number in numbers {
        ip(&format!("address add 10.9.0.{number}/24 dev {interface}"))?;
        ip(&format!("address add fd09::{number}/64 dev {interface} nodad"))?;
    }
    ip(&format!("link set {interface} up"))
}

fn ip(arguments: &str) -> Result<(), String> {
    match Command::new("ip").args(arguments.split(' ')).output() {
        Ok(output) if output.status.success() => Ok(()),
        other => Err(format!("ip {arguments}: {other:?}")),
    }
}

fn connect(to: SocketAddr) -> Result<(), ErrorKind> {
    TcpStream::connect_timeout(&to, SHORT).map(drop).map_err(|e| e.kind())
}

#[test]
fn between_hosts_each_direction_is_cut_by_itself_and_one_address_alone() {
    const TEST: &str = "between_hosts_each_direction_is_cut_by_itself_and_one_address_alone";
    in_own_network(TEST, || async {
        let Some(there) = OtherHost::new(TEST) else { return };
        for (meant, spared) in [("10.9.0.2:0", "10.9.0.3:0"), ("[fd09::2]:0", "[fd09::3]:0")] {
            let ((datagrams, got), (beside, _)) = there.run(|| (datagram_echo_at(meant), datagram_echo_at(spared)));
            let stream = there.run(|| echo(meant));
            for (direction, arrive) in [("out", 0), ("in", 5), ("both", 0)] {
                // Both ends know where the other is.
                eventually("the link is up", || ask_by_datagrams(datagrams, 1) == 1 && connect(stream).is_ok());
                assert_eq!(ask_by_datagrams(beside, 5), 5);
                let parameters =
                    json!({"from": {"host": true}, "to": datagrams.ip().to_string(), "direction": direction});
                let (_, mut injection) = in_force(&NetworkPartition, parameters).await;
                let before = got.load(Ordering::Relaxed);
                assert_eq!(ask_by_datagrams(datagrams, 5), 0, "{meant} {direction}");
                assert_eq!(got.load(Ordering::Relaxed) - before, arrive, "{meant} {direction}");
                assert_eq!(connect(stream), Err(ErrorKind::TimedOut), "{meant} {direction}");
                assert_eq!(ask_by_datagrams(beside, 5), 5, "{meant} {direction}");
                assert_eq!(observed(&mut injection).await.took, Some(true));
                injection.release(PATIENCE).await.unwrap();
            }
            eventually("all pass again", || ask_by_datagrams(datagrams, 5) == 5 && connect(stream).is_ok());
        }
    });
}

#[test]
fn what_comes_from_another_host_is_refused_to_it_at_once() {
    const TEST: &str = "what_comes_from_another_host_is_refused_to_it_at_once";
    in_own_network(TEST, || async {
        let Some(there) = OtherHost::new(TEST) else { return };
        let ours = echo("10.9.0.1:0");
        eventually("the link is up", || there.run(|| connect(ours)).is_ok());
        for parameters in [
            json!({"from": {"host": true}, "to": "10.9.0.0/24", "direction": "in", "action": "reject"}),
            json!({"from": {"port": ours.port()}, "to": "anywhere", "direction": "in", "action": "reject"}),
        ] {
            let (_, mut injection) = in_force(&NetworkPartition, parameters.clone()).await;
            assert_eq!(there.run(|| connect(ours)), Err(ErrorKind::ConnectionRefused), "{parameters}");
            assert_eq!(observed(&mut injection).await.took, Some(true), "{parameters}");
            injection.release(PATIENCE).await.unwrap();
            assert_eq!(there.run(|| connect(ours)), Ok(()), "{parameters}");
        }
    });
}

#[test]
fn ping_is_lost_and_nothing_else() {
    const TEST: &str = "ping_is_lost_and_nothing_else";
    in_own_network(TEST, || async {
        let Some(there) = OtherHost::new(TEST) else { return };
        let (datagrams, _) = there.run(|| datagram_echo_at("10.9.0.2:0"));
        let ping = || {
            let output = Command::new("ping").args(["-n", "-c", "3", "-i", "0.2", "-W", "1", "10.9.0.2"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        if !ping() {
            return eprintln!("SKIPPED {TEST}: ping cannot be used");
        }
        let parameters = json!({"from": {"host": true}, "to": "10.9.0.2", "loss": "100%", "protocol": "icmp"});
        let (_, mut injection) = in_force(&NetworkLoss, parameters).await;
        assert!(!ping());
        assert_eq!(ask_by_datagrams(datagrams, 5), 5);
        let effect = observed(&mut injection).await;
        assert_eq!((effect.took, effect.measures[0].measured), (Some(true), 100.0), "{effect:?}");
        injection.release(PATIENCE).await.unwrap();
        assert!(ping());
    });
}

/// A program in bash that sends a datagram and fails where the packet filter refuses it that.
fn sends(to: SocketAddr, uid: u32) -> bool {
    let script = format!("exec 3<>/dev/udp/{}/{} && echo hello >&3", to.ip(), to.port());
    let mut command = Command::new("bash");
    std::os::unix::process::CommandExt::uid(command.args(["-c", &script]), uid);
    command.output().expect("bash is installed").status.success()
}

#[test]
fn only_the_meant_users_packets_are_lost_or_refused() {
    in_own_network("only_the_meant_users_packets_are_lost_or_refused", || async {
        let (to, got) = datagram_echo();
        let parameters = json!({"from": {"user": "65534"}, "to": to.to_string(), "loss": "100%", "direction": "out"});
        let (_, injection) = in_force(&NetworkLoss, parameters).await;
        assert!(!sends(to, 65534) && sends(to, 0));
        eventually("root's has arrived", || got.load(Ordering::Relaxed) == 1);
        injection.release(PATIENCE).await.unwrap();
        assert!(sends(to, 65534));

        let to = server();
        let parameters = json!({"from": {"user": "65534"}, "to": to.to_string(), "action": "reject"});
        let (_, injection) = in_force(&NetworkPartition, parameters).await;
        let connects = |uid: u32| {
            let mut command = Command::new("bash");
            let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}", to.port());
            std::os::unix::process::CommandExt::uid(command.args(["-c", &script]), uid);
            String::from_utf8_lossy(&command.output().expect("bash is installed").stderr).into_owned()
        };
        assert!(connects(65534).contains("refused") && connects(0).is_empty());
        injection.release(PATIENCE).await.unwrap();
        assert!(ask_as(65534, to) < DELAY);
    });
}

#[test]
fn only_the_meant_control_groups_connections_are_slower_and_packets_lost() {
    const TEST: &str = "only_the_meant_control_groups_connections_are_slower_and_packets_lost";
    in_own_network(TEST, || async {
        let Ok(v2) = toprope_os::cgroup::V2::find() else {
            return eprintln!("SKIPPED {TEST}: no cgroup v2 hierarchy is mounted");
        };
        let group = ControlGroup(v2.root().join(format!("toprope-hosts-{}", std::process::id())));
        std::fs::create_dir(&group.0).expect("root");
        let name = format!("/{}", group.0.file_name().expect("it has one").to_str().expect("ours"));
        let inside = |script: String| {
            let script = format!("echo $$ > {}/cgroup.procs && {script}", group.0.display());
            let begin = std::time::Instant::now();
            let output =
                Command::new("timeout").args(["20", "bash", "-c", &script]).output().expect("bash is installed");
            (output.status.success(), begin.elapsed())
        };
        let to = server();
        let asks = format!("exec 3<>/dev/tcp/127.0.0.1/{} && echo hello >&3 && read -r -u 3 line", to.port());
        let parameters = json!({"from": {"cgroup": name}, "to": to.to_string(), "delay": "500ms"});
        let (_, injection) = in_force(&NetworkLatency, parameters).await;
        let (answered, took) = inside(asks.clone());
        assert!(answered && took >= DELAY, "{took:?}");
        assert!(ask_as(0, to) < DELAY);
        injection.release(PATIENCE).await.unwrap();
        let (answered, took) = inside(asks);
        assert!(answered && took < DELAY + STRAIGHT, "{took:?}");

        let (to, got) = datagram_echo();
        let parameters = json!({"from": {"cgroup": name}, "to": to.to_string(), "loss": "100%", "direction": "out"});
        let (_, injection) = in_force(&NetworkLoss, parameters).await;
        let sends_inside = format!("exec 3<>/dev/udp/127.0.0.1/{} && echo hello >&3", to.port());
        assert!(!inside(sends_inside.clone()).0 && sends(to, 0));
        eventually("the other's has arrived", || got.load(Ordering::Relaxed) == 1);
        injection.release(PATIENCE).await.unwrap();
        assert!(inside(sends_inside).0);
    });
}

/// A control group of the test's own, removed at the end.
struct ControlGroup(std::path::PathBuf);

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::fs::remove_dir(&self.0).is_err() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
