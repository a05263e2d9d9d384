//! How this process finds users and hosts by name, where the C library is part of the program.
//!
//! The C library asks what `/etc/nsswitch.conf` names (nss(5)): `files` and `dns`, which are built into it, and modules
//! that it loads, such as `systemd` or `mdns4_minimal`. A static program must not load them: each brings along the
//! system's own C library, and two of them in one process crash it (seen as SIGSEGV with glibc 2.36 on a lookup of a
//! user that is not in `/etc/passwd`, where the file says `passwd: files systemd`).

/// Has users and groups looked up in `/etc/passwd` and `/etc/group`, and hosts in `/etc/hosts` and by DNS, whatever
/// `/etc/nsswitch.conf` says, if this program is static; does nothing otherwise. Call it before anything is looked up.
pub fn without_modules() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    glibc::use_what_is_built_in();
}

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod glibc {
    #![expect(unsafe_code, reason = "glibc has no safe form of it")]

    use std::ffi::{CStr, c_char, c_int};

    /// What is looked up, and where. `initgroups` is which groups a user is in.
    const DATABASES: [(&CStr, &CStr); 5] = [
        (c"passwd", c"files"),
        (c"group", c"files"),
        (c"initgroups", c"files"),
        (c"hosts", c"files dns"),
        (c"services", c"files"),
    ];

    unsafe extern "C" {
        /// Of `<nss.h>`.
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }

    pub(super) fn use_what_is_built_in() {
        for (database, services) in DATABASES {
            // SAFETY: both are strings with a NUL at their end that live for ever, and glibc guards its table by a lock.
            // It fails for want of memory or for a database that it does not have, and changes nothing then.
            unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
        }
    }
}
