//! What goes wrong around a run: targets that die, rights and disks that are missing, other runs, homes that are not to be
//! trusted. Each ends undone, and told.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command};
use std::time::Duration;

use nix::mount::MsFlags;
use toprope_model::event::Event;
use toprope_os::process::{Pidfd, ProcessInfo, Signal, State};
use toprope_tests::programs::installed;
use toprope_tests::{Toprope, eventually, is_root, network, skip};

/// A process that does nothing, and ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let sleeper = Self(Command::new("sleep").arg("600").spawn().expect("sleep is installed"));
        eventually("sleep sleeps", || {
            ProcessInfo::of(sleeper.pid()).is_ok_and(|p| p.name == "sleep" && p.state == State::Sleeping)
        });
        sleeper
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn is_held(&self) -> bool {
        ProcessInfo::of(self.pid()).is_ok_and(|p| matches!(p.state, State::Stopped | State::Traced))
    }

    fn kill(&mut self) {
        self.0.kill().expect("our own child");
        self.0.wait().expect("our own child");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pause(toprope: &Toprope, name: &str, pid: u32, time: &str) -> String {
    let spec = format!(
        "probes: [command: {{run: ['true'], interval: 100ms}}]\n\
         method: [process-pause: {{target: {{pid: {pid}}}, for: {time}}}]"
    );
    toprope.experiment(name, &spec).to_str().expect("a path of this test").to_owned()
}

#[test]
fn a_target_that_dies_during_the_run_makes_it_inconclusive_at_once() {
    let (toprope, mut sleeper) = (Toprope::new(), Sleeper::start());
    let mut run = toprope.start(&["run", &pause(&toprope, "dies", sleeper.pid(), "20s")]);
    run.until_in_force();
    sleeper.kill();
    let done = run.wait().expect(3);
    assert!(done.took < Duration::from_secs(15), "it waited for a dead process: {done}");
    let why = toprope.events().into_iter().find_map(|e| match e {
        Event::Ended { why, .. } => Some(why),
        _ => None,
    });
    let why = why.expect("the end of the fault is told");
    assert!(why.contains(&sleeper.pid().to_string()), "{why}");
    assert!(done.stdout.contains("INCONCLUSIVE"), "{done}");
    toprope.assert_clean();
}

#[test]
fn neither_toprope_nor_what_it_was_started_from_is_ever_a_target() {
    let toprope = Toprope::new();
    let itself = ["sh", "-c", "exec \"$@\" target.pid=$$", "sh"];
    let its_shell = ["sh", "-c", "\"$@\" target.pid=$$; exit $?", "sh"];
    for wrapper in [itself, its_shell] {
        let done = toprope.spawn(toprope.wrapped(&wrapper, &["inject", "process-kill"])).wait().expect(2);
        assert!(done.stderr.contains("cannot be a target"), "{done}");
    }
    let init = toprope.run(&["inject", "process-kill", "target.pid=1"]).expect(2);
    assert!(init.stderr.contains("cannot be a target"), "{init}");
    assert!(toprope.runs().is_empty());
    toprope.assert_clean();
}

#[test]
fn nor_is_another_toprope_that_holds_a_fault() {
    let (toprope, other, sleeper) = (Toprope::new(), Toprope::new(), Sleeper::start());
    let mut run = other.start(&["run", &pause(&other, "others", sleeper.pid(), "60s")]);
    run.until_in_force();
    let injector = run.injectors()[0];
    for id in [run.id(), injector] {
        let target = format!("target.pid={}", id.pid());
        // Only planned: what is wrong here must not end a run.
        let manifest = toprope
            .run(&["inject", "process-kill", &target, "--probe", "http://127.0.0.1:9/", "--print"])
            .expect(0)
            .stdout;
        toprope.write("kill.yaml", manifest);
        let done = toprope.run(&["plan", "kill.yaml"]).expect(2);
        assert!(done.stderr.contains("cannot be a target"), "{done}");
    }
    run.signal(toprope_os::process::Signal::INT);
    run.wait().expect(5);
    other.assert_clean();
}

#[test]
fn nor_is_another_toprope_that_watches_a_steady_state() {
    let (toprope, other, sleeper) = (Toprope::new(), Toprope::new(), Sleeper::start());
    let spec = format!(
        "steady-state: {{for: 60s}}\nprobes: [command: {{run: ['true'], interval: 100ms}}]\n\
         method: [process-pause: {{target: {{pid: {}}}, for: 1s}}]",
        sleeper.pid()
    );
    let mut run = other.start(&["run", other.experiment("watching", &spec).to_str().expect("a path of this test")]);
    run.until("it watches", |event| matches!(event, toprope_model::event::Event::Sample(_)));
    let plan = format!(
        "probes: [command: {{run: ['true']}}]\nmethod: [process-pause: {{target: {{pid: {}}}, for: 1s}}]",
        run.id().pid()
    );
    let plan = toprope.experiment("plan", &plan);
    let done = toprope.run(&["plan", plan.to_str().expect("a path of this test")]).expect(2);
    assert!(done.stderr.contains("cannot be a target: it is another run of"), "{done}");
    run.signal(toprope_os::process::Signal::INT);
    run.wait().expect(5);
    other.assert_clean();
}

#[test]
fn without_the_right_to_do_it_a_fault_is_refused_with_what_would_work() {
    if !is_root() {
        return;
    }
    let (toprope, sleeper) = (Toprope::new(), Sleeper::start());
    std::fs::create_dir(toprope.home()).unwrap();
    chown(toprope.home(), Some(65534), Some(65534)).unwrap();
    let nobody = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"];
    let target = format!("target.pid={}", sleeper.pid());
    let to = ["to=127.0.0.1:9", "from.host=true", "--for", "1s"];
    for (args, helps) in [
        (vec!["process-kill", &target], &["Operation not permitted", "as root or as the process's user"][..]),
        (vec!["process-pause", &target, "--for", "1s"], &["as root or as the process's user"]),
        ([&["network-latency", "delay=1s"], &to[..]].concat(), &["CAP_NET_ADMIN", "toprope exec", "listen:"]),
        ([&["network-partition"], &to[..]].concat(), &["CAP_NET_ADMIN", "toprope exec"]),
        ([&["network-loss", "loss=10%"], &to[..]].concat(), &["CAP_NET_ADMIN", "toprope exec"]),
    ] {
        let done = toprope.spawn(toprope.wrapped(&nobody, &[&["inject"], args.as_slice()].concat())).wait().expect(2);
        // Told in lines of a terminal's width.
        let told = done.stderr.replace("\n  │", "").split_whitespace().collect::<Vec<_>>().join(" ");
        for help in helps {
            assert!(told.contains(help), "{args:?}: no {help:?} in {told}");
        }
    }
    assert!(sleeper.0.id() > 0 && !sleeper.is_held());
    // What needs no rights works.
    let manifest = toprope.experiment(
        "unprivileged",
        "probes: [command: {run: ['true'], interval: 50ms}]\nmethod: [memory-stress: {amount: 1MiB, for: 500ms}]",
    );
    let run = toprope.wrapped(&nobody, &["run", manifest.to_str().expect("a path of this test")]);
    toprope.spawn(run).wait().expect(0);
    let residue = toprope.spawn(toprope.wrapped(&nobody, &["residue", "--own", "--json"])).wait();
    toprope.assert_nothing_own(&residue);
    // Root does not take over what somebody else wrote for it.
    assert!(toprope.run(&["residue"]).expect(2).stderr.contains("belongs to user 65534"));
}

#[test]
fn a_command_in_a_network_of_its_own_sees_the_user_that_it_is_and_a_process_list_names_toprope() {
    if !is_root() {
        return;
    }
    let toprope = Toprope::new();
    std::fs::create_dir(toprope.home()).unwrap();
    chown(toprope.home(), Some(65534), Some(65534)).unwrap();
    let nobody = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"];
    let sees = "id -u; id -g; grep CapEff /proc/self/status; ps -eo comm=,args=; exec 3<>/dev/tcp/127.0.0.1/9; true";
    let args = ["exec", "--fault", "network-partition to=127.0.0.1:9 action=drop", "--timeout", "3s", "--"];
    let args = [&args[..], &["timeout", "1", "bash", "-c", sees]].concat();
    let done = toprope.spawn(toprope.wrapped(&nobody, &args)).wait();
    if done.stderr.contains("that cannot be had") {
        return skip(&done.stderr);
    }
    let seen = format!("{}{}", done.stdout, done.stderr);
    assert!(seen.contains("65534\n65534\n"), "{done}");
    assert!(seen.contains("CapEff:\t0000000000000000"), "{done}");
    for line in
        ["toprope         toprope injector network-partition", "toprope         toprope guard network-partition"]
    {
        assert!(seen.contains(line), "no {line:?}: {done}");
    }
    toprope.assert_nothing_own(&toprope.spawn(toprope.wrapped(&nobody, &["residue", "--own", "--json"])).wait());
}

#[test]
fn two_faults_that_take_the_same_are_refused_at_plan_when_they_are_in_parallel() {
    let toprope = Toprope::new();
    let at = |group: &str| {
        let faults =
            "[{cpu-stress: {load: 5%, cores: 1, for: 1s}}, {cpu-stress: {name: two, load: 5%, cores: 1, for: 1s}}]";
        toprope.experiment(group, &format!("probes: [command: {{run: ['true']}}]\nmethod: [{group}: {faults}]"))
    };
    let path = |group: &str| at(group).to_str().expect("a path of this test").to_owned();
    let refused = toprope.run(&["plan", &path("parallel")]).expect(2);
    let told = refused.stderr.replace("\n  │", "").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("`cpu-stress` has taken core 0 at the same time"), "{refused}");
    assert!(told.contains("without `parallel`"), "{refused}");
    assert!(toprope.run(&["run", &path("parallel")]).expect(2).stderr.contains("at the same time"));
    toprope.run(&["plan", &path("serial")]).expect(0);
}

#[test]
fn a_full_disk_ends_the_run_undone_and_leaves_its_log_readable() {
    network::own(|| {
        let (toprope, sleeper) = (Toprope::new(), Sleeper::start());
        std::fs::create_dir(toprope.home()).unwrap();
        let size = Some("size=2m");
        nix::mount::mount(Some("tmpfs"), &toprope.home(), Some("tmpfs"), MsFlags::empty(), size).unwrap();

        let mut run = toprope.start(&["run", &pause(&toprope, "full", sleeper.pid(), "20s")]);
        run.until_in_force();
        assert!(sleeper.is_held());
        let before = run.records().len();
        let filler = toprope.home().join("filler");
        // Until nothing more fits, which the run may have made use of in between.
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write(&mut file, &[0; 512]).is_ok_and(|n| n > 0) {}
        let done = run.wait();
        assert!(matches!(done.code, Some(3..=5)), "{done}");
        assert!(done.took < Duration::from_secs(15), "{done}");
        assert!(done.stdout.contains("No space left on device"), "{done}");
        assert!(!done.stderr.contains("panicked"), "{done}");
        eventually("the target goes on", || !sleeper.is_held());

        // What was written up to then can be read, and is whole.
        let records = toprope.log().records;
        assert!(records.len() >= before, "{} events of {before} are left", records.len());
        assert!(records.iter().any(|r| matches!(r.event, Event::Injected { .. })));

        // With room again, all goes on.
        drop(file);
        std::fs::remove_file(&filler).unwrap();
        toprope.run(&["undo"]).expect(0);
        toprope.run(&["report", "--verify"]).expect(0);
        toprope.run(&["run", &pause(&toprope, "again", sleeper.pid(), "500ms")]).expect(0);
        toprope.assert_clean();
        nix::mount::umount2(&toprope.home(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn a_disk_that_is_full_before_keeps_everything_from_being_injected() {
    network::own(|| {
        let (toprope, sleeper) = (Toprope::new(), Sleeper::start());
        std::fs::create_dir(toprope.home()).unwrap();
        let size = Some("size=64k");
        nix::mount::mount(Some("tmpfs"), &toprope.home(), Some("tmpfs"), MsFlags::empty(), size).unwrap();
        let done = toprope.run(&["run", &pause(&toprope, "full", sleeper.pid(), "20s")]).expect(2);
        assert!(done.stderr.contains("No space left on device"), "{done}");
        assert!(!sleeper.is_held() && toprope.runs().is_empty());
        toprope.assert_clean();
        nix::mount::umount2(&toprope.home(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn a_second_run_on_the_same_target_is_refused_and_one_on_another_is_not() {
    let (toprope, one, two) = (Toprope::new(), Sleeper::start(), Sleeper::start());
    let mut first = toprope.start(&["run", &pause(&toprope, "first", one.pid(), "60s")]);
    first.until_in_force();
    let same = toprope.run(&["run", &pause(&toprope, "second", one.pid(), "1s")]).expect(2);
    assert!(same.stderr.contains("stopped already") || same.stderr.contains("already taken"), "{same}");
    assert!(same.stderr.contains("help:") || same.stderr.contains("toprope undo"), "{same}");
    toprope.run(&["run", &pause(&toprope, "third", two.pid(), "500ms")]).expect(0);
    assert!(one.is_held(), "the first run's fault was touched");
    // Ended when it has been seen, however long the others took.
    first.signal(Signal::INT);
    first.wait().expect(5);
    assert!(!one.is_held() && !two.is_held());
    toprope.assert_clean();
}

#[test]
fn what_a_run_of_another_home_has_taken_is_refused_until_it_is_over() {
    let (one, other) = (Toprope::new(), Toprope::new());
    let file = one.path("taken");
    let fault = "{apply: [touch, taken], check: [test, -e, LOOKED], undo: [rm, -f, taken], for: 60s}";
    let spec = format!("probes: [command: {{run: ['true']}}]\nmethod: [command: {fault}]");
    // What they do is the same, in the same directory; what the second one would look at is its own.
    let first = one.experiment("first", &spec.replace("LOOKED", "taken"));
    let second = one.experiment("second", &spec.replace("LOOKED", "other"));
    let second = second.to_str().expect("a path of this test");
    let of_other = |args: &[&str]| {
        let mut command = other.command(args);
        command.current_dir(one.directory());
        other.spawn(command).wait()
    };
    let mut run = one.start(&["run", first.to_str().expect("a path of this test")]);
    run.until_in_force();
    for command in ["plan", "run"] {
        let refused = of_other(&[command, second]).expect(2);
        assert!(refused.stderr.contains("is already taken by"), "{refused}");
        assert!(refused.stderr.contains("toprope injector command"), "it says by whom: {refused}");
        assert!(refused.stderr.contains("toprope undo"), "and what to do: {refused}");
    }
    assert!(file.exists(), "the first run's fault was touched");
    run.signal(Signal::INT);
    run.wait().expect(5);
    of_other(&["plan", second]).expect(0);
    // One that was killed has nothing any more, either.
    let mut run = one.start(&["run", first.to_str().expect("a path of this test")]);
    run.until_in_force();
    run.injectors().iter().for_each(|injector| Pidfd::open(injector).unwrap().signal(Signal::KILL).unwrap());
    run.wait();
    of_other(&["plan", second]).expect(0);
    one.assert_clean();
    other.assert_clean();
}

#[test]
fn a_measurement_that_takes_its_time_keeps_no_fault_in_force() {
    let toprope = Toprope::new();
    let (file, slow) = (toprope.path("flag"), toprope.path("slow"));
    let (file, slow) = (file.display(), slow.display());
    // The first look, by which it is seen to be in force, is quick.
    let check = format!("test -e {file} || exit 1; test -e {slow} && sleep 60; touch {slow}");
    let spec = format!(
        "probes: [command: {{run: ['true']}}]\n\
         method: [command: {{apply: [touch, {file}], check: [sh, -c, '{check}'], undo: [rm, -f, {file}], for: 2s}}]"
    );
    let done = toprope.run(&["run", toprope.experiment("slow", &spec).to_str().expect("a path of this test")]);
    assert!(matches!(done.code, Some(0 | 3)), "{done}");
    let log = toprope.log();
    let at = |wanted: fn(&Event) -> bool| log.records.iter().find(|r| wanted(&r.event)).expect("it happened").at;
    let held = at(|e| matches!(e, Event::Undoing { .. })) - at(|e| matches!(e, Event::Injected { .. }));
    // Two measurements of five seconds each would end after ten.
    assert!(Duration::from_nanos(held) < Duration::from_secs(8), "{held} ns for 2 s");
    let notes = log.records.iter().filter_map(|r| match &r.event {
        Event::Effect { effect, last: true, .. } => effect.note.clone(),
        _ => None,
    });
    let notes: Vec<String> = notes.collect();
    assert!(notes[0].contains("the last measurement was given up"), "{notes:?}");
    toprope.assert_clean();
}

#[test]
fn two_runs_that_begin_at_once_never_share_a_target() {
    let (toprope, sleeper) = (Toprope::new(), Sleeper::start());
    let manifests = ["a", "b", "c"].map(|name| pause(&toprope, name, sleeper.pid(), "1s"));
    let runs = manifests.each_ref().map(|manifest| toprope.start(&["run", manifest]));
    let codes = runs.map(|run| run.wait().code);
    let held = codes.iter().filter(|code| **code == Some(0)).count();
    assert!(held >= 1 && codes.iter().all(|code| matches!(code, Some(0 | 2 | 3))), "{codes:?}");
    assert!(!sleeper.is_held());
    toprope.assert_clean();
}

#[test]
fn cores_that_another_run_loads_are_taken() {
    let toprope = Toprope::new();
    let spec =
        "probes: [command: {run: ['true'], interval: 100ms}]\nmethod: [cpu-stress: {load: 2%, cores: 1, for: 2s}]";
    let experiment = toprope.experiment("load", spec);
    let mut first = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    first.until_in_force();
    let second = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(2);
    assert!(second.stderr.contains("already taken") && second.stderr.contains("toprope undo"), "{second}");
    first.wait().expect(0);
    toprope.assert_clean();
}

/// Where Debian puts the library that gives a program another time.
fn faketime() -> Option<std::path::PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?.flatten();
    libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

#[test]
fn a_clock_that_is_set_back_during_a_run_changes_no_time_that_was_measured() {
    if !installed(&["faketime"]) {
        return;
    }
    let library = faketime().expect("the program comes with its library");
    let (toprope, sleeper) = (Toprope::new(), Sleeper::start());
    let run = |clock: &str, manifest: &str| {
        let mut command = toprope.command(&["run", manifest]);
        // The file is read whenever the time is asked for: so the clock can be set while the run goes on.
        command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", toprope.write("clock", clock));
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        toprope.spawn(command)
    };
    let mut first = run("+4000d\n", &pause(&toprope, "first", sleeper.pid(), "2s"));
    first.until_in_force();
    toprope.write("clock", "-4000d\n");
    let done = first.wait().expect(0);
    assert!(done.stdout.contains("run 203"), "the clock was not set: {done}");
    let log = toprope.log();
    assert!(log.is_closed() && log.records.windows(2).all(|pair| pair[0].at <= pair[1].at));
    let at = |wanted: fn(&Event) -> bool| log.records.iter().find(|r| wanted(&r.event)).expect("it happened").at;
    let lasted = at(|e| matches!(e, Event::Undone { .. })) - at(|e| matches!(e, Event::Injected { .. }));
    assert!((1.5..15.0).contains(&Duration::from_nanos(lasted).as_secs_f64()), "{lasted} ns");
    assert!(!sleeper.is_held());
    let first = toprope.runs();
    toprope.run(&["report", "--verify"]).expect(0);

    // What comes later is later, whatever the clock says.
    run("-4000d\n", &pause(&toprope, "second", sleeper.pid(), "300ms")).wait().expect(0);
    let last = toprope.run(&["report"]).expect(0);
    assert!(last.stdout.contains("second"), "{last}");
    assert_eq!(toprope.runs()[0], first[0]);
    toprope.assert_clean();
}

#[test]
fn a_home_that_is_not_to_be_trusted_is_refused() {
    let (toprope, sleeper) = (Toprope::new(), Sleeper::start());
    let journal = toprope.home().join("journal");
    std::fs::create_dir_all(&journal).unwrap();
    std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o777)).unwrap();
    let manifest = pause(&toprope, "open", sleeper.pid(), "1s");
    for args in [&["run", &manifest][..], &["undo"], &["residue"]] {
        let done = toprope.run(args).expect(2);
        assert!(done.stderr.contains("not to be trusted"), "{done}");
    }
    assert!(!sleeper.is_held());
    // A link to where somebody else writes is no journal, either.
    std::fs::remove_dir(&journal).unwrap();
    std::os::unix::fs::symlink("/tmp", &journal).unwrap();
    toprope.run(&["run", &manifest]).expect(2);
    std::fs::remove_file(&journal).unwrap();
    toprope.run(&["run", &manifest]).expect(0);
    toprope.assert_clean();
}

#[test]
fn a_home_that_cannot_be_written_is_told_with_what_to_do() {
    let toprope = Toprope::new();
    let sleeper = Sleeper::start();
    toprope.write("home", "a file");
    let done = toprope.run(&["run", &pause(&toprope, "nowhere", sleeper.pid(), "1s")]).expect(2);
    assert!(done.stderr.contains("TOPROPE_HOME"), "{done}");
    assert!(!sleeper.is_held());
}

#[test]
fn a_damaged_log_or_record_of_another_run_is_told_and_stops_nothing_that_is_safe() {
    let (toprope, sleeper) = (Toprope::new(), Sleeper::start());
    let manifest = pause(&toprope, "sound", sleeper.pid(), "500ms");
    toprope.run(&["run", &manifest]).expect(0);
    let log = toprope.runs()[0].join("events.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replacen("\"seq\":3", "\"seq\":#", 1)).unwrap();
    toprope.run(&["run", &manifest]).expect(0);
    let runs = toprope.run(&["runs"]).expect(0);
    assert!(runs.stdout.contains("damaged") && runs.stdout.contains("line 4"), "{runs}");

    // A record that cannot be read may name anything: nothing is injected, and it is named.
    let record = toprope.home().join("journal/20200101-000000-dead-0.jsonl");
    std::fs::write(&record, "not a record\n").unwrap();
    std::fs::set_permissions(&record, std::fs::Permissions::from_mode(0o600)).unwrap();
    for args in [&["run", &manifest][..], &["residue"], &["undo"]] {
        let done = toprope.run(args);
        assert!(matches!(done.code, Some(2 | 4)), "{args:?}: {done}");
        assert!(done.stderr.contains("20200101-000000-dead-0.jsonl"), "{done}");
    }
    assert!(!sleeper.is_held());
}
