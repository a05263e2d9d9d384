use std::{
    io::{ErrorKind, Read, Write, pipe},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    Error, Result,
    address::Cidr,
    namespace::{Namespace, UserMap, enter_new_user_and_net},
    process::Signal,
    sockets::{original_destination, set_mark},
    testing::{PATIENCE, become_nobody, eventually, fork, in_fork, is_root, skip},
};

/// Runs a test in a network of its own; without root, in a user namespace.
fn in_new_net(test: &str, run: impl FnOnce() + Send) {
    if rustix::process::geteuid().is_root() {
        return Namespace::new_net().expect("root").run(run).expect("entered");
    }
    match crate::namespace::supported() {
        Err(why) => skip(test, why),
        Ok(()) => in_fork(|| {
            enter_new_user_and_net(UserMap::Root).expect("supported");
            run();
        }),
    }
}

fn ruleset() -> String {
    let output = Command::new("nft").args(["-nn", "list", "ruleset"]).output().expect("nft is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn cidr(text: &str) -> Cidr {
    text.parse().expect("a range")
}

fn to_port(port: u16) -> Match {
    Match::DestinationPort(Transport::Tcp, port.into())
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("lo is up");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, Duration::from_millis(500))
}

fn table_with(chain: &Chain, rules: &[Rule]) -> (OwnedTable, ChainId, Vec<RuleId>) {
    let mut table = OwnedTable::create("toprope_test").expect("allowed here");
    let chain = table.add_chain(chain).expect("a chain");
    let rules = table.add_rules(&chain, rules).expect("rules");
    (table, chain, rules)
}

#[test]
fn nft_reads_every_condition_and_action_as_meant() {
    in_new_net("nft_reads_every_condition_and_action_as_meant", || {
        assert_eq!(supported(), Ok(()));
        let list = Ports::List(vec![443, 80, 443]);
        let cases = [
            (Rule::new(Action::Count), "counter packets 0 bytes 0"),
            (
                Rule::new(Action::Accept).when(Match::Mark(0x74)),
                "meta mark 0x00000074 counter packets 0 bytes 0 accept",
            ),
            (
                Rule::new(Action::Drop).when(Match::OutInterface("lo".into())),
                "oifname \"lo\" counter packets 0 bytes 0 drop",
            ),
            (
                Rule::new(Action::Drop)
                    .when(Match::Source(cidr("10.1.0.0/16")))
                    .when(to_port(5432))
                    .comment("why \"so\""),
                "ip saddr 10.1.0.0/16 tcp dport 5432 counter packets 0 bytes 0 drop comment \"why \"so\"\"",
            ),
            (Rule::new(Action::Drop).when(Match::Destination(cidr("10.64.0.0/10"))), "ip daddr 10.64.0.0/10 counter"),
            (Rule::new(Action::Drop).when(Match::Destination(cidr("127.0.0.1"))), "ip daddr 127.0.0.1 counter"),
            (Rule::new(Action::Drop).when(Match::Destination(cidr("0.0.0.0/0"))), "meta nfproto 2 counter"),
            (
                Rule::new(Action::Drop).when(Match::Destination(cidr("2001:db8::/33"))),
                "ip6 daddr 2001:db8::/33 counter",
            ),
            (Rule::new(Action::Drop).when(Match::Source(cidr("::1"))), "ip6 saddr ::1 counter"),
            (Rule::new(Action::Drop).when(Match::Protocol(1)), "meta l4proto 1 counter"),
            (
                Rule::new(Action::Drop).when(Match::DestinationPort(Transport::Udp, list.clone())),
                "udp dport { 80, 443 } counter",
            ),
            (
                Rule::new(Action::Drop)
                    .when(Match::SourcePort(Transport::Tcp, list.clone()))
                    .when(Match::DestinationPort(Transport::Tcp, list)),
                "tcp sport { 80, 443 } tcp dport { 80, 443 } counter",
            ),
            (
                Rule::new(Action::Drop).when(Match::SourcePort(Transport::Tcp, Ports::Range(8000..=8010))),
                "tcp sport 8000-8010 counter",
            ),
            (Rule::new(Action::Accept).when(Match::TcpOpening), "tcp flags 0x2 / 0x2,0x10 counter"),
            (Rule::new(Action::Accept).when(Match::TcpReset), "tcp flags & 0x4 == 0x4 counter"),
            (Rule::new(Action::Drop).when(Match::Uid(65534)), "meta skuid 65534 counter"),
            (Rule::new(Action::Drop).when(Match::Random { share: 3, of: 10 }), "numgen random mod 10 < 3 counter"),
            (Rule::new(Action::Drop).when(Match::Random { share: 7, of: 7 }), "counter packets 0 bytes 0 drop"),
            (Rule::new(Action::Reset).when(to_port(1)), "tcp dport 1 counter packets 0 bytes 0 reject with tcp reset"),
            (Rule::new(Action::Reset), "meta l4proto 6 counter packets 0 bytes 0 reject with tcp reset"),
            (Rule::new(Action::Reject(Unreachable::Host)), "reject with icmpx 2"),
            (Rule::new(Action::Reject(Unreachable::Prohibited)), "reject with icmpx 3"),
        ];
        let rules: Vec<Rule> = cases.iter().map(|(rule, _)| rule.clone()).collect();
        let (mut table, _, ids) = table_with(&Chain::filter("out", Hook::Output), &rules);
        assert_eq!(ids.len(), cases.len());
        let nat = table.add_chain(&Chain::redirect("to_proxy", Hook::Output).priority(-120)).expect("a chain");
        table.add_rules(&nat, &[Rule::new(Action::Redirect(9999)).when(to_port(5432))]).expect("a rule");
        let input = table.add_chain(&Chain::filter("in", Hook::Input)).expect("a chain");
        table.add_rules(&input, &[Rule::new(Action::Drop).when(Match::InInterface("lo".into()))]).expect("a rule");

        let text = ruleset();
        assert!(text.contains("table inet toprope_test { # progname") && text.contains("flags owner"), "{text}");
        assert!(text.contains("type filter hook output priority -10; policy accept;"), "{text}");
        assert!(text.contains("type nat hook output priority -120; policy accept;"), "{text}");
        assert!(text.contains("tcp dport 5432 counter packets 0 bytes 0 redirect to :9999"), "{text}");
        assert!(text.contains("iifname \"lo\" counter packets 0 bytes 0 drop"), "{text}");
        let begin = text.find("chain out {").expect("the chain");
        let shown: Vec<&str> = text[begin..].lines().skip(2).map(str::trim).collect();
        for ((_, expected), line) in cases.iter().zip(shown) {
            assert!(line.contains(expected), "expected {expected:?}, nft shows {line:?}");
        }
    });
}

#[test]
fn dropped_connections_hang_and_go_through_once_the_rule_is_gone() {
    in_new_net("dropped_connections_hang_and_go_through_once_the_rule_is_gone", || {
        let (_listener, address) = listen();
        let rule = Rule::new(Action::Drop).when(Match::Destination(cidr("127.0.0.0/8"))).when(to_port(address.port()));
        let (mut table, chain, rules) = table_with(&Chain::filter("out", Hook::Output), &[rule]);
        assert_eq!(connect(address).expect_err("dropped").kind(), ErrorKind::TimedOut);
        let counted = table.counter(&rules[0]).expect("it is there");
        assert!(counted.packets >= 1 && counted.bytes >= 40 * counted.packets, "{counted:?}");
        table.delete_rules(&rules).expect("it is there");
        connect(address).expect("no rule is left");
        assert_eq!(table.counter(&rules[0]).expect_err("deleted").raw_os_error(), Some(libc::ENOENT));
        table.delete_chain(&chain).expect("it is there");
        assert!(!ruleset().contains("chain"));
    });
}

#[test]
fn refused_connections_fail_and_reset_ones_at_once() {
    in_new_net("refused_connections_fail_and_reset_ones_at_once", || {
        for action in [Action::Reset, Action::Reject(Unreachable::Port)] {
            for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
                let listener = TcpListener::bind(address).expect("lo is up");
                let address = listener.local_addr().expect("bound");
                let rule = Rule::new(action).when(to_port(address.port()));
                let (mut table, _, rules) = table_with(&Chain::filter("out", Hook::Output), &[rule]);
                let e = TcpStream::connect(address).expect_err("refused");
                assert_eq!(e.kind(), ErrorKind::ConnectionRefused, "{action:?} {address}");
                if action == Action::Reset {
                    // Not even a second SYN, which would be sent after 1 s.
                    assert_eq!(table.counter(&rules[0]).expect("it is there").packets, 1);
                }
                table.delete().expect("ours");
                connect(address).expect("no rule is left");
            }
        }
    });
}

#[test]
fn established_connections_are_cut_by_a_reset_on_input() {
    in_new_net("established_connections_are_cut_by_a_reset_on_input", || {
        let (listener, address) = listen();
        let mut client = connect(address).expect("it listens");
        let (_server, _) = listener.accept().expect("a connection");
        let rule = Rule::new(Action::Reset).when(to_port(address.port()));
        let (_table, _, _) = table_with(&Chain::filter("in", Hook::Input), &[rule]);
        client.write_all(b"x").expect("sent");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        assert_eq!(client.read(&mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_share_of_packets_is_lost() {
    in_new_net("a_share_of_packets_is_lost", || {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("lo is up");
        receiver.set_nonblocking(true).expect("a socket");
        let to = receiver.local_addr().expect("bound");
        let loss = Rule::new(Action::Drop)
            .when(Match::DestinationPort(Transport::Udp, to.port().into()))
            .when(Match::Random { share: 30, of: 100 });
        let (mut table, _, rules) = table_with(&Chain::filter("in", Hook::Input), &[loss]);
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("lo is up");
        let mut received = 0;
        for _ in 0..4000 {
            sender.send_to(b"x", to).expect("loopback takes it");
            while receiver.recv(&mut [0; 8]).is_ok() {
                received += 1;
            }
        }
        // 4000 draws at 30 %: 2800 arrive, with a standard deviation of 29.
        assert!((2500..3100).contains(&received), "{received} of 4000");
        assert_eq!(table.counter(&rules[0]).expect("it is there").packets, 4000 - received);
    });
}

fn check_redirection() -> Result<()> {
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
        let proxy = TcpListener::bind(address).expect("lo is up");
        let wanted = SocketAddr::new(address.ip(), 5432);
        let mut table = OwnedTable::create("toprope_redirect")?;
        let chain = table.add_chain(&Chain::redirect("to_proxy", Hook::Output))?;
        let ours = Rule::new(Action::Accept).when(Match::Mark(0x7431));
        let others =
            Rule::new(Action::Redirect(proxy.local_addr().expect("bound").port())).when(to_port(wanted.port()));
        let rules = table.add_rules(&chain, &[ours, others])?;
        let _client = connect(wanted).expect("the proxy listens");
        let (accepted, _) = proxy.accept().expect("a connection");
        assert_eq!(original_destination(&accepted)?, Some(wanted));
        assert_eq!(table.counter(&rules[1])?.packets, 1);

        let domain =
            if address.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
        let marked = rustix::net::socket(domain, rustix::net::SocketType::STREAM, None).expect("a socket");
        set_mark(&marked, 0x7431)?;
        let e = rustix::net::connect(&marked, &wanted).expect_err("nobody listens there");
        assert_eq!(e, rustix::io::Errno::CONNREFUSED, "our own connections go straight");
        assert_eq!(table.counter(&rules[0])?.packets, 1);

        table.delete()?;
        assert_eq!(connect(wanted).expect_err("nobody listens there").kind(), ErrorKind::ConnectionRefused);
    }
    Ok(())
}

#[test]
fn redirected_connections_reach_the_listener_which_learns_where_they_were_going() {
    in_new_net("redirected_connections_reach_the_listener_which_learns_where_they_were_going", || {
        check_redirection().expect("all of it works for root");
    });
}

#[test]
fn all_of_it_works_without_privileges_in_namespaces_of_ones_own() {
    if let Err(why) = crate::namespace::supported() {
        return skip("all_of_it_works_without_privileges_in_namespaces_of_ones_own", why);
    }
    in_fork(|| {
        become_nobody();
        assert!(supported().is_err_and(|e| e.instead.contains("network of your own")), "not in the host's network");
        let e = OwnedTable::create("toprope_test").expect_err("no rights here");
        assert!(e.is_permission_denied() && e.to_string().contains("CAP_NET_ADMIN"), "{e}");
        enter_new_user_and_net(UserMap::Root).expect("supported");
        assert_eq!(supported(), Ok(()));
        check_redirection().expect("all rights here");
        let (_listener, address) = listen();
        let conditions = [
            Match::Uid(0),
            Match::Random { share: 1, of: 1 },
            Match::DestinationPort(Transport::Tcp, Ports::List(vec![1, address.port()])),
        ];
        let rule = conditions.into_iter().fold(Rule::new(Action::Reset), Rule::when);
        let (mut table, _, rules) = table_with(&Chain::filter("out", Hook::Output), &[rule]);
        assert_eq!(connect(address).expect_err("refused").kind(), ErrorKind::ConnectionRefused);
        assert_eq!(table.counter(&rules[0]).expect("it is there").packets, 1);
    });
}

#[test]
fn a_lease_ends_by_itself_and_renewing_holds_it() {
    in_new_net("a_lease_ends_by_itself_and_renewing_holds_it", || {
        let (_listener, address) = listen();
        let refused = || connect(address).is_err();
        let mut table = OwnedTable::create("toprope_test").expect("root");
        let chain = table.add_chain(&Chain::filter("out", Hook::Output)).expect("a chain");
        let lasts = Duration::from_millis(600);
        let lease = table.add_lease("lease", lasts).expect("a set");
        let rule = Rule::new(Action::Reset).when(Match::Leased(lease.clone())).when(to_port(address.port()));
        table.add_rules(&chain, &[rule]).expect("a rule");
        let begin = Instant::now();
        // Renewed for far longer than one lease; a stall of the machine between two renewals may end it.
        while begin.elapsed() < lasts * 3 {
            assert!(refused(), "after {:?}", begin.elapsed());
            match table.renew_lease(&lease, lasts) {
                Ok(()) => std::thread::sleep(lasts / 20),
                Err(e) => return skip("a_lease_ends_by_itself_and_renewing_holds_it", e),
            }
        }
        let renewed = Instant::now();
        eventually("the lease ends", || !refused());
        assert!(renewed.elapsed() > lasts / 2, "{:?}", renewed.elapsed());
        assert!(matches!(table.renew_lease(&lease, lasts), Err(Error::LeaseRanOut { name }) if name == "lease"));
        assert!(!refused(), "a lease that ran out is not renewed by half");
        table.grant_lease(&lease, PATIENCE).expect("the set is there");
        assert!(refused());
        table.end_lease(&lease).expect("it lasts");
        assert!(!refused());
        assert!(matches!(table.end_lease(&lease), Err(Error::LeaseRanOut { .. })));
    });
}

#[test]
fn a_batch_with_a_fault_changes_nothing_and_says_which_request_it_was() {
    in_new_net("a_batch_with_a_fault_changes_nothing_and_says_which_request_it_was", || {
        let (mut table, chain, rules) =
            table_with(&Chain::filter("out", Hook::Output), &[Rule::new(Action::Count).when(to_port(1))]);
        let before = ruleset();
        let wrong = Rule::new(Action::Redirect(1)).when(to_port(2)); // not in a chain that filters
        let e = table.change(&rules, &chain, &[Rule::new(Action::Drop), wrong]).expect_err("refused");
        assert!(e.to_string().contains("add rule 2 of 2 to chain out (nftables table inet toprope_test)"), "{e}");
        assert_eq!(ruleset(), before);
        let changed = table.change(&rules, &chain, &[Rule::new(Action::Count).when(to_port(3))]).expect("in order");
        assert_eq!(changed.len(), 1);
        assert!(ruleset().contains("dport 3") && !ruleset().contains("dport 1"));

        assert!(exists("toprope_test").expect("readable") && !exists("toprope_other").expect("readable"));
        let e = OwnedTable::create("toprope_test").expect_err("there is one");
        assert!(e.to_string().contains("is taken") && !e.is_permission_denied(), "{e}");
        for wrong in [
            Match::Random { share: 2, of: 1 },
            Match::Random { share: 0, of: 0 },
            Match::InInterface("much-too-long-a-name".into()),
            Match::SourcePort(Transport::Tcp, Ports::List(Vec::new())),
        ] {
            let e = table.add_rules(&chain, &[Rule::new(Action::Drop).when(wrong)]).expect_err("senseless");
            assert!(matches!(e, Error::Invalid { .. }), "{e}");
        }
    });
}

#[test]
fn only_the_meant_user_and_control_group_are_met() {
    if !is_root("only_the_meant_user_and_control_group_are_met") {
        return;
    }
    in_new_net("only_the_meant_user_and_control_group_are_met", || {
        let (_listener, address) = listen();
        let port = address.port();
        let connects = |as_user: u32| {
            let mut command = Command::new("bash");
            command.args(["-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}")]);
            std::os::unix::process::CommandExt::uid(&mut command, as_user);
            command.output().expect("bash is installed").status.success()
        };
        let rule = Rule::new(Action::Reset).when(Match::Uid(65534)).when(to_port(port));
        let (table, _, _) = table_with(&Chain::filter("out", Hook::Output), &[rule]);
        assert!(!connects(65534) && connects(0));
        drop(table);
        assert!(connects(65534));

        let Ok(v2) = crate::cgroup::V2::find() else {
            return skip("the part about control groups", "no cgroup v2 hierarchy is mounted");
        };
        let name = format!("/toprope-test-{}", std::process::id());
        let group = RemovedAtEnd(v2.root().join(&name[1..]));
        if let Err(e) = std::fs::create_dir(&group.0) {
            return skip("the part about control groups", e);
        }
        let rule = Rule::new(Action::Reset).when(Match::Cgroup(Cgroup::at(&name).expect("made"))).when(to_port(port));
        let (_table, _, _) = table_with(&Chain::filter("out", Hook::Output), &[rule]);
        let script = format!("echo $$ > {}/cgroup.procs && exec 3<>/dev/tcp/127.0.0.1/{port}", group.0.display());
        let inside = Command::new("bash").args(["-c", &script]).output().expect("bash is installed");
        assert!(String::from_utf8_lossy(&inside.stderr).contains("Connection refused"), "{inside:?}");
        assert!(connects(0), "who is not in the group is not met");
    });
}

struct RemovedAtEnd(std::path::PathBuf);

impl Drop for RemovedAtEnd {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.0));
    }
}

#[test]
fn the_table_is_its_owners_alone_and_gone_soon_after_its_sigkill() {
    in_new_net("the_table_is_its_owners_alone_and_gone_soon_after_its_sigkill", || {
        let (_listener, address) = listen();
        let (mut ready, mut tell) = pipe().expect("a pipe");
        let holder = fork(move || {
            let rule = Rule::new(Action::Reset).when(to_port(address.port()));
            let (_table, _, _) = table_with(&Chain::filter("out", Hook::Output), &[rule]);
            tell.write_all(b"x").expect("a pipe");
            std::thread::sleep(PATIENCE);
        });
        ready.read_exact(&mut [0]).expect("the holder has its table");
        assert_eq!(connect(address).expect_err("refused").kind(), ErrorKind::ConnectionRefused);
        let delete = Command::new("nft").args(["delete", "table", "inet", "toprope_test"]).output();
        let refused = delete.expect("nft is installed");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("not permitted"), "{refused:?}");
        let killed = Instant::now();
        holder.0.signal(Signal::KILL).expect("it waits");
        while connect(address).is_err() {
            assert!(killed.elapsed() < Duration::from_secs(1), "still refused");
        }
        assert!(!ruleset().contains("toprope_test"));
    });
}
