//! Capabilities (capabilities(7)): what a privileged process may do, taken away down to what it needs.

use std::fmt;

use rustix::thread::{self, CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, error::Context};

macro_rules! capabilities {
    ($($(#[$doc:meta])* $variant:ident = $flag:ident,)*) => {
        /// The capabilities that faults may need.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum Capability {
            $($(#[$doc])* $variant,)*
        }

        impl Capability {
            /// All that are listed here.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The kernel's name, such as `CAP_NET_ADMIN`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => concat!("CAP_", stringify!($flag)),)* }
            }

            const fn flag(self) -> CapabilitySet {
                match self { $(Self::$variant => CapabilitySet::$flag,)* }
            }
        }
    };
}

capabilities! {
    /// Load and attach BPF programs.
    Bpf = BPF,
    /// Ignore the permissions of files.
    DacOverride = DAC_OVERRIDE,
    /// Ignore the permissions to read files and search directories.
    DacReadSearch = DAC_READ_SEARCH,
    /// Act as the owner of any file.
    Fowner = FOWNER,
    /// Signal any process.
    Kill = KILL,
    /// Change interfaces, routes, packet filters, socket marks.
    NetAdmin = NET_ADMIN,
    /// Listen on ports below 1024.
    NetBindService = NET_BIND_SERVICE,
    /// Raw and packet sockets.
    NetRaw = NET_RAW,
    /// Performance counters and tracing.
    Perfmon = PERFMON,
    /// Become any group.
    Setgid = SETGID,
    /// Take capabilities out of the bounding set.
    Setpcap = SETPCAP,
    /// Become any user.
    Setuid = SETUID,
    /// Mount, enter namespaces, and much more.
    SysAdmin = SYS_ADMIN,
    /// Reboot.
    SysBoot = SYS_BOOT,
    /// Raise priorities and set others' affinities.
    SysNice = SYS_NICE,
    /// Trace any process and look into it.
    SysPtrace = SYS_PTRACE,
    /// Exceed limits and quotas, and use the blocks reserved on file systems.
    SysResource = SYS_RESOURCE,
    /// Set the clock.
    SysTime = SYS_TIME,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Those of [`Capability::ALL`] that the calling thread can use now.
pub fn effective() -> Result<Vec<Capability>> {
    let sets = current()?;
    Ok(Capability::ALL.iter().copied().filter(|c| sets.effective.contains(c.flag())).collect())
}

/// Whether the calling thread can use a capability now.
pub fn has(capability: Capability) -> Result<bool> {
    Ok(current()?.effective.contains(capability.flag()))
}

/// Takes every capability but the given ones from this process for good: out of its effective, permitted,
/// inheritable, ambient and, where CAP_SETPCAP allows, bounding set. What it does not have, it does not get. From the
/// given ones, those that were permitted are effective afterwards.
///
/// # Errors
/// [`Error::Invalid`] when the process has more than one thread: each has capabilities of its own, and a thread that
/// keeps them would keep them for all. Call it before any is started.
pub fn keep_only(wanted: &[Capability]) -> Result<()> {
    only_thread("its capabilities can be dropped")?;
    let keep = set_of(wanted);
    let action = || "drop capabilities";
    if current()?.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if keep.contains(capability) {
                continue;
            }
            match thread::remove_capability_from_bounding_set(capability) {
                Err(rustix::io::Errno::INVAL) => break, // past the last one that this kernel knows
                other => other.cannot(action)?,
            }
        }
    }
    keep_only_until_exec(wanted)
}

/// As [`keep_only`], but leaves the bounding set as it is: programs that this process executes get the rights that their
/// user and their file give, root all of them. For who runs the programs of others.
///
/// # Errors
/// As [`keep_only`].
pub fn keep_only_until_exec(wanted: &[Capability]) -> Result<()> {
    only_thread("its capabilities can be dropped")?;
    let keep = set_of(wanted);
    let now = current()?;
    // Ambient ones must be permitted and inheritable, so the kernel takes them away with these.
    let permitted = now.permitted & keep;
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: now.inheritable & keep };
    thread::set_capabilities(None, sets).cannot(|| "drop capabilities")
}

fn set_of(capabilities: &[Capability]) -> CapabilitySet {
    capabilities.iter().fold(CapabilitySet::empty(), |set, c| set | c.flag())
}

/// Makes sure that this process and its children never gain rights by executing a program (PR_SET_NO_NEW_PRIVS).
///
/// # Errors
/// [`Error::Invalid`] when the process has more than one thread, which would be left out.
pub fn no_new_privs() -> Result<()> {
    only_thread("it can give up to gain rights")?;
    thread::set_no_new_privs(true).cannot(|| "give up to gain rights by executing programs")
}

fn current() -> Result<CapabilitySets> {
    thread::capabilities(None).cannot(|| "read this thread's capabilities")
}

fn only_thread(so_that: &str) -> Result<()> {
    match std::fs::read_dir("/proc/self/task").cannot(|| "count this process's threads")?.count() {
        1 => Ok(()),
        n => Err(Error::invalid("this process", format!("has {n} threads; {so_that} only before it starts any"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_fork, is_root};

    #[test]
    fn only_the_wanted_ones_are_left_in_every_set() {
        if !is_root("only_the_wanted_ones_are_left_in_every_set") {
            return;
        }
        in_fork(|| {
            keep_only(&[Capability::NetAdmin, Capability::Kill]).expect("one thread, root");
            let mut left = effective().expect("readable");
            left.sort();
            assert_eq!(left, [Capability::Kill, Capability::NetAdmin]);
            let both = CapabilitySet::NET_ADMIN | CapabilitySet::KILL;
            let sets = current().expect("readable");
            assert_eq!((sets.permitted, sets.effective), (both, both));
            assert!(both.contains(sets.inheritable));
            let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
            let set = |name: &str| {
                let hex = status.lines().find_map(|l| l.strip_prefix(name)).expect("a line").trim();
                CapabilitySet::from_bits_retain(u64::from_str_radix(hex, 16).expect("hexadecimal"))
            };
            assert_eq!(set("CapBnd:"), both);
            assert_eq!(set("CapAmb:"), CapabilitySet::empty());
            // They do not come back, not even one at a time.
            assert!(keep_only(&[Capability::SysAdmin]).is_ok());
            assert!(effective().expect("readable").is_empty());
        });
    }

    #[test]
    fn programs_get_their_own_rights_where_only_this_process_gives_up_its() {
        if !is_root("programs_get_their_own_rights_where_only_this_process_gives_up_its") {
            return;
        }
        in_fork(|| {
            let before = current().expect("readable").permitted;
            keep_only_until_exec(&[Capability::Kill]).expect("one thread, root");
            assert_eq!(effective().expect("readable"), [Capability::Kill]);
            let status = std::process::Command::new("cat").arg("/proc/self/status").output().expect("cat is installed");
            let status = String::from_utf8(status.stdout).expect("text");
            let hex = status.lines().find_map(|l| l.strip_prefix("CapPrm:")).expect("a line").trim();
            let after = CapabilitySet::from_bits_retain(u64::from_str_radix(hex, 16).expect("hexadecimal"));
            assert!(after.contains(before), "{before:?} {after:?}");
        });
    }

    #[test]
    fn a_process_with_threads_is_refused() {
        let (keep, end) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || end.recv().is_err());
        let before = effective().expect("readable");
        let e = keep_only(&[]).expect_err("two threads");
        assert!(e.to_string().contains("threads"), "{e}");
        assert!(no_new_privs().is_err());
        assert_eq!(effective().expect("readable"), before);
        drop(keep);
        assert!(thread.join().expect("it only waits"));
    }

    #[test]
    fn no_new_privs_stays() {
        in_fork(|| {
            no_new_privs().expect("one thread");
            assert!(thread::no_new_privs().expect("readable"));
        });
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(Capability::NetAdmin.to_string(), "CAP_NET_ADMIN");
        assert!(
            has(Capability::NetAdmin).expect("readable")
                == effective().expect("readable").contains(&Capability::NetAdmin)
        );
    }
}
