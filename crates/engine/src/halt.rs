//! Stop levers: files whose presence stops runs of a host, and forbids new ones.
//!
//! An order is one file. The host's own place can be written by every user, so that anybody can stop what runs; each
//! user's state has another one for their runs. A run hears of a new file by inotify and looks at both places itself, so
//! `touch` is as good as a command. Who made a file is who the file system says, so nobody halts in another's name.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toprope_model::{Node, Value};
use toprope_os::user::User;
use toprope_os::watch::DirectoryWatch;

use crate::run::{Setup, StopSwitch};
use crate::state::State;

/// The place of the whole host. It is in memory, and so empty after a reboot, as the host is.
pub const HOST: &str = "/run/toprope/halt";

/// What an order stops.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Every run.
    All,
    /// One run, by its id.
    Run(String),
    /// The runs whose faults are on one service.
    Service(String),
}

impl Scope {
    fn file(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Run(run) => format!("run.{run}"),
            Self::Service(name) => format!("service.{name}"),
        }
    }

    fn parse(file: &str) -> Option<Self> {
        match file.split_once('.') {
            None if file == "all" => Some(Self::All),
            Some(("run", run)) => Some(Self::Run(run.to_owned())),
            Some(("service", name)) => Some(Self::Service(name.to_owned())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all runs"),
            Self::Run(run) => write!(f, "run {run}"),
            Self::Service(name) => write!(f, "runs on the service {name}"),
        }
    }
}

/// What a file of an order says. One that is empty, or anything else, is an order all the same.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Said {
    #[serde(default)]
    by: String,
    #[serde(default)]
    why: String,
}

/// An order that is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What it stops.
    pub scope: Scope,
    /// Who gave it.
    pub by: String,
    /// When, as a label.
    pub at: String,
    /// Why; empty where nothing was said.
    pub why: String,
    /// Its file.
    pub path: PathBuf,
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} halted {} at {}", self.by, self.scope, self.at)?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why) }
    }
}

/// Why an order could not be given or lifted.
#[derive(Debug, thiserror::Error)]
pub enum HaltError {
    /// A service's name that is no file's name.
    #[error("`{0}` is no name of a service: letters, digits, `.`, `-` and `_` only")]
    Name(String),
    /// A file could not be made or removed.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// Whose runs an order reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Everybody's on this host.
    Host,
    /// Those whose state is the caller's.
    Own,
}

/// Makes the host's place, where we may, so that every user can give orders there.
///
/// # Errors
/// Only root can make it, and some containers have no `/run`.
pub fn open_host() -> std::io::Result<()> {
    open_to_all(Path::new(HOST))
}

/// Makes a directory that all may write, and in which nobody removes another's files, as `/tmp` is.
fn open_to_all(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(above) = directory.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    match std::fs::create_dir(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o1777))
}

/// The places where orders are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levers {
    host: PathBuf,
    own: PathBuf,
}

impl Levers {
    /// Those that a run with this state obeys.
    pub fn of(state: &State) -> Self {
        Self { host: HOST.into(), own: state.root().join("halt") }
    }

    /// Gives an order: to the whole host where that can be, else to the runs of this state. Its reach is what counts.
    ///
    /// # Errors
    /// Neither place can be written.
    pub fn pull(&self, scope: &Scope, by: &str, why: &str) -> Result<Reach, HaltError> {
        self.check(scope)?;
        let said = serde_json::to_vec(&Said { by: by.to_owned(), why: why.to_owned() }).unwrap_or_default();
        let path = self.host.join(scope.file());
        // Where another user has given the same order, theirs stands.
        if open_to_all(&self.host).is_ok() && (write(&path, &said).is_ok() || path.symlink_metadata().is_ok()) {
            return Ok(Reach::Host);
        }
        self.pull_own(scope, by, why).map(|()| Reach::Own)
    }

    /// Gives an order to the runs of this state alone.
    ///
    /// # Errors
    /// Its place cannot be written.
    pub fn pull_own(&self, scope: &Scope, by: &str, why: &str) -> Result<(), HaltError> {
        self.check(scope)?;
        let said = serde_json::to_vec(&Said { by: by.to_owned(), why: why.to_owned() }).unwrap_or_default();
        let path = self.own.join(scope.file());
        let io = |error| HaltError::Io { what: "write", path: path.clone(), error };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.own).map_err(io)?;
        write(&path, &said).map_err(io)
    }

    fn check(&self, scope: &Scope) -> Result<(), HaltError> {
        let (Scope::Service(name) | Scope::Run(name)) = scope else { return Ok(()) };
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if name.is_empty() || !name.chars().all(fits) {
            return Err(HaltError::Name(name.clone()));
        }
        Ok(())
    }

    /// Takes an order back; says whether there was one.
    ///
    /// # Errors
    /// It is another user's, and this one is not root.
    pub fn lift(&self, scope: &Scope) -> Result<bool, HaltError> {
        let mut lifted = false;
        for place in [&self.host, &self.own] {
            let path = place.join(scope.file());
            match std::fs::remove_file(&path) {
                Ok(()) => lifted = true,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(HaltError::Io { what: "remove", path, error }),
            }
        }
        Ok(lifted)
    }

    /// Every order in place.
    pub fn orders(&self) -> Vec<Order> {
        let mut orders: Vec<Order> = Vec::new();
        for place in [&self.host, &self.own] {
            let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
            orders.extend(entries.filter_map(|e| read(&e.path())));
        }
        orders.sort_by(|a, b| a.scope.cmp(&b.scope));
        orders
    }

    /// The order that stops a run, if there is one.
    pub fn order_for(&self, run: &str, services: &BTreeSet<String>) -> Option<Order> {
        self.orders().into_iter().find(|order| match &order.scope {
            Scope::All => true,
            Scope::Run(id) => id == run,
            Scope::Service(name) => services.contains(name),
        })
    }

    /// Stops a run as soon as there is an order for it. Never returns; drop it when the run has ended.
    pub(crate) async fn obey(&self, run: &str, services: &BTreeSet<String>, stop: &StopSwitch) {
        // Where nothing can be watched, it is looked at often enough.
        const LOOK: std::time::Duration = std::time::Duration::from_millis(50);
        let watch = DirectoryWatch::new().ok();
        let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.own);
        loop {
            let mut watched = watch.is_some();
            for place in [&self.host, &self.own] {
                // A place that is not there yet is seen to come by what is above it.
                let directory = place.ancestors().find(|d| d.is_dir()).unwrap_or(place);
                watched &= watch.as_ref().is_some_and(|w| w.add(directory).is_ok_and(|there| there));
            }
            // After it is watched: what comes later is told.
            if let Some(order) = self.order_for(run, services) {
                stop.pull("halt", order.to_string());
                return std::future::pending().await;
            }
            match &watch {
                Some(watch) if watched => drop(watch.changed().await),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// Writes a file that is whole as soon as it is there. The last order counts.
fn write(path: &Path, said: &[u8]) -> std::io::Result<()> {
    let part = path.with_file_name(format!(
        ".{}-{}",
        std::process::id(),
        path.file_name().unwrap_or_default().to_string_lossy()
    ));
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o644).custom_flags(flags).open(&part)?;
    let written = file.write_all(said).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn read(path: &Path) -> Option<Order> {
    let scope = Scope::parse(path.file_name()?.to_str()?)?;
    // Of the entry itself: a link is its maker's order, wherever it leads.
    let meta = std::fs::symlink_metadata(path).ok()?;
    let mut said = Said::default();
    if meta.is_file() {
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
        let mut text = Vec::new();
        if let Ok(file) = std::fs::File::options().read(true).custom_flags(flags).open(path) {
            let _ = file.take(4096).read_to_end(&mut text);
        }
        said = serde_json::from_slice(&text).unwrap_or_default();
    }
    let owner = User::by_uid(meta.uid()).ok().flatten().map_or_else(|| format!("user {}", meta.uid()), |u| u.name);
    // Root speaks for whoever called it by sudo; everybody else for themselves.
    let by = if meta.uid() == 0 && !said.by.is_empty() { said.by } else { owner };
    let at =
        jiff::Timestamp::from_second(meta.mtime()).map_or_else(|_| "an unknown time".to_owned(), |t| t.to_string());
    let harmless = |text: String| text.chars().filter(|c| !c.is_control()).take(500).collect::<String>();
    Some(Order { scope, by: harmless(by), at, why: harmless(said.why), path: path.to_owned() })
}

/// The services that the faults of an experiment are on: those that its method names, and those of the topology whose
/// process, unit or address it names.
pub(crate) fn services(setup: &Setup) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for fault in setup.experiment.faults() {
        collect(&fault.params, &mut texts);
    }
    let services = texts.iter().filter(|(key, _)| key == "service");
    let mut named: BTreeSet<String> = services.map(|(_, text)| text.clone()).collect();
    let said = |text: &Option<String>| text.as_ref().is_some_and(|text| texts.iter().any(|(_, said)| said == text));
    for (name, service) in setup.topology.iter().flat_map(|t| &t.spec.services) {
        let address = service.address.as_ref().map(ToString::to_string);
        if said(&service.process) || said(&service.unit) || said(&address) {
            named.insert(name.clone());
        }
    }
    // A process or a unit is a service where no topology gives it another name.
    let bare = texts.into_iter().filter(|(key, _)| key == "process" || key == "unit").map(|(_, text)| text);
    named.extend(bare);
    named
}

/// Every text in a node, with the key that it stands under.
fn collect(node: &Node, texts: &mut BTreeSet<(String, String)>) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                if let Some(text) = entry.node.text() {
                    texts.insert((entry.key.clone(), text.to_owned()));
                }
                collect(&entry.node, texts);
            }
        }
        Value::List(items) => items.iter().for_each(|item| collect(item, texts)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn levers(directory: &Path) -> Levers {
        Levers { host: directory.join("host/halt"), own: directory.join("own/halt") }
    }

    fn none() -> BTreeSet<String> {
        BTreeSet::new()
    }

    #[test]
    fn an_order_is_told_with_who_and_why_until_it_is_lifted() {
        let directory = tempfile::tempdir().unwrap();
        let levers = levers(directory.path());
        assert_eq!((levers.orders(), levers.lift(&Scope::All).unwrap()), (vec![], false));
        assert_eq!(levers.pull(&Scope::All, "alice", "the site is down").unwrap(), Reach::Host);
        let order = levers.order_for("r", &none()).unwrap();
        assert_eq!((order.scope.clone(), order.why.as_str()), (Scope::All, "the site is down"));
        let text = order.to_string();
        assert!(text.contains(" halted all runs at 20") && text.ends_with(": the site is down"), "{text}");
        let mode = std::fs::metadata(&levers.host).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777, "everybody can stop, nobody lifts another's order");
        assert!(levers.lift(&Scope::All).unwrap());
        assert_eq!(levers.order_for("r", &none()), None);
    }

    #[test]
    fn an_order_stops_what_it_names_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let levers = levers(directory.path());
        levers.pull_own(&Scope::Run("one".into()), "me", "").unwrap();
        levers.pull(&Scope::Service("shop".into()), "me", "").unwrap();
        let shop = BTreeSet::from(["shop".to_owned()]);
        assert!(levers.order_for("one", &none()).is_some());
        assert!(levers.order_for("two", &shop).is_some());
        assert_eq!(levers.order_for("two", &none()), None);
        for name in ["", "../x", "a b", "a/b"] {
            let refused = levers.pull(&Scope::Service(name.into()), "me", "");
            assert!(matches!(refused, Err(HaltError::Name(_))), "{name}");
        }
    }

    #[test]
    fn any_file_of_the_name_is_an_order_and_a_hostile_one_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let levers = levers(directory.path());
        open_to_all(&levers.host).unwrap();
        let file = levers.host.join("all");
        std::fs::write(&file, "").unwrap();
        assert!(levers.order_for("r", &none()).is_some(), "touch is enough");
        std::fs::write(&file, "{\"why\": \"a\\u001b[2Jb\"}").unwrap();
        assert_eq!(levers.order_for("r", &none()).unwrap().why, "a[2Jb");
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert_eq!(levers.order_for("r", &none()).unwrap().why, "");
        std::fs::write(levers.host.join("somethingelse"), "").unwrap();
        assert_eq!(levers.orders().len(), 1);
    }

    #[tokio::test]
    async fn a_run_hears_of_an_order_in_a_place_that_comes_later() {
        let directory = tempfile::tempdir().unwrap();
        let levers = levers(directory.path());
        let stop = StopSwitch::default();
        let (obeying, pulled) = (levers.clone(), stop.clone());
        let task = tokio::spawn(async move { obeying.obey("r", &none(), &pulled).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(stop.pulled(), None);
        levers.pull(&Scope::Run("r".into()), "me", "").unwrap();
        let stopped = tokio::time::timeout(Duration::from_secs(20), stop.wait()).await.unwrap();
        task.abort();
        assert_eq!(stopped.by, "halt");
        assert!(stopped.why.contains("halted run r"), "{stopped:?}");
    }
}
