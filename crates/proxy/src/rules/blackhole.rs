//! Blackhole: bytes go in and nothing comes out.

use rand_chacha::ChaCha8Rng;

use super::{Rule, Shaper};
use crate::clock::Moment;

/// Accepts connections and holds every byte of them, and their ends, until the rules change.
///
/// Nothing is lost: what was held is delivered when the rule goes. What was on its way when the rule came still arrives,
/// as on a real network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blackhole;

impl Rule for Blackhole {
    fn shaper(&self, _: Moment, _: ChaCha8Rng) -> Option<Box<dyn Shaper>> {
        Some(Box::new(Hole))
    }
}

struct Hole;

impl Shaper for Hole {
    fn leaves(&mut self, _: Moment, _: usize) -> Moment {
        Moment::NEVER
    }
}
