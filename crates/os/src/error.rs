//! The crate's one error: what was tried, on what, why the kernel refused, and what would help.

use std::io;

use crate::process::ProcessId;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request to the kernel was not fulfilled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a call.
    #[error("cannot {action}: {source}{}", Needs(*needs, source))]
    System {
        /// What was tried and on what, as it follows "cannot": `send SIGKILL to process 12`.
        action: String,
        /// What grants the right to do so (`CAP_NET_ADMIN`), told when the refusal was one of permission.
        needs: Option<&'static str>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process that was named has ended, or its number now names another one.
    #[error("process {0} is gone: it ended, or its number now names another process")]
    ProcessGone(ProcessId),
    /// No process has this number.
    #[error("there is no process {0}")]
    NoSuchProcess(u32),
    /// The kernel's text or message is not of the documented form.
    #[error("{what} is not of the expected form: {why}")]
    Malformed {
        /// Which file or message.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// An argument that can never work, whatever the host.
    #[error("{what} {why}")]
    Invalid {
        /// Which argument.
        what: String,
        /// What is wrong with it and what would be right.
        why: String,
    },
    /// A lease was not renewed in time.
    #[error("the lease {name} has run out, so its rules have not matched for a while; grant it anew or give it up")]
    LeaseRanOut {
        /// The lease's name.
        name: String,
    },
    /// This host, kernel or container cannot do it.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

/// Why this host cannot do something, and what would work instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not possible here: {why}; {instead}")]
pub struct Unsupported {
    /// What was wanted.
    pub what: &'static str,
    /// What stands in its way.
    pub why: String,
    /// What the user can do about it.
    pub instead: String,
}

impl Error {
    /// The kernel's error number, where a call was refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether more privileges would have helped.
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, Self::System { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    pub(crate) fn malformed(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Malformed { what: what.into(), why: why.into() }
    }

    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }
}

struct Needs<'a>(Option<&'static str>, &'a io::Error);

impl std::fmt::Display for Needs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(needs) if self.1.kind() == io::ErrorKind::PermissionDenied => write!(f, " (it needs {needs})"),
            _ => Ok(()),
        }
    }
}

/// Says what a refused call was for.
pub(crate) trait Context<T> {
    /// Names the action as it follows "cannot".
    fn cannot<A: Into<String>>(self, action: impl FnOnce() -> A) -> Result<T>;

    /// As [`Context::cannot`], and names what would grant the right.
    fn cannot_without<A: Into<String>>(self, needs: &'static str, action: impl FnOnce() -> A) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn cannot<A: Into<String>>(self, action: impl FnOnce() -> A) -> Result<T> {
        self.map_err(|e| Error::System { action: action().into(), needs: None, source: e.into() })
    }

    fn cannot_without<A: Into<String>>(self, needs: &'static str, action: impl FnOnce() -> A) -> Result<T> {
        self.map_err(|e| Error::System { action: action().into(), needs: Some(needs), source: e.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: rustix::io::Errno) -> Error {
        Err::<(), _>(errno).cannot_without("CAP_KILL", || "send SIGKILL to process 12").expect_err("an error went in")
    }

    #[test]
    fn a_refusal_of_permission_says_what_is_needed() {
        let e = refused(rustix::io::Errno::PERM);
        assert!(e.is_permission_denied());
        assert_eq!(
            e.to_string(),
            "cannot send SIGKILL to process 12: Operation not permitted (os error 1) (it needs CAP_KILL)"
        );
    }

    #[test]
    fn another_refusal_does_not_speak_of_privileges() {
        let e = refused(rustix::io::Errno::SRCH);
        assert_eq!(e.raw_os_error(), Some(libc::ESRCH));
        assert!(!e.to_string().contains("needs"), "{e}");
    }
}
