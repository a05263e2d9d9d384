//! The redirection: programs, their maps, and the links that hold them in place.

use std::{
    collections::BTreeSet,
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    time::Duration,
};

use rustix::io::Errno;

use super::{
    program::{self, Endpoint, Maps, Target},
    sys::{self, Hook, Map, MapKind},
};
use crate::{
    Error, Result, Unsupported,
    cgroup::{Group, V2},
    error::Context,
    time::boottime,
};

const NEEDS: &str = "CAP_BPF and CAP_NET_ADMIN";
/// How many processes can be meant.
const PIDS: u32 = 16_384;
/// How many connections can wait to be asked about.
const ORIGINS: u32 = 16_384;

/// Which TCP connections go where instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectRule {
    /// The destination's address; `None` for any.
    pub address: Option<IpAddr>,
    /// The destination's port.
    pub port: u16,
    /// The port of 127.0.0.1, or of ::1 for IPv6 destinations, to which the connection goes.
    pub to: u16,
}

impl ConnectRule {
    /// What the programs look for.
    fn endpoints(&self) -> Vec<Endpoint> {
        let any = || [IpAddr::V4(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        let addresses = self.address.map_or_else(|| any().to_vec(), |address| vec![address]);
        addresses.into_iter().map(|address| program::endpoint(address, self.port)).collect()
    }
}

/// Connections of some processes are redirected, for as long as this lives and its lease is renewed. At first no process
/// is meant, and there is no lease.
///
/// The programs look at the lease for every connection, so that the redirection also ends while its holder is frozen.
///
/// Only connections made from the calling thread's network namespace at [`ConnectRedirect::attach`] are redirected, by
/// TCP sockets made in the control group or below it. A process that a meant one starts is not meant before
/// [`ConnectRedirect::set_pids`] says so.
#[derive(Debug)]
#[must_use = "nothing is redirected any more when this is dropped"]
pub struct ConnectRedirect {
    rules: Vec<ConnectRule>,
    meant: BTreeSet<u32>,
    pids: Map<u32, u8>,
    lease: Map<u32, u64>,
    /// Until when the lease lasts, in the time since boot; `None` before it was first granted.
    lasts_until: Option<Duration>,
    targets: Map<Endpoint, Target>,
    origins: Map<Endpoint, Endpoint>,
    /// Only programs look into it.
    _redirected: Map<u64, Endpoint>,
    _links: Vec<OwnedFd>,
}

impl ConnectRedirect {
    /// Attaches the programs to a control group: to the root, `V2::find()?.group("/")`, for the processes of the whole
    /// host. A rule with an address goes before one with the same port and any address.
    ///
    /// # Errors
    /// Without the rights, see [`supported`]; when two rules are for the same destination.
    pub fn attach(group: &Group, rules: &[ConnectRule]) -> Result<Self> {
        let action = || format!("redirect connections of control group {}", group.directory.display());
        let directory = File::open(&group.directory).cannot(action)?;
        let entries = u32::try_from(rules.len() * 2 + 1).map_err(|_| Error::invalid("the rules", "are too many"))?;
        let pids = Map::create(MapKind::Hash, PIDS).cannot_without(NEEDS, action)?;
        let lease = Map::create(MapKind::Array, 1).cannot_without(NEEDS, action)?;
        let targets = Map::<Endpoint, Target>::create(MapKind::Hash, entries).cannot_without(NEEDS, action)?;
        let redirected = Map::create(MapKind::LruHash, ORIGINS).cannot_without(NEEDS, action)?;
        let origins = Map::create(MapKind::LruHash, ORIGINS).cannot_without(NEEDS, action)?;
        for rule in rules {
            let mut target = Target::default();
            target[..2].copy_from_slice(&rule.to.to_be_bytes());
            for endpoint in rule.endpoints() {
                if targets.get(&endpoint).cannot(action)?.is_some() {
                    return Err(Error::invalid(format!("{rule:?}"), "has the destination of another rule"));
                }
                targets.set(&endpoint, &target).cannot(action)?;
            }
        }
        let maps = Maps {
            pids: pids.number(),
            lease: lease.number(),
            rules: targets.number(),
            redirected: redirected.number(),
            origins: origins.number(),
        };
        let network = sys::network_cookie();
        let programs = [
            // First what notes where a connection was going, so that none is redirected without.
            (Hook::SockOps, program::note_origin(maps)),
            (Hook::Connect4, program::connect(maps, false, network)),
            (Hook::Connect6, program::connect(maps, true, network)),
        ];
        let mut links = Vec::new();
        for (hook, code) in programs {
            let program = load(hook, &code)?;
            links.push(sys::attach(program.as_fd(), directory.as_fd(), hook).cannot_without(NEEDS, action)?);
        }
        let meant = BTreeSet::new();
        Ok(Self {
            rules: rules.to_vec(),
            meant,
            pids,
            lease,
            lasts_until: None,
            targets,
            origins,
            _redirected: redirected,
            _links: links,
        })
    }

    /// Makes the lease last that long from now; the first time, it begins with that.
    ///
    /// # Errors
    /// [`Error::LeaseRanOut`] when it has: nothing was redirected for a while, and nothing is from now on.
    pub fn renew_lease(&mut self, lasts: Duration) -> Result<()> {
        let action = || "renew the lease of redirected connections";
        let until = boottime() + lasts;
        let nanoseconds = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.lease.set(&program::LEASE, &nanoseconds).cannot(action)?;
        // Asked afterwards: whoever stood still between a look at the clock and the renewal would not know.
        if self.lasts_until.is_some_and(|last| boottime() > last) {
            self.lease.set(&program::LEASE, &0).cannot(action)?;
            return Err(Error::LeaseRanOut { name: "redirect".to_owned() });
        }
        self.lasts_until = Some(until);
        Ok(())
    }

    /// Says whose connections are meant from now on, by the numbers of their processes.
    ///
    /// # Errors
    /// When they are more than 16,384.
    pub fn set_pids(&mut self, pids: impl IntoIterator<Item = u32>) -> Result<()> {
        let action = || "name the processes whose connections are redirected";
        let wanted: BTreeSet<u32> = pids.into_iter().collect();
        let gone: Vec<u32> = self.meant.difference(&wanted).copied().collect();
        for pid in gone {
            self.pids.remove(&pid).cannot(action)?;
            self.meant.remove(&pid);
        }
        for pid in wanted {
            if !self.meant.contains(&pid) {
                self.pids.set(&pid, &1).cannot(action)?;
                self.meant.insert(pid);
            }
        }
        Ok(())
    }

    /// How many connections each rule has redirected, in the rules' order; a connection that then failed counts too.
    pub fn hits(&self) -> Result<Vec<u64>> {
        let action = || "count redirected connections";
        let mut hits = Vec::new();
        for rule in &self.rules {
            let mut sum = 0;
            for endpoint in rule.endpoints() {
                let target = self.targets.get(&endpoint).cannot(action)?.unwrap_or_default();
                let (_, count) = target.split_at(8);
                sum += u64::from_ne_bytes(count.try_into().expect("half of 16 bytes"));
            }
            hits.push(sum);
        }
        Ok(hits)
    }

    /// Where an accepted connection was going, by the address of its client. Tells it once; `None` for a connection
    /// that was not redirected, or when thousands of newer ones were not asked about.
    pub fn original_destination(&self, client: SocketAddr) -> Result<Option<SocketAddr>> {
        let action = || format!("ask where the connection from {client} was going");
        let source = program::source(client.ip().to_canonical(), client.port());
        let Some(found) = self.origins.get(&source).cannot(action)? else { return Ok(None) };
        // The port will be used by other connections, which were going elsewhere.
        self.origins.remove(&source).cannot(action)?;
        let (address, port) = program::parse_endpoint(&found);
        Ok(Some(SocketAddr::new(address, port)))
    }
}

fn load(hook: Hook, code: &[[u8; 8]]) -> Result<OwnedFd> {
    sys::load(hook, code).map_err(|(e, log)| {
        let last = log.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with("processed"));
        let why = last.map(|line| format!(" (its verifier says: {line})")).unwrap_or_default();
        Err::<(), _>(e)
            .cannot_without(NEEDS, || format!("load a BPF program into the kernel{why}"))
            .expect_err("an error went in")
    })
}

/// Whether connections can be redirected here. Changes nothing: a program is loaded and not attached.
///
/// # Errors
/// Why not, and what would work.
pub fn supported() -> Result<(), Unsupported> {
    let refuse = |why: String, instead: &str| {
        Err(Unsupported { what: "redirecting the connections of single processes", why, instead: instead.to_owned() })
    };
    const OTHERWISE: &str = "select by port or address, or run the program in a network of its own (`toprope exec`)";
    if let Err(e) = V2::find() {
        return refuse(e.to_string(), OTHERWISE);
    }
    // Programs see the numbers of the host's first pid namespace (PROC_PID_INIT_INO in include/linux/proc_ns.h).
    const FIRST: u64 = 0xEFFF_FFFC;
    let namespace = std::fs::metadata("/proc/self/ns/pid").map(|m| m.ino());
    if !namespace.is_ok_and(|inode| inode == FIRST) {
        let why =
            "this pid namespace is not the host's, so processes have other numbers here than in the kernel's eyes";
        return refuse(why.to_owned(), "run in the host's pid namespace");
    }
    let tried = sys::load(Hook::Connect4, &program::nothing());
    match tried {
        Ok(_) => Ok(()),
        Err((Errno::PERM, _)) => refuse(format!("it needs {NEEDS}"), "run as root, or select by port or address"),
        Err((Errno::NOSYS, _)) => refuse("this kernel has no BPF".to_owned(), OTHERWISE),
        Err((e, _)) => refuse(format!("this kernel refuses BPF programs for control groups ({e})"), OTHERWISE),
    }
}
