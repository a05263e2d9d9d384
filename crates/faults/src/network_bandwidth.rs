//! `network-bandwidth`: TCP streams on a narrow link, as over a full or a distant one.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use toprope_engine::fault::{Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_engine::pass_through::{PassThrough, Passage};
use toprope_model::kind::{Danger, FaultSpec, Need, UndoKind};
use toprope_model::step::{Measure, Plan, Step};
use toprope_model::target::{Endpoint, Target};
use toprope_model::units::Rate;
use toprope_model::{FromNode, KindSpec, Node, Problems, fields};
use toprope_proxy::{Bandwidth, Flow, Rules, Stats};

use crate::network::{self, Direction, Listen, Reach, Shape};

fields! {
    /// What `network-bandwidth` takes.
    struct Narrow {
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
        /// How much each connection may carry, in each direction that is meant.
        rate: Rate,
        /// Which bytes: `in` slows what comes back to the clients, `out` what they send, `both` both.
        direction: Direction = "both",
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "network-bandwidth",
        summary: "Limit how much TCP connections carry.",
        docs: "\
Leads new connections through a proxy that lets so many bytes per second pass, for each connection by itself and without
a burst at its start. A sender that is faster is slowed by TCP's own means, once the buffers on the way are full: what
it has sent by then (some hundred kilobytes, in the kernel's socket buffers) it takes for sent.

How connections come to the proxy, which are not reached, and what happens at the end is the same as with
`network-latency`.

The effect is measured: the rate at which connections got their bytes while they had any to get.",
        example: "- network-bandwidth: {from: {process: checkout}, to: \"127.0.0.1:5432\", rate: 100kB/s, for: 30s}",
        fields: Narrow::fields,
        check,
    },
    lasting: true,
    undo: UndoKind::KernelOwned,
    danger: Danger::Contained,
    needs: &[Need::NetAdmin, Need::Bpf, Need::Ptrace],
    strength: &["rate"],
    recovers: false,
    ramps: &["rate"],
};

fn check(node: &Node, problems: &mut Problems) {
    if let Some(narrow) = Narrow::from_node(node, problems) {
        network::check_reach(narrow.reach(), node, problems);
    }
}

/// The fault.
pub(crate) struct NetworkBandwidth;

impl Fault for NetworkBandwidth {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move {
            let narrow: Narrow = params.read()?;
            network::plan(narrow.reach(), &narrow.does(), params, host).await
        }
        .boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a Step,
        params: &'a Params,
        host: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        async move { Ok(Box::new(network::apply::<Narrow>(step, params, host).await?) as _) }.boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        network::undo(step).boxed()
    }

    fn passage(&self, params: &Params) -> Result<Option<Passage>, FaultError> {
        let narrow: Narrow = params.read()?;
        Ok(network::passage(narrow.reach()))
    }

    fn pass_through<'a>(
        &'a self,
        params: &'a Params,
        host: &'a Host,
    ) -> BoxFuture<'a, Result<Arc<dyn PassThrough>, FaultError>> {
        async move {
            let narrow: Narrow = params.read()?;
            network::pass_through(narrow.reach(), host).await
        }
        .boxed()
    }
}

impl Narrow {
    fn reach(&self) -> Reach<'_> {
        Reach { from: self.from.as_ref(), to: &self.to, listen: self.listen }
    }

    fn does(&self) -> String {
        let what = match self.direction {
            Direction::In => "what comes back",
            Direction::Out => "what is sent",
            Direction::Both => "each direction",
        };
        format!("limit {what} to {} on", self.rate)
    }

    /// What is too little to tell a rate from is left out: the machine's stalls would be all that is seen.
    fn measured(&self, name: &str, flow: &Flow) -> Option<Measure> {
        const LEAST: Duration = Duration::from_millis(100);
        let rate = flow.busy_rate().filter(|_| flow.busy >= LEAST)?;
        Some(Measure {
            name: name.into(),
            unit: "B/s".into(),
            asked: Some(self.rate.0),
            measured: rate.round(),
            samples: flow.delay.count(),
            spread: None,
        })
    }
}

impl Shape for Narrow {
    fn read(params: &Params) -> Result<Self, FaultError> {
        params.read()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive, and saturate")]
    fn rules(&self, seed: u64) -> Rules {
        let rate = (self.rate.0.round() as u64).max(1);
        Rules::seeded(seed).add(self.direction.of_the_proxy(), Bandwidth::bytes_per_second(rate))
    }

    fn measure(&self, seen: &Stats) -> (Option<bool>, Vec<Measure>) {
        let out = || self.measured("rate of what is sent", &seen.up);
        let back = || self.measured("rate of what comes back", &seen.down);
        let measures: Vec<Measure> = match self.direction {
            Direction::In => back().into_iter().collect(),
            Direction::Out => out().into_iter().collect(),
            Direction::Both => out().into_iter().chain(back()).collect(),
        };
        let took = measures.iter().map(|m| m.measured <= self.rate.0 * 2.0);
        (took.reduce(|all, one| all && one), measures)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::network::testing::{
        Holder, STRAIGHT, ask, hold, in_force, in_own_namespaces, in_own_network, observed, observed_samples, role,
        server,
    };
    use crate::testing::{PATIENCE, eventually, host, params};

    /// A server that sends 200 kB to everybody and then reads all that it is sent.
    fn giver() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    client.write_all(&[7; 200_000])?;
                    std::io::copy(&mut client, &mut std::io::sink())
                });
            }
        });
        at
    }

    /// How long it takes to be given everything.
    fn take(from: SocketAddr) -> Duration {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(from).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut vec![0; 200_000]).unwrap();
        begin.elapsed()
    }

    async fn life() {
        let (from, other) = (giver(), giver());
        let with = |rate: &str| json!({"from": {"host": true}, "to": from.to_string(), "rate": rate});
        let (step, mut injection) = in_force(&NetworkBandwidth, with("100kB/s")).await;
        assert_eq!(observed(&mut injection).await.took, None, "nobody came by");
        let took = take(from);
        assert!((1.8..4.0).contains(&took.as_secs_f64()), "2 s at 100 kB/s: {took:?}");
        assert!(take(other) < Duration::from_secs(1));
        let effect = observed_samples(&mut injection, 1).await;
        let [rate] = &effect.measures[..] else { panic!("{effect:?}") };
        assert_eq!((effect.took, rate.name.as_str(), rate.asked), (Some(true), "rate of what comes back", Some(1e5)));
        assert!((60_000.0..110_000.0).contains(&rate.measured), "{effect:?}");

        injection.adjust(&params(with("1MB/s"))).await.unwrap();
        assert_eq!(observed(&mut injection).await.took, Some(true), "it took before");
        assert!(take(from) < Duration::from_secs(1), "200 ms at 1 MB/s");
        let effect = observed_samples(&mut injection, 1).await;
        assert!((3e5..1.1e6).contains(&effect.measures[0].measured), "{effect:?}");

        injection.adjust(&params(with("10kB/s"))).await.unwrap();
        let mut in_flight = TcpStream::connect(from).unwrap();
        in_flight.read_exact(&mut [0; 1000]).unwrap();
        let draining = injection.release(PATIENCE).await.unwrap().expect("one is in flight");
        let begin = Instant::now();
        in_flight.read_exact(&mut vec![0; 199_000]).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(5), "20 s at 10 kB/s");
        assert!(take(from) < Duration::from_secs(1));
        drop(in_flight);
        let (ended, cut) = draining.await;
        assert!(ended >= 1 && cut == 0, "{ended} ended by themselves, {cut} were cut");
        assert!(NetworkBandwidth.undo(&step, &host()).await.unwrap()[0].contains("is gone"));
    }

    #[test]
    fn redirected_connections_are_narrow_and_no_others() {
        in_own_network("redirected_connections_are_narrow_and_no_others", life);
    }

    #[test]
    fn without_privileges_it_works_in_a_network_of_ones_own() {
        in_own_namespaces("network_bandwidth::tests::without_privileges_it_works_in_a_network_of_ones_own", life);
    }

    #[test]
    fn what_is_sent_is_limited_by_itself() {
        in_own_network("what_is_sent_is_limited_by_itself", || async {
            let to = giver();
            let parameters =
                json!({"from": {"host": true}, "to": to.to_string(), "rate": "100kB/s", "direction": "out"});
            let (_, mut injection) = in_force(&NetworkBandwidth, parameters).await;
            assert!(take(to) < Duration::from_secs(1), "what comes back is not meant");
            let begin = Instant::now();
            let mut stream = TcpStream::connect(to).unwrap();
            stream.write_all(&[7; 100_000]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
            assert!(begin.elapsed() >= Duration::from_millis(900), "1 s at 100 kB/s: {:?}", begin.elapsed());
            let effect = observed_samples(&mut injection, 1).await;
            assert_eq!(effect.measures[0].name, "rate of what is sent");
        });
    }

    #[test]
    fn when_its_process_is_killed_the_kernel_undoes_it() {
        const TEST: &str = "network_bandwidth::tests::when_its_process_is_killed_the_kernel_undoes_it";
        if role().is_some() {
            return hold(&NetworkBandwidth);
        }
        in_own_network(TEST, || async {
            let to = server();
            let parameters = json!({"from": {"host": true}, "to": to.to_string(), "rate": "10B/s"});
            let holder = Holder::start(TEST, &parameters);
            assert!(ask(to).unwrap() >= STRAIGHT, "1.2 s at 10 B/s");
            holder.signal(toprope_os::process::Signal::KILL);
            let killed = Instant::now();
            eventually("new connections go straight", || ask(to).is_ok_and(|took| took < STRAIGHT));
            assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
            assert!(NetworkBandwidth.undo(&holder.step, &host()).await.unwrap()[0].contains("is gone"));
        });
    }

    #[test]
    fn a_rate_of_nothing_is_refused() {
        let mut problems = Problems::default();
        check(&Node::from_json(&json!({"from": {"host": true}, "to": ":1", "rate": "0B/s"})), &mut problems);
        assert!(problems.to_string().contains("use network-partition"), "{problems}");
    }
}
