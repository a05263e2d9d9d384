//! `toprope demo`: a shop as shipped and the same shop repaired, five hypotheses about each.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use toprope_model::verdict::Outcome;
use toprope_os::namespace::{self, UserMap};
use toprope_os::spawn::{Spawn, Stdio};
use toprope_os::user::Identity;
use toprope_shop::{Launch, Shop};

use crate::args::{DemoArgs, ShopArgs};
use crate::invocation::{Failure, runtime, state, tables};
use crate::{load, show};

/// One planted weakness: its experiment, and what it teaches.
struct Lesson {
    file: &'static str,
    manifest: &'static str,
    learned: &'static str,
}

macro_rules! lesson {
    ($file:literal, $learned:literal) => {
        Lesson {
            file: $file,
            manifest: include_str!(concat!("../../../../examples/shop/experiments/", $file)),
            learned: $learned,
        }
    };
}

const LESSONS: &[Lesson] = &[
    lesson!("slow-payments.yaml", "a call without a timeout makes its dependency's slowness your own"),
    lesson!("retry-storm.yaml", "retries multiply over layers: three times three times three is a storm"),
    lesson!("no-recommendations.yaml", "what is nice to have must be left out when it is missing, not waited for"),
    lesson!("lost-orders.yaml", "an acknowledgement before the write is a promise that a kill breaks"),
    lesson!("lying-health.yaml", "a health check that asks nobody says that all is well"),
];

/// Shows five hypotheses refuted and held, in a network of its own where that can be had.
pub fn demo(args: &DemoArgs) -> Result<u8, Failure> {
    if args.inside {
        namespace::loopback_up().map_err(|e| Failure::new(e.to_string()))?;
        return lessons(args);
    }
    match inside(args) {
        Ok(code) => Ok(code),
        Err(why) => {
            show::line(&format!("note: without a network of its own ({why}), the demo uses free ports of this host"));
            lessons(args)
        }
    }
}

/// Does the demo in a network namespace of its own, so that nothing of it can meet anything of this host.
fn inside(args: &DemoArgs) -> Result<u8, String> {
    let is_root = Identity::current().is_ok_and(|i| i.uid == 0);
    let state = state().map_err(|_| "there is nowhere to keep runs")?;
    let mut child = Spawn::this_program()
        .args(["demo", "--inside"])
        // Inside, this user looks like root; the state stays where it was.
        .variable("TOPROPE_HOME", state.root())
        .stdin(Stdio::Inherit)
        .stdout(Stdio::Inherit)
        .stderr(Stdio::Inherit)
        .death_signal(Signal::KILL)
        .new_net_namespace();
    if !is_root {
        namespace::supported().map_err(|e| e.to_string())?;
        child = child.new_user_namespace(UserMap::Root);
    }
    for (flag, value) in [
        ("--reports", args.reports.as_ref().map(|p| p.as_os_str().to_owned())),
        ("--only", args.only.as_ref().map(Into::into)),
    ] {
        if let Some(value) = value {
            child = child.arg(flag).arg(value);
        }
    }
    wait(child)
}

/// Starts a child and waits for its exit code, also when this process is asked to end: the child undoes first.
fn wait(child: Spawn) -> Result<u8, String> {
    let runtime = runtime().map_err(|_| "there is no runtime")?;
    let status = runtime.block_on(async {
        let mut child = child.start()?;
        // Ctrl-C reaches the child by itself; what comes to this process alone is passed on.
        let stop = toprope_engine::run::StopSwitch::default();
        show::stop_on_signals(&stop);
        tokio::select! {
            status = child.wait() => return status,
            stopped = stop.wait() => if stopped.by != "SIGINT" {
                let _ = child.signal(Signal::TERM);
            },
        }
        child.wait().await
    });
    let status = status.map_err(|e| e.to_string())?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(5))
}

/// What came out of one experiment on one shop.
struct Row {
    hypothesis: String,
    learned: &'static str,
    outcomes: [Outcome; 2],
    reports: [PathBuf; 2],
}

fn lessons(args: &DemoArgs) -> Result<u8, Failure> {
    let started = std::time::Instant::now();
    let reports = match &args.reports {
        Some(directory) => directory.clone(),
        None => state()?.root().join("demo"),
    };
    std::fs::create_dir_all(&reports).map_err(|e| Failure::new(format!("cannot make {}: {e}", reports.display())))?;
    let chosen: Vec<&Lesson> =
        LESSONS.iter().filter(|l| args.only.as_ref().is_none_or(|only| l.file.contains(only.as_str()))).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = LESSONS.iter().map(|l| l.file.trim_end_matches(".yaml")).collect();
        let only = args.only.as_deref().unwrap_or_default();
        return Err(Failure::new(format!("no experiment of the demo is named like `{only}`"))
            .help(format!("there are {}", names.join(", "))));
    }
    let manifests = written()?;
    let mut rows: Vec<Row> = Vec::new();
    for lesson in chosen {
        let mut outcomes = [Outcome::Inconclusive; 2];
        let mut pages = [PathBuf::new(), PathBuf::new()];
        let mut hypothesis = String::new();
        for (i, fixed) in [(0, false), (1, true)] {
            let shop = if fixed { "repaired" } else { "as shipped" };
            let page =
                reports.join(lesson.file.replace(".yaml", if fixed { "-repaired.html" } else { "-shipped.html" }));
            let file = manifests.path().join("experiments").join(lesson.file);
            let (code, said) = one(&file, shop, fixed, &page)?;
            outcomes[i] = match code {
                0 => Outcome::Held,
                1 => Outcome::Refuted,
                3 => Outcome::Inconclusive,
                other => return Ok(other),
            };
            pages[i] = page;
            hypothesis = said;
        }
        rows.push(Row { hypothesis, learned: lesson.learned, outcomes, reports: pages });
    }
    summary(&rows, started.elapsed());
    let as_planted = rows.iter().all(|r| r.outcomes == [Outcome::Refuted, Outcome::Held]);
    Ok(if as_planted { 0 } else { 3 })
}

/// The experiments and the topology as files, so that they are read as a user's would be.
fn written() -> Result<tempfile::TempDir, Failure> {
    let directory = tempfile::tempdir()?;
    let experiments = directory.path().join("experiments");
    std::fs::create_dir(&experiments)?;
    std::fs::write(directory.path().join("topology.yaml"), toprope_shop::TOPOLOGY)?;
    for lesson in LESSONS {
        std::fs::write(experiments.join(lesson.file), lesson.manifest)?;
    }
    Ok(directory)
}

/// Starts a shop, runs one experiment on it with the command that a user would type, and ends the shop. Returns the
/// exit code and the hypothesis.
fn one(file: &Path, shop_name: &str, fixed: bool, page: &Path) -> Result<(u8, String), Failure> {
    let data = tempfile::tempdir()?;
    let base = toprope_shop::free_base_port().map_err(|e| Failure::new(e.to_string()))?;
    let mut launch = Launch::new("/proc/self/exe", base, data.path());
    launch.args_prefix = vec!["shop".into()];
    launch.fixed = fixed;
    launch.supervise = true;
    let shop = Shop::start(launch).map_err(|e| Failure::new(format!("the demo shop does not start: {e}")))?;
    let addresses = shop.addresses();
    let text = std::fs::read_to_string(file)?;
    let set: Vec<String> = toprope_shop::Service::ALL
        .iter()
        .filter(|s| text.contains(&format!("${{{}}}", s.name())))
        .map(|s| format!("{}={}", s.name(), addresses.of(*s)))
        .collect();
    let hypothesis = load::experiment(file, &set, &tables())?.experiment.spec.hypothesis;
    show::line(&format!("\n── the shop {shop_name} ── {hypothesis}"));
    // A process of its own: a run never harms what it was started from or has started, and that would be the shop.
    let run = Spawn::this_program()
        .args(["run", "--plain", "--html"])
        .arg(page)
        .args(set.iter().map(|pair| format!("--set={pair}")))
        .arg(file)
        .stdout(Stdio::Inherit)
        .stderr(Stdio::Inherit)
        .death_signal(Signal::KILL);
    let code = wait(run).map_err(Failure::new)?;
    drop(shop);
    Ok((code, hypothesis))
}

fn summary(rows: &[Row], elapsed: std::time::Duration) {
    show::line("\nWhat the demo showed\n");
    for row in rows {
        show::line(&format!("  {}", row.hypothesis));
        show::line(&format!("    as shipped  {:12}  {}", row.outcomes[0].to_string(), row.reports[0].display()));
        show::line(&format!("    repaired    {:12}  {}", row.outcomes[1].to_string(), row.reports[1].display()));
        show::line(&format!("    learned     {}\n", row.learned));
    }
    let count = |i: usize, outcome| rows.iter().filter(|r| r.outcomes[i] == outcome).count();
    let (refuted, held) = (count(0, Outcome::Refuted), count(1, Outcome::Held));
    show::line(&format!(
        "{refuted} of {} refuted on the shop as shipped, {held} held on the repaired one, in {} s.",
        rows.len(),
        elapsed.as_secs()
    ));
    show::line("Next: `toprope init` writes a first experiment for what runs on this machine.");
}

/// `toprope shop`: the services of the demo shop, as processes of this binary.
pub fn shop(args: &ShopArgs) -> Result<u8, Failure> {
    use clap::{FromArgMatches, Subcommand};
    let command =
        toprope_shop::cli::Command::augment_subcommands(clap::Command::new("toprope shop")).subcommand_required(true);
    let words = std::iter::once("toprope shop".into()).chain(args.args.iter().cloned());
    let parsed = command.try_get_matches_from(words).and_then(|m| toprope_shop::cli::Command::from_arg_matches(&m));
    match parsed {
        Ok(command) => {
            toprope_shop::cli::execute(command, &["shop"]).map(|()| 0).map_err(|e| Failure::new(e.to_string()))
        }
        Err(error) => {
            let _ = error.print();
            Ok(if error.use_stderr() { 2 } else { 0 })
        }
    }
}
