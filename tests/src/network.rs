//! A network (and mounts) of a test's own, so that its faults reach nothing else.

use nix::mount::MsFlags;
use nix::sched::CloneFlags;

/// Runs a test in a network of its own with a loopback interface, and with mounts of its own. Whatever it starts is in
/// there too. Where that needs root and the test is not, it is skipped.
///
/// # Panics
/// As the test does.
pub fn own(test: impl FnOnce() + Send) {
    if !crate::is_root() {
        return;
    }
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let body = || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root may");
        toprope_os::namespace::loopback_up().expect("the network is ours");
        // Else what is mounted here would be mounted outside as well.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("the mounts are ours");
        test();
    };
    // A thread of its own, because namespaces are a thread's: the next test of this process must not be in there.
    let result = std::thread::scope(|scope| {
        std::thread::Builder::new().name(name).spawn_scoped(scope, body).expect("a thread can be started").join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
