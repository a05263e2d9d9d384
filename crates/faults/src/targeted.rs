//! What faults on processes share: targets as a step names them, and a step's own data.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toprope_engine::fault::FaultError;
use toprope_model::step::Step;
use toprope_os::Error;
use toprope_os::process::{Pidfd, ProcessId, ProcessInfo};

/// A process as a step names it: durable, and never mistaken for a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) id: ProcessId,
    pub(crate) name: String,
}

impl From<&ProcessInfo> for Named {
    fn from(process: &ProcessInfo) -> Self {
        Self { id: process.id, name: process.name.clone() }
    }
}

/// `nginx (pid 4242)`.
impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.name, self.id.pid())
    }
}

impl Named {
    /// Holds the process; `None` when it has ended.
    pub(crate) fn open(&self) -> Result<Option<Pidfd>, FaultError> {
        let failed = |e| FaultError::because(format!("{self} cannot be held"), e);
        match Pidfd::open(&self.id) {
            Ok(pidfd) if pidfd.has_exited().map_err(failed)? => Ok(None),
            Ok(pidfd) => Ok(Some(pidfd)),
            Err(Error::ProcessGone(_)) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    /// The process as it is now; `None` when it has ended.
    pub(crate) fn now(&self) -> Result<Option<ProcessInfo>, FaultError> {
        match ProcessInfo::of(self.id.pid()) {
            Ok(info) => Ok((info.id == self.id && info.id.is_alive()).then_some(info)),
            Err(Error::NoSuchProcess(_)) => Ok(None),
            Err(e) => Err(FaultError::because(format!("{self} cannot be looked at"), e)),
        }
    }
}

/// Names in one line.
pub(crate) fn list(names: &[Named]) -> String {
    names.iter().map(Named::to_string).collect::<Vec<_>>().join(", ")
}

/// A signal could not be sent, or would not be.
pub(crate) fn not_ours(process: &Named, error: Error) -> FaultError {
    let denied = error.is_permission_denied();
    let refused = FaultError::because(format!("{process} cannot be reached"), error);
    if denied { refused.help("run Toprope as root or as the process's user") } else { refused }
}

/// A step's data, as its fault wrote it.
pub(crate) fn to_data<T: Serialize>(data: &T) -> serde_json::Value {
    serde_json::to_value(data).expect("the data of steps are plain structs")
}

/// A step's data, as its fault reads it; also in another process, and from a file.
pub(crate) fn data_of<T: DeserializeOwned>(step: &Step) -> Result<T, FaultError> {
    T::deserialize(&step.data).map_err(|e| {
        FaultError::because("the record of this step cannot be read", e)
            .help("it was written by another version of Toprope: undo it with that version")
    })
}
