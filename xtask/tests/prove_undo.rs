//! `cargo xtask prove-undo` sees what faults leave, class by class, and a sample of rounds leaves nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn xtask() -> Command {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
}

/// The binary under test, as everything was built.
fn toprope() -> PathBuf {
    let built = || Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("toprope");
    std::env::var_os("TOPROPE_BINARY").map_or_else(built, PathBuf::from)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether sandboxes can be made; says why not.
fn can_run() -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "it needs root"
    } else if !toprope().exists() {
        "toprope is not built: build the whole workspace"
    } else {
        return true;
    };
    println!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("a test"));
    false
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).exists())
}

/// Every leak of a class is caught, and told as one of that class.
fn is_caught(class: &str) {
    if !can_run() {
        return;
    }
    let listed = xtask().args(["prove-undo", "--leak", "list"]).output().expect("xtask can be started");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let leaks: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(leak, _)| leak.split('/').next() == Some(class))
        .collect();
    assert!(!leaks.is_empty(), "nothing leaks of {class}");
    for (leak, needs) in leaks {
        if !is_there(needs) {
            println!("SKIPPED {leak}: there is no {needs}");
            continue;
        }
        let output = xtask().args(["prove-undo", "--leak", leak, "--toprope"]).arg(toprope()).output();
        let output = output.expect("xtask can be started");
        assert!(output.status.success(), "{leak}: {}", text(&output));
        let told = text(&output);
        assert!(told.lines().any(|line| line.starts_with(&format!("{class}: "))), "{leak} is named: {told}");
    }
}

macro_rules! a_leak_is_caught {
    ($($class:ident),* $(,)?) => {
        $(#[test] fn $class() { is_caught(stringify!($class)); })*
        #[test]
        fn every_class_is_tested() {
            let tested = [$(stringify!($class)),*];
            let listed = xtask().args(["prove-undo", "--leak", "list"]).output().expect("xtask can be started");
            let listed = String::from_utf8(listed.stdout).expect("text");
            for leak in listed.lines() {
                let class = leak.split('/').next().expect("a class comes first");
                assert!(tested.contains(&class), "no test for the leaks of {class}");
            }
        }
    };
}

mod a_leak_is_caught_in {
    use super::*;

    a_leak_is_caught! {
        addresses, bpf, cgroups, files, iptables, links, mounts, nftables, processes, qdiscs, routes, rules, sockets,
        space, sysctls,
    }

    /// No namespace holds the clock, but one can hold the time since the boot, from which it is told.
    #[test]
    fn clock() {
        if !can_run() {
            return;
        }
        let offset = |wrapper: &[&str]| -> i64 {
            let words: Vec<&str> = [wrapper, &[env!("CARGO_BIN_EXE_xtask"), "prove-undo", "--look", "clock"]].concat();
            let output = Command::new(words[0]).args(&words[1..]).output().expect("it can be started");
            assert!(output.status.success(), "{}", text(&output));
            let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let offset = seen["clock"]["wall clock minus time since boot"].as_str().expect("the fact");
            offset.trim_end_matches(" ms").parse().expect("a number")
        };
        let (here, there) = (offset(&[]), offset(&["unshare", "--time", "--boottime", "100", "--"]));
        let shift = here - there;
        assert!((99_000..101_000).contains(&shift), "a clock that is 100 s off is seen: {here} and {there}");
    }
}

/// A part of `make prove-undo`: every kind of death once.
#[test]
fn a_sample_of_rounds_leaves_nothing() {
    if !can_run() {
        return;
    }
    let results = tempfile::NamedTempFile::new().expect("there is room");
    let mut command = xtask();
    command
        .args(["prove-undo", "--sample", "--jobs", "2", "--toprope"])
        .arg(toprope())
        .arg("--out")
        .arg(results.path());
    let output = command.output().expect("xtask can be started");
    assert!(output.status.success(), "{}", text(&output));
}
