//! Stop levers and residue: who may stop what, what becomes of it, and what is said about what was left.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use toprope_model::event::Event;
use toprope_os::process::{Pidfd, ProcessId, ProcessInfo, Signal, State};
use toprope_tests::{Toprope, eventually, network};

/// Far more than it takes: what takes longer was not stopped by the lever.
const SOON: Duration = Duration::from_secs(15);

const NOBODY: [&str; 7] = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"];

/// A host's places for orders and for root's state of a test's own, so that nothing else on this machine is halted.
fn own_host(test: impl FnOnce() + Send) {
    network::own(|| {
        for place in ["/run", "/var/lib"] {
            mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
                .expect("the mounts are ours");
        }
        test();
    });
}

/// A process with a name that no other has, which may be paused.
struct Service {
    child: Child,
    name: String,
}

impl Service {
    fn start(toprope: &Toprope, name: &str) -> Self {
        let name = format!("{name}{}", std::process::id() % 100_000);
        let program = toprope.path(&name);
        std::fs::copy("/bin/sleep", &program).expect("there is room");
        let child = Command::new(&program).arg("600").spawn().expect("it can be started");
        let me = Self { child, name };
        eventually("it runs its own program", || me.info().is_some_and(|i| i.exe == Some(program.clone())));
        me
    }

    fn info(&self) -> Option<ProcessInfo> {
        ProcessInfo::of(self.child.id()).ok()
    }

    fn is_held(&self) -> bool {
        self.info().is_some_and(|info| matches!(info.state, State::Stopped | State::Traced))
    }

    /// An experiment that pauses it for long.
    fn paused(&self, toprope: &Toprope) -> String {
        let spec = format!(
            "probes: [command: {{run: ['true'], interval: 100ms}}]\nsteady-state: {{for: 200ms}}\n\
             method: [process-pause: {{target: {{process: {}}}, for: 60s}}]",
            self.name
        );
        toprope.experiment(&self.name, &spec).to_str().expect("a path of this test").to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Who stopped the last run, and why.
fn stopped_by(events: &[Event]) -> String {
    let stop = events.iter().find_map(|event| match event {
        Event::Stopping(stop) => Some(format!("{}: {}", stop.by, stop.why)),
        _ => None,
    });
    stop.expect("it was stopped")
}

#[test]
fn halt_stops_what_runs_and_forbids_more_until_it_is_lifted() {
    own_host(|| {
        let toprope = Toprope::new();
        let service = Service::start(&toprope, "halted");
        let experiment = service.paused(&toprope);
        let mut run = toprope.start(&["run", "--plain", &experiment]);
        run.until_in_force();
        assert!(service.is_held());
        let asked = Instant::now();
        let halted = toprope.run(&["halt", "--why", "a real outage"]).expect(0);
        assert!(halted.stdout.contains("all runs on this host are stopped"), "{halted}");
        eventually("the target goes on", || !service.is_held());
        println!("from the start of `toprope halt` to clean: {:?}", asked.elapsed());
        assert!(asked.elapsed() < SOON);
        let done = run.wait().expect(5);
        let told = stopped_by(&toprope.events());
        assert!(told.starts_with("halt: ") && told.ends_with("a real outage"), "{told}");
        assert!(done.stdout.contains("a real outage"), "{done}");

        let refused = toprope.run(&["run", &experiment]).expect(5);
        assert!(refused.stderr.contains("a real outage") && refused.stderr.contains("--lift"), "{refused}");
        assert!(toprope.run(&["halt", "--list"]).expect(0).stdout.contains("a real outage"));
        assert_eq!(toprope.runs().len(), 1, "a run that may not begin leaves nothing");
        toprope.run(&["halt", "--lift"]).expect(0);
        assert!(toprope.run(&["halt", "--list"]).expect(0).stdout.contains("nothing is halted"));
        let pause = format!("process-pause: {{target: {{process: {}}}, for: 1s}}", service.name);
        let spec = format!("probes: [command: {{run: ['true'], interval: 100ms}}]\nmethod: [{pause}]");
        let short = toprope.experiment("after", &spec);
        toprope.run(&["run", short.to_str().expect("a path of this test")]).expect(0);
        toprope.assert_clean();
    });
}

#[test]
fn from_the_file_to_clean_it_takes_no_time_that_a_person_notices() {
    own_host(|| {
        let toprope = Toprope::new();
        let service = Service::start(&toprope, "quick");
        let experiment = service.paused(&toprope);
        let mut took = Vec::new();
        for _ in 0..5 {
            let mut run = toprope.start(&["run", "--plain", &experiment]);
            run.until_in_force();
            let asked = Instant::now();
            let file = Path::new("/run/toprope/halt/all");
            std::fs::write(file, "").expect("root's run has made its place");
            eventually("the target goes on", || !service.is_held());
            took.push(asked.elapsed());
            run.wait().expect(5);
            std::fs::remove_file(file).expect("it is there");
        }
        took.sort();
        println!("from the file to clean: {took:?}");
        assert!(took[2] < SOON, "{took:?}");
        toprope.assert_clean();
    });
}

#[test]
fn anybody_can_halt_and_nobody_lifts_what_another_ordered() {
    own_host(|| {
        let toprope = Toprope::new();
        let service = Service::start(&toprope, "anybody");
        let mut run = toprope.start(&["run", "--plain", &service.paused(&toprope)]);
        run.until_in_force();
        let touched = Command::new(NOBODY[0]).args(&NOBODY[1..]).args(["touch", "/run/toprope/halt/all"]).status();
        assert!(touched.expect("setpriv is installed").success());
        eventually("the target goes on", || !service.is_held());
        run.wait().expect(5);
        let told = stopped_by(&toprope.events());
        assert!(told.starts_with("halt: nobody halted all runs at "), "{told}");
        // Root may, another user may not.
        toprope.run(&["halt", "--lift"]).expect(0);
        toprope.run(&["halt"]).expect(0);
        let mut other = toprope.wrapped(&NOBODY, &["halt", "--lift"]);
        other.env("TOPROPE_HOME", "/nonexistent");
        let refused = toprope.spawn(other).wait().expect(2);
        assert!(refused.stderr.contains("another user's"), "{refused}");
        toprope.run(&["halt", "--lift"]).expect(0);
    });
}

#[test]
fn stop_and_halt_of_a_service_stop_what_they_name_and_nothing_else() {
    own_host(|| {
        let (toprope, other) = (Toprope::new(), Toprope::new());
        let (one, two) = (Service::start(&toprope, "one"), Service::start(&other, "two"));
        let mut first = toprope.start(&["run", "--plain", &one.paused(&toprope)]);
        let mut second = other.start(&["run", "--plain", &two.paused(&other)]);
        first.until_in_force();
        second.until_in_force();
        toprope.run(&["stop", "last", "--why", "seen enough"]).expect(0);
        assert!(!one.is_held() && two.is_held());
        first.wait().expect(5);
        assert!(stopped_by(&toprope.events()).ends_with("seen enough"));
        let again = toprope.run(&["stop", "last"]).expect(2);
        assert!(again.stderr.contains("has ended already"), "{again}");

        // By its service, from anywhere on the host.
        toprope.run(&["halt", "--service", "somebody-else"]).expect(0);
        toprope.run(&["halt", "--service", &two.name]).expect(0);
        eventually("the target goes on", || !two.is_held());
        second.wait().expect(5);
        other.run(&["run", &two.paused(&other)]).expect(5);
        toprope.run(&["halt", "--service", &two.name, "--lift"]).expect(0);
        let mut third = other.start(&["run", "--plain", &two.paused(&other)]);
        third.until_in_force();
        other.run(&["stop"]).expect(0);
        third.wait().expect(5);
        toprope.assert_clean();
        other.assert_clean();
    });
}

/// A Toprope whose home another user may write.
fn of_nobody() -> (Toprope, PathBuf) {
    let toprope = Toprope::new();
    for path in [toprope.home(), toprope.path("open")] {
        std::fs::create_dir(&path).expect("it is ours");
        chown(&path, Some(65534), Some(65534)).expect("root may");
    }
    let flag = toprope.path("open/flag");
    (toprope, flag)
}

#[test]
fn residue_does_not_claim_clean_what_it_cannot_see() {
    own_host(|| {
        let (toprope, _) = of_nobody();
        let ask = || toprope.spawn(toprope.wrapped(&NOBODY, &["residue", "--own"])).wait();
        ask().expect(0);
        std::fs::create_dir_all("/var/lib/toprope/journal").expect("root may");
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions("/var/lib/toprope", closed).expect("root may");
        let told = ask().expect(3);
        assert!(told.stdout.contains("not known to be clean") && !told.stdout.starts_with("clean"), "{told}");
        assert!(told.stdout.contains("/var/lib/toprope/journal"), "{told}");
        assert!(told.stdout.contains("sudo toprope residue"), "{told}");
    });
}

#[test]
fn under_sudo_every_command_speaks_for_roots_journal() {
    own_host(|| {
        let (toprope, flag) = of_nobody();
        let path = flag.display();
        let spec = format!(
            "probes: [command: {{run: ['true'], interval: 50ms}}]\nsteady-state: {{for: 200ms}}\nmethod:\n\
             - command: {{apply: [touch, {path}], check: [test, -e, {path}], undo: [rm, -f, {path}], for: 60s}}"
        );
        let experiment = toprope.experiment("sudo", &spec);
        let sudo = |args: &[&str]| {
            let mut command = toprope.command(args);
            command.env("SUDO_UID", "65534").env("SUDO_USER", "nobody");
            command
        };
        let mut run = toprope.spawn(sudo(&["run", "--plain", experiment.to_str().expect("a path of this test")]));
        run.until_in_force();
        assert!(flag.exists());
        let all: Vec<ProcessId> = toprope.all_processes().into_iter().map(|p| p.id).collect();
        let held: Vec<Pidfd> = all.iter().filter_map(|id| Pidfd::open(id).ok()).collect();
        held.iter().for_each(|process| process.signal(Signal::KILL).expect("it is ours"));
        run.wait();
        assert!(flag.exists(), "nobody was left to undo it");

        let left = toprope.spawn(sudo(&["residue", "--own"])).wait().expect(4);
        assert!(left.stdout.contains("/var/lib/toprope/journal"), "{left}");
        let id = left.stdout.split("toprope undo ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let id = id.expect("how it is undone").to_owned();
        toprope.spawn(sudo(&["undo", &id])).wait().expect(0);
        assert!(!flag.exists());
        toprope.spawn(sudo(&["residue", "--own"])).wait().expect(0);
    });
}

#[test]
fn the_unit_is_printed_and_refused_where_there_is_no_systemd() {
    own_host(|| {
        let toprope = Toprope::new();
        let printed = toprope.run(&["install-guard", "--print"]).expect(0);
        let start = format!("ExecStart={} undo", toprope.binary().display());
        assert!(printed.stdout.lines().any(|line| line == start), "{printed}");
        let refused = toprope.run(&["install-guard"]).expect(2);
        assert!(refused.stderr.contains("systemd does not run this machine"), "{refused}");
    });
}
