//! Selectors resolved to processes of this host.
//!
//! Every key of a selector must match. What Toprope itself runs on is never selected: its own processes, the ones that
//! it was started from (to end `npm` from a test that npm runs ends the test), other runs of Toprope, which have faults
//! of their own to undo, process 1, and the kernel's threads.

mod listeners;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use toprope_model::diagnostic::nearest;
use toprope_model::target::{Endpoint, Pattern, Pick, Selector, Target};
use toprope_os::process::{self, ProcessInfo, State};
use toprope_os::user::User;

use self::listeners::Listeners;
use crate::fault::FaultError;
use crate::host::{Host, ServiceFacts};

/// What a selector means on this host, now.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// How many processes match, before any pick.
    pub matched: usize,
    /// Those that were picked, the oldest first. Never empty.
    pub picked: Vec<ProcessInfo>,
    /// What the user should know: what was left out, and why.
    pub warnings: Vec<String>,
}

impl Resolved {
    /// The picked processes in words: `nginx (pid 4242)`.
    pub fn texts(&self) -> Vec<String> {
        self.picked.iter().map(describe).collect()
    }
}

/// A process in words: `nginx (pid 4242)`.
pub fn describe(process: &ProcessInfo) -> String {
    format!("{} (pid {})", process.name, process.id.pid())
}

/// Finds the processes that a target means, and picks among them by the seed.
///
/// # Errors
/// That nothing matches, with what was looked for and the nearest names; that only Toprope's own processes match; that
/// `pick` leaves none; that a user, service or listener that the selector names cannot be found.
pub fn resolve(target: &Target, seed: u64, host: &Host) -> Result<Resolved, FaultError> {
    let selector = &target.0;
    let processes = running()?;
    let listeners = if listens(selector, host) { Some(Listeners::read()?) } else { None };
    let criteria = criteria(selector, host, listeners.as_ref())?;
    let untouchable = Untouchable::of(&processes, host);
    if let Some(named) = selector.pid.and_then(|pid| processes.iter().find(|p| i64::from(p.id.pid()) == i64::from(pid)))
        && let Some(why) = untouchable.why(named)
    {
        return Err(FaultError::new(format!("{} cannot be a target: it is {why}", describe(named))));
    }
    let (mut matching, mut spared) = (Vec::new(), Vec::new());
    for process in processes.iter().filter(|p| criteria.iter().all(|c| (c.holds)(p))) {
        match untouchable.why(process) {
            None => matching.push(process),
            Some(why) => spared.push((process, why)),
        }
    }
    // Number 1 and the kernel's threads match nothing but `host: true` and a user: nobody means them.
    spared.retain(|(_, why)| matches!(why, Spared::Own | Spared::Other | Spared::Origin));
    if matching.is_empty() {
        return Err(match spared.first() {
            Some((first, why)) => FaultError::new(format!(
                "{selector} matches nothing but {} that {} never a target: {} is {why}",
                plural(spared.len(), "process", "processes"),
                if spared.len() == 1 { "is" } else { "are" },
                describe(first)
            ))
            .help(
                "Toprope does not harm itself, other runs, or what it was started from: select the system under test",
            ),
            None => nothing(&criteria, selector, &processes, &untouchable),
        });
    }
    let mut warnings = Vec::new();
    if !spared.is_empty() {
        let names: Vec<String> = spared.iter().map(|(p, _)| describe(p)).collect();
        warnings.push(format!("left out, because Toprope or another run of it runs on them: {}", names.join(", ")));
    }
    if let Pick::Count(wanted) = selector.pick
        && wanted > matching.len()
    {
        warnings.push(format!("only {} of the {wanted} that were to be picked match", matching.len()));
    }
    matching.sort_by_key(|p| (p.id.start_time(), p.id.pid()));
    let count = selector.pick.count(matching.len());
    if count == 0 {
        let message =
            format!("{} of the {} that match is none (shares are rounded down)", selector.pick, matching.len());
        return Err(FaultError::new(message).help("write `pick: one`, or a larger share"));
    }
    let mut drawn = rand::seq::index::sample(&mut ChaCha8Rng::seed_from_u64(seed), matching.len(), count).into_vec();
    drawn.sort_unstable();
    let picked = drawn.into_iter().map(|i| matching[i].clone()).collect();
    Ok(Resolved { matched: matching.len(), picked, warnings })
}

/// Adds everything that the processes started, and that these started; parents come before their children. Leaves out
/// what is never a target.
///
/// # Errors
/// The processes cannot be listed.
pub fn with_descendants(roots: Vec<ProcessInfo>, host: &Host) -> Result<Vec<ProcessInfo>, FaultError> {
    let processes = running()?;
    let untouchable = Untouchable::of(&processes, host);
    let mut family = roots;
    let mut seen: HashSet<u32> = family.iter().map(|p| p.id.pid()).collect();
    let mut next = 0;
    while let Some(parent) = family.get(next).map(|p| p.id.pid()) {
        let children = processes.iter().filter(|p| p.ppid == parent && untouchable.why(p).is_none());
        family.extend(children.filter(|p| seen.insert(p.id.pid())).cloned());
        next += 1;
    }
    Ok(family)
}

/// Every process of this host that has not ended.
fn running() -> Result<Vec<ProcessInfo>, FaultError> {
    let mut processes = process::processes().map_err(|e| FaultError::because("the processes cannot be listed", e))?;
    processes.retain(|p| !has_ended(p));
    Ok(processes)
}

/// One key of a selector.
struct Criterion<'a> {
    /// The key and value in words.
    says: String,
    /// The name that was looked for, where a like one may have been meant.
    name: Option<&'a str>,
    holds: Box<dyn Fn(&ProcessInfo) -> bool + 'a>,
}

impl<'a> Criterion<'a> {
    fn new(says: String, holds: impl Fn(&ProcessInfo) -> bool + 'a) -> Self {
        Self { says, name: None, holds: Box::new(holds) }
    }

    fn named(name: &'a str) -> Self {
        let holds = move |p: &ProcessInfo| is_named(p, name);
        Self { says: format!("process {name}"), name: Some(name), holds: Box::new(holds) }
    }

    fn command_line(pattern: Pattern) -> Self {
        Self::new(format!("command line /{pattern}/"), move |p| pattern.0.is_match(&p.cmdline.join(" ")))
    }

    fn unit(unit: &'a str) -> Self {
        Self::new(format!("unit {unit}"), move |p| in_unit(p, unit))
    }

    fn listens(port: u16, listeners: &'a Listeners) -> Self {
        Self::new(format!("listener on port {port}"), move |p| listeners.is_of(p, port))
    }
}

fn criteria<'a>(
    selector: &'a Selector,
    host: &'a Host,
    listeners: Option<&'a Listeners>,
) -> Result<Vec<Criterion<'a>>, FaultError> {
    let mut all = Vec::new();
    if let Some(pid) = selector.pid {
        all.push(Criterion::new(format!("pid {pid}"), move |p| i64::from(p.id.pid()) == i64::from(pid)));
    }
    all.extend(selector.process.as_deref().map(Criterion::named));
    all.extend(selector.command_line.clone().map(Criterion::command_line));
    if let Some(user) = &selector.user {
        let uid = uid_of(user)?;
        all.push(Criterion::new(format!("user {user}"), move |p| p.uid == uid));
    }
    if let Some(cgroup) = &selector.cgroup {
        all.push(Criterion::new(format!("cgroup {cgroup}"), move |p| in_cgroup(p, cgroup)));
    }
    all.extend(selector.unit.as_deref().map(Criterion::unit));
    if let (Some(port), Some(listeners)) = (selector.port, listeners) {
        listeners.must_be_seen(port)?;
        all.push(Criterion::listens(port, listeners));
    }
    if let Some(name) = &selector.service {
        let facts = service(name, host)?;
        let before = all.len();
        all.extend(facts.process.as_deref().map(Criterion::named));
        if let Some(text) = &facts.command_line {
            let pattern: Pattern = text.parse().map_err(|e| {
                FaultError::new(format!(
                    "the command line of service `{name}`, /{text}/, is not a regular expression: {e}"
                ))
            })?;
            all.push(Criterion::command_line(pattern));
        }
        all.extend(facts.unit.as_deref().map(Criterion::unit));
        // The address is where clients go; it tells the processes apart only where nothing else does.
        if all.len() == before {
            let port = local_port(facts)?;
            let listeners = listeners.expect("they are read for every selector by service without other facts");
            listeners.must_be_seen(port)?;
            all.push(Criterion::listens(port, listeners));
        }
        if let Some(first) = all.get_mut(before) {
            first.says = format!("service {name}: {}", first.says);
        }
    }
    Ok(all)
}

/// Whether the selector must know who listens where.
fn listens(selector: &Selector, host: &Host) -> bool {
    let by_address = |s: &ServiceFacts| s.process.is_none() && s.command_line.is_none() && s.unit.is_none();
    selector.port.is_some()
        || selector.service.as_ref().is_some_and(|name| host.services.iter().any(|s| s.name == *name && by_address(s)))
}

/// Whether nothing of a process runs any more. One whose main thread has ended before the others is alive.
fn has_ended(process: &ProcessInfo) -> bool {
    match process.state {
        State::Dead => true,
        State::Zombie => process.threads <= 1,
        _ => false,
    }
}

fn is_named(process: &ProcessInfo, name: &str) -> bool {
    if process.name == name {
        return true;
    }
    match process.exe.as_deref().and_then(program_name) {
        Some(program) => program == name,
        // The program's file is hidden from us, and the kernel's name ends after 15 bytes.
        None => name.len() > 15 && process.name.len() == 15 && name.starts_with(&process.name),
    }
}

/// A program's file name. The kernel marks a file that was replaced or removed since.
fn program_name(exe: &Path) -> Option<&str> {
    let name = exe.file_name()?.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name))
}

/// The number of a user, by name or number.
///
/// # Errors
/// That there is no such user.
pub fn uid_of(user: &str) -> Result<u32, FaultError> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    match User::by_name(user) {
        Ok(Some(found)) => Ok(found.uid),
        Ok(None) => Err(FaultError::new(format!("there is no user `{user}` on this host"))
            .help("`getent passwd` lists the users; a number works too")),
        Err(e) => Err(FaultError::because(format!("the user `{user}` cannot be looked up"), e)),
    }
}

fn in_cgroup(process: &ProcessInfo, cgroup: &str) -> bool {
    let wanted = cgroup.trim_matches('/');
    process.cgroups.iter().any(|c| {
        let path = c.path.trim_matches('/');
        wanted.is_empty() || path == wanted || path.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('/'))
    })
}

/// systemd keeps each unit's processes in a control group that is named after it.
fn in_unit(process: &ProcessInfo, unit: &str) -> bool {
    const SUFFIXES: [&str; 3] = [".service", ".scope", ".slice"];
    let complete = SUFFIXES.iter().any(|s| unit.ends_with(s));
    process.cgroups.iter().flat_map(|c| c.path.split('/')).any(|part| match complete {
        true => part == unit,
        false => part.strip_suffix(".service") == Some(unit),
    })
}

fn service<'h>(name: &str, host: &'h Host) -> Result<&'h ServiceFacts, FaultError> {
    host.services.iter().find(|s| s.name == name).ok_or_else(|| {
        let error = FaultError::new(format!("the topology has no service `{name}`"));
        match nearest(name, host.services.iter().map(|s| s.name.as_str())) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None if host.services.is_empty() => {
                error.help("name a file with services in the manifest: `topology: FILE`")
            }
            None => error,
        }
    })
}

/// The port of a service that is known by its address alone.
fn local_port(facts: &ServiceFacts) -> Result<u16, FaultError> {
    let name = &facts.name;
    let help = "give the service a `process`, `command-line` or `unit` in the topology";
    let Some(address) = &facts.address else {
        return Err(
            FaultError::new(format!("the topology does not say which processes service `{name}` has")).help(help)
        );
    };
    let endpoint: Endpoint = address
        .parse()
        .map_err(|e| FaultError::new(format!("the address of service `{name}`, {address}, cannot be read: {e}")))?;
    let here = match endpoint.host.as_deref() {
        None | Some("localhost") => true,
        // An address that can be bound is one of this host's.
        Some(text) => text.parse::<IpAddr>().is_ok_and(|ip| std::net::UdpSocket::bind((ip, 0)).is_ok()),
    };
    match endpoint.port {
        Some(port) if here => Ok(port),
        Some(_) => Err(FaultError::new(format!("service `{name}` is at {address}, which is no address of this host"))
            .help(format!("run Toprope where its processes are, or {help}"))),
        None => Err(FaultError::new(format!("the address of service `{name}`, {address}, has no port")).help(help)),
    }
}

/// Why a process is never a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spared {
    Init,
    Kernel,
    Own,
    Other,
    Origin,
}

impl std::fmt::Display for Spared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Init => "the process that the whole system hangs on",
            Self::Kernel => "a thread of the kernel, which nothing can stop",
            Self::Own => "Toprope itself, or was started by it",
            Self::Other => "another run of Toprope, which undoes the faults of its own",
            Self::Origin => "what Toprope was started from, and its end would be the run's",
        })
    }
}

/// What Toprope's processes are started as that hold, guard and undo faults, of whichever run.
const SERVANTS: &[&str] = &["injector", "guard", "launcher", "pass-through", "starter"];
/// What it is started as that watches a system and leads injectors. Without it an experiment would end in the middle;
/// what it has started besides (the command of `exec`) may be a system under test. `shop` is one.
const RUNS: &[&str] = &["run", "test", "inject", "exec", "demo", "undo", "reach"];

/// The processes that are never targets.
struct Untouchable {
    own: HashSet<u32>,
    /// Of other runs.
    others: HashSet<u32>,
    origins: HashSet<u32>,
}

impl Untouchable {
    fn of(processes: &[ProcessInfo], host: &Host) -> Self {
        let me = std::process::id();
        let by_pid: HashMap<u32, &ProcessInfo> = processes.iter().map(|p| (p.id.pid(), p)).collect();
        let mut roots: HashSet<u32> = host.own.iter().filter_map(|pid| u32::try_from(*pid).ok()).collect();
        // By the file's name and not its path: another copy of the program holds faults of other runs.
        let name = |p: &ProcessInfo| p.exe.as_deref().and_then(program_name).map(str::to_owned);
        let mine = by_pid.get(&me).and_then(|p| name(p));
        let toprope = |p: &&ProcessInfo| name(p).is_some_and(|name| name == "toprope" || Some(&name) == mine.as_ref());
        let with_role = |roles: &'static [&'static str]| {
            let is = move |p: &&ProcessInfo| p.cmdline.get(1).is_some_and(|role| roles.contains(&role.as_str()));
            processes.iter().filter(is).filter(toprope).map(|p| p.id.pid())
        };
        roots.extend(with_role(SERVANTS));
        let others: HashSet<u32> = with_role(RUNS).collect();
        let mut own: HashSet<u32> = roots.clone();
        own.insert(me);
        let mut origins = HashSet::new();
        for root in &own {
            // The walk ends at a number that was seen: one reused while we read could make a ring.
            let mut next = by_pid.get(root).map(|p| p.ppid);
            while let Some(parent) = next.and_then(|pid| by_pid.get(&pid)).filter(|p| origins.insert(p.id.pid())) {
                next = Some(parent.ppid);
            }
        }
        // Not of `me`: what a library's user or a test started beside it is the system under test.
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for process in processes {
            children.entry(process.ppid).or_default().push(process.id.pid());
        }
        let mut todo: Vec<u32> = roots.into_iter().collect();
        while let Some(pid) = todo.pop() {
            todo.extend(children.remove(&pid).unwrap_or_default().into_iter().inspect(|pid| {
                own.insert(*pid);
            }));
        }
        Self { own, others, origins }
    }

    fn why(&self, process: &ProcessInfo) -> Option<Spared> {
        let pid = process.id.pid();
        if pid == 1 {
            Some(Spared::Init)
        } else if process.kernel_thread {
            Some(Spared::Kernel)
        } else if self.own.contains(&pid) {
            Some(Spared::Own)
        } else if self.others.contains(&pid) {
            Some(Spared::Other)
        } else if self.origins.contains(&pid) {
            Some(Spared::Origin)
        } else {
            None
        }
    }
}

/// Says what was looked for, which of the keys matches nothing, and what is there instead.
fn nothing(
    criteria: &[Criterion<'_>],
    selector: &Selector,
    processes: &[ProcessInfo],
    untouchable: &Untouchable,
) -> FaultError {
    let there: Vec<&ProcessInfo> = processes.iter().filter(|p| untouchable.why(p).is_none()).collect();
    let counts: Vec<usize> = criteria.iter().map(|c| there.iter().filter(|p| (c.holds)(p)).count()).collect();
    let mut message = format!("no process matches: {selector}");
    if criteria.len() > 1 {
        let each: Vec<String> = criteria.iter().zip(&counts).map(|(c, n)| format!("{}: {n}", c.says)).collect();
        message = format!("{message} (one by one: {})", each.join(", "));
    } else if let Some(one) = criteria.first()
        && selector.service.is_some()
    {
        message = format!("{message} ({})", one.says);
    }
    let error = FaultError::new(message);
    let missing = criteria.iter().zip(&counts).find(|(_, n)| **n == 0).map(|(c, _)| c);
    let Some(missing) = missing.or_else(|| criteria.first().filter(|_| criteria.len() == 1)) else {
        return error.help("each key matches some process and none matches all of them: leave one out");
    };
    match missing.name {
        Some(name) => {
            let names: Vec<&str> = there
                .iter()
                .flat_map(|p| [Some(p.name.as_str()), p.exe.as_deref().and_then(program_name)])
                .flatten()
                .collect();
            match nearest(name, names) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help("is it running? `ps -e` lists the processes"),
            }
        }
        None if selector.port.is_some() => error.help("is it running? `ss -ltn` lists who listens"),
        None if selector.unit.is_some() => error.help("is it running? `systemctl list-units` lists the units"),
        None => error.help("is it running? `ps -e` lists the processes"),
    }
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests;
