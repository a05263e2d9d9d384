//! Namespaces (namespaces(7)): a user's own root and a network of its own, for faults that touch nothing else.

use std::{
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
};

use nix::sched::CloneFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    Result, Unsupported,
    error::Context,
    netlink::{Attributes, Request, Socket},
    process::ProcessId,
    spawn::Spawn,
};

/// What a namespace separates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Users and capabilities.
    User,
    /// Mounts.
    Mount,
    /// Interfaces, addresses, routes, packet filter, ports.
    Net,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mnt",
            Self::Net => "net",
        }
    }

    pub(crate) fn clone_flag(self) -> libc::c_int {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Net => libc::CLONE_NEWNET,
        }
    }
}

/// Who a process is inside a user namespace of its own. Only one user and one group exist there, as the kernel lets a
/// user without rights map no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserMap {
    /// Root inside, the same user as before outside.
    Root,
    /// The same numbers inside and outside, yet with all capabilities inside until a program is executed.
    Same,
}

impl UserMap {
    /// The texts for `uid_map` and `gid_map` of user_namespaces(7), by the numbers outside.
    pub(crate) fn texts(self, uid: u32, gid: u32) -> (String, String) {
        let inside = |id: u32| if self == Self::Root { 0 } else { id };
        (format!("{} {uid} 1\n", inside(uid)), format!("{} {gid} 1\n", inside(gid)))
    }
}

/// A namespace, held: it lives at least as long as this value.
#[derive(Debug)]
pub struct Namespace {
    kind: Kind,
    file: File,
}

impl Namespace {
    /// The namespace that a process is in.
    pub fn of(id: &ProcessId, kind: Kind) -> Result<Self> {
        let path = format!("/proc/{}/ns/{}", id.pid(), kind.file());
        let namespace = Self::open(kind, &path)?;
        id.stat()?; // what was opened belongs to the process that is named only if that still has the number
        Ok(namespace)
    }

    /// The namespace that the calling thread is in.
    pub fn current(kind: Kind) -> Result<Self> {
        Self::open(kind, &format!("/proc/thread-self/ns/{}", kind.file()))
    }

    /// A new network with nothing but a loopback interface that is up. It is gone once this value is and nothing runs
    /// in it.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN; [`crate::spawn::Spawn::new_net_namespace`] can do without, for a child.
    pub fn new_net() -> Result<Self> {
        on_own_thread(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).cannot_without("CAP_SYS_ADMIN", || "make a network")?;
            loopback_up()?;
            Self::current(Kind::Net)
        })
    }

    fn open(kind: Kind, path: &str) -> Result<Self> {
        let file = File::open(path).cannot_without("CAP_SYS_PTRACE", || format!("open {path}"))?;
        Ok(Self { kind, file })
    }

    /// What it separates.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The namespace's number, as `readlink /proc/PID/ns/net` shows it: equal numbers are the same namespace.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.file.metadata().cannot(|| "look at a namespace")?.ino())
    }

    /// Runs something in this namespace, on a thread of its own that ends with it: for instance to make a listener or
    /// an [`crate::nft::OwnedTable`] there, which stay there when they are used elsewhere.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN both here and there, and for one of users, which no thread of a process with several can
    /// enter: start a child in it then ([`crate::spawn::Spawn::enter`]).
    pub fn run<T: Send>(&self, run: impl FnOnce() -> T + Send) -> Result<T> {
        let kind = match self.kind {
            Kind::User => LinkNameSpaceType::User,
            Kind::Mount => LinkNameSpaceType::Mount,
            Kind::Net => LinkNameSpaceType::Network,
        };
        on_own_thread(|| {
            if self.kind == Kind::Mount {
                // Threads share their root and directory, which a mount namespace cannot be entered with.
                nix::sched::unshare(CloneFlags::CLONE_FS).cannot(|| "leave the threads' common directory")?;
            }
            move_into_link_name_space(self.as_fd(), Some(kind))
                .cannot_without("CAP_SYS_ADMIN there", || format!("enter a {} namespace", self.kind.file()))?;
            Ok(run())
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Moves this process, which must have one thread, into a user namespace and a network of its own, with the loopback
/// interface up. No rights are needed where the host lets users do so; inside, the process has all of them.
///
/// # Errors
/// See [`supported`] for what can forbid it.
pub fn enter_new_user_and_net(map: UserMap) -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .cannot_without("user namespaces to be allowed", || "make a user namespace and a network")?;
    let (uids, gids) = map.texts(uid, gid);
    write_maps(&uids, &gids)?;
    loopback_up()
}

/// Moves this process, which must have one thread, into a user namespace in which it has these numbers. It keeps no rights
/// over what belongs to the namespace that it was in: with [`enter_new_user_and_net`] before, a process that is root in its
/// network becomes the user again that it was.
///
/// # Errors
/// Where the host's limits on user namespaces forbid another one.
pub fn enter_new_user_as(uid: u32, gid: u32) -> Result<()> {
    let (now_uid, now_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER)
        .cannot_without("user namespaces to be allowed", || "make a user namespace")?;
    write_maps(&format!("{uid} {now_uid} 1\n"), &format!("{gid} {now_gid} 1\n"))
}

fn write_maps(uids: &str, gids: &str) -> Result<()> {
    // Groups can be mapped without rights only once setgroups is given up (user_namespaces(7)).
    for (file, text) in [("setgroups", "deny"), ("uid_map", uids), ("gid_map", gids)] {
        std::fs::write(format!("/proc/self/{file}"), text).cannot(|| format!("write /proc/self/{file}"))?;
    }
    Ok(())
}

/// Gives this process a network of its own, whose loopback interface is up, and leaves the one it was in. Only the
/// calling thread and those it starts afterwards are in it: call it before any is started.
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub fn enter_new_net() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).cannot_without("CAP_SYS_ADMIN", || "make a network")?;
    loopback_up()
}

/// Brings the loopback interface of the calling thread's network up.
///
/// # Errors
/// Without CAP_NET_ADMIN there.
pub fn loopback_up() -> Result<()> {
    const RTM_NEWLINK: u16 = 16; // include/uapi/linux/rtnetlink.h
    const IFF_UP: u32 = 1;
    const LOOPBACK: i32 = 1; // the first interface of every network namespace
    // struct ifinfomsg: family and padding, type, index, flags, which flags to change
    let mut header = vec![0, 0, 0, 0];
    header.extend(LOOPBACK.to_ne_bytes());
    header.extend(IFF_UP.to_ne_bytes());
    header.extend(IFF_UP.to_ne_bytes());
    let request = Request::new(RTM_NEWLINK, 0, &header, &Attributes::new());
    // NETLINK_ROUTE is protocol 0, which is what no protocol means.
    Socket::open(None)?.ask(request, || "bring the loopback interface up".to_owned()).map(drop)
}

/// Whether this user can have a user namespace with a network of its own here, by trying it in a child.
///
/// # Errors
/// Why not, as far as the kernel's switches tell.
pub fn supported() -> Result<(), Unsupported> {
    let child = Spawn::new("/proc/self/exe").new_user_namespace(UserMap::Root).new_net_namespace().dry_run();
    let Err(e) = child else { return Ok(()) };
    let switch = |file: &str| std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned());
    let instead = |setting: &str| format!("run as root, or have an administrator set {setting}");
    let (why, instead) = if switch("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        ("the host allows no user namespaces", instead("user.max_user_namespaces above 0"))
    } else if switch("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        ("the host allows user namespaces to root only", instead("kernel.unprivileged_userns_clone to 1"))
    } else if switch("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        let profile = "kernel.apparmor_restrict_unprivileged_userns to 0 or give the program a profile";
        ("AppArmor keeps user namespaces from programs without a profile", instead(profile))
    } else {
        ("the kernel refused", "run as root, or outside the container or sandbox that forbids it".to_owned())
    };
    Err(Unsupported { what: "a user namespace with a network of its own", why: format!("{why} ({e})"), instead })
}

fn on_own_thread<T: Send>(run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, run);
        match thread.cannot(|| "start a thread for a namespace")?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::testing::{in_fork, is_root, skip};

    #[test]
    fn a_new_network_has_a_loopback_of_its_own_and_gives_back_listeners() {
        if !is_root("a_new_network_has_a_loopback_of_its_own_and_gives_back_listeners") {
            return;
        }
        let net = Namespace::new_net().expect("root");
        let listener = net.run(|| TcpListener::bind("127.0.0.1:0")).expect("entered").expect("lo is up");
        let address = listener.local_addr().expect("bound");
        assert!(TcpStream::connect(address).is_err(), "it listens there, not here");
        net.run(|| TcpStream::connect(address)).expect("entered").expect("it listens there");
        let inode = net.run(|| Namespace::current(Kind::Net)?.inode()).expect("entered").expect("it is there");
        assert_eq!(inode, net.inode().expect("ours"));
        assert_ne!(inode, Namespace::current(Kind::Net).expect("ours").inode().expect("ours"));
    }

    #[test]
    fn a_process_without_rights_has_all_of_them_in_its_own_namespaces() {
        if let Err(why) = supported() {
            return skip("a_process_without_rights_has_all_of_them_in_its_own_namespaces", why);
        }
        for (map, uid) in [(UserMap::Root, 0), (UserMap::Same, 65534)] {
            in_fork(|| {
                let expected = crate::testing::become_nobody().then_some(uid);
                enter_new_user_and_net(map).expect("supported");
                if let Some(uid) = expected {
                    assert_eq!(rustix::process::geteuid().as_raw(), uid);
                }
                assert!(crate::caps::has(crate::caps::Capability::NetAdmin).expect("readable"));
                let listener = TcpListener::bind("127.0.0.1:0").expect("lo is up");
                TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
            });
        }
    }

    #[test]
    fn root_in_a_network_of_its_own_becomes_the_user_again() {
        if let Err(why) = supported() {
            return skip("root_in_a_network_of_its_own_becomes_the_user_again", why);
        }
        in_fork(|| {
            crate::testing::become_nobody();
            let me = (rustix::process::geteuid(), rustix::process::getegid());
            enter_new_user_and_net(UserMap::Root).expect("supported");
            enter_new_user_as(me.0.as_raw(), me.1.as_raw()).expect("one more");
            assert_eq!((rustix::process::geteuid(), rustix::process::getegid()), me);
            assert!(loopback_up().is_err(), "the network is not its own any more");
        });
    }

    #[test]
    fn what_forbids_namespaces_is_told() {
        in_fork(|| {
            // Inside a namespace of our own we may set its limit, as an administrator of a real host may.
            if enter_new_user_and_net(UserMap::Root).is_err() {
                return;
            }
            std::fs::write("/proc/sys/user/max_user_namespaces", "0").expect("root inside");
            let e = supported().expect_err("forbidden now");
            assert!(e.why.contains("allows no user namespaces") && e.instead.contains("max_user_namespaces"), "{e}");
        });
    }
}
