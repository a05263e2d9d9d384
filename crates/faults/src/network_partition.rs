//! `network-partition`: packets that do not arrive, as when a cable, a switch or a firewall rule is in the way.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use toprope_engine::fault::{Draining, Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_model::kind::{Danger, FaultSpec, Need, UndoKind};
use toprope_model::step::{Effect, Measure, Plan, Step};
use toprope_model::target::{Endpoint, Target};
use toprope_model::{FromNode, KindSpec, Node, Problems, choice, fields};
use toprope_os::nft::{Action as NftAction, Transport, Unreachable};

use crate::network::{Direction, Filter, Protocol, Selected, Traffic, Treatment};

fields! {
    /// What `network-partition` takes.
    struct Partition {
        /// Whose packets: `{host: true}` for those of every program of this host, `{user: NAME}`, `{cgroup: PATH}`, or
        /// `{port: NUMBER}` for those of who listens there. Packets do not tell processes.
        from: Target,
        /// The other side: `10.0.0.7`, `10.0.0.0/8`, `db.internal:5432`, `:5432` on any host, a service of the topology,
        /// or `anywhere`. A name is looked up once, when the fault begins.
        to: Endpoint,
        /// Which packets.
        protocol: Protocol = "any",
        /// Which way: `out` what is sent to the other side, `in` what comes from there, or `both`.
        direction: Direction = "both",
        /// What becomes of them: `drop` lets them vanish, so that whoever waits waits until its own timeout; `reject`
        /// refuses them at once.
        action: Action = "drop",
    }
}

choice! {
    /// What becomes of packets.
    enum Action {
        /// They vanish.
        Drop = "drop",
        /// They are refused.
        Reject = "reject",
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "network-partition",
        summary: "Cut the network between this host's programs and others.",
        docs: "\
Drops or rejects packets by rules of nftables in a table of their own, for what this host sends and what arrives for it.
Connections that are open are hit like new ones. What passes through this host, for containers with networks of their
own for instance, is not.

`reject` resets TCP connections and answers UDP with an ICMP message. It refuses these two only: ICMP is what carries
the refusals.

A port or an address in `to`, or a port in `from`, means traffic within this host too; `anywhere` and networks leave it
alone. `{from: {host: true}, to: anywhere}` cuts also the connection by which you are logged
in, and everything else that comes over the network, until the fault ends.

Packets that arrive carry no user: with a `user`, what the user sends is hit, which stops both ways of a TCP connection.

The rules end with the injector, however it ends, and by a lease within two seconds if it stands still. Without
privileges it works in a network of one's own (`toprope exec`).

The effect is measured: how many packets were hit. If there was none, the fault did not take.",
        example: "- network-partition: {from: {host: true}, to: \"127.0.0.1:5432\", action: drop, for: 20s}",
        fields: Partition::fields,
        check,
    },
    lasting: true,
    undo: UndoKind::KernelOwned,
    danger: Danger::SharesHost,
    needs: &[Need::NetAdmin],
    strength: &[],
    recovers: false,
    ramps: &[],
};

fn check(node: &Node, problems: &mut Problems) {
    let Some(partition) = Partition::from_node(node, problems) else { return };
    let Partition { from, to, protocol, direction, action } = &partition;
    Traffic::check(from, to, *protocol, *direction, node, problems);
    if (*protocol, *action) == (Protocol::Icmp, Action::Reject) {
        let span = node.get("action").map_or(node.span, |at| at.span);
        problems
            .add(span, "ICMP cannot be rejected: it is what carries the refusals", "not for ICMP")
            .help("write `action: drop`");
    }
}

/// The fault.
pub(crate) struct NetworkPartition;

impl Fault for NetworkPartition {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move {
            let Partition { from, to, protocol, direction, action } = params.read()?;
            let traffic = Traffic::resolve(&from, &to, protocol, direction, host).await?;
            let mut warnings: Vec<String> = traffic.one_way().into_iter().collect();
            match traffic.open_connections().await? {
                0 => {}
                1 => warnings.push("1 TCP connection is open now and is hit too".into()),
                open => warnings.push(format!("{open} TCP connections are open now and are hit too")),
            }
            Ok(traffic.plan(&from, action.word(), "partition", warnings))
        }
        .boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a Step,
        params: &'a Params,
        _: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        async move {
            let partition: Partition = params.read()?;
            let filter = Filter::begin(&Traffic::of(step)?, &partition.action).await?;
            Ok(Box::new(Cut(filter)) as _)
        }
        .boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        Traffic::undo(step).boxed()
    }
}

impl Treatment for Action {
    const RULES: usize = 1;

    fn refuses(&self) -> bool {
        *self == Self::Reject
    }

    fn rules(&self, transport: Option<Transport>) -> Vec<Selected> {
        vec![Selected::all(match (self, transport) {
            (Self::Reject, Some(Transport::Tcp)) => NftAction::Reset,
            (Self::Reject, _) => NftAction::Reject(Unreachable::Port),
            (Self::Drop, _) => NftAction::Drop,
        })]
    }
}

/// A partition in force.
struct Cut(Filter);

impl Injection for Cut {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        async {
            let hit = self.0.counters::<Action>().await?[0].packets;
            Ok(Effect {
                took: (hit > 0).then_some(true),
                reached: None,
                measures: vec![Measure {
                    name: "packets stopped".into(),
                    unit: String::new(),
                    asked: None,
                    measured: hit as f64,
                    samples: hit,
                    spread: None,
                }],
                note: self.0.note(hit),
            })
        }
        .boxed()
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        self.0.lost().boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        async move { self.0.remove().await.map(|()| None) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{SocketAddr, TcpStream, UdpSocket};
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    use serde_json::json;
    use toprope_os::nft;
    use toprope_os::process::Signal;

    use super::*;
    use crate::network::testing::{
        Client, Holder, LEASE, Redis, ask, ask_by_datagrams, datagram_echo, hold, in_force, in_own_namespaces,
        in_own_network, observed, role, server, without_privileges,
    };
    use crate::testing::{PATIENCE, eventually, host, params, planned};

    /// How long a test waits for what does not come.
    const SHORT: Duration = Duration::from_millis(400);

    fn connect(to: SocketAddr) -> Result<(), ErrorKind> {
        TcpStream::connect_timeout(&to, SHORT).map(drop).map_err(|e| e.kind())
    }

    fn everybody(to: SocketAddr, action: &str) -> serde_json::Value {
        json!({"from": {"host": true}, "to": to.to_string(), "action": action})
    }

    async fn life_of_a_partition() {
        let (to, other) = (server(), server());
        let mut old = Client::connect(to).unwrap();
        let parameters = params(everybody(to, "drop"));
        let (plan, step) = planned(&NetworkPartition, &parameters, &host()).await;
        assert!(plan.warnings.contains(&"1 TCP connection is open now and is hit too".to_owned()), "{plan:?}");
        assert_eq!(step.describe, format!("drop the packets between every process of this host and {to}"));
        assert_eq!(step.claims, [format!("partition to {to}")]);
        let mut injection = NetworkPartition.apply(&step, &parameters, &host()).await.unwrap();
        assert_eq!(observed(&mut injection).await.took, None, "nobody came by");

        assert_eq!(connect(to), Err(ErrorKind::TimedOut));
        assert!(old.ask_within(SHORT).is_err() && ask(other).is_ok());
        let effect = observed(&mut injection).await;
        assert!(effect.took == Some(true) && effect.measures[0].measured >= 2.0, "{effect:?}");

        let released = Instant::now();
        assert!(injection.release(PATIENCE).await.unwrap().is_none());
        assert!(released.elapsed() < Duration::from_secs(1), "{:?}", released.elapsed());
        assert!(!nft::exists(step.data["table"].as_str().unwrap()).unwrap());
        assert_eq!(connect(to), Ok(()));
        eventually("TCP has sent again what was dropped", || old.ask_within(PATIENCE).is_ok());
        for _ in 0..2 {
            assert!(NetworkPartition.undo(&step, &host()).await.unwrap()[0].contains("is gone"));
        }
    }

    #[test]
    fn dropped_packets_hit_old_and_new_connections_and_no_others() {
        in_own_network("dropped_packets_hit_old_and_new_connections_and_no_others", life_of_a_partition);
    }

    #[test]
    fn without_privileges_it_works_in_a_network_of_ones_own() {
        let test = "network_partition::tests::without_privileges_it_works_in_a_network_of_ones_own";
        in_own_namespaces(test, life_of_a_partition);
    }

    #[test]
    fn rejected_connections_are_refused_or_reset_at_once() {
        in_own_network("rejected_connections_are_refused_or_reset_at_once", || async {
            for direction in ["out", "both"] {
                let to = server();
                let mut old = Client::connect(to).unwrap();
                let mut parameters = everybody(to, "reject");
                parameters["direction"] = json!(direction);
                let (_, mut injection) = in_force(&NetworkPartition, parameters).await;
                assert_eq!(connect(to), Err(ErrorKind::ConnectionRefused), "{direction}");
                assert_eq!(old.ask().unwrap_err().kind(), ErrorKind::ConnectionReset, "{direction}");
                assert_eq!(observed(&mut injection).await.took, Some(true));
                injection.release(PATIENCE).await.unwrap();
                assert_eq!(connect(to), Ok(()));
            }
        });
    }

    #[test]
    fn rejected_datagrams_are_refused_to_their_sender() {
        in_own_network("rejected_datagrams_are_refused_to_their_sender", || async {
            let (to, _) = datagram_echo();
            let (_, injection) = in_force(&NetworkPartition, everybody(to, "reject")).await;
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            drop(socket.send(b"x"));
            let refused = socket.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            injection.release(PATIENCE).await.unwrap();
            assert_eq!(ask_by_datagrams(to, 3), 3);
        });
    }

    #[test]
    fn each_direction_is_cut_by_itself() {
        in_own_network("each_direction_is_cut_by_itself", || async {
            for (direction, arrive) in [("out", 0), ("in", 5), ("both", 0)] {
                let (to, got) = datagram_echo();
                let parameters = json!({
                    "from": {"host": true}, "to": to.to_string(), "protocol": "udp", "direction": direction,
                });
                let (_, injection) = in_force(&NetworkPartition, parameters).await;
                assert_eq!(ask_by_datagrams(to, 5), 0, "{direction}");
                assert_eq!(got.load(Ordering::Relaxed), arrive, "{direction}");
                injection.release(PATIENCE).await.unwrap();
                assert_eq!(ask_by_datagrams(to, 5), 5, "{direction}");
            }
        });
    }

    #[test]
    fn one_protocol_is_cut_and_others_pass() {
        in_own_network("one_protocol_is_cut_and_others_pass", || async {
            let (stream, (datagrams, _)) = (server(), datagram_echo());
            let with = |protocol: &str| json!({"from": {"host": true}, "to": "127.0.0.1", "protocol": protocol});
            let refused = || {
                // Nobody listens there, which the kernel says by ICMP.
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect("127.0.0.1:9").unwrap();
                socket.set_read_timeout(Some(SHORT)).unwrap();
                socket.send(b"x").and_then(|_| socket.recv(&mut [0; 8])).unwrap_err().kind()
                    == ErrorKind::ConnectionRefused
            };
            for (protocol, expected) in [
                ("tcp", (false, 3, true)),
                ("udp", (true, 0, false)),
                ("icmp", (true, 3, false)),
                ("any", (false, 0, false)),
            ] {
                let (_, injection) = in_force(&NetworkPartition, with(protocol)).await;
                let seen = (connect(stream).is_ok(), ask_by_datagrams(datagrams, 3), refused());
                assert_eq!(seen, expected, "{protocol}");
                injection.release(PATIENCE).await.unwrap();
            }
            assert!(connect(stream).is_ok() && refused());
        });
    }

    #[test]
    fn only_the_meant_users_packets_are_hit() {
        in_own_network("only_the_meant_users_packets_are_hit", || async {
            let to = server();
            let connects = |uid: u32| {
                let mut command = std::process::Command::new("timeout");
                command.args(["1", "bash", "-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{}", to.port())]);
                std::os::unix::process::CommandExt::uid(&mut command, uid);
                command.output().expect("bash is installed").status.success()
            };
            let parameters = params(json!({"from": {"user": "65534"}, "to": to.to_string()}));
            let (plan, step) = planned(&NetworkPartition, &parameters, &host()).await;
            assert!(plan.warnings[0].contains("carry no user"), "{plan:?}");
            let injection = NetworkPartition.apply(&step, &parameters, &host()).await.unwrap();
            assert!(!connects(65534) && connects(0));
            injection.release(PATIENCE).await.unwrap();
            assert!(connects(65534));
        });
    }

    #[test]
    fn only_the_meant_control_groups_packets_are_hit() {
        const TEST: &str = "only_the_meant_control_groups_packets_are_hit";
        in_own_network(TEST, || async {
            let Ok(v2) = toprope_os::cgroup::V2::find() else {
                return eprintln!("SKIPPED {TEST}: no cgroup v2 hierarchy is mounted");
            };
            let group = ControlGroup::new(&v2);
            let to = server();
            let connects = |group: &str| {
                let port = to.port();
                let script = format!("echo $$ > {group}/cgroup.procs && exec 3<>/dev/tcp/127.0.0.1/{port}");
                let output = std::process::Command::new("timeout").args(["1", "bash", "-c", &script]).output();
                output.expect("bash is installed").status.success()
            };
            let parameters = json!({"from": {"cgroup": group.path()}, "to": to.to_string(), "direction": "in"});
            let (_, injection) = in_force(&NetworkPartition, parameters).await;
            let inside = group.0.to_str().unwrap();
            assert!(!connects(inside) && connects(v2.root().to_str().unwrap()));
            injection.release(PATIENCE).await.unwrap();
            assert!(connects(inside));
        });
    }

    /// A control group of the test's own, removed at the end.
    struct ControlGroup(std::path::PathBuf);

    impl ControlGroup {
        fn new(v2: &toprope_os::cgroup::V2) -> Self {
            let directory = v2.root().join(format!("toprope-partition-{}", std::process::id()));
            std::fs::create_dir(&directory).expect("root");
            Self(directory)
        }

        fn path(&self) -> String {
            format!("/{}", self.0.file_name().expect("it has one").to_str().expect("ours"))
        }
    }

    impl Drop for ControlGroup {
        fn drop(&mut self) {
            let deadline = Instant::now() + PATIENCE;
            while std::fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[test]
    fn a_real_redis_is_cut_off_by_the_port_that_it_listens_on() {
        const TEST: &str = "a_real_redis_is_cut_off_by_the_port_that_it_listens_on";
        in_own_network(TEST, || async {
            let Some(redis) = Redis::start(TEST) else { return };
            let parameters = json!({"from": {"port": redis.at.port()}, "to": "anywhere", "action": "reject"});
            let (_, mut injection) = in_force(&NetworkPartition, parameters).await;
            assert_eq!(redis.ping(1), None);
            assert!(ask(server()).is_ok());
            assert_eq!(observed(&mut injection).await.took, Some(true));
            injection.release(PATIENCE).await.unwrap();
            assert!(redis.ping(1).is_some());
        });
    }

    #[test]
    fn anywhere_means_other_hosts_and_not_this_one() {
        in_own_network("anywhere_means_other_hosts_and_not_this_one", || async {
            for arguments in [
                "link add toprope0 type veth peer name toprope1",
                "address add 10.9.0.1/24 dev toprope0",
                // Else the kernel itself sends what IPv6 needs on a new link, and that is hit too.
                "link set toprope0 addrgenmode none",
                "link set toprope1 addrgenmode none",
                "link set toprope0 up",
                "link set toprope1 up",
            ] {
                let made = std::process::Command::new("ip").args(arguments.split(' ')).output();
                if !made.as_ref().is_ok_and(|o| o.status.success()) {
                    return eprintln!("SKIPPED anywhere_means_other_hosts_and_not_this_one: ip {arguments}: {made:?}");
                }
            }
            let send = || UdpSocket::bind("10.9.0.1:0").unwrap().send_to(b"x", "10.9.0.2:9").map_err(|e| e.kind());
            assert_eq!(send(), Ok(1));
            let parameters = json!({"from": {"host": true}, "to": "anywhere"});
            let (_, mut injection) = in_force(&NetworkPartition, parameters).await;
            assert!(ask(server()).is_ok(), "within this host");
            assert_eq!(observed(&mut injection).await.took, None);
            assert_eq!(send(), Err(ErrorKind::PermissionDenied), "as the kernel tells a sender");
            assert_eq!(observed(&mut injection).await.took, Some(true));
            injection.release(PATIENCE).await.unwrap();
            assert_eq!(send(), Ok(1));
        });
    }

    #[test]
    fn when_its_process_is_killed_the_kernel_undoes_it() {
        const TEST: &str = "network_partition::tests::when_its_process_is_killed_the_kernel_undoes_it";
        if role().is_some() {
            return hold(&NetworkPartition);
        }
        in_own_network(TEST, || async {
            let to = server();
            let holder = Holder::start(TEST, &everybody(to, "drop"));
            assert_eq!(connect(to), Err(ErrorKind::TimedOut));
            holder.signal(Signal::KILL);
            let killed = Instant::now();
            NetworkPartition.undo(&holder.step, &host()).await.unwrap();
            assert_eq!(connect(to), Ok(()));
            assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
        });
    }

    #[test]
    fn when_its_process_stands_still_the_kernel_ends_it() {
        const TEST: &str = "network_partition::tests::when_its_process_stands_still_the_kernel_ends_it";
        if role().is_some() {
            return hold(&NetworkPartition);
        }
        in_own_network(TEST, || async {
            let to = server();
            let holder = Holder::start(TEST, &everybody(to, "reject"));
            // The lease is renewed for longer than it lasts.
            std::thread::sleep(LEASE + SHORT);
            assert_eq!(connect(to), Err(ErrorKind::ConnectionRefused));
            holder.signal(Signal::STOP);
            let stopped = Instant::now();
            eventually("packets pass", || connect(to).is_ok());
            assert!(stopped.elapsed() < LEASE * 3, "{:?}", stopped.elapsed());
        });
    }

    #[test]
    fn an_undo_does_not_believe_in_an_end_that_it_does_not_see() {
        const TEST: &str = "network_partition::tests::an_undo_does_not_believe_in_an_end_that_it_does_not_see";
        if role().is_some() {
            return hold(&NetworkPartition);
        }
        in_own_network(TEST, || async {
            let holder = Holder::start(TEST, &everybody(server(), "drop"));
            let e = NetworkPartition.undo(&holder.step, &host()).await.unwrap_err();
            assert!(e.message.contains("is still there") && e.help.unwrap().contains("kill"), "{}", e.message);
        });
    }

    #[test]
    fn what_packets_do_not_tell_is_refused_and_what_works_is_named() {
        let test = "network_partition::tests::what_packets_do_not_tell_is_refused_and_what_works_is_named";
        without_privileges(test, || async {
            let plan = async |from: serde_json::Value| {
                let parameters = params(json!({"from": from, "to": "10.0.0.0/8"}));
                NetworkPartition.plan(&parameters, &host()).await.unwrap_err()
            };
            let e = plan(json!({"process": "nginx"})).await;
            assert!(e.message.contains("do not tell which process"), "{e}");
            let help = e.help.unwrap();
            assert!(["`user`", "`cgroup`", "`to`"].iter().all(|word| help.contains(word)), "{help}");
            let e = plan(json!({"host": true})).await;
            let help = e.help.unwrap();
            assert!(e.message.contains("CAP_NET_ADMIN") && help.contains("toprope exec"), "{}", e.message);
            assert!(!e.message.contains("toprope exec"), "the advice is given once: {}; {help}", e.message);
        });
    }

    #[test]
    fn what_does_not_go_together_is_refused_at_its_place() {
        for (parameters, says) in [
            (json!({"to": ":1"}), "`from` is missing"),
            (json!({"from": {"host": true}}), "`to` is missing"),
            (json!({"from": {"user": "root"}, "to": ":1", "direction": "in"}), "carry no user"),
            (json!({"from": {"host": true}, "to": ":1", "protocol": "icmp"}), "ICMP has no ports"),
            (json!({"from": {"port": 1}, "to": "::1", "protocol": "icmp"}), "ICMP has no ports"),
            (
                json!({"from": {"host": true}, "to": "::1", "protocol": "icmp", "action": "reject"}),
                "cannot be rejected",
            ),
        ] {
            let mut problems = Problems::default();
            check(&Node::from_json(&parameters), &mut problems);
            assert!(problems.to_string().contains(says), "{parameters}: {problems}");
        }
    }
}
