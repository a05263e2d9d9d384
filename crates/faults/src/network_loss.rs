//! `network-loss`: some packets do not arrive, as on a bad radio link or a full queue.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use toprope_engine::fault::{Draining, Fault, FaultError, Injection, Params};
use toprope_engine::host::Host;
use toprope_model::kind::{Danger, FaultSpec, Need, UndoKind};
use toprope_model::step::{Effect, Measure, Plan, Step};
use toprope_model::target::{Endpoint, Target};
use toprope_model::units::Percent;
use toprope_model::{FromNode, KindSpec, Node, Problems, fields};
use toprope_os::nft::{Action, Match, Transport};

use crate::network::{Direction, Filter, Protocol, Selected, Traffic, Treatment};

fields! {
    /// What `network-loss` takes.
    struct Loss {
        /// Whose packets: `{host: true}` for those of every program of this host, `{user: NAME}`, `{cgroup: PATH}`, or
        /// `{port: NUMBER}` for those of who listens there. Packets do not tell processes.
        from: Target,
        /// The other side: `10.0.0.7`, `10.0.0.0/8`, `db.internal:5432`, `:5432` on any host, a service of the topology,
        /// or `anywhere`. A name is looked up once, when the fault begins.
        to: Endpoint,
        /// How many of the packets are lost.
        loss: Percent,
        /// Which packets.
        protocol: Protocol = "any",
        /// Which way: `out` what is sent to the other side, `in` what comes from there, or `both`.
        direction: Direction = "both",
    }
}

static SPEC: FaultSpec = FaultSpec {
    spec: KindSpec {
        kind: "network-loss",
        summary: "Lose a share of the packets between this host's programs and others.",
        docs: "\
Drops packets at random, each by itself, by rules of nftables in a table of their own, for what this host sends and what
arrives for it. TCP sends again what was lost, so that a connection slows down and stalls; UDP and ICMP lose it. Within
this host a packet can be as large as 64 kB, so that a connection there has fewer of them to lose.

The kernel draws the random numbers: which packets are lost differs from run to run, whatever the seed.

With `direction: both` a question and its answer are lost independently: with a loss of 30%, 49% of them both arrive.

What `from` and `to` mean, what is not reached, and how the fault ends is the same as with `network-partition`.

The effect is measured: the share of the packets that were dropped, of all that came by.",
        example: "- network-loss: {from: {host: true}, to: \"127.0.0.1:5432\", loss: 5%, for: 30s}",
        fields: Loss::fields,
        check,
    },
    lasting: true,
    undo: UndoKind::KernelOwned,
    danger: Danger::SharesHost,
    needs: &[Need::NetAdmin],
    strength: &["loss"],
    recovers: false,
    ramps: &["loss"],
};

fn check(node: &Node, problems: &mut Problems) {
    if let Some(Loss { from, to, protocol, direction, .. }) = Loss::from_node(node, problems) {
        Traffic::check(&from, &to, protocol, direction, node, problems);
    }
}

/// The fault.
pub(crate) struct NetworkLoss;

impl Fault for NetworkLoss {
    fn spec(&self) -> &'static FaultSpec {
        &SPEC
    }

    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>> {
        async move {
            let Loss { from, to, loss, protocol, direction } = params.read()?;
            let traffic = Traffic::resolve(&from, &to, protocol, direction, host).await?;
            let warnings = traffic.one_way().into_iter().collect();
            Ok(traffic.plan(&from, &format!("drop {loss} of"), "loss", warnings))
        }
        .boxed()
    }

    fn apply<'a>(
        &'a self,
        step: &'a Step,
        params: &'a Params,
        _: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>> {
        async move {
            let Loss { loss, .. } = params.read()?;
            let traffic = Traffic::of(step)?;
            let filter = Filter::begin(&traffic, &Losing(loss)).await?;
            Ok(Box::new(Lossy { filter, traffic, loss, took: None }) as _)
        }
        .boxed()
    }

    fn undo<'a>(&'a self, step: &'a Step, _: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>> {
        Traffic::undo(step).boxed()
    }
}

/// A share of packets is dropped, the others are counted.
struct Losing(Percent);

impl Treatment for Losing {
    const RULES: usize = 2;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage is within 0 and 100")]
    fn rules(&self, _: Option<Transport>) -> Vec<Selected> {
        const MILLION: u32 = 1_000_000;
        let share = (self.0.share() * f64::from(MILLION)).round() as u32;
        let lost = Selected { when: vec![Match::Random { share, of: MILLION }], action: Action::Drop };
        vec![lost, Selected::all(Action::Count)]
    }
}

/// A loss in force.
struct Lossy {
    filter: Filter,
    traffic: Traffic,
    loss: Percent,
    /// Whether it was seen to take with the share before.
    took: Option<bool>,
}

impl Lossy {
    async fn look(&self) -> Result<(Option<bool>, Measure), FaultError> {
        let counters = self.filter.counters::<Losing>().await?;
        let (lost, passed) = (counters[0].packets, counters[1].packets);
        let measure = Measure {
            name: "packets lost".into(),
            unit: "%".into(),
            asked: Some(self.loss.0),
            measured: if lost == 0 { 0.0 } else { lost as f64 / (lost + passed) as f64 * 100.0 },
            samples: lost + passed,
            spread: None,
        };
        Ok((took(self.loss.share(), lost, passed), measure))
    }
}

/// Whether a loss is seen. That there is too little of it is said only where chance does not do that: with 20 expected,
/// fewer than 10 are lost once in 200 times.
fn took(share: f64, lost: u64, passed: u64) -> Option<bool> {
    let expected = (lost + passed) as f64 * share;
    if lost + passed == 0 {
        None
    } else if lost as f64 >= expected / 2.0 && (lost > 0 || share == 0.0) {
        Some(true)
    } else {
        (expected >= 20.0).then_some(false)
    }
}

impl Injection for Lossy {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        async {
            let (took, measure) = self.look().await?;
            Ok(Effect {
                took: took.or(self.took),
                reached: None,
                note: self.filter.note(measure.samples),
                measures: vec![measure],
            })
        }
        .boxed()
    }

    fn adjust<'a>(&'a mut self, params: &'a Params) -> BoxFuture<'a, Result<(), FaultError>> {
        async {
            let Loss { loss, .. } = params.read()?;
            self.took = self.look().await?.0.or(self.took);
            self.filter.change(&self.traffic, &Losing(loss)).await?;
            self.loss = loss;
            Ok(())
        }
        .boxed()
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        self.filter.lost().boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        async move { self.filter.remove().await.map(|()| None) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::network::testing::{
        Holder, Redis, ask_by_datagrams, datagram_echo, hold, in_force, in_own_namespaces, in_own_network, observed,
        role,
    };
    use crate::testing::{PATIENCE, host, params, planned};

    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    async fn life_of_a_loss() {
        let ((to, _), (other, _)) = (datagram_echo(), datagram_echo());
        let with = |loss: &str, direction: &str| {
            let to = to.to_string();
            params(json!({"from": {"host": true}, "to": to, "loss": loss, "direction": direction}))
        };
        let (plan, step) = planned(&NetworkLoss, &with("30%", "out"), &host()).await;
        assert!(step.describe.starts_with("drop 30% of the packets sent from"), "{plan:?}");
        let mut injection = NetworkLoss.apply(&step, &with("30%", "out"), &host()).await.unwrap();
        assert_eq!(observed(&mut injection).await.took, None);
        let share = |answers: u64| answers as f64 / 1000.0;
        // A thousand draws at 30 %: a standard deviation of 1.4 %.
        let answered = share(ask_by_datagrams(to, 1000));
        assert!((0.62..0.78).contains(&answered), "{answered}");
        assert_eq!(ask_by_datagrams(other, 100), 100);
        let effect = observed(&mut injection).await;
        let [lost] = &effect.measures[..] else { panic!("{effect:?}") };
        assert_eq!((effect.took, lost.asked, lost.samples), (Some(true), Some(30.0), 1000), "{effect:?}");
        assert!((lost.measured - (1.0 - answered) * 100.0).abs() < 0.5, "{effect:?}, and {answered} were answered");

        injection.adjust(&with("0%", "out")).await.unwrap();
        assert_eq!(ask_by_datagrams(to, 100), 100);
        injection.adjust(&with("100%", "out")).await.unwrap();
        assert_eq!(ask_by_datagrams(to, 100), 0);
        let effect = observed(&mut injection).await;
        assert_eq!((effect.took, effect.measures[0].measured, effect.measures[0].samples), (Some(true), 100.0, 100));
        assert!(injection.release(PATIENCE).await.unwrap().is_none());
        assert_eq!(ask_by_datagrams(to, 100), 100);
        for _ in 0..2 {
            assert!(NetworkLoss.undo(&step, &host()).await.unwrap()[0].contains("is gone"));
        }

        let (_, injection) = in_force(&NetworkLoss, with("30%", "both").node.to_json()).await;
        let answered = share(ask_by_datagrams(to, 1000));
        assert!((0.40..0.58).contains(&answered), "49 % of questions and answers both arrive: {answered}");
        injection.release(PATIENCE).await.unwrap();
    }

    #[test]
    fn a_share_of_the_packets_is_lost() {
        in_own_network("a_share_of_the_packets_is_lost", life_of_a_loss);
    }

    #[test]
    fn without_privileges_it_works_in_a_network_of_ones_own() {
        in_own_namespaces("network_loss::tests::without_privileges_it_works_in_a_network_of_ones_own", life_of_a_loss);
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    fn within_this_host_a_packet_is_drawn_for_once() {
        in_own_network("within_this_host_a_packet_is_drawn_for_once", || async {
            let (to, got) = datagram_echo();
            let parameters = json!({"from": {"host": true}, "to": "127.0.0.1", "loss": "30%", "protocol": "udp"});
            let (_, injection) = in_force(&NetworkLoss, parameters).await;
            ask_by_datagrams(to, 1000);
            let arrived = got.load(std::sync::atomic::Ordering::Relaxed) as f64 / 1000.0;
            assert!((0.62..0.78).contains(&arrived), "{arrived}");
            injection.release(PATIENCE).await.unwrap();
        });
    }

    #[test]
    fn a_real_client_of_redis_is_answered_later() {
        in_own_network("a_real_client_of_redis_is_answered_later", || async {
            let Some(redis) = Redis::start("a_real_client_of_redis_is_answered_later") else { return };
            let parameters = json!({"from": {"host": true}, "to": redis.at.to_string(), "loss": "20%"});
            let (_, mut injection) = in_force(&NetworkLoss, parameters).await;
            // Each loss costs a retransmission after at least 200 ms.
            let slow = redis.ping(30).expect("TCP sends again");
            assert!(slow > Duration::from_millis(200), "{slow:?}");
            let effect = observed(&mut injection).await;
            assert!(effect.measures[0].samples > 60, "{effect:?}");
            injection.release(PATIENCE).await.unwrap();
            assert!(redis.ping(30).unwrap() < slow);
        });
    }

    #[test]
    fn when_its_process_is_killed_the_kernel_undoes_it() {
        const TEST: &str = "network_loss::tests::when_its_process_is_killed_the_kernel_undoes_it";
        if role().is_some() {
            return hold(&NetworkLoss);
        }
        in_own_network(TEST, || async {
            let (to, _) = datagram_echo();
            let parameters = json!({"from": {"host": true}, "to": to.to_string(), "loss": "100%"});
            let holder = Holder::start(TEST, &parameters);
            assert_eq!(ask_by_datagrams(to, 10), 0);
            holder.signal(toprope_os::process::Signal::KILL);
            let killed = Instant::now();
            NetworkLoss.undo(&holder.step, &host()).await.unwrap();
            assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
            assert_eq!(ask_by_datagrams(to, 10), 10);
        });
    }

    #[test]
    fn too_little_loss_is_told_from_chance() {
        for (share, lost, passed, expected) in [
            (0.3, 0, 0, None),
            (0.3, 0, 10, None),
            (0.3, 1, 9, None),
            (0.3, 2, 8, Some(true)),
            (0.3, 300, 700, Some(true)),
            (0.3, 10, 990, Some(false)),
            (0.3, 0, 1000, Some(false)),
            (0.0, 0, 10, Some(true)),
            (1.0, 1, 0, Some(true)),
        ] {
            assert_eq!(took(share, lost, passed), expected, "{lost} of {}", lost + passed);
        }
    }
}
