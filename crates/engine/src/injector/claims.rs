//! What injectors have taken on this host, whatever journal their records are in.
//!
//! A journal knows the claims of its own TOPROPE_HOME. Two homes on one host have two journals, and so do two users; what
//! they take is the same processes, ports and directories. So each claim is also a name that only one process can have: a
//! listening socket in the abstract namespace of unix(7), which the kernel gives up when its process ends, however it ends,
//! which any user can make, and which leaves no file. Names are of a network namespace, and so are most claims; that of the
//! pid namespace is in them, because others are of processes.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    sockopt::socket_peercred,
};
use sha2::{Digest, Sha256};
use toprope_model::step::Step;
use toprope_os::process::ProcessInfo;

use crate::fault::FaultError;

/// What one injector has taken, for as long as this lives.
#[derive(Debug)]
#[must_use = "what was taken is free again when this is dropped"]
pub(super) struct Claims(#[expect(dead_code, reason = "held for their names")] Vec<OwnedFd>);

impl Claims {
    /// Takes what steps claim.
    ///
    /// # Errors
    /// That somebody has one of them, and who.
    pub(super) fn take(steps: &[Step]) -> Result<Self, FaultError> {
        let mut taken = Vec::new();
        for claim in of(steps) {
            taken.push(take(claim)?);
        }
        Ok(Self(taken))
    }
}

/// Refuses steps that claim what somebody has taken.
///
/// # Errors
/// What it is, and who has it.
pub(super) fn refuse_taken(steps: &[Step]) -> Result<(), FaultError> {
    for claim in of(steps) {
        let socket = socket().map_err(|e| cannot(claim, e))?;
        let address = address(claim).map_err(|e| cannot(claim, e))?;
        match connect(&socket, &address) {
            Err(Errno::CONNREFUSED) => {}
            Ok(()) => return Err(is_taken(claim, socket_peercred(&socket).ok().map(|peer| peer.pid.as_raw_pid()))),
            // It is there, and has been asked this so often that its queue is full.
            Err(Errno::AGAIN) => return Err(is_taken(claim, None)),
            Err(e) => return Err(cannot(claim, e)),
        }
    }
    Ok(())
}

/// Each claim once.
fn of(steps: &[Step]) -> BTreeSet<&str> {
    steps.iter().flat_map(|step| &step.claims).map(String::as_str).collect()
}

fn take(claim: &str) -> Result<OwnedFd, FaultError> {
    let taken = || -> Result<OwnedFd, Errno> {
        let socket = socket()?;
        bind(&socket, &address(claim)?)?;
        listen(&socket, 128)?;
        Ok(socket)
    };
    match taken() {
        Ok(socket) => Ok(socket),
        Err(Errno::ADDRINUSE) => Err(refuse_taken_by_name(claim)),
        Err(e) => Err(cannot(claim, e)),
    }
}

/// Who has it, as far as can be told a moment later.
fn refuse_taken_by_name(claim: &str) -> FaultError {
    let holder = socket().and_then(|socket| {
        connect(&socket, &address(claim)?)?;
        socket_peercred(&socket)
    });
    is_taken(claim, holder.ok().map(|peer| peer.pid.as_raw_pid()))
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn address(claim: &str) -> Result<SocketAddrUnix, Errno> {
    let processes = std::fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino()).unwrap_or_default();
    let name = Sha256::digest(format!("{processes}\n{claim}"));
    let name: String = name.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    SocketAddrUnix::new_abstract_name(format!("toprope/claim/{name}").as_bytes())
}

fn is_taken(claim: &str, holder: Option<i32>) -> FaultError {
    let process = holder.and_then(|pid| ProcessInfo::of(u32::try_from(pid).ok()?).ok());
    let by = match (process, holder) {
        (Some(process), _) => format!("process {} (`{}`)", process.id.pid(), process.cmdline.join(" ")),
        (None, Some(pid)) if pid > 0 => format!("process {pid}"),
        _ => "a process that cannot be seen from here".to_owned(),
    };
    FaultError::new(format!("{claim} is already taken by {by}, of another TOPROPE_HOME or user on this host"))
        .help("wait until it ends, or end it from there with `toprope undo`; `toprope residue` shows what runs")
}

fn cannot(claim: &str, error: Errno) -> FaultError {
    FaultError::because(format!("{claim} cannot be claimed on this host"), error)
}

#[cfg(test)]
mod tests {
    use toprope_model::step::Undo;

    use super::*;

    fn steps(claims: &[&str]) -> Vec<Step> {
        let claims = claims.iter().map(|c| format!("{c} of test process {}", std::process::id())).collect();
        let undo = Undo::KernelOwned("it goes with this process".into());
        vec![Step { describe: "take".into(), claims, undo, data: serde_json::Value::Null }]
    }

    #[test]
    fn what_one_has_taken_another_is_refused_until_it_is_free_again() {
        let held = Claims::take(&steps(&["a", "b", "a"])).unwrap();
        for _ in 0..300 {
            // More often than its queue is long.
            let e = refuse_taken(&steps(&["b"])).unwrap_err();
            assert!(e.message.contains("is already taken by"), "{e}");
        }
        let e = refuse_taken(&steps(&["a"])).unwrap_err();
        let me = format!("a of test process {0} is already taken by process {0} (`", std::process::id());
        assert!(e.message.starts_with(&me), "{e}");
        let e = Claims::take(&steps(&["c", "b"])).unwrap_err();
        assert!(e.message.contains("is already taken") && e.help.is_some(), "{e}");
        refuse_taken(&steps(&["c"])).expect("what was taken before the refusal is free again");
        drop(held);
        refuse_taken(&steps(&["a", "b", "c"])).unwrap();
        drop(Claims::take(&steps(&["a", "b", "c"])).unwrap());
    }
}
