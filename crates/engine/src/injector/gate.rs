//! What root's injectors do for a user without rights: what the host's policy allows, and nothing else.
//!
//! Whoever speaks to such an injector is not trusted: every message passes here, and what a run would say of itself (its
//! user, the journal's place, facts about services) is replaced by what root knows.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use toprope_model::kind::Tables;
use toprope_model::policy::{Caller, Policy};
use toprope_model::{Node, Sources};
use toprope_os::user::{User, group_name};

use super::message::{PlanRequest, ToInjector};
use crate::fault::FaultError;
use crate::halt::Levers;
use crate::host::Host;
use crate::journal::Journal;
use crate::state::State;

/// Where a host's policy is, unless the launcher is told of another place.
pub const POLICY: &str = "/etc/toprope/policy.yaml";

/// Lets through what one caller may ask for.
#[derive(Debug)]
pub struct Gate {
    caller: Caller,
    policy: Policy,
    /// Where the policy is, for errors.
    path: PathBuf,
    journal: PathBuf,
    /// What was planned last: the fault, and for how long.
    planned: Option<(String, u64)>,
}

/// What an injector's command line says that it is for a caller; what follows is their number, the policy and root's
/// state.
pub(super) const FOR: &str = "--for";

impl Gate {
    /// The gate that an injector's command line names; none where it names none.
    ///
    /// # Errors
    /// As for [`Gate::of`].
    pub fn named_by(args: impl IntoIterator<Item = String>, tables: &Tables) -> Result<Option<Self>, String> {
        let args: Vec<String> = args.into_iter().skip_while(|arg| arg != FOR).collect();
        match &args[..] {
            [] => Ok(None),
            [_, uid, policy, state] => {
                let uid = uid.parse().map_err(|_| format!("{uid} is no number of a user"))?;
                Self::of(uid, Path::new(policy), &State::at(state), tables).map(Some)
            }
            _ => Err("whom the injector is for is not said in full".into()),
        }
    }

    /// The gate for a user, by a policy that only root could have written. Steps are recorded in root's journal.
    ///
    /// # Errors
    /// There is no such user, or the policy cannot be read, is not root's alone, or says nothing that can be understood.
    pub fn of(uid: u32, path: &Path, state: &State, tables: &Tables) -> Result<Self, String> {
        let user = User::by_uid(uid).map_err(|e| e.to_string())?.ok_or_else(|| format!("there is no user {uid}"))?;
        let identity = user.identity().map_err(|e| e.to_string())?;
        let groups = identity.groups.iter().filter_map(|gid| group_name(*gid).ok().flatten()).collect();
        let shown = path.display();
        let text = read_trusted(path).map_err(|why| format!("the policy {shown} is not used: {why}"))?;
        let mut sources = Sources::default();
        let read = toprope_model::parse(&mut sources, &shown.to_string(), &text);
        let policy = read.and_then(|node| Policy::read(&node, tables)).map_err(|problems| {
            let first = problems.0.first().map(|problem| problem.message.clone()).unwrap_or_default();
            format!("the policy {shown} is not used: {first}; `toprope validate {shown}` says where")
        })?;
        let caller = Caller { name: user.name, uid, groups };
        let journal = state.journal().directory().to_owned();
        Ok(Self { caller, policy, path: path.to_owned(), journal, planned: None })
    }

    /// A message as it may be acted upon.
    ///
    /// # Errors
    /// What the policy says against it.
    pub(super) fn admit(&mut self, message: ToInjector) -> Result<ToInjector, FaultError> {
        match message {
            ToInjector::Plan(request) => {
                if let Some(order) = Levers::of(&State::of_root()).order_for("", &BTreeSet::new()) {
                    return Err(FaultError::new(format!("nothing is injected on this host: {order}"))
                        .help("`toprope halt --lift` takes the order back"));
                }
                self.allowed(&request.fault, &request.params, request.for_ms)?;
                self.planned = Some((request.fault.clone(), request.for_ms));
                let host = self.host(request.host);
                Ok(ToInjector::Plan(Box::new(PlanRequest { host, journal: self.journal.clone(), ..*request })))
            }
            ToInjector::Apply(mut request) => {
                if !is_run(&request.run) {
                    return Err(FaultError::new(format!("{:?} is no name of a run", request.run)));
                }
                let (fault, for_ms) = self.planned.clone().unwrap_or_default();
                for change in &request.changes {
                    self.allowed(&fault, &change.params, for_ms)?;
                }
                request.user.clone_from(&self.caller.name);
                Ok(ToInjector::Apply(request))
            }
            ToInjector::Undo { record, host, .. } => {
                let record = self.journal.join(record.file_name().unwrap_or_default());
                let read = Journal::at(&self.journal).read(&record)?;
                if read.intent.user != self.caller.name {
                    let whose = &read.intent.user;
                    return Err(FaultError::new(format!(
                        "run {} is {whose}'s, and {whose}'s or root's to undo",
                        read.intent.run
                    )));
                }
                Ok(ToInjector::Undo { journal: self.journal.clone(), record, host: self.host(host) })
            }
            ToInjector::Release { .. } | ToInjector::Logged | ToInjector::Answer(_) => Ok(message),
        }
    }

    fn allowed(&self, fault: &str, params: &serde_json::Value, for_ms: u64) -> Result<(), FaultError> {
        self.policy.allows(&self.caller, fault, &Node::from_json(params), for_ms).map_err(|why| {
            let (name, path) = (&self.caller.name, self.path.display());
            FaultError::new(format!("the policy of this host does not let {name} inject this {fault}: {why}"))
                .help(format!("ask who administers this host to allow it in {path}, or ask for what it allows"))
        })
    }

    /// What the caller says of the host, without what would make others' processes its targets or give it a user's rights.
    fn host(&self, said: Host) -> Host {
        Host {
            services: vec![],
            own: said.own,
            invoking_user: Some(self.caller.uid),
            directory: said.directory,
            person: None,
            pass_throughs: vec![],
            pass_through: None,
        }
    }
}

/// A run's name as Toprope makes them: it becomes the name of a file of root's.
fn is_run(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The text of a file that nobody but root could have written.
fn read_trusted(path: &Path) -> Result<String, String> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = std::fs::File::options().read(true).custom_flags(flags).open(path).map_err(|e| e.to_string())?;
    let meta = file.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("it is no file".into());
    }
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        return Err("it must be root's, and writable by nobody else".into());
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut file, &mut text).map_err(|e| e.to_string())?;
    Ok(text)
}
