//! A fault on TCP streams: what it does to them is a set of the proxy's rules, the rest is the same for all.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use toprope_engine::fault::{Draining, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_engine::pass_through::{PassThrough, Passage};
use toprope_engine::target;
use toprope_model::step::{Effect, Measure, Plan, Step, Undo};
use toprope_model::target::{Endpoint, Target};
use toprope_model::{Node, Problems, text_type};
use toprope_os::namespace::{Kind, Namespace};
use toprope_os::process::{ProcessId, ProcessInfo};
use toprope_proxy::{Connections, Rules, Stats};

use super::blocking;
use super::census::Census;
use super::clients::Clients;
use super::destination::Destination;
use super::family::{Family, Picked};
use super::interception::{Interception, Way};
use super::pass_through::Forwarder;
use super::renamed::Renamed;
use crate::targeted::{data_of, to_data};

/// An address to listen on: `127.0.0.1:15432`, or `:15432` for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(SocketAddr);

impl std::str::FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let address = match text.strip_prefix(':').or_else(|| text.strip_prefix("localhost:")) {
            Some(port) => port.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().ok(),
        };
        match address {
            Some(address) if address.port() != 0 => Ok(Self(address)),
            _ => Err("write an address of this host and a port"),
        }
    }
}

text_type!(Listen, "an address to listen on", "127.0.0.1:15432");

/// What every fault on streams is asked: whose connections, where to, by which way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) from: Option<&'a Target>,
    pub(crate) to: &'a Endpoint,
    pub(crate) listen: Option<Listen>,
}

/// Finds what is wrong with the combination of parameters.
pub(crate) fn check_reach(reach: Reach<'_>, node: &Node, problems: &mut Problems) {
    if reach.from.is_none() && reach.listen.is_none() {
        problems.add(node.span, "this does not say whose connections are meant", "`from` is missing").help(
            "for instance `from: {process: checkout}`, `from: {user: www-data}`, or `from: {host: true}` for all",
        );
    }
    let one = reach.to.host.as_deref().is_some_and(|h| h != "anywhere" && !h.contains('/')) && reach.to.port.is_some();
    if reach.listen.is_some() && !one {
        let span = node.get("to").map_or(node.span, |to| to.span);
        problems
            .add(
                span,
                "with `listen`, `to` must be one host and port: the proxy connects there",
                "not one host and port",
            )
            .help("for instance `to: 127.0.0.1:5432`");
    }
}

/// What a fault does to streams, and how its effect is read from what the proxy saw.
pub(crate) trait Shape: Sized + Send + 'static {
    /// From the fault's parameters.
    fn read(params: &Params) -> Result<Self, FaultError>;

    /// The rules that do it.
    fn rules(&self, seed: u64) -> Rules;

    /// Whether it was seen to take, if that can be told yet, and what was measured.
    fn measure(&self, seen: &Stats) -> (Option<bool>, Vec<Measure>);
}

/// The pass-through that is wanted, if one is.
pub(crate) fn passage(reach: Reach<'_>) -> Option<Passage> {
    reach.listen.map(|Listen(at)| Passage { at, to: reach.to.to_string() })
}

/// Opens it.
pub(crate) async fn pass_through(reach: Reach<'_>, host: &Host) -> Result<Arc<dyn PassThrough>, FaultError> {
    let Some(Listen(at)) = reach.listen else {
        return Err(FaultError::new("`listen`, which says where, is missing"));
    };
    let destination = Destination::resolve(reach.to, host).await?;
    Ok(Arc::new(Forwarder::open(at, &destination)?))
}

/// A step's data.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Route {
    /// The process that planned it, and will hold it.
    holder: ProcessId,
    destination: Destination,
    way: Way,
}

/// Plans to lead connections through a proxy; `does` says what for: `delay the answers by 200ms on`.
pub(crate) async fn plan(reach: Reach<'_>, does: &str, params: &Params, host: &Host) -> Result<Plan, FaultError> {
    let destination = Destination::resolve(reach.to, host).await?;
    let mut warnings: Vec<String> = destination.looked_up().into_iter().collect();
    let (whose, matched, targets, picked) = match reach.from {
        Some(from) if Clients::of(from)?.are_processes() => {
            let mut found = target::resolve(from, params.seed, host)?;
            warnings.append(&mut found.warnings);
            warnings.extend(elsewhere(&found.picked)?);
            (found.texts().join(", "), found.matched, found.texts(), found.picked)
        }
        Some(from) => (from.0.to_string(), 1, vec![format!("connections of {} to {destination}", from.0)], vec![]),
        None => (whoever(reach.listen), 1, vec![format!("connections to {destination}")], vec![]),
    };
    let way = Way::choose(reach.from, &picked, &destination, reach.listen.map(|l| l.0), host)?;
    let census = Census::new(reach.from, &destination, |from| {
        Family::new(from, Picked(picked.iter().map(|p| p.id).collect()), params.seed, host)
    })?
    .without(way.pass_through());
    match count(Arc::new(Mutex::new(census))).await? {
        0 => {}
        open => warnings.push(already_open(open, &destination, &way)),
    }
    let holder = ProcessId::current().map_err(|e| FaultError::because("cannot name this process", e))?;
    Ok(Plan {
        path: way.describe(),
        matched,
        targets,
        warnings,
        steps: vec![Step {
            describe: format!("{does} the TCP connections of {whose} to {destination}"),
            claims: vec![way.claim(&destination)],
            undo: Undo::KernelOwned(way.owned_by()),
            data: to_data(&Route { holder, destination, way }),
        }],
    })
}

/// The clients of a listener.
fn whoever(listen: Option<Listen>) -> String {
    listen.map_or_else(|| "everybody".into(), |Listen(at)| format!("whoever connects to {at},"))
}

/// Finds processes in other networks: their connections are made where no proxy of ours listens.
///
/// # Errors
/// That all of them are.
fn elsewhere(picked: &[ProcessInfo]) -> Result<Option<String>, FaultError> {
    let network = |of: toprope_os::Result<Namespace>| of.and_then(|net| net.inode());
    let here = network(Namespace::current(Kind::Net)).map_err(|e| FaultError::new(e.to_string()))?;
    // One that cannot be looked at is left to what will be measured.
    let away = |p: &&ProcessInfo| network(Namespace::of(&p.id, Kind::Net)).is_ok_and(|there| there != here);
    let away: Vec<String> = picked.iter().filter(away).map(target::describe).collect();
    let what = || format!("in another network, where their connections are not reached: {}", away.join(", "));
    match away.len() {
        0 => Ok(None),
        all if all == picked.len() => Err(FaultError::new(format!("all are {}", what()))
            .help("run Toprope in that network, for instance in the same container (`nsenter --net --target PID`)")),
        _ => Ok(Some(what())),
    }
}

fn already_open(open: usize, destination: &Destination, way: &Way) -> String {
    let (connections, them) = (connections(open as u64), if open == 1 { "it" } else { "them" });
    match way {
        Way::PassThrough { at, .. } => format!("{connections} to {destination} past {at}: this does not reach {them}"),
        Way::Redirect { .. } | Way::Connect(_) => format!(
            "{connections} to {destination} open already: this does not reach {them}, only new ones (restart the \
             client, or wait until it renews its pool)"
        ),
    }
}

fn connections(count: u64) -> String {
    format!("{count} {}", if count == 1 { "connection" } else { "connections" })
}

/// Counts the connections that go past the proxy.
async fn count(census: Arc<Mutex<Census>>) -> Result<usize, FaultError> {
    blocking(move || census.lock().unwrap_or_else(PoisonError::into_inner).past_the_proxy()).await?
}

/// Puts a planned step in force.
pub(crate) async fn apply<S: Shape>(step: &Step, params: &Params, host: &Host) -> Result<Streams<S>, FaultError> {
    let Route { destination, way, .. } = data_of(step)?;
    let shape = S::read(params)?;
    let from = params.node.get("from").cloned().map(|node| Params { node, ..params.clone() }.read()).transpose()?;
    let picked = way.picked();
    let family = |from: &Target| Family::new(from, picked.clone(), params.seed, host);
    let interception =
        Interception::begin(&way, &destination, shape.rules(params.seed), from.as_ref().map(family), host).await?;
    let census = Census::new(from.as_ref(), &destination, family)?.beside(interception.addresses());
    let before = interception.stats();
    let began = before.connections;
    let renamed = Renamed::follow(&destination);
    Ok(Streams { shape, census: Arc::new(Mutex::new(census)), renamed, began, before, interception, took: None })
}

/// Waits until the kernel has undone a step.
pub(crate) async fn undo(step: &Step) -> Result<Vec<String>, FaultError> {
    let route: Route = data_of(step)?;
    Ok(vec![route.way.gone(&route.holder).await?])
}

/// Streams under a fault.
pub(crate) struct Streams<S> {
    shape: S,
    interception: Interception,
    census: Arc<Mutex<Census>>,
    renamed: Renamed,
    /// The connections when it began: in a pass-through there are some already.
    began: Connections,
    /// What had happened before the rules that are in force now.
    before: Stats,
    /// Whether it was seen to take under the rules before.
    took: Option<bool>,
}

impl<S: Shape> Streams<S> {
    async fn look(&mut self) -> Result<Effect, FaultError> {
        let stats = self.interception.stats();
        let (took, measures) = self.shape.measure(&stats.since(&self.before));
        self.census.lock().unwrap_or_else(PoisonError::into_inner).also_to(self.renamed.found());
        let past = count(self.census.clone()).await?;
        // Those that were open in a pass-through are led as well.
        let led = stats.connections.accepted - self.began.accepted + self.began.open;
        let all = led + past as u64;
        let failed = |seen: &Connections| seen.upstream_refused + seen.upstream_timed_out + seen.upstream_failed;
        let failed = failed(&stats.connections) - failed(&self.began);
        let mut notes = Vec::new();
        if led == 0 {
            notes.push("no new connection came by so far".to_owned());
        } else if took.or(self.took).is_none() {
            notes.push(format!(
                "{} came by, with too little to measure (the handshake is left alone)",
                connections(led)
            ));
        }
        if past > 0 {
            notes.push(format!("{} past the proxy", connections(past as u64)));
        }
        notes.extend(self.renamed.note());
        if failed > 0 {
            notes.push(format!("{} reset, because the destination could not be reached", connections(failed)));
        }
        Ok(Effect {
            took: took.or(self.took),
            reached: (all > 0).then(|| led as f64 / all as f64),
            measures,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }
}

impl<S: Shape> Injection for Streams<S> {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        self.look().boxed()
    }

    fn adjust<'a>(&'a mut self, params: &'a Params) -> BoxFuture<'a, Result<(), FaultError>> {
        async {
            let shape = S::read(params)?;
            let stats = self.interception.stats();
            self.took = self.shape.measure(&stats.since(&self.before)).0.or(self.took);
            self.interception.set_rules(shape.rules(params.seed));
            (self.shape, self.before) = (shape, stats);
            Ok(())
        }
        .boxed()
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        self.interception.lost().boxed()
    }

    fn release(self: Box<Self>, drain: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        async move { self.interception.release(drain).await }.boxed()
    }
}
