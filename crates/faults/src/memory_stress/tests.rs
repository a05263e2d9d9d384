use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use serde_json::{Value, json};

use super::*;
use crate::testing::injector::Injector;
use crate::testing::{eventually, host, known_effect, params, planned};

const MIB: u64 = 1 << 20;

/// This process's resident memory, as `/proc` tells everybody.
/// Without pages of files: the test's own program is read in from disk and dropped again while the test runs.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: Vec<u64> = statm.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    (pages[1] - pages[2]) * 4096
}

#[tokio::test]
async fn the_amount_is_resident_ramped_and_given_back() {
    let before = resident();
    let more = || resident().saturating_sub(before);
    let wanted = params(json!({"amount": "200MiB"}));
    let (plan, step) = planned(&MemoryStress, &wanted, &host()).await;
    assert!(plan.targets[0].starts_with("memory of ") && plan.warnings.is_empty(), "{plan:?}");
    assert!(more() < 8 * MIB, "a plan takes nothing");
    let mut injection = MemoryStress.apply(&step, &wanted, &host()).await.unwrap_or_else(|e| panic!("{e}"));
    let effect = known_effect(injection.as_mut()).await;
    assert_eq!((effect.took, effect.reached), (Some(true), Some(1.0)), "{effect:?}");
    assert_eq!((effect.measures[0].asked, effect.measures[0].measured), (Some(209_715_200.0), 209_715_200.0));
    assert!((198 * MIB..210 * MIB).contains(&more()), "{} MiB more in /proc", more() / MIB);
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").expect("readable");
    assert_eq!(score.trim(), "1000");

    injection.adjust(&params(json!({"amount": "50MiB"}))).await.expect("it can be ramped");
    assert!(more() < 60 * MIB, "{} MiB more in /proc", more() / MIB);
    injection.adjust(&params(json!({"amount": "120MiB"}))).await.expect("it can be ramped");
    let effect = known_effect(injection.as_mut()).await;
    assert_eq!(effect.measures[0].measured, 120.0 * MIB as f64);
    assert!((118 * MIB..130 * MIB).contains(&more()), "{} MiB more in /proc", more() / MIB);

    injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(more() < 8 * MIB, "{} MiB more in /proc", more() / MIB);
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").expect("readable");
    assert_ne!(score.trim(), "1000");
    for _ in 0..2 {
        assert_eq!(MemoryStress.undo(&step, &host()).await.expect("nothing is left to do").len(), 1);
    }
}

#[tokio::test]
async fn a_release_in_the_middle_of_the_taking_gives_all_back() {
    let before = resident();
    let wanted = params(json!({"amount": "1GiB"}));
    let (_, step) = planned(&MemoryStress, &wanted, &host()).await;
    let mut injection = MemoryStress.apply(&step, &wanted, &host()).await.unwrap_or_else(|e| panic!("{e}"));
    let effect = injection.observe().await.expect("it runs");
    let note = effect.note.expect("it is not done");
    assert!(effect.took.is_none() && note.contains("still taking") && note.contains("of 1GiB"), "{note}");
    injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(resident().saturating_sub(before) < 8 * MIB);
}

#[tokio::test]
async fn dropping_it_gives_all_back() {
    let before = resident();
    let wanted = params(json!({"amount": "64MiB"}));
    let (_, step) = planned(&MemoryStress, &wanted, &host()).await;
    let mut injection = MemoryStress.apply(&step, &wanted, &host()).await.unwrap_or_else(|e| panic!("{e}"));
    known_effect(injection.as_mut()).await;
    drop(injection);
    assert!(resident().saturating_sub(before) < 8 * MIB);
}

#[tokio::test]
async fn what_is_not_there_is_refused() {
    let refused =
        MemoryStress.plan(&params(json!({"amount": "900TiB"})), &host()).await.expect_err("no machine has it");
    assert!(refused.message.starts_with("900TiB of memory cannot be taken"), "{refused}");
    assert!(refused.help.is_some_and(|help| help.contains("at most")));
    for one in [json!({}), json!({"amount": "1MiB", "percent": "10%"})] {
        assert!(MemoryStress.plan(&params(one.clone()), &host()).await.is_err());
        let mut problems = Problems::default();
        check(&Node::from_json(&one), &mut problems);
        assert!(problems.0[0].message.contains("one of `amount` and `percent`"), "{problems:?}");
    }
}

#[test]
fn a_shortfall_is_told() {
    let memory = Memory { total: 1000, used: 900, available: 100, cgroup: None };
    let effect =
        |filling, resident| super::effect(Extent::Percent(Percent(90.0)), filling, 100, resident, &memory, vec![]);
    assert_eq!((effect(false, 95).took, effect(false, 95).reached), (Some(true), Some(0.95)));
    assert_eq!(effect(false, 80).took, Some(false));
    assert_eq!(effect(true, 95).took, None);
    assert_eq!(effect(false, 100).measures[1].measured, 90.0);
    assert_eq!(super::effect(Extent::Amount(Size(0)), false, 0, 0, &memory, vec![]).took, Some(false));
}

/// A control group with a memory limit, for processes that a test starts.
struct Group(std::path::PathBuf);

impl Group {
    /// `None` where this process may not make one.
    fn new(test: &str, limit: u64) -> Option<Self> {
        let name = format!("toprope-test-{}-{test}", std::process::id());
        let versions = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        for (root, file) in versions {
            let group = Self(std::path::Path::new(root).join(&name));
            if std::fs::create_dir(&group.0).is_ok() && std::fs::write(group.0.join(file), limit.to_string()).is_ok() {
                return Some(group);
            }
        }
        eprintln!("SKIPPED {test}: no control group with a memory limit can be made here");
        None
    }

    /// What its members use, in bytes, without the page cache that goes first.
    fn used(&self) -> u64 {
        let read = |name: &str| std::fs::read_to_string(self.0.join(name)).ok();
        let usage = read("memory.usage_in_bytes").or_else(|| read("memory.current")).expect("one of the versions");
        let stat = read("memory.stat").expect("it has the controller");
        let inactive = stat
            .lines()
            .find_map(|line| line.strip_prefix("total_inactive_file ").or_else(|| line.strip_prefix("inactive_file ")));
        let number = |text: &str| text.trim().parse::<u64>().expect("a number");
        number(&usage) - inactive.map_or(0, number)
    }

    /// A shell command in the group.
    fn run(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("echo $$ > {}/cgroup.procs && {command}", self.0.display())]);
        shell
    }

    /// An injector in the group, and its effect.
    fn inject(&self, parameters: &Value) -> (Injector, Effect) {
        Injector::start("memory-stress", parameters, |program| self.run(&format!("exec {program}")))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        eventually("the group is empty", || std::fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

#[test]
fn in_a_control_group_its_limit_is_all_memory() {
    let Some(group) = Group::new("percent", 200 * MIB) else { return };
    let (injector, effect) = group.inject(&json!({"percent": "80%", "reserve": "8MiB"}));
    let used = group.used() as f64 / (200 * MIB) as f64;
    assert!((0.76..0.84).contains(&used), "{used} of the group's memory is used, {effect:?}");
    let measured = effect.measures[1].measured;
    assert!((76.0..84.0).contains(&measured) && effect.took == Some(true), "{effect:?}");
    assert!(injector.release().success(), "it released and ended");
}

#[test]
fn the_reserve_stays() {
    let Some(group) = Group::new("reserve", 200 * MIB) else { return };
    let (_injector, effect) = group.inject(&json!({"percent": "100%", "reserve": "64MiB"}));
    let left = 200 * MIB - group.used();
    assert!((56 * MIB..76 * MIB).contains(&left), "{} MiB are left, {effect:?}", left / MIB);
    assert!(effect.note.expect("it says so").contains("64MiB must stay"));
}

#[test]
fn the_oom_killer_takes_the_injector_first() {
    let Some(group) = Group::new("oom", 160 * MIB) else { return };
    let (injector, effect) = group.inject(&json!({"amount": "100MiB", "reserve": "8MiB"}));
    assert_eq!(effect.took, Some(true), "{effect:?}");
    // tail keeps what has no end of line: 80 MiB, where 40 are left. Had the kernel ended tail, that would have been
    // enough, and the injector would live. (It may end tail too, when that asks for more while the memory of the
    // first is still on its way back.)
    drop(group.run("head -c 80M /dev/zero | tail -n 1 | wc -c").output().expect("a shell is installed"));
    assert_eq!(injector.ended().signal(), Some(9), "the hog was ended");
}

/// Run with `--ignored --nocapture`: how near the measured memory is to what was asked for.
#[tokio::test]
#[ignore = "prints figures of this machine"]
async fn accuracy() {
    for amount in ["16MiB", "100MB", "512MiB", "2GiB"] {
        let before = resident();
        let wanted = params(json!({"amount": amount}));
        let (_, step) = planned(&MemoryStress, &wanted, &host()).await;
        let start = Instant::now();
        let mut injection = MemoryStress.apply(&step, &wanted, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        let effect = known_effect(injection.as_mut()).await;
        let taking = start.elapsed();
        let asked = effect.measures[0].asked.expect("an amount");
        let outside = (resident() - before) as f64;
        let (inside, outside) = (effect.measures[0].measured / asked * 100.0, outside / asked * 100.0);
        let start = Instant::now();
        injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
        println!(
            "{amount}: {inside:.3} % measured, {outside:.3} % in /proc, after {taking:?}, released in {:?}",
            start.elapsed()
        );
        assert!((outside - 100.0).abs() < 1.0 || asked < 100e6);
    }
}
