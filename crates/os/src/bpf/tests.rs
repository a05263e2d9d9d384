use std::{
    io::{Read, Write, pipe},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    cgroup::{Group, V2},
    process::Signal,
    testing::{Ending, PATIENCE, fork, skip},
};

/// A lease that no test sees the end of.
const LONG: Duration = Duration::from_secs(600);

/// A control group of the test's own, so that no other process is ever asked about.
struct OwnGroup {
    group: Group,
    directory: PathBuf,
}

impl OwnGroup {
    fn new(test: &str) -> Option<Self> {
        if let Err(why) = supported() {
            skip(test, why);
            return None;
        }
        let v2 = V2::find().expect("supported");
        let name = format!("toprope-test-{}", std::process::id());
        let directory = v2.root().join(&name);
        if let Err(e) = std::fs::create_dir(&directory) {
            skip(test, format!("cannot make a control group: {e}"));
            return None;
        }
        let group = v2.group(&name).expect("made");
        Some(Self { group, directory })
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        // Its processes were killed before, and leave it as they are reaped.
        drop(std::fs::remove_dir(&self.directory));
    }
}

/// A process in the group that connects wherever it is told to, one line each, and says who answered.
struct Client {
    child: Ending,
    to: std::io::PipeWriter,
    from: std::io::PipeReader,
}

impl Client {
    fn start(group: &OwnGroup) -> Self {
        let (mut orders, to) = pipe().expect("a pipe");
        let (from, mut answers) = pipe().expect("a pipe");
        let procs = group.directory.join("cgroup.procs");
        let child = fork(move || {
            std::fs::write(procs, std::process::id().to_string()).expect("our group");
            let mut address = [0; 64];
            loop {
                let n = orders.read(&mut address).expect("a pipe");
                let address: SocketAddr = std::str::from_utf8(&address[..n]).expect("ASCII").parse().expect("one");
                let mut who = [b'-'];
                if let Ok(mut stream) = TcpStream::connect(address) {
                    stream.read_exact(&mut who).expect("it answers");
                }
                answers.write_all(&who).expect("a pipe");
            }
        });
        Self { child, to, from }
    }

    fn pid(&self) -> u32 {
        self.child.0.id().pid()
    }

    /// Connects; `who` answers meanwhile.
    fn ask(&mut self, address: SocketAddr) -> char {
        self.to.write_all(address.to_string().as_bytes()).expect("it waits");
        let mut who = [0];
        self.from.read_exact(&mut who).expect("it answers");
        who[0].into()
    }
}

/// A server that answers each connection with one letter, and tells the test who connected.
fn serve(address: IpAddr, letter: u8) -> (u16, std::sync::mpsc::Receiver<SocketAddr>) {
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (tell, clients) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, client)) = listener.accept() {
            if tell.send(client).is_err() || stream.write_all(&[letter]).is_err() {
                return;
            }
        }
    });
    (port, clients)
}

fn v4(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn v6(port: u16) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port).into()
}

/// An IPv4 destination as an IPv6 socket names it.
fn mapped(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into()
}

#[test]
fn the_meant_process_is_redirected_to_the_meant_destination_only() {
    let Some(group) = OwnGroup::new("the_meant_process_is_redirected_to_the_meant_destination_only") else { return };
    let (mut meant, mut other) = (Client::start(&group), Client::start(&group));
    let ((real, _a), (second, _b)) = (serve(v4(0).ip(), b'r'), serve(v4(0).ip(), b's'));
    let (proxy, clients) = serve(v4(0).ip(), b'p');
    assert_eq!((meant.ask(v4(real)), other.ask(v4(real))), ('r', 'r'));

    let rules = [
        ConnectRule { address: Some(v4(0).ip()), port: real, to: proxy },
        ConnectRule { address: Some("192.0.2.1".parse().expect("an address")), port: second, to: proxy },
    ];
    let mut redirect = ConnectRedirect::attach(&group.group, &rules).expect("supported");
    assert_eq!(meant.ask(v4(real)), 'r', "nobody is meant yet");
    redirect.set_pids([meant.pid(), 1]).expect("there is room");
    assert_eq!(meant.ask(v4(real)), 'r', "there is no lease yet");
    redirect.renew_lease(LONG).expect("the first");
    for (address, expected) in [(v4(real), 'p'), (mapped(real), 'p'), (v4(second), 's'), (v6(real), '-')] {
        assert_eq!(meant.ask(address), expected, "{address}");
    }
    assert_eq!(other.ask(v4(real)), 'r');
    assert_eq!(redirect.hits().expect("readable"), [2, 0]);
    for _ in 0..2 {
        let client = clients.recv_timeout(PATIENCE).expect("two connections");
        assert_eq!(redirect.original_destination(client).expect("readable"), Some(v4(real)));
        assert_eq!(redirect.original_destination(client).expect("readable"), None, "told once");
    }

    redirect.set_pids([other.pid()]).expect("there is room");
    assert_eq!((meant.ask(v4(real)), other.ask(v4(real))), ('r', 'p'));
    drop(redirect);
    assert_eq!((meant.ask(v4(real)), other.ask(v4(real))), ('r', 'r'));
}

#[test]
fn any_address_is_met_in_both_families_and_a_given_one_goes_first() {
    let Some(group) = OwnGroup::new("any_address_is_met_in_both_families_and_a_given_one_goes_first") else { return };
    let mut client = Client::start(&group);
    let ((proxy, to_v4), (other, _kept)) = (serve(v4(0).ip(), b'p'), serve(v4(0).ip(), b'o'));
    // The same port of ::1 for connections by IPv6.
    let listener = TcpListener::bind(v6(proxy)).expect("free in the other family");
    let answer = std::thread::spawn(move || {
        let (mut stream, client) = listener.accept().expect("a connection");
        stream.write_all(b"6").expect("sent");
        client
    });
    let rules = [
        ConnectRule { address: None, port: 4, to: proxy },
        ConnectRule { address: Some("198.51.100.9".parse().expect("an address")), port: 4, to: other },
    ];
    let mut redirect = ConnectRedirect::attach(&group.group, &rules).expect("supported");
    redirect.set_pids([client.pid()]).expect("there is room");
    redirect.renew_lease(LONG).expect("the first");
    let far: SocketAddr = "203.0.113.7:4".parse().expect("an address");
    let far_mapped: SocketAddr = "[::ffff:203.0.113.7]:4".parse().expect("an address");
    let far_v6: SocketAddr = "[2001:db8::7]:4".parse().expect("an address");
    for destination in [far, far_mapped] {
        assert_eq!(client.ask(destination), 'p', "{destination}");
        let from = to_v4.recv_timeout(PATIENCE).expect("a connection");
        assert_eq!(redirect.original_destination(from).expect("readable"), Some(far));
    }
    assert_eq!(client.ask(far_v6), '6');
    let from = answer.join().expect("it accepted");
    assert_eq!(redirect.original_destination(from).expect("readable"), Some(far_v6));
    assert_eq!(client.ask("198.51.100.9:4".parse().expect("an address")), 'o');
    assert_eq!(redirect.hits().expect("readable"), [3, 1]);
}

#[test]
fn connections_go_straight_after_the_holders_sigkill() {
    let Some(group) = OwnGroup::new("connections_go_straight_after_the_holders_sigkill") else { return };
    let mut client = Client::start(&group);
    let ((real, _a), (proxy, _b)) = (serve(v4(0).ip(), b'r'), serve(v4(0).ip(), b'p'));
    let (mut ready, mut tell) = pipe().expect("a pipe");
    let (at, pid) = (group.group.clone(), client.pid());
    let holder = fork(move || {
        let rule = ConnectRule { address: None, port: real, to: proxy };
        let mut redirect = ConnectRedirect::attach(&at, &[rule]).expect("supported");
        redirect.set_pids([pid]).expect("there is room");
        redirect.renew_lease(LONG).expect("the first");
        tell.write_all(b"x").expect("a pipe");
        std::thread::sleep(PATIENCE);
    });
    ready.read_exact(&mut [0]).expect("the holder has attached");
    assert_eq!(client.ask(v4(real)), 'p');
    let killed = Instant::now();
    holder.0.signal(Signal::KILL).expect("it waits");
    while client.ask(v4(real)) != 'r' {
        assert!(killed.elapsed() < Duration::from_secs(1), "still redirected");
    }
}

#[test]
fn connections_go_straight_by_the_lease_while_the_holder_stands_still() {
    const LEASE: Duration = Duration::from_millis(500);
    let Some(group) = OwnGroup::new("connections_go_straight_by_the_lease_while_the_holder_stands_still") else {
        return;
    };
    let mut client = Client::start(&group);
    let ((real, _a), (proxy, _b)) = (serve(v4(0).ip(), b'r'), serve(v4(0).ip(), b'p'));
    let (mut renewed, mut tell) = pipe().expect("a pipe");
    let (at, pid) = (group.group.clone(), client.pid());
    let holder = fork(move || {
        let rule = ConnectRule { address: None, port: real, to: proxy };
        let mut redirect = ConnectRedirect::attach(&at, &[rule]).expect("supported");
        redirect.set_pids([pid]).expect("there is room");
        loop {
            let again = match redirect.renew_lease(LEASE) {
                Ok(()) => b"y",
                Err(crate::Error::LeaseRanOut { .. }) => b"n",
                Err(e) => panic!("{e}"),
            };
            tell.write_all(again).expect("a pipe");
            std::thread::sleep(LEASE / 10);
        }
    });
    let mut answer = [0];
    renewed.read_exact(&mut answer).expect("the holder has attached");
    // A stall of the machine may end the lease here, too, and the holder says so: then there is nothing to see.
    let before = client.ask(v4(real));
    holder.0.signal(Signal::STOP).expect("it lives");
    let stopped = Instant::now();
    while client.ask(v4(real)) != 'r' {
        assert!(stopped.elapsed() < PATIENCE, "still redirected");
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = stopped.elapsed();
    println!("straight after {took:?}, with a lease of {LEASE:?}");
    assert!(before == 'p' || answer == *b"n", "it was redirected before");
    let state = crate::process::ProcessInfo::of(holder.0.id().pid()).expect("it lives").state;
    assert_eq!(state, crate::process::State::Stopped);
    // Awake again, it is told, and redirects nothing.
    holder.0.signal(Signal::CONT).expect("it lives");
    while answer != *b"n" {
        renewed.read_exact(&mut answer).expect("it goes on");
    }
    assert_eq!(client.ask(v4(real)), 'r');
}

#[test]
fn another_network_is_left_alone() {
    let Some(group) = OwnGroup::new("another_network_is_left_alone") else { return };
    let net = crate::namespace::Namespace::new_net().expect("BPF is allowed, so we are root");
    let mut inside = net.run(|| Client::start(&group)).expect("entered");
    let (real, _kept) = net.run(|| serve(v4(0).ip(), b'r')).expect("entered");
    let rule = ConnectRule { address: None, port: real, to: 1 };
    let mut redirect = ConnectRedirect::attach(&group.group, &[rule]).expect("supported");
    redirect.set_pids([inside.pid()]).expect("there is room");
    redirect.renew_lease(LONG).expect("the first");
    assert_eq!(inside.ask(v4(real)), 'r');
    assert_eq!(redirect.hits().expect("readable"), [0]);
}

#[test]
fn two_rules_for_one_destination_are_refused() {
    let Some(group) = OwnGroup::new("two_rules_for_one_destination_are_refused") else { return };
    let rule = ConnectRule { address: None, port: 1, to: 2 };
    let e = ConnectRedirect::attach(&group.group, &[rule, ConnectRule { to: 3, ..rule }]).expect_err("which one?");
    assert!(matches!(e, crate::Error::Invalid { .. }), "{e}");
}

#[test]
fn without_rights_the_reason_is_told() {
    crate::testing::in_fork(|| {
        crate::testing::become_nobody();
        let why = supported().expect_err("no rights");
        assert!(why.why.contains("CAP_BPF") || why.why.contains("cgroup v2"), "{why}");
    });
}
