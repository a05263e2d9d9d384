//! `log`: counts lines that are appended to a file.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use toprope_model::event::Phase;
use toprope_model::target::Pattern;
use toprope_model::{Comparison, KindSpec, Node, Problems, choice, fields};

use super::expect::shown;
use super::file::unreadable;
use super::params::{self, Params};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};

/// The most that one sample reads; what is left is read by the next one.
const MAX_READ: usize = 8 << 20;
/// The most of one line that is looked at.
const MAX_LINE: usize = 64 << 10;

choice! {
    /// Over which time lines are counted.
    enum Per {
        /// Since the run began.
        Run = "run",
        /// Since the sample before.
        Sample = "sample",
    }
}

fields! {
    /// Parameters of `log`.
    struct Log {
        /// The file; a relative path begins where the run was started. It need not be there yet.
        path: String,
        /// The regular expression that is looked for in each line.
        matches: Pattern,
        /// How many lines may match.
        count: Comparison = "== 0",
        /// Whether the lines since the run began are counted (`run`), or those since the sample before (`sample`), with
        /// which the probe can become good again.
        per: Per = "run",
    }
}

impl Params for Log {
    fn verify(&self, _node: &Node, _problems: &mut Problems) {}
}

static SPEC: KindSpec = KindSpec {
    kind: "log",
    summary: "Counts the lines matching an expression that were appended to a file since the run began.",
    docs: "\
What was in the file when the run (or the trial of a search) began is not counted. A file that is rotated is followed: the rest of the old one is read,
then the new one from its beginning; so is one that is truncated. A line counts once its end was written. A sample reads at
most 8 MiB, and the next one goes on from there; of a line, the first 64 KiB are looked at.

The value of a sample is the number of lines. **Good** is a number as `count` asks for: none, unless it says otherwise. A
count since the beginning of the run never becomes smaller, so that a bad sample is followed by bad ones only; with
`per: sample` each sample counts anew. **No evidence**: we lack the permission to read the file.

```yaml
- log: {path: /var/log/app.log, matches: ' reconnected ', count: '> 0', when: after}
```",
    example: "\
- log:
    path: /var/log/app.log
    matches: ERROR|panic
",
    fields: Log::fields,
    check: params::check::<Log>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let params: Log = params::read(params)?;
        let path = context.directory.join(&params.path);
        Ok(Box::new(LogProbe { path, params, follow: Mutex::default() }))
    }
}

struct LogProbe {
    path: PathBuf,
    params: Log,
    follow: Mutex<Follow>,
}

/// How far a file was read.
#[derive(Default)]
struct Follow {
    begun: bool,
    file: Option<File>,
    offset: u64,
    /// The beginning of a line whose end was not yet there.
    rest: Vec<u8>,
    /// Whether the line in `rest` is longer than is looked at.
    cut: bool,
    count: u64,
    /// The last line that matched.
    last: String,
    /// The run's phase when it was last asked.
    phase: Option<Phase>,
}

impl Follow {
    /// Goes to the end of the file.
    fn begin(&mut self, path: &Path) -> io::Result<()> {
        self.begun = true;
        if let Some((file, about)) = open(path)? {
            self.offset = about.len();
            self.file = Some(file);
        }
        Ok(())
    }

    /// Reads what was appended.
    fn advance(&mut self, path: &Path, pattern: &Pattern) -> io::Result<()> {
        if !self.begun {
            return self.begin(path);
        }
        let mut budget = MAX_READ;
        let named = match std::fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            named => Some(named?),
        };
        if let Some(file) = &self.file {
            let about = file.metadata()?;
            if about.len() < self.offset {
                self.start_over();
            }
            if about.len() > self.offset {
                self.read(&mut budget, pattern)?;
            }
            let rotated = named.as_ref().is_some_and(|named| !same(named, &about));
            if !rotated || budget == 0 {
                return Ok(());
            }
        }
        if named.is_some()
            && let Some((file, _)) = open(path)?
        {
            self.start_over();
            self.file = Some(file);
            self.read(&mut budget, pattern)?;
        }
        Ok(())
    }

    fn start_over(&mut self) {
        self.offset = 0;
        self.rest.clear();
        self.cut = false;
    }

    fn read(&mut self, budget: &mut usize, pattern: &Pattern) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while *budget > 0 {
            let Some(file) = &self.file else { return Ok(()) };
            let wanted = buffer.len().min(*budget);
            let n = file.read_at(&mut buffer[..wanted], self.offset)?;
            if n == 0 {
                return Ok(());
            }
            self.offset += n as u64;
            *budget -= n;
            self.take_lines(&buffer[..n], pattern);
        }
        Ok(())
    }

    fn take_lines(&mut self, read: &[u8], pattern: &Pattern) {
        for part in read.split_inclusive(|b| *b == b'\n') {
            let (line, ended) = part.strip_suffix(b"\n").map_or((part, false), |line| (line, true));
            let room = MAX_LINE - self.rest.len();
            self.rest.extend_from_slice(line.get(..room).unwrap_or(line));
            if ended {
                let text = String::from_utf8_lossy(&self.rest);
                if pattern.0.is_match(&text) {
                    self.count += 1;
                    self.last = shown(&text);
                }
                self.rest.clear();
            }
        }
    }
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Opens a regular file; `None` if there is none.
fn open(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    // To open a pipe would wait for somebody to write into it.
    match std::fs::metadata(path) {
        Ok(about) if about.is_file() => {}
        Ok(_) => return Err(io::Error::other("it is no regular file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    }
    let file = File::open(path)?;
    let about = file.metadata()?;
    Ok(Some((file, about)))
}

impl LogProbe {
    fn look(&self, phase: Phase) -> Answer {
        let mut follow = self.follow.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = follow.advance(&self.path, &self.params.matches) {
            return unreadable(&e);
        }
        let before = follow.phase.replace(phase);
        if phase == Phase::SteadyState && before.is_some_and(|before| before != phase) {
            // Another trial of a search begins with another steady state.
            follow.count = 0;
        }
        let count = follow.count;
        if self.params.per == Per::Sample {
            follow.count = 0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of lines")]
        let value = count as f64;
        let bad = (!self.params.count.holds(value)).then(|| {
            let lines = if count == 1 { "line matches" } else { "lines match" };
            let last = if count > 0 { format!("; the last: {}", follow.last) } else { String::new() };
            format!("{count} {lines}, not {}{last}", self.params.count)
        });
        Answer { bad, value: Some(value), ..Answer::good() }
    }
}

impl Probe for LogProbe {
    fn asks(&self) -> String {
        let per = if self.params.per == Per::Sample { " since the last sample" } else { "" };
        format!("lines of {} that match /{}/{per}", self.params.path, self.params.matches)
    }

    fn tolerates(&self) -> String {
        format!("count {}", self.params.count)
    }

    fn unit(&self) -> &'static str {
        "lines"
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), ProbeError>> {
        let begun = self.follow.lock().unwrap_or_else(PoisonError::into_inner).begin(&self.path);
        let begun = begun.map_err(|e| ProbeError(format!("{} cannot be followed: {e}", self.params.path)));
        Box::pin(std::future::ready(begun))
    }

    fn sample(self: Arc<Self>, moment: Moment) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            #[expect(clippy::disallowed_methods, reason = "reads and searches 8 MiB at most")]
            let looked = tokio::task::spawn_blocking(move || self.look(moment.phase));
            looked.await.unwrap_or_else(|e| Answer::broken(format!("the file could not be searched: {e}")))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::probe::testing::{ask, ask_at, context, moment, problems, try_probe};

    struct Followed {
        directory: tempfile::TempDir,
        probe: Arc<dyn Probe>,
    }

    impl Followed {
        async fn new(before: Option<&str>, more: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("app.log");
            if let Some(before) = before {
                std::fs::write(&path, before).unwrap();
            }
            let context = Context { directory: directory.path().into(), ..context() };
            let probe = try_probe(&Kind, &format!("{{path: app.log, matches: ERROR{more}}}"), &context).unwrap();
            probe.begin().await.unwrap();
            Self { directory, probe }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("app.log")
        }

        fn append(&self, text: impl AsRef<[u8]>) {
            let mut file = File::options().append(true).create(true).open(self.path()).unwrap();
            file.write_all(text.as_ref()).unwrap();
        }

        async fn count(&self) -> f64 {
            ask(&self.probe).await.value.unwrap()
        }
    }

    #[tokio::test]
    async fn only_whole_lines_that_are_new_are_counted() {
        let log = Followed::new(Some("ERROR old\nERR"), "").await;
        assert_eq!(ask(&log.probe).await, Answer { value: Some(0.0), ..Answer::good() });
        log.append("OR the rest of an old line\nfine\nERROR new\nERROR half");
        let answer = ask(&log.probe).await;
        assert_eq!(answer.bad.unwrap(), "1 line matches, not == 0; the last: `ERROR new`");
        assert_eq!(answer.value, Some(1.0));
        log.append(" and whole\n\n");
        assert_eq!(log.count().await, 2.0);
        assert_eq!(log.count().await, 2.0, "nothing is counted twice");
    }

    #[tokio::test]
    async fn a_count_per_sample_becomes_good_again() {
        let log = Followed::new(Some(""), ", per: sample").await;
        log.append("ERROR\nERROR\n");
        assert_eq!(log.count().await, 2.0);
        assert_eq!(ask(&log.probe).await, Answer { value: Some(0.0), ..Answer::good() });
    }

    #[tokio::test]
    async fn another_trial_counts_anew() {
        let log = Followed::new(Some(""), "").await;
        let at = |phase| ask_at(&log.probe, Moment { phase, ..moment(0) });
        log.append("ERROR\n");
        assert_eq!(at(Phase::SteadyState).await.value, Some(1.0));
        log.append("ERROR\n");
        assert_eq!(at(Phase::Inject).await.value, Some(2.0));
        log.append("ERROR\n");
        assert_eq!(at(Phase::SteadyState).await.value, Some(0.0));
        log.append("ERROR\n");
        assert_eq!(at(Phase::SteadyState).await.value, Some(1.0));
    }

    #[tokio::test]
    async fn a_file_is_followed_when_it_appears_is_rotated_truncated_or_removed() {
        let log = Followed::new(None, "").await;
        assert_eq!(log.count().await, 0.0);
        log.append("ERROR 1\n");
        assert_eq!(log.count().await, 1.0);
        log.append("ERROR 2\n");
        std::fs::rename(log.path(), log.directory.path().join("app.log.1")).unwrap();
        log.append("ERROR 3\n");
        assert_eq!(log.count().await, 3.0, "the rest of the old file, and the new one");
        std::fs::write(log.path(), "ERROR\n").unwrap();
        assert_eq!(log.count().await, 4.0, "truncated, and shorter than before");
        std::fs::remove_file(log.path()).unwrap();
        assert_eq!(log.count().await, 4.0);
        log.append("ERROR 5\n");
        assert_eq!(log.count().await, 5.0);
    }

    #[tokio::test]
    async fn floods_garbage_and_endless_lines_are_read_in_bounds() {
        let log = Followed::new(Some(""), ", count: '>= 0'").await;
        log.append([b"\xff\xfe ERROR \xff\n".as_slice(), &[b'x'; 1 << 20], b"ERROR\nERROR\n"].concat());
        assert_eq!(log.count().await, 2.0, "the end of an endless line is not looked at");
        log.append("ERROR\n".repeat(2_000_000));
        let mut counts = vec![log.count().await];
        assert!(counts[0] < 2_000_002.0, "one sample does not read it all");
        while counts.last() < Some(&2_000_002.0) && counts.len() < 10 {
            counts.push(log.count().await);
        }
        assert_eq!(counts.last(), Some(&2_000_002.0));
    }

    #[tokio::test]
    async fn what_is_no_file_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let context = Context { directory: directory.path().into(), ..context() };
        let probe = try_probe(&Kind, "{path: ., matches: x}", &context).unwrap();
        assert!(probe.begin().await.unwrap_err().0.contains("no regular file"));
        assert!(problems(&Kind, "{path: x, matches: '('}").contains("not a regular expression"));
    }
}
