//! Rules: what happens to the connections and bytes that pass.
//!
//! A rule is one file: a type that implements [`Rule`], and for each direction of each connection that it touches a
//! [`Shaper`] with the rule's state there. Rules combine in the order they were added, as links of a chain: what leaves
//! one arrives at the next.

mod bandwidth;
mod blackhole;
mod latency;
mod refuse;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::bandwidth::Bandwidth;
pub use self::blackhole::Blackhole;
pub use self::latency::Latency;
pub use self::refuse::Refuse;
use crate::clock::Moment;
use crate::shape::Shape;

/// What one kind of fault does to connections and to their bytes.
pub trait Rule: fmt::Debug + Send + Sync + 'static {
    /// What becomes of a new connection, before the upstream is called. By default it is carried.
    fn admit(&self) -> Admission {
        Admission::Carry
    }

    /// The rule's state for one direction of one connection, as from `now`; `None` if bytes are no concern of this rule.
    ///
    /// `random` is seeded by the rules' seed, the connection's number, the rule's place and the direction alone, so that a
    /// run with the same seed draws the same values.
    fn shaper(&self, now: Moment, random: ChaCha8Rng) -> Option<Box<dyn Shaper>> {
        let _ = (now, random);
        None
    }
}

/// Decides when bytes may go on, in one direction of one connection.
pub trait Shaper: Send {
    /// When a piece of `len` bytes that arrives here at `at` leaves. [`Moment::NEVER`] holds it until the rules change.
    ///
    /// Called once per piece, in the stream's order. Order is kept whatever it answers: no piece leaves before the one
    /// in front of it. The end of the stream is a piece of no bytes.
    fn leaves(&mut self, at: Moment, len: usize) -> Moment;

    /// How long a byte usually stays here: so much must be buffered for this rule not to slow the stream down.
    fn holds(&self) -> Duration {
        Duration::ZERO
    }

    /// The most that may pass, in bytes per second. Pieces are cut so that none takes longer than half a millisecond.
    fn rate(&self) -> u64 {
        u64::MAX
    }
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is connected to the upstream.
    Carry,
    /// It is closed at once with a reset, and the upstream hears nothing of it.
    Reset,
}

/// The direction of the bytes that a rule touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the upstream.
    Up,
    /// From the upstream to the client.
    Down,
    /// Both.
    Both,
}

impl Direction {
    /// This direction, on a share of the connections only: from 0 (none) to 1 (all), clamped to that range.
    ///
    /// Each connection draws once. It stays on its side when the rules change, as long as seed and place of the rule
    /// stay: a rising share only adds connections.
    pub fn toxicity(self, share: f64) -> Scope {
        Scope { direction: self, toxicity: share.clamp(0.0, 1.0) }
    }

    fn covers(self, way: Way) -> bool {
        matches!((self, way), (Direction::Both, _) | (Direction::Up, Way::Up) | (Direction::Down, Way::Down))
    }
}

/// What a rule touches: a direction, and a share of the connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scope {
    direction: Direction,
    toxicity: f64,
}

impl From<Direction> for Scope {
    fn from(direction: Direction) -> Scope {
        direction.toxicity(1.0)
    }
}

/// One of a connection's two flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// An ordered set of rules and the seed of their randomness. Cheap to clone.
///
/// The default has no rules: everything passes.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    seed: u64,
    chain: Vec<Link>,
}

#[derive(Clone, Debug)]
struct Link {
    scope: Scope,
    rule: Arc<dyn Rule>,
}

/// What a random draw is for: parts of one connection never share a sequence.
enum Draw {
    Toxicity,
    Shaper { way: Way, generation: u64 },
}

impl Rules {
    /// No rules: everything passes untouched.
    pub fn pass() -> Rules {
        Rules::default()
    }

    /// No rules yet; those added draw from this seed (ChaCha8).
    pub fn seeded(seed: u64) -> Rules {
        Rules { seed, chain: Vec::new() }
    }

    /// Adds a rule behind those that are there.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use toprope_proxy::{Bandwidth, Direction, Latency, Rules};
    /// let rules = Rules::seeded(7)
    ///     .add(Direction::Down, Bandwidth::bytes_per_second(125_000))
    ///     .add(Direction::Both.toxicity(0.3), Latency::new(Duration::from_millis(40)));
    /// # assert!(!rules.is_pass());
    /// ```
    #[must_use]
    pub fn add(mut self, scope: impl Into<Scope>, rule: impl Rule) -> Rules {
        self.chain.push(Link { scope: scope.into(), rule: Arc::new(rule) });
        self
    }

    /// Whether there is no rule at all.
    pub fn is_pass(&self) -> bool {
        self.chain.is_empty()
    }

    /// What becomes of a new connection: the first rule that does not carry it decides.
    pub(crate) fn admit(&self, connection: u64) -> Admission {
        self.applying(connection)
            .map(|(_, link)| link.rule.admit())
            .find(|admission| *admission != Admission::Carry)
            .unwrap_or(Admission::Carry)
    }

    /// The shape of one flow of a connection under these rules. `generation` counts the changes of the rules, so that
    /// a rule that was only adjusted goes on drawing new values.
    pub(crate) fn shape(&self, connection: u64, way: Way, generation: u64, now: Moment) -> Shape {
        let shapers = self
            .applying(connection)
            .filter(|(_, link)| link.scope.direction.covers(way))
            .filter_map(|(place, link)| {
                link.rule.shaper(now, self.random(connection, place, Draw::Shaper { way, generation }))
            })
            .collect();
        Shape::new(shapers)
    }

    fn applying(&self, connection: u64) -> impl Iterator<Item = (usize, &Link)> {
        self.chain.iter().enumerate().filter(move |(place, link)| match link.scope.toxicity {
            all if all >= 1.0 => true,
            share => self.random(connection, *place, Draw::Toxicity).random::<f64>() < share,
        })
    }

    fn random(&self, connection: u64, place: usize, draw: Draw) -> ChaCha8Rng {
        let purpose = match draw {
            Draw::Toxicity => 0,
            Draw::Shaper { way: Way::Up, generation } => 1 + 2 * generation,
            Draw::Shaper { way: Way::Down, generation } => 2 + 2 * generation,
        };
        let mut key = [0u8; 32];
        for (part, value) in key.chunks_exact_mut(8).zip([self.seed, connection, place as u64, purpose]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toxicity_is_a_share_of_connections_that_replays() {
        let at = |seed, share| Rules::seeded(seed).add(Direction::Up.toxicity(share), Refuse);
        let chosen = |rules: &Rules| (0..10_000).filter(|&n| rules.admit(n) == Admission::Reset).collect::<Vec<_>>();
        let (third, half) = (chosen(&at(1, 0.3)), chosen(&at(1, 0.5)));
        assert!((2_850..3_150).contains(&third.len()), "{} of 10,000", third.len());
        assert!(third.iter().all(|n| half.contains(n)), "a rising share only adds connections");
        assert_eq!(third, chosen(&at(1, 0.3)));
        assert_ne!(third, chosen(&at(2, 0.3)));
        assert!(chosen(&at(1, 0.0)).is_empty() && chosen(&at(1, f64::NAN)).is_empty());
        assert_eq!(chosen(&at(1, 7.0)).len(), 10_000);
    }

    #[test]
    fn a_rule_shapes_only_its_direction() {
        let rules = Rules::pass().add(Direction::Down, Latency::new(Duration::from_millis(5)));
        let now = Moment::now();
        assert!(rules.shape(0, Way::Up, 0, now).is_pass());
        assert!(!rules.shape(0, Way::Down, 0, now).is_pass());
    }

    #[test]
    fn the_first_rule_that_refuses_decides() {
        let rules = Rules::pass().add(Direction::Both, Latency::new(Duration::ZERO)).add(Direction::Both, Refuse);
        assert_eq!(rules.admit(3), Admission::Reset);
        assert_eq!(Rules::pass().add(Direction::Both, Blackhole).admit(3), Admission::Carry);
    }

    #[test]
    fn rules_are_links_of_a_chain() {
        // 40 ms of latency, then 1,000 bytes at 10,000 bytes per second: out after 140 ms.
        let now = Moment::now();
        let rules = Rules::pass()
            .add(Direction::Up, Latency::new(Duration::from_millis(40)))
            .add(Direction::Up, Bandwidth::bytes_per_second(10_000));
        let leaves = rules.shape(0, Way::Up, 0, now).due(now, 1_000);
        assert_eq!(leaves.since(now), Duration::from_millis(140));
    }
}
