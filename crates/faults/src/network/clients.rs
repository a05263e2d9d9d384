//! Whose traffic is meant: what `from` means, and whether the packet filter can tell it.

use serde::{Deserialize, Serialize};
use toprope_engine::fault::FaultError;
use toprope_engine::target;
use toprope_model::target::{Pick, Target};
use toprope_os::nft::{Cgroup, Match};

/// Programs as the packet filter can tell them, by their sockets. All that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// The number of the user who made the socket.
    pub(crate) uid: Option<u32>,
    /// The control group in which the socket was made, or one above it; of the v2 hierarchy.
    pub(crate) cgroup: Option<String>,
    /// The port that they listen on.
    pub(crate) port: Option<u16>,
}

/// Whose traffic is meant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Clients {
    /// What the packet filter can tell.
    Owner(Owner),
    /// Processes, which it cannot tell.
    Processes,
}

impl Clients {
    /// Reads a selector.
    ///
    /// # Errors
    /// That it names a user who is not there.
    pub(crate) fn of(from: &Target) -> Result<Self, FaultError> {
        let selector = &from.0;
        let by_process = selector.pid.is_some()
            || selector.process.is_some()
            || selector.command_line.is_some()
            || selector.unit.is_some()
            || selector.service.is_some()
            || selector.pick != Pick::All;
        if by_process {
            return Ok(Self::Processes);
        }
        let uid = selector.user.as_deref().map(target::uid_of).transpose()?;
        Ok(Self::Owner(Owner { uid, cgroup: selector.cgroup.clone(), port: selector.port }))
    }

    /// Whether, of the connections that somebody opens, the packet filter cannot tell these: also not those of who
    /// listens on a port, because they are opened from other ports.
    pub(crate) fn are_processes(&self) -> bool {
        matches!(self, Self::Processes | Self::Owner(Owner { port: Some(_), .. }))
    }
}

impl Owner {
    /// The conditions that tell what they send.
    ///
    /// # Errors
    /// That the control group cannot be found.
    pub(crate) fn conditions(&self) -> Result<Vec<Match>, FaultError> {
        let mut conditions: Vec<Match> = self.uid.map(Match::Uid).into_iter().collect();
        conditions.extend(self.group()?);
        Ok(conditions)
    }

    /// The condition that tells their control group, which holds for what they receive too.
    pub(crate) fn group(&self) -> Result<Option<Match>, FaultError> {
        let Some(path) = &self.cgroup else { return Ok(None) };
        let group = Cgroup::at(path).map_err(|e| {
            FaultError::because(format!("the control group {path} cannot be selected"), e).help(
                "packets are told by groups of the v2 hierarchy: `cat /proc/PID/cgroup` shows a process's on the line 0::",
            )
        })?;
        Ok(Some(Match::Cgroup(group)))
    }
}

#[cfg(test)]
mod tests {
    use toprope_model::{FromNode, Node, Problems};

    use super::*;

    fn clients(selector: serde_json::Value) -> Result<Clients, FaultError> {
        Clients::of(&Target::from_node(&Node::from_json(&selector), &mut Problems::default()).unwrap())
    }

    #[test]
    fn what_sockets_tell_is_told_from_what_they_do_not() {
        use serde_json::json;
        let owner = |selector| match clients(selector).unwrap() {
            Clients::Owner(owner) => owner,
            Clients::Processes => panic!("the filter can tell these"),
        };
        assert_eq!(owner(json!({"host": true})), Owner::default());
        assert_eq!(owner(json!({"user": "root"})).uid, Some(0));
        assert_eq!(
            owner(json!({"user": "65534", "cgroup": "/a/b"})),
            Owner { uid: Some(65534), cgroup: Some("/a/b".into()), port: None }
        );
        assert_eq!(owner(json!({"port": 80})).port, Some(80));
        for processes in [
            json!({"process": "nginx"}),
            json!({"pid": 1}),
            json!({"user": "root", "command-line": "x"}),
            json!({"user": "root", "pick": "one"}),
            json!({"unit": "nginx"}),
            json!({"service": "cart"}),
        ] {
            assert_eq!(clients(processes.clone()).unwrap(), Clients::Processes, "{processes}");
        }
        assert!(clients(json!({"user": "nobody-of-this-name"})).unwrap_err().message.contains("no user"));
    }

    #[test]
    fn a_control_group_that_is_not_there_is_refused() {
        let e = Owner { cgroup: Some("/no/such/group".into()), ..Owner::default() }.conditions().unwrap_err();
        assert!(e.message.contains("/no/such/group") && e.help.is_some(), "{e}");
    }
}
