//! Becoming another user for good.

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::{Error, Result, error::Context, user::Identity};

const NEEDS: &str = "CAP_SETUID and CAP_SETGID";

/// Makes this whole process, all its threads, another user with exactly the given groups, for good: the real, effective
/// and saved numbers change, and the capabilities of root are gone.
///
/// # Errors
/// [`Error::System`] without the rights; and [`Error::Invalid`] if root could be regained, after which the process must
/// not go on.
pub fn become_user(identity: &Identity) -> Result<()> {
    let action = || format!("become user {} with group {}", identity.uid, identity.gid);
    let groups: Vec<Gid> = identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    // The user last: afterwards there is no right left to change groups.
    setgroups(&groups).cannot_without(NEEDS, action)?;
    setresgid(gid, gid, gid).cannot_without(NEEDS, action)?;
    setresuid(uid, uid, uid).cannot_without(NEEDS, action)?;
    if !uid.is_root() && nix::unistd::seteuid(Uid::from_raw(0)).is_ok() {
        return Err(Error::invalid("this process", "could become root again, so its rights are not dropped"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        caps,
        testing::{in_fork, is_root},
    };

    #[test]
    fn root_becomes_a_user_for_good() {
        if !is_root("root_becomes_a_user_for_good") {
            return;
        }
        in_fork(|| {
            let nobody = Identity { uid: 65534, gid: 65534, groups: vec![65534, 4] };
            become_user(&nobody).expect("root may");
            let mut now = Identity::current().expect("readable");
            now.groups.sort_unstable();
            assert_eq!(now, Identity { groups: vec![4, 65534], ..nobody });
            assert!(caps::effective().expect("readable").is_empty());
            let e = become_user(&Identity { uid: 0, gid: 0, groups: Vec::new() }).expect_err("no way back");
            assert!(e.is_permission_denied() && e.to_string().contains("CAP_SETUID"), "{e}");
        });
    }
}
