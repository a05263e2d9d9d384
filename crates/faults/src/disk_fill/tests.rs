use std::fs;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::*;
use crate::testing::injector::Injector;
use crate::testing::{host, known_effect, params, planned};

const MIB: u64 = 1 << 20;

/// Runs a test on a thread with mounts of its own, which end with it, and a small file system in memory: no file system
/// of the machine is filled.
fn on_own_file_system<F: Future<Output = ()>>(test: &'static str, run: impl FnOnce(PathBuf) -> F + Send + 'static) {
    if toprope_os::user::Identity::current().expect("readable").uid != 0 {
        eprintln!("SKIPPED {test}: it needs root to mount");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("our own namespace");
        let dir = tempfile::tempdir().expect("a directory");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64m,mode=777")).expect("root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(dir.path().to_owned()));
        // Lazily: a child that another test starts has all our files until it executes its program.
        umount2(dir.path(), MntFlags::MNT_DETACH).expect("it was mounted");
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// What `df` tells: bytes used and available.
fn df(dir: &Path) -> (u64, u64) {
    let out = Command::new("df").args(["-B1", "--output=used,avail"]).arg(dir).output().expect("df is installed");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut numbers =
        text.lines().nth(1).expect("a line of numbers").split_whitespace().map(|n| n.parse().expect("a number"));
    (numbers.next().expect("used"), numbers.next().expect("available"))
}

/// Whether a user without rights can write a block.
fn others_can_write(dir: &Path) -> bool {
    let file = dir.join("theirs");
    let write = format!("dd if=/dev/zero of={} bs=4096 count=1", file.display());
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &write];
    let out = Command::new("setpriv").args(user).output().expect("setpriv is installed");
    let _ = fs::remove_file(file);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() || said.contains("No space left on device"), "{said}");
    out.status.success()
}

async fn apply(parameters: serde_json::Value) -> (Plan, PlanStep, Box<dyn Injection>) {
    let params = params(parameters);
    let (plan, step) = planned(&DiskFill, &params, &host()).await;
    let injection = DiskFill.apply(&step, &params, &host()).await.unwrap_or_else(|e| panic!("{e}"));
    (plan, step, injection)
}

#[test]
fn the_amount_is_taken_ramped_and_given_back() {
    on_own_file_system("the_amount_is_taken_ramped_and_given_back", |dir| async move {
        let (plan, step, mut injection) = apply(json!({"path": dir, "amount": "20MiB"})).await;
        assert!(plan.targets[0].contains("64MiB, of which 0B is used"), "{plan:?}");
        assert!(step.claims[0].starts_with("file system 0:"), "{step:?}");
        let effect = known_effect(injection.as_mut()).await;
        assert_eq!((effect.took, effect.reached, effect.note), (Some(true), Some(1.0), None));
        assert_eq!((effect.measures[0].asked, effect.measures[0].measured), (Some(20_971_520.0), 20_971_520.0));
        assert_eq!(df(&dir), (20 * MIB, 44 * MIB));
        assert_eq!(fs::read_dir(&dir).expect("ours").count(), 0, "the file has no name");

        injection.adjust(&params(json!({"path": dir, "amount": "5MiB"}))).await.expect("it can be ramped");
        assert_eq!(df(&dir).0, 5 * MIB);
        injection.adjust(&params(json!({"path": dir, "percent": "50%"}))).await.expect("it can be ramped");
        assert_eq!(known_effect(injection.as_mut()).await.measures[1].measured, 50.0);
        assert_eq!(df(&dir).0, 32 * MIB);
        let too_much = injection.adjust(&params(json!({"path": dir, "amount": "1GiB"}))).await;
        assert!(too_much.is_err_and(|e| e.message.contains("1GiB of disk space cannot be taken")));

        injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(df(&dir), (0, 64 * MIB));
        for _ in 0..2 {
            assert_eq!(DiskFill.undo(&step, &host()).await.expect("nothing is left to do").len(), 1);
        }
    });
}

#[test]
fn a_full_file_system_refuses_writers_until_it_is_released() {
    on_own_file_system("a_full_file_system_refuses_writers_until_it_is_released", |dir| async move {
        fs::write(dir.join("before"), vec![1; 7 * MIB as usize + 1]).expect("there is space");
        assert!(others_can_write(&dir));
        let (_, _, mut injection) = apply(json!({"path": dir, "percent": "100%"})).await;
        let effect = known_effect(injection.as_mut()).await;
        assert_eq!(df(&dir).1, 0);
        assert!(!others_can_write(&dir));
        assert_eq!((effect.took, effect.measures[1].measured), (Some(true), 100.0));
        assert!(effect.note.expect("it says so").contains("is refused"));
        // Somebody makes room: that is seen, and it is their right.
        fs::remove_file(dir.join("before")).expect("ours");
        let effect = injection.observe().await.expect("it runs");
        assert!(effect.took == Some(true) && effect.measures[1].measured < 90.0, "{effect:?}");
        assert!(effect.note.expect("it says so").contains("a new writer gets space"));
        injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(others_can_write(&dir) && df(&dir).0 == 0);
    });
}

#[test]
fn the_reserve_stays_and_dropping_it_gives_all_back() {
    on_own_file_system("the_reserve_stays_and_dropping_it_gives_all_back", |dir| async move {
        let (plan, _, mut injection) = apply(json!({"path": dir, "percent": "95%", "reserve": "10MiB"})).await;
        assert!(plan.warnings[0].contains("10MiB must stay"), "{plan:?}");
        let effect = known_effect(injection.as_mut()).await;
        assert_eq!((df(&dir), effect.took), ((54 * MIB, 10 * MIB), Some(true)), "{effect:?}");
        drop(injection);
        assert_eq!(df(&dir).0, 0);
    });
}

#[test]
fn a_killed_injector_leaves_nothing() {
    on_own_file_system("a_killed_injector_leaves_nothing", |dir| async move {
        let parameters = json!({"path": dir, "percent": "100%"});
        let (injector, effect) = Injector::child("disk-fill", &parameters);
        assert!(effect.took == Some(true) && !others_can_write(&dir), "{effect:?}");
        injector.kill();
        assert_eq!(df(&dir), (0, 64 * MIB));
        assert!(others_can_write(&dir));
    });
}

#[test]
fn what_cannot_be_filled_is_refused() {
    on_own_file_system("what_cannot_be_filled_is_refused", |dir| async move {
        let plan = async |parameters| DiskFill.plan(&params(parameters), &host()).await.expect_err("it cannot be");
        let e = plan(json!({"path": dir, "amount": "65MiB"})).await;
        assert!(e.message.contains("64MiB can be had") && e.help.is_some(), "{e:?}");
        let e = plan(json!({"path": dir.join("missing"), "amount": "1MiB"})).await;
        assert!(e.message.contains("missing cannot be filled"), "{e}");
        let e = plan(json!({"path": "/proc", "amount": "1MiB"})).await;
        assert!(e.message.contains("/proc cannot be filled"), "{e}");
        fs::write(dir.join("file"), "").expect("ours");
        assert!(plan(json!({"path": dir.join("file"), "amount": "1MiB"})).await.message.contains("cannot be filled"));
        assert!(plan(json!({"path": dir})).await.message.contains("one of `amount` and `percent`"));
    });
}

/// A file system in a file of 64 MiB, 5 % of it reserved for root.
fn mount_ext4(dir: &Path) -> bool {
    let image = dir.join("image");
    fs::File::create(&image).and_then(|file| file.set_len(64 * MIB)).expect("a sparse file");
    let run = |command: &mut Command| command.output().is_ok_and(|out| out.status.success());
    let made = run(Command::new("mkfs.ext4").args(["-q", "-m", "5"]).arg(&image))
        && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir));
    if !made {
        eprintln!("SKIPPED the part on ext4: mkfs.ext4 or loop devices are missing");
    }
    made
}

#[test]
fn a_full_ext4_keeps_what_is_roots() {
    on_own_file_system("a_full_ext4_keeps_what_is_roots", |dir| async move {
        if !mount_ext4(&dir) {
            return;
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&dir, mode).expect("ours");
        let before = df(&dir);
        assert!(others_can_write(&dir));
        let (plan, _, mut injection) = apply(json!({"path": dir, "percent": "100%"})).await;
        assert!(plan.warnings[0].contains("are kept for root"), "{plan:?}");
        let effect = known_effect(injection.as_mut()).await;
        assert!(!others_can_write(&dir), "{effect:?}");
        assert_eq!(effect.took, Some(true), "{effect:?}");
        assert!(df(&dir).1 < 64 << 10);
        fs::write(dir.join("roots"), vec![1; MIB as usize]).expect("root has its reserve");
        fs::remove_file(dir.join("roots")).expect("ours");
        injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(others_can_write(&dir));
        assert!(df(&dir).1.abs_diff(before.1) < MIB);
        umount2(&dir, MntFlags::MNT_DETACH).expect("it was mounted");
    });
}
