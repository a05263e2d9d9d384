use std::process::Command;

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::*;

const MIB: u64 = 1 << 20;

/// Runs on a thread with mounts of its own, which end with it: no file system of the machine is filled.
fn with_own_mounts(test: &'static str, run: impl FnOnce(&Path) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED {test}: it needs root to mount");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("our own namespace");
        let dir = tempfile::tempdir().expect("a directory");
        run(dir.path());
        // Lazily: a child that another test starts has all our files until it executes its program.
        let unmounted = umount2(dir.path(), MntFlags::MNT_DETACH);
        assert!(matches!(unmounted, Ok(()) | Err(Errno::EINVAL)), "{unmounted:?}: neither unmounted nor never mounted");
    });
    thread.join().expect("the test's thread");
}

fn mount_tmpfs(dir: &Path) {
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=32m")).expect("root");
}

/// A file system in a file of 64 MiB, 5 % of it reserved for root. False where that cannot be had.
fn mount_image(dir: &Path, kind: &str) -> bool {
    let image = dir.with_extension("image");
    let file = File::create(&image).expect("written");
    file.set_len(64 * MIB).expect("a sparse file");
    let run = |command: &mut Command| command.output().is_ok_and(|out| out.status.success());
    let made = run(Command::new(format!("mkfs.{kind}")).args(["-q", "-m", "5"]).arg(&image))
        && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir));
    // The loop device keeps it for as long as it is mounted.
    std::fs::remove_file(&image).expect("written");
    if !made {
        eprintln!("SKIPPED the part on {kind}: mkfs.{kind} or loop devices are missing");
    }
    made
}

/// Whether a user without rights can write a block, as dd tells.
fn unprivileged_write(dir: &Path) -> Result<(), String> {
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
    let parent = dir.parent().expect("it has one");
    assert!(parent == Path::new("/tmp") || parent.is_dir());
    let out = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "dd", "if=/dev/urandom", "bs=4096", "count=1"])
        .arg(format!("of={}/theirs", dir.display()))
        .output()
        .expect("setpriv and dd are installed");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    drop(std::fs::remove_file(dir.join("theirs")));
    if out.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn space_is_taken_kept_and_given_back_and_no_file_is_seen() {
    with_own_mounts("space_is_taken_kept_and_given_back_and_no_file_is_seen", |dir| {
        mount_tmpfs(dir);
        let before = Space::of(dir).expect("ours");
        assert_eq!((before.total, before.used(), before.reserved()), (32 * MIB, 0, 0));
        assert!(before.in_memory);
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_BIND;
        mount(None::<&str>, dir, None::<&str>, read_only, None::<&str>).expect("our own mount");
        let e = check_writable(dir).expect_err("it is read only");
        assert_eq!(e.raw_os_error(), Some(libc::EROFS));
        mount(None::<&str>, dir, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, None::<&str>).expect("ours");
        let mut filler = Filler::create(dir).expect("ours");
        assert_eq!(filler.grow(10 * MIB + 1).expect("there is space"), 10 * MIB + before.block);
        assert_eq!(filler.grow(6 * MIB).expect("there is space"), 6 * MIB);
        assert_eq!(filler.taken().expect("ours"), 16 * MIB + before.block);
        assert_eq!(Space::of(dir).expect("ours").available, 16 * MIB - before.block);
        assert_eq!(std::fs::read_dir(dir).expect("ours").count(), 0);
        assert!(!refuses_writers(dir).expect("ours"));

        assert_eq!(filler.grow(100 * MIB).expect("it takes what there is"), 16 * MIB - before.block);
        let full = Space::of(dir).expect("ours");
        assert_eq!((full.available, full.used_share()), (0, 1.0));
        assert!(refuses_writers(dir).expect("ours"));
        assert_eq!(filler.grow(MIB).expect("it takes what there is"), 0);

        filler.shrink_to(4 * MIB).expect("ours");
        assert_eq!(Space::of(dir).expect("ours").used(), 4 * MIB);
        assert_eq!(filler.way(), Way::Allocate);
        filler.free().expect("ours");
        assert_eq!(Space::of(dir).expect("ours"), before);
    });
}

#[test]
fn a_full_ext4_refuses_users_and_leaves_roots_reserve() {
    with_own_mounts("a_full_ext4_refuses_users_and_leaves_roots_reserve", |dir| {
        if !mount_image(dir, "ext4") {
            return;
        }
        let before = Space::of(dir).expect("ours");
        assert!(before.reserved() > 2 * MIB && !before.in_memory, "{before:?}");
        assert_eq!(unprivileged_write(dir), Ok(()));
        let mut filler = Filler::create(dir).expect("ours");
        filler.grow(1 << 30).expect("it takes what there is");
        let full = Space::of(dir).expect("ours");
        assert!(full.available < 2 * full.block && full.reserved() > 2 * MIB, "{full:?}");
        let said = unprivileged_write(dir).expect_err("no space is left for users");
        assert!(said.contains("No space left on device"), "{said}");
        assert!(!refuses_writers(dir).expect("ours"), "root has its reserve");
        filler.free().expect("ours");
        assert_eq!(unprivileged_write(dir), Ok(()));
        assert!(Space::of(dir).expect("ours").available.abs_diff(before.available) < MIB);
    });
}

#[test]
fn what_cannot_be_set_aside_is_written() {
    with_own_mounts("what_cannot_be_set_aside_is_written", |dir| {
        if !mount_image(dir, "ext2") {
            return;
        }
        let before = Space::of(dir).expect("ours");
        let mut filler = Filler::create(dir).expect("ours");
        let got = filler.grow(20 * MIB).expect("there is space");
        assert_eq!(filler.way(), Way::Write);
        assert!((20 * MIB..21 * MIB).contains(&got), "{got}");
        let used = Space::of(dir).expect("ours").used() - before.used();
        assert!((20 * MIB..21 * MIB).contains(&used), "{used}");
        filler.grow(1 << 30).expect("it takes what there is");
        assert!(unprivileged_write(dir).is_err());
        filler.free().expect("ours");
        assert_eq!(Space::of(dir).expect("ours").available, before.available);
    });
}

#[test]
fn a_file_system_without_unnamed_files_gets_one_whose_name_is_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = named_and_removed(dir.path()).expect("ours");
    file.write_at(b"x", 0).expect("still a file");
    assert_eq!(file.metadata().expect("open").nlink(), 0);
    assert_eq!(std::fs::read_dir(dir.path()).expect("ours").count(), 0);
}

#[test]
fn a_path_that_is_no_directory_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing");
    let e = Space::of(&missing).expect_err("it does not exist");
    assert!(e.to_string().contains("missing"), "{e}");
    assert!(Filler::create(&missing).is_err() && check_writable(&missing).is_err());
    check_writable(dir.path()).expect("ours");
    std::fs::write(&missing, "a file").expect("ours");
    assert_eq!(Space::of(&missing).expect_err("it is a file").raw_os_error(), Some(libc::ENOTDIR));
}
