use std::{io::Write, os::unix::net::UnixStream, time::Duration};

use super::*;
use crate::{
    process::{Pidfd, ProcessId},
    testing::{Ending, PATIENCE, Sleeper, in_fork, is_root},
};

/// Runs a shell command to its end and returns what it printed.
fn output(script: &str, with: impl FnOnce(Spawn) -> Spawn) -> String {
    let (mut read, write) = io::pipe().expect("a pipe");
    let mut child = with(Spawn::new("sh").args(["-c", script]).stdout(write)).start().expect("sh is installed");
    let mut text = String::new();
    read.read_to_string(&mut text).expect("a pipe");
    let status = child.wait_timeout(PATIENCE).expect("ours").expect("it closed its output, so it ends");
    assert!(status.success(), "{status}: {text}");
    text
}

#[test]
fn the_child_has_the_descriptors_it_was_given_and_no_others() {
    let held = File::open("/dev/zero").expect("it is there");
    let leak = rustix::io::dup(&held).expect("a descriptor that is not closed at exec");
    let (mut a, b) = UnixStream::pair().expect("a pair");
    let extra = File::open("/proc/self/exe").expect("it is there");
    a.write_all(b"from the socket\n").expect("written");
    // ls opens the directory as 5.
    let text = output("read line; echo $line; echo into four >&4; exec ls -x /proc/self/fd", |s| {
        s.stdin(OwnedFd::from(b.try_clone().expect("a copy"))).descriptor(extra).descriptor(b)
    });
    let (line, fds) = text.split_once('\n').expect("two lines");
    assert_eq!(line, "from the socket");
    assert_eq!(fds.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5"]);
    let mut got = [0; 10];
    a.read_exact(&mut got).expect("fd 4 is the socket");
    assert_eq!(&got, b"into four\n");
    drop((leak, held));
}

#[test]
fn descriptors_that_lie_on_each_others_targets_are_not_mixed_up() {
    // Whatever numbers these get, giving them in reverse makes sources and targets cross.
    let pipes: Vec<_> = (0..4).map(|_| io::pipe().expect("a pipe")).collect();
    let (mut readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
    output("for n in 3 4 5 6; do echo $n >&$n; done", |s| writers.into_iter().rev().fold(s, Spawn::descriptor));
    for (reader, n) in readers.iter_mut().rev().zip(3..) {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("a pipe");
        assert_eq!(text, format!("{n}\n"));
    }
}

#[test]
fn environment_directory_and_session_are_as_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = output("echo $FIRST; echo ${HOME-none}; pwd; cut -d' ' -f1,6 /proc/$$/stat", |s| {
        s.clear_environment().variable("FIRST", "1").directory(dir.path()).session()
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["1", "none", dir.path().to_str().expect("UTF-8")]);
    let (pid, session) = lines[3].split_once(' ').expect("two fields");
    assert_eq!(pid, session);
}

#[test]
fn no_signal_is_blocked_and_a_broken_pipe_is_not_ignored() {
    let text = output("exec grep -E 'SigBlk|SigIgn' /proc/self/status", |s| s);
    let set = |name: &str| {
        let hex = text.lines().find_map(|l| l.strip_prefix(name)).expect("a line").trim();
        u64::from_str_radix(hex, 16).expect("hexadecimal")
    };
    assert_eq!(set("SigBlk:"), 0);
    assert_eq!(set("SigIgn:") & (1 << (libc::SIGPIPE - 1)), 0);
}

#[test]
fn a_start_that_fails_says_at_which_step_and_leaves_no_child() {
    // In a process that has no other children.
    in_fork(|| {
        let e = Spawn::new("/no/such/program").start().expect_err("it does not exist");
        assert_eq!(e.raw_os_error(), Some(libc::ENOENT));
        assert!(e.to_string().contains("/no/such/program: execute it"), "{e}");
        let e = Spawn::new("no-such-program").start().expect_err("it does not exist");
        assert!(e.to_string().contains("in no directory of PATH"), "{e}");
        let e = Spawn::new("sh").directory("/no/such/directory").start().expect_err("it does not exist");
        assert!(e.to_string().contains("enter the directory"), "{e}");
        assert!(matches!(Spawn::new("sh").arg("a\0b").start(), Err(Error::Invalid { .. })));
        assert!(crate::process::descendants(std::process::id()).expect("/proc is mounted").is_empty());
    });
}

#[tokio::test]
async fn the_end_is_awaited_and_told() {
    let mut child = Spawn::new("sh").args(["-c", "exit 7"]).start().expect("sh is installed");
    assert_eq!(child.wait().await.expect("ours").code(), Some(7));
    assert_eq!(child.wait().await.expect("remembered").code(), Some(7));
    let mut child = Spawn::new("sleep").arg("60").start().expect("sleep is installed");
    assert_eq!(child.wait_timeout(Duration::from_millis(10)).expect("ours"), None);
    let status = child.kill().await.expect("ours");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    assert!(matches!(child.signal(Signal::TERM), Err(Error::ProcessGone(_))));
}

#[test]
fn the_death_signal_comes_with_our_sigkill_and_not_with_the_end_of_a_thread() {
    let (mut read, mut write) = io::pipe().expect("a pipe");
    in_fork(move || {
        // A process that starts a child from a thread that ends, and is then killed.
        let child = std::thread::spawn(|| {
            Spawn::new("sleep").arg("60").death_signal(Signal::KILL).start().expect("sleep is installed")
        });
        let mut child = child.join().expect("no panic");
        let early = child.wait_timeout(Duration::from_millis(200)).expect("ours");
        assert_eq!(early, None, "it lives on after the thread");
        write.write_all(child.id().pid().to_string().as_bytes()).expect("a pipe");
        std::mem::forget(child);
    });
    let mut pid = String::new();
    read.read_to_string(&mut pid).expect("a pipe");
    // The forked process is gone; its child has to be.
    if let Ok(id) = ProcessId::of(pid.parse().expect("a number")) {
        let gone = Pidfd::open(&id).map_or(true, |p| p.wait_exited(PATIENCE).expect("poll works"));
        assert!(gone, "the child outlived its parent");
    }
}

#[test]
fn the_child_becomes_another_user() {
    if !is_root("the_child_becomes_another_user") {
        return;
    }
    let text = output("id -u; id -g; id -G; grep CapEff /proc/$$/status", |s| {
        s.identity(Identity { uid: 65534, gid: 65534, groups: vec![4] })
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["65534", "65534", "65534 4"]);
    assert!(lines[3].ends_with("0000000000000000"), "{}", lines[3]);
}

#[test]
fn a_user_without_rights_gets_namespaces_of_its_own_and_another_child_enters_them() {
    let nobody = || Identity { uid: 65534, gid: 65534, groups: Vec::new() };
    let root = is_root("the part as a user without rights");
    let as_user = |s: Spawn| if root { s.identity(nobody()) } else { s };
    let inside = as_user(Spawn::new("sleep").arg("60")).new_user_namespace(UserMap::Root).new_net_namespace().start();
    let inside = match inside {
        Ok(child) => Ending(child),
        Err(e) => return crate::testing::skip("namespaces of its own", e),
    };
    let net = |id: &ProcessId| Namespace::of(id, Kind::Net).expect("ours");
    let id = inside.0.id();
    assert_ne!(net(&id).inode().expect("ours"), Namespace::current(Kind::Net).expect("ours").inode().expect("ours"));

    let user = Namespace::of(&id, Kind::User).expect("ours");
    let expected = format!("net:[{}]\n", net(&id).inode().expect("ours"));
    let text = output("readlink /proc/$$/ns/net; id -u; cat /proc/$$/net/dev | wc -l", |s| {
        as_user(s).enter(net(&id)).enter(user)
    });
    assert_eq!(text, format!("{expected}0\n3\n"), "only lo, as root");
}

#[test]
fn a_dead_process_has_no_namespaces() {
    let mut child = Sleeper::start();
    let id = child.id();
    child.kill_without_reaping();
    child.reap();
    assert!(Namespace::of(&id, Kind::Net).is_err());
}
