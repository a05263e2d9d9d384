//! Secrets: named in a manifest, never written in it, and shown nowhere.

use std::fmt;

use toprope_model::{FromNode, Node, Problems, Type, fields};

use super::params::exactly_one;
use super::{Context, ProbeError};

/// A file larger than this holds no secret.
const MAX_SECRET: u64 = 64 << 10;

fields! {
    /// Where a secret is.
    struct Reference {
        /// The environment variable that holds it.
        env: Option<String>,
        /// The file that holds it; a newline at its end is left out.
        file: Option<String>,
    }
}

/// A secret by reference: `{env: NAME}` or `{file: PATH}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Secret(Reference);

/// A secret itself. Has no text but by [`Revealed::expose`].
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Revealed(String);

impl FromNode for Secret {
    fn ty() -> Type {
        Reference::ty()
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        if node.entries().is_none() {
            problems
                .add(
                    node.span,
                    "a secret is named, not written",
                    "the secret would stand in the manifest and its copies",
                )
                .help("write {env: NAME} or {file: PATH}");
            return None;
        }
        let before = problems.count();
        let reference = Reference::from_node(node, problems)?;
        exactly_one(node, &["env", "file"], problems);
        (problems.count() == before).then_some(Self(reference))
    }
}

impl Secret {
    /// Reads it.
    ///
    /// # Errors
    /// That the variable is not set, that the file cannot be read, or that there is nothing in it.
    pub(super) fn read(&self, context: &Context) -> Result<Revealed, ProbeError> {
        let text = match (&self.0.env, &self.0.file) {
            (Some(name), _) => std::env::var(name).map_err(|e| {
                let why = match e {
                    std::env::VarError::NotPresent => "is not set",
                    std::env::VarError::NotUnicode(_) => "is not UTF-8",
                };
                ProbeError(format!("the environment variable {name}, which holds a secret, {why}"))
            })?,
            (None, Some(path)) => {
                let cannot = |why: &dyn fmt::Display| ProbeError(format!("cannot read the secret in {path}: {why}"));
                let path = context.directory.join(path);
                let length = std::fs::metadata(&path).map_err(|e| cannot(&e))?.len();
                if length > MAX_SECRET {
                    return Err(cannot(&format_args!("{length} bytes are too many for a secret")));
                }
                std::fs::read_to_string(path).map_err(|e| cannot(&e))?
            }
            (None, None) => unreachable!("a reference without a place is refused when it is read"),
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(ProbeError(format!("the secret of {self} is empty")));
        }
        Ok(Revealed(text.to_owned()))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.env, &self.0.file) {
            (Some(name), _) => write!(f, "the environment variable {name}"),
            (None, Some(path)) => write!(f, "the file {path}"),
            (None, None) => f.write_str("nowhere"),
        }
    }
}

impl Revealed {
    /// The secret, to be sent to whom it is meant for and nowhere else.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

/// Blots secrets out of a text that somebody else wrote who knew them.
pub(super) fn redact(secrets: &[Revealed], text: String) -> String {
    secrets.iter().fold(text, |text, secret| text.replace(secret.expose(), "(secret)"))
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testing::context;

    fn secret(json: serde_json::Value) -> Result<Secret, String> {
        let mut problems = Problems::default();
        Secret::from_node(&Node::from_json(&json), &mut problems).ok_or_else(|| problems.to_string())
    }

    #[test]
    fn a_secret_is_read_from_where_it_is_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "s3cret\n").unwrap();
        let context = Context { directory: directory.path().into(), ..context() };
        let revealed = secret(serde_json::json!({"file": "token"})).unwrap().read(&context).unwrap();
        assert_eq!(revealed.expose(), "s3cret");
        assert_eq!(format!("{revealed:?}"), "(secret)");
        // Cargo sets this one for every test.
        let revealed = secret(serde_json::json!({"env": "CARGO_PKG_NAME"})).unwrap().read(&context).unwrap();
        assert_eq!(revealed.expose(), "toprope-engine");
    }

    #[test]
    fn a_secret_that_is_written_or_not_there_is_refused() {
        assert!(secret(serde_json::json!("hunter2")).unwrap_err().contains("named, not written"));
        assert!(!secret(serde_json::json!("hunter2")).unwrap_err().contains("hunter2"));
        assert!(secret(serde_json::json!({})).unwrap_err().contains("missing"));
        assert!(secret(serde_json::json!({"env": "A", "file": "b"})).unwrap_err().contains("exclude"));
        let missing = secret(serde_json::json!({"env": "TOPROPE_NO_SUCH_VARIABLE"})).unwrap();
        assert!(missing.read(&context()).unwrap_err().0.contains("is not set"));
        let missing = secret(serde_json::json!({"file": "no-such-file"})).unwrap();
        assert!(missing.read(&context()).unwrap_err().0.contains("cannot read"));
        let empty = tempfile::NamedTempFile::new().unwrap();
        let empty = secret(serde_json::json!({"file": empty.path()})).unwrap();
        assert!(empty.read(&context()).unwrap_err().0.contains("is empty"));
    }
}
