//! What a process will never again ask of the kernel (seccomp(2)), whatever rights it has or gains.
//!
//! Capabilities are coarse: the one that attaches a BPF program to a control group may mount file systems too. A filter
//! takes away the calls behind them. It is a list of what is refused and not of what is allowed: a call that was
//! forgotten in a list of allowed ones would fail in the midst of an undo.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::{Error, Result, caps};

/// System calls that are refused together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Calls {
    /// Load BPF programs and change their maps.
    Bpf,
    /// Set the clock or its speed.
    Clock,
    /// Change the kernel: modules, another kernel, swap, reboot, accounting.
    Kernel,
    /// The kernel's keys.
    Keys,
    /// Mount, unmount, change the root.
    Mount,
    /// What only attacks on the kernel would use here: `io_uring`, userfaultfd, performance counters, handles of files.
    Obscure,
    /// The host's name and quotas.
    System,
    /// Look into other processes and change them: ptrace(2), their memory, their descriptors.
    Trace,
}

impl Calls {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::Bpf, Self::Clock, Self::Kernel, Self::Keys, Self::Mount, Self::Obscure, Self::System, Self::Trace];

    fn numbers(self) -> &'static [c_long] {
        match self {
            Self::Bpf => &[libc::SYS_bpf],
            Self::Clock => &[libc::SYS_settimeofday, libc::SYS_clock_settime],
            Self::Kernel => &[
                libc::SYS_init_module,
                libc::SYS_finit_module,
                libc::SYS_delete_module,
                libc::SYS_kexec_load,
                libc::SYS_reboot,
                libc::SYS_swapon,
                libc::SYS_swapoff,
                libc::SYS_acct,
                libc::SYS_syslog,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_kexec_file_load,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_ioperm,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_iopl,
            ],
            Self::Keys => &[libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl],
            Self::Mount => &[
                libc::SYS_mount,
                libc::SYS_umount2,
                libc::SYS_pivot_root,
                libc::SYS_chroot,
                libc::SYS_open_tree,
                libc::SYS_move_mount,
                libc::SYS_fsopen,
                libc::SYS_fsconfig,
                libc::SYS_fsmount,
                libc::SYS_fspick,
                libc::SYS_mount_setattr,
            ],
            Self::Obscure => &[
                libc::SYS_io_uring_setup,
                libc::SYS_io_uring_enter,
                libc::SYS_io_uring_register,
                libc::SYS_userfaultfd,
                libc::SYS_perf_event_open,
                libc::SYS_name_to_handle_at,
                libc::SYS_open_by_handle_at,
                libc::SYS_personality,
                libc::SYS_vhangup,
            ],
            Self::System => &[libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_quotactl],
            Self::Trace => &[
                libc::SYS_ptrace,
                libc::SYS_process_vm_readv,
                libc::SYS_process_vm_writev,
                libc::SYS_process_madvise,
                libc::SYS_pidfd_getfd,
                libc::SYS_kcmp,
            ],
        }
    }
}

/// Has the kernel refuse calls to this process, and to all that it will start, for good: they fail with EPERM. It cannot
/// gain rights by executing a program either, without which the kernel takes no filter.
///
/// # Errors
/// [`Error::Invalid`] when the process has more than one thread, which would be left out; [`Error::System`] where the
/// kernel has no seccomp or this architecture is not known.
pub fn refuse(calls: &[Calls]) -> Result<()> {
    caps::no_new_privs()?;
    let cannot = |e: String| Error::System {
        action: "have the kernel refuse system calls".into(),
        needs: None,
        source: std::io::Error::other(e),
    };
    let rules: BTreeMap<i64, Vec<_>> =
        calls.iter().flat_map(|calls| calls.numbers()).map(|number| (*number, vec![])).collect();
    let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().map_err(|e: seccompiler::BackendError| cannot(e.to_string()))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch).map_err(|e| cannot(e.to_string()))?;
    let program: BpfProgram = filter.try_into().map_err(|e: seccompiler::BackendError| cannot(e.to_string()))?;
    apply_filter(&program).map_err(|e| cannot(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_fork;

    fn result(call: c_long) -> std::io::Error {
        #[expect(unsafe_code, reason = "calls of which none has a wrapper")]
        // SAFETY: every argument is 0, which no call here takes for an address to write to.
        let result = unsafe { libc::syscall(call, 0, 0, 0, 0, 0) };
        assert_eq!(result, -1, "call {call} succeeded");
        std::io::Error::last_os_error()
    }

    #[test]
    fn what_is_refused_fails_and_all_else_goes_on() {
        in_fork(|| {
            refuse(&[Calls::Trace, Calls::Mount, Calls::Obscure, Calls::Keys]).expect("one thread");
            for call in [Calls::Trace, Calls::Mount, Calls::Obscure, Calls::Keys].iter().flat_map(|c| c.numbers()) {
                assert_eq!(result(*call).raw_os_error(), Some(libc::EPERM), "call {call}");
            }
            // It is taken, and fails for what it was asked.
            assert_ne!(result(libc::SYS_bpf).raw_os_error(), Some(libc::ENOSYS));
            let child = std::process::Command::new("cat").arg("/proc/self/status").output().expect("may be started");
            let status = String::from_utf8(child.stdout).expect("text");
            assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
            // One more is taken beside.
            refuse(&[Calls::Bpf]).expect("still one thread");
            assert_eq!(result(libc::SYS_bpf).raw_os_error(), Some(libc::EPERM));
        });
    }

    #[test]
    fn threads_that_would_be_left_out_are_an_error() {
        in_fork(|| {
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || receiver.recv());
            assert!(matches!(refuse(Calls::ALL), Err(Error::Invalid { .. })));
            drop(sender);
            let _ = thread.join();
        });
    }
}
