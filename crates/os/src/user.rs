//! The system's users, as `/etc/passwd` and its peers name them.

use std::ffi::CString;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, error::Context};

/// Who a process acts as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User number.
    pub uid: u32,
    /// Primary group's number.
    pub gid: u32,
    /// Supplementary groups' numbers.
    pub groups: Vec<u32>,
}

/// The name of a group; `None` when there is none of that number.
pub fn group_name(gid: u32) -> Result<Option<String>> {
    let found = nix::unistd::Group::from_gid(gid.into()).cannot(|| format!("look up the group {gid}"))?;
    Ok(found.map(|group| group.name))
}

/// A user of this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Primary group's number.
    pub gid: u32,
    /// Home directory.
    pub home: std::path::PathBuf,
}

impl User {
    /// Looks a user up by name; `None` when there is none.
    pub fn by_name(name: &str) -> Result<Option<Self>> {
        let found = nix::unistd::User::from_name(name).cannot(|| format!("look up the user {name:?}"))?;
        Ok(found.map(Self::from))
    }

    /// Looks a user up by number; `None` when there is none, which is common in containers.
    pub fn by_uid(uid: u32) -> Result<Option<Self>> {
        let found = nix::unistd::User::from_uid(uid.into()).cannot(|| format!("look up the user {uid}"))?;
        Ok(found.map(Self::from))
    }

    /// Every user that `/etc/passwd` names. Those of a directory service are not among them.
    pub fn all() -> Result<Vec<Self>> {
        const FILE: &str = "/etc/passwd";
        let text = std::fs::read_to_string(FILE).cannot(|| format!("read {FILE}"))?;
        // passwd(5): name, password, number, group, full name, home, shell
        let user = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
            Some(Self { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
        };
        Ok(text.lines().filter_map(user).collect())
    }

    /// The user with every group they are a member of, as a login would give.
    pub fn identity(&self) -> Result<Identity> {
        let name = CString::new(self.name.as_str()).map_err(|_| Error::invalid("a user's name", "holds a NUL byte"))?;
        let groups = nix::unistd::getgrouplist(&name, self.gid.into())
            .cannot(|| format!("look up the groups of {}", self.name))?;
        Ok(Identity { uid: self.uid, gid: self.gid, groups: groups.into_iter().map(|g| g.as_raw()).collect() })
    }
}

impl From<nix::unistd::User> for User {
    fn from(u: nix::unistd::User) -> Self {
        Self { name: u.name, uid: u.uid.as_raw(), gid: u.gid.as_raw(), home: u.dir }
    }
}

impl Identity {
    /// Who this process acts as: its effective user and group.
    pub fn current() -> Result<Self> {
        let groups = rustix::process::getgroups().cannot(|| "read this process's groups")?;
        Ok(Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(|g| g.as_raw()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_number() {
        let root = User::by_name("root").expect("lookup works").expect("every system has root");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(User::all().expect("every system has /etc/passwd").contains(&root));
        assert_eq!(User::by_uid(0).expect("lookup works"), Some(root.clone()));
        assert!(root.identity().expect("lookup works").groups.contains(&0));
        assert_eq!(group_name(0).expect("lookup works").as_deref(), Some("root"));
    }

    #[test]
    fn an_unknown_user_is_none_and_not_an_error() {
        assert_eq!(User::by_name("no-such-user-of-toprope").expect("lookup works"), None);
        assert_eq!(User::by_uid(3_999_999_999).expect("lookup works"), None);
    }
}
