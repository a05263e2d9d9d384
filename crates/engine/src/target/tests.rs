use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use toprope_model::{FromNode, Node, Problems};

use super::*;

/// Programs of names that nothing else on the machine has.
struct Programs {
    directory: tempfile::TempDir,
    running: Vec<Child>,
}

impl Programs {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory"), running: Vec::new() }
    }

    /// Starts a copy of `sleep` under another name.
    fn start(&mut self, name: &str) -> u32 {
        self.run(name, |command| command.arg("600"))
    }

    fn run(&mut self, name: &str, set: impl FnOnce(&mut Command) -> &mut Command) -> u32 {
        let program = self.directory.path().join(name);
        if !program.exists() {
            let sleep = std::env::split_paths(&std::env::var_os("PATH").expect("a PATH"))
                .map(|d| d.join("sleep"))
                .find(|p| p.exists())
                .expect("sleep is installed");
            std::fs::copy(sleep, &program).expect("space for a small file");
        }
        let child = start_when_free(set(&mut Command::new(&program)));
        let pid = child.id();
        self.running.push(child);
        pid
    }
}

/// Another thread's fork may hold our freshly written program open for writing for a moment (ETXTBSY).
fn start_when_free(command: &mut Command) -> Child {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other.expect("it starts"),
        }
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for child in &mut self.running {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn host() -> Host {
    Host {
        services: vec![],
        own: vec![],
        invoking_user: None,
        directory: PathBuf::from("/"),
        person: None,
        pass_throughs: vec![],
        pass_through: None,
    }
}

fn target(json: serde_json::Value) -> Target {
    let mut problems = Problems::default();
    Target::from_node(&Node::from_json(&json), &mut problems).unwrap_or_else(|| panic!("{problems}"))
}

fn pids(json: serde_json::Value, host: &Host) -> Vec<u32> {
    let found = resolve(&target(json), 7, host).unwrap_or_else(|e| panic!("{e}"));
    let mut pids: Vec<u32> = found.picked.iter().map(|p| p.id.pid()).collect();
    pids.sort_unstable();
    pids
}

fn refusal(json: serde_json::Value, host: &Host) -> (String, String) {
    let error = resolve(&target(json), 7, host).expect_err("it is refused");
    (error.message, error.help.unwrap_or_default())
}

#[test]
fn every_key_that_is_given_must_match() {
    let mut programs = Programs::new();
    let one = programs.start("tpt-both");
    let two = programs.run("tpt-both", |c| c.arg("601"));
    assert_eq!(pids(serde_json::json!({"process": "tpt-both"}), &host()), [one, two]);
    let narrow = serde_json::json!({"process": "tpt-both", "command-line": "tpt-both 601$"});
    assert_eq!(pids(narrow, &host()), [two]);
    let uid = ProcessInfo::of(one).expect("it runs").uid;
    assert_eq!(pids(serde_json::json!({"pid": one, "user": uid.to_string()}), &host()), [one]);
    let (message, help) = refusal(serde_json::json!({"process": "tpt-both", "user": "4000000000"}), &host());
    assert!(message.contains("process tpt-both: 2, user 4000000000: 0"), "{message}");
    assert!(!help.is_empty());
}

#[test]
fn a_name_longer_than_the_kernel_keeps_is_found_by_its_program() {
    let mut programs = Programs::new();
    let name = "tpt-a-name-of-more-than-fifteen-bytes";
    let pid = programs.start(name);
    assert_eq!(pids(serde_json::json!({"process": name}), &host()), [pid]);
    assert_eq!(pids(serde_json::json!({"process": &name[..15]}), &host()), [pid]);
}

#[test]
fn a_misspelt_name_is_answered_with_the_nearest() {
    let mut programs = Programs::new();
    programs.start("tpt-nginks");
    let (message, help) = refusal(serde_json::json!({"process": "tpt-ngniks"}), &host());
    assert!(message.contains("no process matches: process tpt-ngniks"), "{message}");
    assert_eq!(help, "did you mean `tpt-nginks`?");
}

#[test]
fn toprope_and_what_it_started_are_never_targets() {
    let mut programs = Programs::new();
    let own = programs.start("tpt-own");
    let other = programs.start("tpt-own");
    let host = Host { own: vec![own as i32], ..host() };
    let found = resolve(&target(serde_json::json!({"process": "tpt-own"})), 7, &host).expect("one is left");
    assert_eq!((found.matched, found.picked[0].id.pid()), (1, other));
    assert!(found.warnings[0].contains(&format!("tpt-own (pid {own})")), "{:?}", found.warnings);
    let (message, _) = refusal(serde_json::json!({"pid": own}), &host);
    assert!(message.contains("Toprope itself"), "{message}");
    let only_own = Host { own: vec![own as i32, other as i32], ..host };
    let (message, help) = refusal(serde_json::json!({"process": "tpt-own"}), &only_own);
    assert!(message.contains("nothing but 2 processes that are never a target") && !help.is_empty(), "{message}");
}

/// A shell and the `sleep` that it started.
#[expect(clippy::zombie_processes, reason = "end_family waits for it")]
fn start_family() -> (Child, process::ProcessId) {
    let shell = Command::new("sh").args(["-c", "sleep 600 & wait"]).spawn().expect("a shell");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let children = process::descendants(shell.id()).expect("/proc is mounted");
        let sleeps = |id: &process::ProcessId| ProcessInfo::of(id.pid()).is_ok_and(|p| p.name == "sleep");
        if let Some(id) = children.into_iter().find(sleeps) {
            return (shell, id);
        }
        assert!(Instant::now() < deadline, "the shell starts a child");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn end_family(mut shell: Child, child: process::ProcessId) {
    let pidfd = process::Pidfd::open(&child).expect("it runs");
    pidfd.signal(process::Signal::KILL).expect("our own");
    shell.wait().expect("its only child is gone");
}

#[test]
fn a_tree_is_a_process_and_all_below_it() {
    let (shell, child) = start_family();
    let root = ProcessInfo::of(shell.id()).expect("it waits");
    let family = with_descendants(vec![root.clone()], &host()).map(|f| f.iter().map(|p| p.id).collect::<Vec<_>>());
    let spared = with_descendants(vec![root.clone()], &Host { own: vec![child.pid() as i32], ..host() });
    end_family(shell, child);
    assert_eq!(family.expect("/proc is mounted"), [root.id, child]);
    assert_eq!(spared.expect("/proc is mounted").len(), 1, "what is Toprope's own is left out");
}

#[test]
fn children_of_the_run_are_its_own() {
    let (shell, child) = start_family();
    let host = Host { own: vec![shell.id() as i32], ..host() };
    let (message, _) = refusal(serde_json::json!({"pid": child.pid()}), &host);
    end_family(shell, child);
    assert!(message.contains("was started by it"), "{message}");
}

#[test]
fn an_injector_of_the_same_program_is_toprope() {
    // Described as this very program with that argument, under the number of a process that runs.
    let mut programs = Programs::new();
    let me = process::processes().expect("/proc is mounted");
    let mut injector = me.iter().find(|p| p.id.pid() == std::process::id()).expect("this process").clone();
    let pid = programs.start("tpt-injector");
    injector.id = process::ProcessId::of(pid).expect("it runs");
    injector.cmdline = vec!["toprope".into(), "injector".into()];
    let mut all = me;
    all.push(injector.clone());
    assert_eq!(Untouchable::of(&all, &host()).why(&injector), Some(Spared::Own));
    // Of another copy of the program, which was replaced since.
    let file =
        injector.exe.as_ref().and_then(|exe| exe.file_name()).expect("a program").to_str().expect("plain").to_owned();
    injector.exe = Some(format!("/elsewhere/{file} (deleted)").into());
    all.pop();
    all.push(injector.clone());
    assert_eq!(Untouchable::of(&all, &host()).why(&injector), Some(Spared::Own));
    // Another run in its steady state has no injector yet. The demo's shop is a system under test.
    for (role, spared) in [("run", Some(Spared::Other)), ("exec", Some(Spared::Other)), ("shop", None)] {
        injector.cmdline = vec!["toprope".into(), role.into()];
        all.pop();
        all.push(injector.clone());
        assert_eq!(Untouchable::of(&all, &host()).why(&injector), spared, "{role}");
    }
    // A program that has the name, and is not this one.
    injector.exe = Some("/usr/bin/toprope".into());
    injector.cmdline = vec!["toprope".into(), "test".into()];
    all.pop();
    all.push(injector.clone());
    assert_eq!(Untouchable::of(&all, &host()).why(&injector), Some(Spared::Other));
    injector.exe = Some(format!("/elsewhere/{file}").into());
    injector.cmdline = vec!["toprope".into(), "server".into()];
    all.pop();
    all.push(injector.clone());
    assert_eq!(Untouchable::of(&all, &host()).why(&injector), None);
}

#[test]
fn init_the_kernel_and_our_parents_are_refused() {
    let (message, _) = refusal(serde_json::json!({"pid": 1}), &host());
    assert!(message.contains("the whole system"), "{message}");
    let parent = std::os::unix::process::parent_id();
    if parent > 1 {
        let (message, _) = refusal(serde_json::json!({"pid": parent}), &host());
        assert!(message.contains("started from"), "{message}");
    }
    if let Some(kernel) = process::processes().expect("/proc is mounted").iter().find(|p| p.kernel_thread) {
        let (message, _) = refusal(serde_json::json!({"pid": kernel.id.pid()}), &host());
        assert!(message.contains("thread of the kernel"), "{message}");
    }
    let everything = resolve(&target(serde_json::json!({"host": true, "pick": "all"})), 7, &host());
    if let Ok(found) = everything {
        assert!(found.picked.iter().all(|p| p.id.pid() != 1 && p.id.pid() != std::process::id() && !p.kernel_thread));
    }
}

#[test]
fn the_seed_alone_decides_who_is_picked() {
    let mut programs = Programs::new();
    for _ in 0..6 {
        programs.start("tpt-pick");
    }
    let pick = |pick: &str, seed| {
        let found = resolve(&target(serde_json::json!({"process": "tpt-pick", "pick": pick})), seed, &host());
        let found = found.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(found.matched, 6);
        found.texts()
    };
    assert_eq!(pick("one", 1), pick("one", 1));
    assert_eq!(pick("50%", 1).len(), 3);
    assert_eq!(pick("2", 5).len(), 2);
    assert_eq!(pick("all", 5).len(), 6);
    let different: HashSet<Vec<String>> = (0..40).map(|seed| pick("one", seed)).collect();
    assert!(different.len() > 3, "forty seeds pick among six: {different:?}");
    let (message, help) = refusal(serde_json::json!({"process": "tpt-pick", "pick": "10%"}), &host());
    assert!(message.contains("10% of the 6 that match is none") && help.contains("pick: one"), "{message}");
    let many = resolve(&target(serde_json::json!({"process": "tpt-pick", "pick": "9"})), 1, &host()).expect("six");
    assert!(many.warnings[0].contains("only 6 of the 9"), "{:?}", many.warnings);
}

/// Gives a program a listening socket as its standard input, as inetd would.
fn start_listener(programs: &mut Programs, name: &str) -> (u32, u16) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = socket.local_addr().expect("it is bound").port();
    let program = programs.directory.path().join(name);
    programs.start(name);
    let mut first = programs.running.pop().expect("it was started");
    first.kill().expect("our own");
    first.wait().expect("our own");
    let listening = || {
        let stdin: std::os::fd::OwnedFd = socket.try_clone().expect("a descriptor").into();
        Command::new(&program).arg("600").arg0(name).stdin(stdin).stdout(Stdio::null()).spawn()
    };
    let child = listening().expect("it was started a moment ago");
    let pid = child.id();
    programs.running.push(child);
    (pid, port)
}

#[test]
fn a_listener_is_found_by_its_port() {
    let mut programs = Programs::new();
    let (pid, port) = start_listener(&mut programs, "tpt-listens");
    assert_eq!(pids(serde_json::json!({"port": port}), &host()), [pid]);
    let free = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound").port();
    let (message, help) = refusal(serde_json::json!({"port": free}), &host());
    assert!(message.contains(&format!("port {free}")) && help.contains("ss -ltn"), "{message}");
}

#[test]
fn a_service_is_found_by_what_the_topology_says_of_it() {
    let mut programs = Programs::new();
    let (pid, port) = start_listener(&mut programs, "tpt-service");
    let facts = |name: &str, process: Option<&str>, address: Option<String>| ServiceFacts {
        name: name.into(),
        process: process.map(str::to_owned),
        command_line: None,
        unit: None,
        address,
    };
    let host = Host {
        services: vec![
            facts("by-address", None, Some(format!("127.0.0.1:{port}"))),
            facts("by-process", Some("tpt-service"), Some("192.0.2.1:80".into())),
            facts("elsewhere", None, Some(format!("192.0.2.1:{port}"))),
            facts("vague", None, None),
        ],
        ..host()
    };
    assert_eq!(pids(serde_json::json!({"service": "by-address"}), &host), [pid]);
    assert_eq!(pids(serde_json::json!({"service": "by-process"}), &host), [pid]);
    let (message, _) = refusal(serde_json::json!({"service": "elsewhere"}), &host);
    assert!(message.contains("no address of this host"), "{message}");
    let (message, _) = refusal(serde_json::json!({"service": "vague"}), &host);
    assert!(message.contains("does not say which processes"), "{message}");
    let (message, help) = refusal(serde_json::json!({"service": "by-adress"}), &host);
    assert!(message.contains("no service `by-adress`") && help.contains("by-address"), "{message} {help}");
}

#[test]
fn control_groups_and_units_match_whole_names() {
    let mut me = ProcessInfo::of(std::process::id()).expect("this process");
    me.cgroups =
        vec![process::CgroupMembership { controllers: vec![], path: "/system.slice/nginx.service/worker".into() }];
    for (cgroup, holds) in [
        ("/system.slice", true),
        ("system.slice/nginx.service/", true),
        ("/system.slice/nginx", false),
        ("/nginx.service", false),
        ("/", true),
    ] {
        assert_eq!(in_cgroup(&me, cgroup), holds, "{cgroup}");
    }
    for (unit, holds) in
        [("nginx", true), ("nginx.service", true), ("system.slice", true), ("worker", false), ("ngin", false)]
    {
        assert_eq!(in_unit(&me, unit), holds, "{unit}");
    }
}

#[test]
fn the_ended_are_not_there() {
    let mut programs = Programs::new();
    let pid = programs.start("tpt-ended");
    let child = programs.running.last_mut().expect("it was started");
    let id = process::ProcessId::of(pid).expect("it runs");
    child.kill().expect("our own");
    assert!(process::Pidfd::open(&id).expect("a zombie").wait_exited(Duration::from_secs(20)).expect("poll works"));
    // Not reaped yet: a zombie.
    refusal(serde_json::json!({"process": "tpt-ended"}), &host());
    refusal(serde_json::json!({"pid": pid}), &host());
}
