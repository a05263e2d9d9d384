//! `network-latency`: TCP streams that take longer, as over a distance, a loaded network, or a slow dependency.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use toprope_engine::fault::{Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_engine::pass_through::{PassThrough, Passage};
use toprope_model::kind::{Danger, FaultSpec, Need, UndoKind};
use toprope_model::step::{Measure, Plan, Spread, Step};
use toprope_model::target::{Endpoint, Target};
use toprope_model::{Dur, FromNode, KindSpec, Node, Problems, fields};
use toprope_proxy::{Flow, Latency, Rules, Stats};

use crate::network::{self, Direction, Listen, Reach, Shape};

/// A chunk that was held so long was held by the fault: a proxy alone passes it on in microseconds.
const EVIDENT: Duration = Duration::from_millis(100);

fields! {
    /// What `network-latency` takes.
    struct Delay {
        /// Whose connections: processes of this host, or `{host: true}` for everybody's. Needed unless `listen` is
        /// given.
        from: Option<Target>,
        /// Where the connections go: `127.0.0.1:5432`, `db.internal:5432`, `:5432` on any host, `10.0.0.0/8`, or a
        /// service of the topology. A name is looked up once, when the fault begins.
        to: Endpoint,
        /// Lead those through who connect here, instead of intercepting: for where that is not allowed. Point the client
        /// here before the run. Somebody listens from before the steady state until after the recovery, and forwards
        /// unchanged while no fault is in force.
        listen: Option<Listen>,
        /// How much later bytes arrive.
        delay: Dur,
        /// How far each delay may be off, either way: drawn uniformly, anew for each chunk of bytes.
        jitter: Dur = "0s",
        /// Which bytes: `in` delays what comes back to the clients, `out` what they send, `both` both, so that a
        /// question and its answer take twice the delay longer.
        direction: Direction = "in",
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "network-latency",
        summary: "Delay what TCP connections carry.",
        docs: "\
Leads new connections through a proxy that holds every chunk of bytes for a while. It is no rate limit: any number of
chunks are under way at once. The handshake is not delayed, because the kernel answers it; what comes after it is.

How connections come to the proxy depends on `from`. Those of single processes (by name, command line, unit, ...) are
redirected inside connect(2) by BPF programs, which needs root and a port in `to`; children are found ten times a second,
and processes that are started again within seconds. Those of all programs, of a user or of a control group are
redirected by a rule of nftables, in which case the kernel tracks connections as long as the fault lasts; without
privileges that works in a network of one's own (`toprope exec`). Containers with networks of their own are not reached
from the host's.

Where nothing of this is allowed, point the client at a port that `listen` names. There a process listens for the whole
run and forwards unchanged while no fault is in force, and the connections that are open when the fault begins are reached
too. At the fault's end all go on; at the run's end nobody listens any more, and what is in flight is carried on for the
`drain`.

Connections that are open when a redirection begins are not reached: plan counts them and warns. A client with a pool must
be restarted, or must renew it. `anywhere` and networks without a port leave out what stays within this host; a port or
an address means it too.

At the end new connections go straight at once, and those in flight are carried on without delay until they close or
the drain is over. If the injector is killed, the kernel ends the redirection within milliseconds, and the connections
that went through the proxy are cut. If it stands still, nftables sends new connections straight after two seconds.

The effect is measured: the time from reading each chunk to writing it, and the share of the connections that go through
the proxy, of those and the ones that are open past it. Where a client gives up before the delay is over, nothing is ever
written: then it counts how long chunks are held so far, or were until their connection ended.",
        example: "- network-latency: {from: {process: checkout}, to: \"127.0.0.1:5432\", delay: 200ms, for: 30s}",
        fields: Delay::fields,
        check,
    },
    lasting: true,
    undo: UndoKind::KernelOwned,
    danger: Danger::Contained,
    needs: &[Need::NetAdmin, Need::Bpf, Need::Ptrace],
    strength: &["delay"],
    recovers: false,
    ramps: &["delay", "jitter"],
};

fn check(node: &Node, problems: &mut Problems) {
    if let Some(delay) = Delay::from_node(node, problems) {
        network::check_reach(delay.reach(), node, problems);
    }
}

/// The fault.
pub(crate) struct NetworkLatency;

impl Fault for NetworkLatency {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move {
            let delay: Delay = params.read()?;
            network::plan(delay.reach(), &delay.does(), params, host).await
        }
        .boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a Step,
        params: &'a Params,
        host: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        async move { Ok(Box::new(network::apply::<Delay>(step, params, host).await?) as _) }.boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        network::undo(step).boxed()
    }

    fn passage(&self, params: &Params) -> Result<Option<Passage>, FaultError> {
        let delay: Delay = params.read()?;
        Ok(network::passage(delay.reach()))
    }

    fn pass_through<'a>(
        &'a self,
        params: &'a Params,
        host: &'a Host,
    ) -> BoxFuture<'a, Result<Arc<dyn PassThrough>, FaultError>> {
        async move {
            let delay: Delay = params.read()?;
            network::pass_through(delay.reach(), host).await
        }
        .boxed()
    }
}

impl Delay {
    fn reach(&self) -> Reach<'_> {
        Reach { from: self.from.as_ref(), to: &self.to, listen: self.listen }
    }

    fn does(&self) -> String {
        let what = match self.direction {
            Direction::In => "what comes back",
            Direction::Out => "what is sent",
            Direction::Both => "everything",
        };
        let jitter = if self.jitter.0.is_zero() { String::new() } else { format!(" ± {}", self.jitter) };
        format!("delay {what} by {}{jitter} on", self.delay)
    }

    /// Whether the delay was seen in a direction, and what was measured of it; `None` if nothing came by.
    fn measured(&self, what: &str, flow: &Flow) -> Option<(bool, Measure)> {
        let ms = |delay: Duration| delay.as_secs_f64() * 1e3;
        let (delay, unit) = (&flow.delay, "ms".to_owned());
        if let (Some(min), Some(median), Some(p99), Some(max)) =
            (delay.min(), delay.quantile(0.5), delay.quantile(0.99), delay.max())
        {
            // With a jitter as large as the delay the median is still the delay.
            let spread = Spread { min: ms(min), p50: ms(median), p99: ms(p99), max: ms(max) };
            let (name, asked) = (format!("delay of {what}"), Some(ms(self.delay.0)));
            let (measured, samples, spread) = (spread.p50, delay.count(), Some(spread));
            return Some((median >= self.delay.0 / 2, Measure { name, unit, asked, measured, samples, spread }));
        }
        // Nothing was written: the delay is longer than anybody waited so far. Each wait is at least as long as it is yet.
        let longest = flow.waiting.max(flow.given_up.max())?;
        let samples = flow.given_up.count() + u64::from(flow.waiting.is_some());
        let name = format!("time for which {what} is held so far");
        let measure = Measure { name, unit, asked: None, measured: ms(longest), samples, spread: None };
        (longest >= EVIDENT.min(self.delay.0 / 2)).then_some((true, measure))
    }
}

impl Shape for Delay {
    fn read(params: &Params) -> Result<Self, FaultError> {
        params.read()
    }

    fn rules(&self, seed: u64) -> Rules {
        Rules::seeded(seed).add(self.direction.of_the_proxy(), Latency::new(self.delay.0).jitter(self.jitter.0))
    }

    fn measure(&self, seen: &Stats) -> (Option<bool>, Vec<Measure>) {
        let out = || self.measured("what is sent", &seen.up);
        let back = || self.measured("what comes back", &seen.down);
        let (took, measures): (Vec<bool>, Vec<Measure>) = match self.direction {
            Direction::In => back().into_iter().unzip(),
            Direction::Out => out().into_iter().unzip(),
            Direction::Both => out().into_iter().chain(back()).unzip(),
        };
        // A ramp may begin at no delay at all, which shows nothing.
        let took = took.into_iter().filter(|_| !self.delay.0.is_zero());
        (took.reduce(|all, one| all && one), measures)
    }
}

#[cfg(test)]
mod tests;
