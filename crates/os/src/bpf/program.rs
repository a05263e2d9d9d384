//! The programs. Contexts and helpers are of include/uapi/linux/bpf.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::assembler::{Assembler, Label, R0, R1, R2, R3, R4, R6, R7, Register, STACK, Size};

/// Descriptors of the maps that the programs share.
#[derive(Clone, Copy)]
pub(super) struct Maps {
    /// Numbers of the processes that are meant, as u32.
    pub(super) pids: i32,
    /// One value at [`LEASE`]: until when anybody is meant, in nanoseconds of CLOCK_BOOTTIME, as u64.
    pub(super) lease: i32,
    /// [`Endpoint`]s that are meant, with a [`Target`] each.
    pub(super) rules: i32,
    /// Sockets that were redirected, by cookie, with where they were going.
    pub(super) redirected: i32,
    /// The same by the client's [`Endpoint`], once it has one.
    pub(super) origins: i32,
}

/// An address and a port as the programs have them: 16 bytes of IPv6 address, IPv4 mapped into it, and the port in
/// network order in the first two bytes of the rest.
pub(super) type Endpoint = [u8; 20];

/// What becomes of a destination: the port in network order in the first two bytes, four more of nothing to align, then
/// how often it was met, as u64.
pub(super) type Target = [u8; 16];

const HITS: i16 = 8; // in a Target

/// Where the lease is in its map.
pub(super) const LEASE: u32 = 0;

pub(super) fn endpoint(address: IpAddr, port: u16) -> Endpoint {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(&address.octets());
    bytes[16..18].copy_from_slice(&port.to_be_bytes());
    bytes
}

pub(super) fn parse_endpoint(bytes: &Endpoint) -> (IpAddr, u16) {
    let (address, port) = bytes.split_at(16);
    let address: [u8; 16] = address.try_into().expect("split there");
    (Ipv6Addr::from(address).to_canonical(), u16::from_be_bytes([port[0], port[1]]))
}

/// The word of the kernel's memory that holds these bytes.
const fn word(bytes: [u8; 4]) -> i32 {
    i32::from_ne_bytes(bytes)
}

const MAPPED: i32 = word([0, 0, 0xff, 0xff]); // the third word of ::ffff:0:0/96
const LOOPBACK_V4: i32 = word(Ipv4Addr::LOCALHOST.octets());
const LOOPBACK_V6: i32 = word([0, 0, 0, 1]); // the last word of ::1

// Places on the stack.
const DESTINATION: i16 = -24; // Endpoint
const ANY: i16 = -48; // Endpoint
const COOKIE: i16 = -56; // u64
const PID: i16 = -60; // u32
const LEASE_KEY: i16 = -64; // u32

const LOOKUP: i32 = 1; // bpf_map_lookup_elem
const UPDATE: i32 = 2; // bpf_map_update_elem
const PID_TGID: i32 = 14; // bpf_get_current_pid_tgid
const SOCKET_COOKIE: i32 = 46; // bpf_get_socket_cookie
const NETNS_COOKIE: i32 = 122; // bpf_get_netns_cookie
const BOOT_TIME: i32 = 125; // bpf_ktime_get_boot_ns

/// For the attach types BPF_CGROUP_INET4_CONNECT and, if `v6`, BPF_CGROUP_INET6_CONNECT. With a network's cookie, only
/// for connections in it: in another one nothing listens at the target.
pub(super) fn connect(maps: Maps, v6: bool, network: Option<u64>) -> Vec<[u8; 8]> {
    // struct bpf_sock_addr
    const IP4: i16 = 4;
    const IP6: i16 = 8;
    const PORT: i16 = 24;
    const TYPE: i16 = 32;
    const SOCK_STREAM: i32 = 1;

    let mut a = Assembler::default();
    let (pass, hit) = (a.label(), a.label());
    a.copy(R6, R1);
    a.load(Size::Word, R1, R6, TYPE);
    a.jump_unless(R1, SOCK_STREAM, pass);
    if let Some(cookie) = network {
        a.copy(R1, R6);
        a.call(NETNS_COOKIE);
        a.set_wide(R1, cookie);
        a.jump_unless_same(R0, R1, pass);
    }
    a.call(PID_TGID);
    a.shift_right(R0, 32); // the process; the thread is in the lower half
    a.store(Size::Word, STACK, PID, R0);
    lookup(&mut a, maps.pids, PID);
    a.jump_if_zero(R0, pass);

    // Who holds this may be frozen, or hang: after its last sign of life nobody is meant any more.
    a.store_value(STACK, LEASE_KEY, LEASE.cast_signed());
    lookup(&mut a, maps.lease, LEASE_KEY);
    a.jump_if_zero(R0, pass);
    a.load(Size::Double, R7, R0, 0);
    a.call(BOOT_TIME);
    a.jump_if_greater(R0, R7, pass);

    // R7 says whether it is an IPv4 destination, which IPv6 sockets can have too.
    a.set(R7, 1);
    if v6 {
        for i in 0..4 {
            a.load(Size::Word, R1, R6, IP6 + 4 * i);
            a.store(Size::Word, STACK, DESTINATION + 4 * i, R1);
        }
        let not_mapped = a.label();
        let known = a.label();
        for (i, expected) in [(0, 0), (1, 0), (2, MAPPED)] {
            a.load(Size::Word, R1, STACK, DESTINATION + 4 * i);
            a.jump_unless(R1, expected, not_mapped);
        }
        a.jump(known);
        a.place(not_mapped);
        a.set(R7, 0);
        a.place(known);
    } else {
        a.load(Size::Word, R1, R6, IP4);
        mapped(&mut a, DESTINATION, R1);
    }
    a.load(Size::Word, R1, R6, PORT);
    a.store(Size::Word, STACK, DESTINATION + 16, R1);
    lookup(&mut a, maps.rules, DESTINATION);
    a.jump_if_not_zero(R0, hit);

    // Any address of this family.
    let any_v6 = a.label();
    let built = a.label();
    a.jump_if_zero(R7, any_v6);
    a.set(R1, 0);
    mapped(&mut a, ANY, R1);
    a.jump(built);
    a.place(any_v6);
    for i in 0..4 {
        a.store_value(STACK, ANY + 4 * i, 0);
    }
    a.place(built);
    a.load(Size::Word, R1, R6, PORT);
    a.store(Size::Word, STACK, ANY + 16, R1);
    lookup(&mut a, maps.rules, ANY);
    a.jump_if_zero(R0, pass);

    a.place(hit);
    a.set(R1, 1);
    a.add_to_memory(R0, HITS, R1);
    a.load(Size::Word, R1, R0, 0);
    a.store(Size::Word, R6, PORT, R1);
    if v6 {
        let v4 = a.label();
        let written = a.label();
        a.jump_if_not_zero(R7, v4);
        write_address(&mut a, IP6, [0, 0, 0, LOOPBACK_V6]);
        a.jump(written);
        a.place(v4);
        write_address(&mut a, IP6, [0, 0, MAPPED, LOOPBACK_V4]);
        a.place(written);
    } else {
        a.set(R1, LOOPBACK_V4);
        a.store(Size::Word, R6, IP4, R1);
    }
    a.copy(R1, R6);
    a.call(SOCKET_COOKIE);
    a.store(Size::Double, STACK, COOKIE, R0);
    a.copy(R3, STACK);
    a.add(R3, DESTINATION.into());
    update(&mut a, maps.redirected, COOKIE);
    leave(a, pass)
}

/// For the attach type BPF_CGROUP_SOCK_OPS: as a redirected socket sends its SYN, and so has its own address, notes under
/// that where it was going.
pub(super) fn note_origin(maps: Maps) -> Vec<[u8; 8]> {
    // struct bpf_sock_ops
    const OPERATION: i16 = 0;
    const FAMILY: i16 = 20;
    const LOCAL_IP4: i16 = 28;
    const LOCAL_IP6: i16 = 48;
    const LOCAL_PORT: i16 = 68; // in this machine's order
    const TCP_CONNECT_CB: i32 = 3; // BPF_SOCK_OPS_TCP_CONNECT_CB
    const SOURCE: i16 = ANY;

    let mut a = Assembler::default();
    let pass = a.label();
    a.copy(R6, R1);
    a.load(Size::Word, R1, R6, OPERATION);
    a.jump_unless(R1, TCP_CONNECT_CB, pass);
    a.copy(R1, R6);
    a.call(SOCKET_COOKIE);
    a.store(Size::Double, STACK, COOKIE, R0);
    lookup(&mut a, maps.redirected, COOKIE);
    a.jump_if_zero(R0, pass);
    a.copy(R7, R0);

    let (v4, known) = (a.label(), a.label());
    a.load(Size::Word, R1, R6, FAMILY);
    a.jump_unless(R1, libc::AF_INET6, v4);
    for i in 0..4 {
        a.load(Size::Word, R1, R6, LOCAL_IP6 + 4 * i);
        a.store(Size::Word, STACK, SOURCE + 4 * i, R1);
    }
    a.jump(known);
    a.place(v4);
    a.load(Size::Word, R1, R6, LOCAL_IP4);
    mapped(&mut a, SOURCE, R1);
    a.place(known);
    a.load(Size::Word, R1, R6, LOCAL_PORT);
    a.store(Size::Word, STACK, SOURCE + 16, R1);
    a.copy(R3, R7);
    update(&mut a, maps.origins, SOURCE);
    leave(a, pass)
}

/// Lets the kernel go on, whatever it asks. Calls the newest of the functions that the others cannot do without.
pub(super) fn nothing() -> Vec<[u8; 8]> {
    let mut a = Assembler::default();
    let pass = a.label();
    a.call(BOOT_TIME);
    leave(a, pass)
}

/// An [`Endpoint`] as [`note_origin`] writes it: with the port as a word in this machine's order.
pub(super) fn source(address: IpAddr, port: u16) -> Endpoint {
    let mut bytes = endpoint(address, 0);
    bytes[16..].copy_from_slice(&u32::from(port).to_ne_bytes());
    bytes
}

/// Ends the program, letting the kernel go on.
fn leave(mut a: Assembler, pass: Label) -> Vec<[u8; 8]> {
    a.place(pass);
    a.set(R0, 1);
    a.exit();
    a.finish()
}

/// Leaves in R0 where the value is, or 0.
fn lookup(a: &mut Assembler, map: i32, key: i16) {
    a.set_map(R1, map);
    a.copy(R2, STACK);
    a.add(R2, key.into());
    a.call(LOOKUP);
}

/// The value is where R3 points to.
fn update(a: &mut Assembler, map: i32, key: i16) {
    a.set_map(R1, map);
    a.copy(R2, STACK);
    a.add(R2, key.into());
    a.set(R4, 0); // BPF_ANY
    a.call(UPDATE);
}

/// Writes an IPv4 address, mapped into IPv6, on the stack.
fn mapped(a: &mut Assembler, at: i16, address: Register) {
    a.store_value(STACK, at, 0);
    a.store_value(STACK, at + 4, 0);
    a.store_value(STACK, at + 8, MAPPED);
    a.store(Size::Word, STACK, at + 12, address);
}

fn write_address(a: &mut Assembler, at: i16, words: [i32; 4]) {
    for (offset, word) in (at..).step_by(4).zip(words) {
        a.set(R1, word);
        a.store(Size::Word, R6, offset, R1);
    }
}
