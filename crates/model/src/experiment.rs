//! The experiment: a hypothesis, what is watched, what is done to the system, and when to stop.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::comparison::Comparison;
use crate::diagnostic::Problems;
use crate::field::{self, FromNode, Type, wrong_type};
use crate::kind::Tables;
use crate::node::{Node, Span, Value};
use crate::units::{Dur, Percent};
use crate::{API_VERSION, choice, fields, text_type};

mod check;
mod claim;
mod guardrail;

pub use claim::Claim;
pub use guardrail::{
    BROKEN_IN_A_ROW, BadInARow, BurnRate, ErrorRatio, GUARDRAIL_KINDS, GuardrailItem, LostTelemetry, Percentile,
    RATIO_SAMPLES, SILENT_INTERVALS, ValueBound, WorseThanBefore,
};

fields! {
    /// What an experiment says.
    pub struct Spec {
        /// What is believed of the system, as a sentence that a run can refute.
        pub hypothesis: String,
        /// Why anybody wants to know.
        pub why: Option<String>,
        /// The goal that it serves.
        pub goal: Option<String>,
        /// The worry that it answers.
        pub worry: Option<String>,
        /// Where it runs: evidence counts for this environment alone.
        pub environment: Option<String>,
        /// The version of the system under test: evidence goes stale when it changes.
        pub version: Option<String>,
        /// Path of a topology file, for targets named by service.
        pub topology: Option<String>,
        /// Seed of everything random in the run; drawn and reported if it is not given.
        pub seed: Option<u64>,
        /// How long the steady state is watched before anything is injected.
        pub steady_state: Option<SteadyState>,
        /// What is watched.
        pub probes: Vec<ProbeItem>,
        /// What is done to the system.
        pub method: Vec<MethodItem>,
        /// What stops the run before its end.
        pub guardrails: Vec<GuardrailItem>,
        /// The most that a run may hit.
        pub blast_radius: Option<BlastRadius>,
        /// How long the system is watched after everything was undone.
        pub recovery: Option<Recovery>,
        /// Find the largest value of a fault's parameter at which the hypothesis still holds.
        pub search: Option<Search>,
    }
}

fields! {
    /// The watch before anything is injected.
    pub struct SteadyState {
        /// How long.
        pub for_: Dur = "3s",
    }
}

fields! {
    /// The watch after everything was undone.
    pub struct Recovery {
        /// How long at most; it ends earlier once every probe was back in tolerance for three samples.
        pub within: Dur = "30s",
    }
}

fields! {
    /// Limits on what a run may hit. A run whose targets exceed them is refused before anything is injected.
    pub struct BlastRadius {
        /// The most processes, at least 1.
        pub processes: Option<u32>,
        /// The largest share of those that a selector matches, rounded down.
        pub percent: Option<Percent>,
    }
}

impl Spec {
    /// The name of each probe, in order: the given one, or its kind (with a number from the second on).
    pub fn probe_names(&self) -> Vec<String> {
        let mut of_kind: BTreeMap<&str, usize> = BTreeMap::new();
        let name = |probe: &ProbeItem, number: usize| match (&probe.common.name, number) {
            (Some(name), _) => name.clone(),
            (None, 1) => probe.kind.clone(),
            (None, number) => format!("{}-{number}", probe.kind),
        };
        let named = self.probes.iter().map(|probe| {
            let number = of_kind.entry(&probe.kind).or_default();
            *number += 1;
            name(probe, *number)
        });
        named.collect()
    }

    /// How long the method takes by plan.
    pub fn method_duration(&self) -> Duration {
        one_after_the_other(&self.method)
    }

    /// How long faults are in force by plan, at most.
    pub fn in_force(&self) -> Duration {
        claim::in_force(&self.method)
    }

    /// How long a probe may give no answer while faults are injected until its telemetry is lost: as a guardrail says, or
    /// five of its intervals and its timeouts.
    pub fn silence(&self, probe: &ProbeItem, said: Option<Dur>) -> Duration {
        guardrail::silence(said, self.interval(probe), probe)
    }

    /// The time in which a probe is asked for its claims, by plan: while faults are in force or, where none lasts, while
    /// the method runs. What is asked after the faults only has no time of its own.
    pub fn claimed_time(&self, probe: &ProbeItem) -> Duration {
        let in_force = self.in_force();
        match probe.common.when {
            When::At => in_force,
            When::During if in_force.is_zero() => self.method_duration(),
            When::During => in_force,
            When::Before | When::After | When::Edge => Duration::ZERO,
        }
    }

    /// How many samples the run yields at most for a probe's claims, by plan.
    pub fn samples_for_claims(&self, probe: &ProbeItem) -> u64 {
        let asked = self.claimed_time(probe).as_nanos() / self.interval(probe).as_nanos().max(1);
        // What follows lasts until the probes were good so often in a row.
        let after = match probe.common.when {
            When::At => 0,
            When::During if !self.in_force().is_zero() => 0,
            _ => u64::from(BACK),
        };
        let yields = u64::try_from(asked).unwrap_or(u64::MAX).saturating_add(1).saturating_add(after);
        probe.common.samples.map_or(yields, |n| yields.min(u64::from(n)))
    }

    /// From one sample of a probe to the next: as given; or one second, or less where the tolerances or the claims need
    /// more samples than that yields while the method runs (with a quarter to spare, and not below 10 ms). A method
    /// without a duration, such as one that kills a process, is watched every 200 ms.
    #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
    pub fn interval(&self, probe: &ProbeItem) -> Duration {
        if let Some(interval) = probe.common.interval {
            return interval.0;
        }
        let default = Duration::from_secs(1);
        if self.method_duration().is_zero() {
            return Duration::from_millis(200);
        }
        let needed = probe.common.samples_needed().max(probe.common.samples_claimed()) as f64 * 1.25;
        let enough = self.method_duration().div_f64(needed.max(1.0));
        // Even without a percentile a handful of samples is wanted from a short fault.
        let handful = self.method_duration() / 10;
        let limit = enough.min(handful.max(Duration::from_millis(100)));
        default.min(limit).max(Duration::from_millis(10))
    }
}

/// The recovery is over once every probe was good so often in a row.
pub const BACK: u32 = 3;
/// How long the steady state is watched when the manifest says nothing.
pub const STEADY_STATE: Duration = Duration::from_secs(3);
/// The longest watch after the undo when the manifest says nothing.
pub const RECOVERY: Duration = Duration::from_secs(30);

choice! {
    /// When a probe is asked.
    pub enum When {
        /// In the steady state only.
        Before = "before",
        /// From the steady state to the end of the recovery.
        During = "during",
        /// Only while a fault is in force.
        At = "at",
        /// Only after everything was undone.
        After = "after",
        /// In the steady state and after everything was undone.
        Edge = "edge",
    }
}

fields! {
    /// What every probe takes beside its own parameters.
    pub struct ProbeCommon {
        /// A name for reports; the kind and its number if it is not given.
        pub name: Option<String>,
        /// When it is asked: `before` (in the steady state), `during` (all along), `at` (while a fault is in force),
        /// `after` (everything was undone), `edge` (before and after).
        pub when: When = "during",
        /// From one sample to the next. If it is not given: one second, or less where a percentile or a claim needs more
        /// samples; 200 ms where no fault has a duration.
        pub interval: Option<Dur>,
        /// Take so many samples from the injection on, and no more. Once every probe that says so has its samples, the faults end: this is how
        /// a test suite is run under a fault.
        pub samples: Option<u32>,
        /// A sample that takes longer is bad.
        pub timeout: Dur = "5s",
        /// How often a failed sample is asked again before it counts as bad.
        pub retries: u32 = "0",
        /// How long to wait before the first sample.
        pub initial_delay: Dur = "0s",
        /// The least share of samples that must be good.
        pub good: Option<Percent>,
        /// The median of the values (the latency in milliseconds, unless the probe yields another value).
        pub p50: Option<Comparison>,
        /// Their 90th percentile; needs 10 samples.
        pub p90: Option<Comparison>,
        /// Their 95th percentile; needs 20 samples.
        pub p95: Option<Comparison>,
        /// Their 99th percentile; needs 100 samples.
        pub p99: Option<Comparison>,
        /// Their 99.9th percentile; needs 1000 samples.
        pub p999: Option<Comparison>,
        /// Their mean.
        pub mean: Option<Comparison>,
        /// Their largest.
        pub max: Option<Comparison>,
        /// Make a claim about the system, not only about the samples seen: with this confidence. It is made of `good` and
        /// of percentiles with a bound to one side, while a fault is in force; `plan` says how many samples it takes.
        pub confidence: Option<Percent>,
        /// The probe may be bad while the fault is in force, and must be good again within a time of its end. It must be
        /// asked then: not with `when: before` or `at`.
        pub recovers: Option<Recovers>,
        /// The probe must stay good all along, also where the fault's default is that probes recover.
        pub unaffected: Option<bool>,
        /// At most so many of the acknowledged writes may be missing at the end, each looked for by `find`, which must
        /// be given.
        pub loses: Option<u64>,
    }
}

fields! {
    /// What recovering means.
    pub struct Recovers {
        /// From the fault's end (for what happens at one instant: from that instant) to good again.
        pub within: Dur,
    }
}

impl ProbeCommon {
    /// The percentile and other value tolerances with their names, the quantile where it is one, and how many samples
    /// it takes for the samples to have such a quantile at all.
    pub fn tolerances(&self) -> Vec<(&'static str, Option<f64>, u64, &Comparison)> {
        let all = [
            ("p50", Some(0.5), 2, &self.p50),
            ("p90", Some(0.9), 10, &self.p90),
            ("p95", Some(0.95), 20, &self.p95),
            ("p99", Some(0.99), 100, &self.p99),
            ("p99.9", Some(0.999), 1000, &self.p999),
            ("mean", None, 1, &self.mean),
            ("max", Some(1.0), 1, &self.max),
        ];
        all.into_iter().filter_map(|(name, q, n, c)| c.as_ref().map(|c| (name, q, n, c))).collect()
    }

    /// The samples that the tolerances need while a fault is in force.
    pub fn samples_needed(&self) -> u64 {
        self.tolerances().iter().map(|t| t.2).max().unwrap_or(1)
    }
}

/// One probe as it stands in a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeItem {
    /// Its kind.
    pub kind: String,
    /// Where the kind was written.
    pub kind_span: Span,
    /// What every probe takes.
    pub common: ProbeCommon,
    /// Its own parameters.
    pub params: Node,
}

fields! {
    /// What every fault takes beside its own parameters.
    pub struct FaultCommon {
        /// How long it stays in force.
        pub for_: Option<Dur>,
        /// A name for reports; the kind if it is not given.
        pub name: Option<String>,
        /// How long connections in flight are carried on after the end before they are cut.
        pub drain: Dur = "30s",
        /// Change a parameter step by step while it is in force.
        pub ramp: Option<Ramp>,
    }
}

fields! {
    /// A parameter that changes while the fault is in force.
    pub struct Ramp {
        /// The parameter.
        pub parameter: String,
        /// Its first value.
        pub from: String,
        /// Its last value.
        pub to: String,
        /// How long the way takes; the last value then stays until the end.
        pub over: Dur,
        /// In how many equal steps.
        pub steps: u32 = "10",
    }
}

/// One fault as it stands in a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultItem {
    /// Its kind.
    pub kind: String,
    /// Where the kind was written.
    pub kind_span: Span,
    /// What every fault takes.
    pub common: FaultCommon,
    /// Its own parameters.
    pub params: Node,
}

impl FaultItem {
    /// The name in reports.
    pub fn name(&self) -> &str {
        self.common.name.as_deref().unwrap_or(&self.kind)
    }
}

fields! {
    /// A pause between steps.
    pub struct Wait {
        /// How long.
        pub for_: Dur,
    }
}

fields! {
    /// Steps that are done several times.
    pub struct Repeat {
        /// How often, at most 100000 times.
        pub times: u32,
        /// From one start to the next; at once if it is not given.
        pub every: Option<Dur>,
        /// The steps.
        pub steps: Vec<MethodItem>,
    }
}

/// One step of the method.
#[derive(Debug, Clone, PartialEq)]
pub enum MethodItem {
    /// Inject a fault.
    Fault(Box<FaultItem>),
    /// Do nothing for a while.
    Wait(Wait),
    /// One after the other.
    Serial(Vec<MethodItem>, Span),
    /// All at once.
    Parallel(Vec<MethodItem>, Span),
    /// Several times.
    Repeat(Box<Repeat>, Span),
}

/// The kinds of steps that are not faults.
pub const STEP_KINDS: &[(&str, &str)] = &[
    ("wait", "Do nothing for a while."),
    ("serial", "Do steps one after the other."),
    ("parallel", "Do steps all at once."),
    ("repeat", "Do steps several times."),
];

impl MethodItem {
    /// Every fault in this step, in order, each once.
    pub fn faults(&self) -> Vec<&FaultItem> {
        match self {
            Self::Fault(fault) => vec![fault],
            Self::Wait(_) => vec![],
            Self::Serial(items, _) | Self::Parallel(items, _) => items.iter().flat_map(Self::faults).collect(),
            Self::Repeat(repeat, _) => repeat.steps.iter().flat_map(Self::faults).collect(),
        }
    }

    /// Every fault in this step, in the same order, to be changed.
    pub fn faults_mut(&mut self) -> Vec<&mut FaultItem> {
        match self {
            Self::Fault(fault) => vec![fault],
            Self::Wait(_) => vec![],
            Self::Serial(items, _) | Self::Parallel(items, _) => items.iter_mut().flat_map(Self::faults_mut).collect(),
            Self::Repeat(repeat, _) => repeat.steps.iter_mut().flat_map(Self::faults_mut).collect(),
        }
    }

    /// How long this step takes by plan.
    pub fn duration(&self) -> Duration {
        match self {
            Self::Fault(fault) => fault.common.for_.map(|d| d.0).unwrap_or_default(),
            Self::Wait(wait) => wait.for_.0,
            Self::Serial(items, _) => one_after_the_other(items),
            Self::Parallel(items, _) => items.iter().map(Self::duration).max().unwrap_or_default(),
            Self::Repeat(repeat, _) => {
                let once = one_after_the_other(&repeat.steps);
                let between = repeat.every.map_or(once, |every| every.0.max(once));
                between.saturating_mul(repeat.times.saturating_sub(1)).saturating_add(once)
            }
        }
    }

    /// How many faults this step puts in force as soon as it begins.
    fn begins_with(&self) -> u32 {
        let first = |items: &[Self]| items.first().map_or(0, Self::begins_with);
        match self {
            Self::Fault(fault) => u32::from(fault.common.for_.is_some_and(|d| !d.0.is_zero())),
            Self::Wait(_) => 0,
            Self::Serial(items, _) => first(items),
            Self::Parallel(items, _) => items.iter().map(Self::begins_with).sum(),
            Self::Repeat(repeat, _) => first(&repeat.steps),
        }
    }
}

/// How long steps take by plan, without overflow however large a user's numbers are.
fn one_after_the_other(items: &[MethodItem]) -> Duration {
    items.iter().map(MethodItem::duration).fold(Duration::ZERO, Duration::saturating_add)
}

/// What is searched: a fault's parameter and its range.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// The parameter as written: `delay`, or `name.delay` where several faults have one.
    pub parameter: String,
    /// The range.
    pub range: Range,
    /// Where it was written.
    pub span: Span,
}

/// A range of quantities as text, as in `50ms..2s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The smaller end as written.
    pub low: String,
    /// The larger end as written.
    pub high: String,
}

impl std::str::FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (low, high) = text.split_once("..").ok_or("write it as low..high")?;
        let (low, high) = (low.trim(), high.trim());
        if low.is_empty() || high.is_empty() {
            return Err("both ends must be given");
        }
        Ok(Self { low: low.into(), high: high.into() })
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.low, self.high)
    }
}

text_type!(Range, "a range", "50ms..2s");

impl FromNode for Search {
    fn ty() -> Type {
        Type::Map(Box::new(Range::ty()))
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        match node.entries() {
            Some([one]) => {
                let range = Range::from_node(&one.node, problems)?;
                Some(Self { parameter: one.key.clone(), range, span: one.key_span })
            }
            Some(_) => {
                problems.add(node.span, "a search has one parameter", "not exactly one");
                None
            }
            None => {
                wrong_type(node, "a map of one parameter to its range", problems);
                None
            }
        }
    }
}

/// Splits `- kind: {…}` into the kind and its parameters.
fn single_key<'n>(node: &'n Node, what: &str, problems: &mut Problems) -> Option<(&'n str, Span, &'n Node)> {
    match node.entries() {
        Some([one]) => Some((&one.key, one.key_span, &one.node)),
        Some([]) => {
            problems.add(node.span, format!("a {what} is missing"), "empty");
            None
        }
        Some([first, second, ..]) => {
            problems
                .add(second.key_span, format!("a {what} is a map with one key, its kind"), "a second key")
                .help(format!("indent `{}` so that it belongs to `{}`", second.key, first.key));
            None
        }
        None => {
            wrong_type(node, &format!("a {what} as a map with one key, its kind,"), problems);
            None
        }
    }
}

/// A kind's parameters: a map, or nothing, which is the empty map.
fn params_of(node: &Node, problems: &mut Problems) -> Option<Node> {
    match &node.value {
        Value::Map(_) => Some(node.clone()),
        Value::Null => Some(Node { span: node.span, value: Value::Map(vec![]) }),
        _ => {
            wrong_type(node, "a map of parameters", problems);
            None
        }
    }
}

fn str_keys(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

impl FromNode for ProbeItem {
    fn ty() -> Type {
        Type::Kind("probe")
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        let (kind, kind_span, params) = single_key(node, "probe", problems)?;
        let params = params_of(params, problems)?;
        let (common, params) = params.partition(&str_keys(&ProbeCommon::keys()));
        let common = ProbeCommon::from_node(&common, problems)?;
        Some(Self { kind: kind.into(), kind_span, common, params })
    }
}

impl FromNode for MethodItem {
    fn ty() -> Type {
        Type::Kind("step")
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        let (kind, kind_span, params) = single_key(node, "step", problems)?;
        Some(match kind {
            "wait" => Self::Wait(Wait::from_node(params, problems)?),
            "serial" => Self::Serial(Vec::from_node(params, problems)?, kind_span),
            "parallel" => Self::Parallel(Vec::from_node(params, problems)?, kind_span),
            "repeat" => Self::Repeat(Box::new(Repeat::from_node(params, problems)?), kind_span),
            _ => {
                let params = params_of(params, problems)?;
                let (common, params) = params.partition(&str_keys(&FaultCommon::keys()));
                let common = FaultCommon::from_node(&common, problems)?;
                Self::Fault(Box::new(FaultItem { kind: kind.into(), kind_span, common, params }))
            }
        })
    }
}

/// Reads the frame that all manifests share and returns the name (with its metadata node) and the spec's node.
pub(crate) fn read_manifest(
    node: &Node,
    kind: &str,
    problems: &mut Problems,
) -> (Option<(String, Node)>, Option<Node>) {
    if node.entries().is_none() {
        wrong_type(node, "a manifest (a map with apiVersion, kind, metadata and spec)", problems);
        return (None, None);
    }
    field::refuse_unknown_keys(node, &["apiVersion", "kind", "metadata", "spec"], "field", problems);
    let mut expect = |key: &str, value: &str| match node.get(key) {
        Some(found) if found.text() == Some(value) => {}
        Some(found) => {
            let shown = found.text().map_or_else(|| found.type_name().to_owned(), str::to_owned);
            problems.add(found.span, format!("`{key}` is {shown}, and {value} was expected"), format!("not {value}"));
        }
        None => {
            problems.add(node.span, format!("`{key}` is missing"), format!("begin with `{key}: {value}`"));
        }
    };
    expect("apiVersion", API_VERSION);
    expect("kind", kind);
    let metadata = match node.get("metadata") {
        Some(metadata) => Metadata::from_node(metadata, problems).map(|m| (m.name, metadata.clone())),
        None => {
            problems
                .add(node.span, "`metadata` is missing", "a name is needed")
                .help("for instance metadata: {name: checkout-survives-slow-payments}");
            None
        }
    };
    if let Some((name, metadata)) = &metadata {
        let fits = !name.is_empty()
            && name.len() <= 253
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.');
        if !fits {
            let span = metadata.get("name").map_or(metadata.span, |n| n.span);
            problems
                .add(span, format!("`{name}` is not a name"), "lower-case letters, digits, - and . only")
                .help("Kubernetes takes no other, and the same file must do there");
        }
    }
    if node.get("spec").is_none() {
        problems.add(node.span, "`spec` is missing", "the content is missing");
    }
    (metadata, node.get("spec").cloned())
}

fields! {
    /// What every manifest says about itself.
    pub struct Metadata {
        /// Its name: lower-case letters, digits, `-` and `.`.
        pub name: String,
        /// Labels to find it by.
        pub labels: BTreeMap<String, String>,
        /// Anything else, for other programs.
        pub annotations: BTreeMap<String, String>,
        /// The namespace, where it is a Kubernetes object.
        pub namespace: Option<String>,
    }
}

/// An experiment that was read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: Spec,
    /// The whole manifest as it was read, includes and values resolved.
    pub node: Node,
}

impl Experiment {
    /// Reads a manifest of `kind: Experiment` and checks it against the tables of kinds.
    ///
    /// # Errors
    /// Everything that is wrong with it, at its places.
    pub fn read(node: &Node, tables: &Tables) -> Result<Self, Problems> {
        Self::read_as(node, tables, true)
    }

    /// The same for an injection of which nothing is claimed: no probe is needed, and its verdict can only be
    /// inconclusive.
    ///
    /// # Errors
    /// As for [`Experiment::read`].
    pub fn read_unwatched(node: &Node, tables: &Tables) -> Result<Self, Problems> {
        Self::read_as(node, tables, false)
    }

    fn read_as(node: &Node, tables: &Tables, watched: bool) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let (name, spec) = read_manifest(node, "Experiment", &mut problems);
        let spec = spec.and_then(|spec| Spec::from_node(&spec, &mut problems));
        if let Some(spec) = &spec {
            check::check(spec, node, tables, watched, &mut problems);
        }
        match (name, spec) {
            (Some((name, _)), Some(spec)) if problems.0.is_empty() => Ok(Self { name, spec, node: node.clone() }),
            _ => Err(problems),
        }
    }

    /// Every fault of the method, in order, each once.
    pub fn faults(&self) -> Vec<&FaultItem> {
        self.spec.method.iter().flat_map(MethodItem::faults).collect()
    }

    /// How long the method takes by plan.
    pub fn method_duration(&self) -> Duration {
        self.spec.method_duration()
    }

    /// How many faults are in force when the first ones are: those of a `parallel` begin together.
    pub fn begins_with(&self) -> u32 {
        self.spec.method.iter().map(MethodItem::begins_with).find(|n| *n > 0).unwrap_or(1)
    }

    /// From one sample of a probe to the next.
    pub fn interval(&self, probe: &ProbeItem) -> Duration {
        self.spec.interval(probe)
    }
}

#[cfg(test)]
mod tests;
