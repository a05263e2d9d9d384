//! `file`: looks at a file as it is now.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::AsyncReadExt;
use toprope_model::target::Pattern;
use toprope_model::{Comparison, KindSpec, Node, Problems, Size, fields};

use super::blame::failed;
use super::expect::{Expect, JsonPath};
use super::params::{self, Params};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};

/// The most that is read of a file.
const MAX_CONTENT: u64 = 1 << 20;

fields! {
    /// Parameters of `file`.
    struct File {
        /// The file; a relative path begins where the run was started.
        path: String,
        /// Whether it must be there; or, with `false`, must not.
        exists: bool = "true",
        /// How large it must be.
        size: Option<Comparison>,
        /// What its content must be, or what `json` finds in it: a comparison or a range. Its number is then the
        /// sample's value.
        value: Option<Comparison>,
        /// What its content, or what `json` finds in it, may be: one of these.
        in_: Vec<Comparison>,
        /// A regular expression that must be found in its content, or in what `json` finds in it.
        matches: Option<Pattern>,
        /// Where in a file of JSON to look (RFC 9535). If a number is there, it is the sample's value.
        json: Option<JsonPath>,
    }
}

impl Params for File {
    fn verify(&self, node: &Node, problems: &mut Problems) {
        let looks_closer = ["size", "value", "in", "matches", "json"].iter().find_map(|key| node.get(key));
        if let (false, Some(closer)) = (self.exists, looks_closer) {
            problems.add(closer.span, "`exists: false` says that there is nothing to look at", "leave this out");
        }
    }
}

static SPEC: KindSpec = KindSpec {
    kind: "file",
    summary: "Looks at a file: whether it is there, how large it is, and what is in it.",
    docs: "\
The value of a sample is the number that `value` or `json` reads; or the size in bytes, if `size` is given; or else the
time in milliseconds that the look at the file took, which tells of a slow disk. Of the content, the first MiB is read, and
only if something is expected of it.

**Bad**: a file that is missing, or that cannot be read because of its disk. **No evidence**: we lack the permission.

For what is appended to a file, see `log`.

```yaml
- file: {path: /var/lib/backup/status.json, json: $.failed, value: 0}
```",
    example: "\
- file:
    path: /var/run/app/ready
    matches: ^ok
",
    fields: File::fields,
    check: params::check::<File>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let File { path, exists, size, value, in_, matches, json } = params::read(params)?;
        let expect = Expect { value, in_, matches, json };
        Ok(Box::new(FileProbe { shown: path.clone(), path: context.directory.join(path), exists, size, expect }))
    }
}

struct FileProbe {
    /// As it was written.
    shown: String,
    path: PathBuf,
    exists: bool,
    size: Option<Comparison>,
    expect: Expect,
}

/// The answer when a file could not be looked at.
pub(super) fn unreadable(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Answer::broken("we may not read it: permission denied"),
        _ => failed("it cannot be read", error),
    }
}

impl FileProbe {
    async fn look(&self) -> Result<Answer, Answer> {
        let about = match tokio::fs::metadata(&self.path).await {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(if self.exists { Answer::bad("it is not there") } else { Answer::good() });
            }
            about => about.map_err(|e| unreadable(&e))?,
        };
        if !self.exists {
            return Ok(Answer::bad("it is there"));
        }
        let mut answer = Answer::good();
        if let Some(bound) = &self.size {
            #[expect(clippy::cast_precision_loss, reason = "a size, as charts show it")]
            let size = about.len() as f64;
            answer.value = Some(size);
            answer.bad = (!bound.holds(size)).then(|| format!("it has {}, not {bound}", Size(about.len())));
        }
        if self.expect.is_empty() {
            return Ok(answer);
        }
        // To open a pipe would wait for somebody to write into it.
        if !about.is_file() {
            return Ok(Answer::bad("it is no regular file"));
        }
        let mut content = Vec::new();
        let file = tokio::fs::File::open(&self.path).await.map_err(|e| unreadable(&e))?;
        file.take(MAX_CONTENT).read_to_end(&mut content).await.map_err(|e| unreadable(&e))?;
        let found = self.expect.judge("its content", &String::from_utf8_lossy(&content));
        Ok(Answer { bad: answer.bad.or(found.bad), value: found.value.or(answer.value), ..answer })
    }
}

impl Probe for FileProbe {
    fn asks(&self) -> String {
        format!("file {}", self.shown)
    }

    fn tolerates(&self) -> String {
        std::iter::once(if self.exists { "is there".to_owned() } else { "is not there".to_owned() })
            .chain(self.size.as_ref().map(|size| format!("size {size}")))
            .chain(self.expect.describe("content"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn unit(&self) -> &'static str {
        match (self.expect.reads_value(), &self.size) {
            (true, _) => "",
            (false, Some(_)) => "B",
            (false, None) => "ms",
        }
    }

    fn sample(self: Arc<Self>, _moment: Moment) -> BoxFuture<'static, Answer> {
        Box::pin(async move { self.look().await.unwrap_or_else(|failed| failed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testing::{ask, context, problems, try_probe};

    fn within(directory: &tempfile::TempDir, yaml: &str) -> Arc<dyn Probe> {
        try_probe(&Kind, yaml, &Context { directory: directory.path().into(), ..context() }).unwrap()
    }

    #[tokio::test]
    async fn a_file_is_there_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let (there, gone) = (within(&directory, "path: x"), within(&directory, "{path: x, exists: false}"));
        assert_eq!((ask(&there).await, ask(&gone).await), (Answer::bad("it is not there"), Answer::good()));
        std::fs::write(directory.path().join("x"), "").unwrap();
        assert_eq!((ask(&there).await, ask(&gone).await), (Answer::good(), Answer::bad("it is there")));
        assert_eq!(ask(&within(&directory, "path: x/y")).await, Answer::bad("it is not there"));
    }

    #[tokio::test]
    async fn size_and_content_are_judged() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x"), r#"{"failed": 2}"#).unwrap();
        let size = within(&directory, "{path: x, size: '< 10B'}");
        assert_eq!(
            (ask(&size).await, size.unit()),
            (Answer { value: Some(13.0), ..Answer::bad("it has 13B, not < 10B") }, "B")
        );
        let failed = within(&directory, "{path: x, json: $.failed, value: 0}");
        assert_eq!(ask(&failed).await, Answer { value: Some(2.0), ..Answer::bad("$.failed is `2`, not 0") });
        assert_eq!(ask(&within(&directory, "{path: x, matches: failed}")).await, Answer::good());
    }

    #[tokio::test]
    async fn neither_a_pipe_nor_a_huge_file_holds_a_sample_up() {
        let directory = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(directory.path().join("pipe")).status().unwrap();
        assert!(made.success());
        assert_eq!(ask(&within(&directory, "{path: pipe, matches: x}")).await, Answer::bad("it is no regular file"));
        // A hole of a TiB.
        let huge = std::fs::File::create(directory.path().join("huge")).unwrap();
        huge.set_len(1 << 40).unwrap();
        assert_eq!(ask(&within(&directory, "{path: huge, matches: '\\x00'}")).await, Answer::good());
    }

    #[test]
    fn nothing_is_expected_of_a_file_that_must_not_be_there() {
        assert!(problems(&Kind, "{path: x, exists: false, matches: y}").contains("nothing to look at"));
        assert!(problems(&Kind, "{}").contains("`path` is missing"));
    }
}
