//! What a flow has read and may not yet write: the bytes in one ring, and marks that say when each piece leaves.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::clock::Moment;
use crate::shape::{READ, Shape};

/// An emptied ring above this many bytes gives its memory back: an idle connection costs little.
const KEEP: usize = 4096;

/// Bytes in their order, each due at its moment.
pub(crate) struct Queue {
    bytes: VecDeque<u8>,
    marks: VecDeque<Mark>,
    end: Option<(End, Mark)>,
    shape: Shape,
}

/// A piece of the stream that leaves as one.
#[derive(Clone, Copy)]
struct Mark {
    len: u32,
    /// Whether a rule ever made it wait.
    held: bool,
    arrived: Moment,
    due: Moment,
}

/// What a mark costs in memory, in bytes; counted against the bound, so that a stream of tiny messages is bounded too.
const MARK: usize = size_of::<Mark>();

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The sender has said all that it had to say (FIN).
    Finished,
    /// The sender is gone (RST, or the network's errors).
    Reset,
}

impl Queue {
    pub(crate) fn new(shape: Shape) -> Queue {
        Queue { bytes: VecDeque::new(), marks: VecDeque::new(), end: None, shape }
    }

    /// Whether a chunk may be written past the queue, untouched.
    pub(crate) fn is_open_road(&self) -> bool {
        self.shape.is_pass() && self.is_empty()
    }

    /// Whether no bytes wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes may be read now; zero where the bound is reached, never more than `READ`.
    pub(crate) fn room(&self) -> usize {
        let left = self.shape.bound().saturating_sub(self.bytes.len() + self.marks.len() * MARK);
        // Pieces of the quantum's size bring a mark each.
        let quantum = self.shape.quantum();
        if left == 0 { 0 } else { (left * quantum / (quantum + MARK)).clamp(1, READ) }
    }

    /// Appends what arrived at `arrived`.
    pub(crate) fn push(&mut self, chunk: &[u8], arrived: Moment) {
        let needed = self.bytes.len() + chunk.len();
        if needed > self.bytes.capacity() {
            // Powers of two end at the bound; the ring's own doubling would overshoot it.
            self.bytes.reserve_exact(needed.next_power_of_two() - self.bytes.len());
        }
        self.bytes.extend(chunk);
        for piece in chunk.chunks(self.shape.quantum()) {
            let due = self.shape.due(arrived, piece.len());
            self.marks.push_back(Mark { len: piece.len() as u32, held: due > arrived, arrived, due });
        }
    }

    /// Appends the end of the stream, behind all bytes.
    pub(crate) fn finish(&mut self, end: End, arrived: Moment) {
        let due = self.shape.due(arrived, 0);
        self.end = Some((end, Mark { len: 0, held: due > arrived, arrived, due }));
    }

    /// The end that waits, if there is one.
    pub(crate) fn end_mut(&mut self) -> Option<&mut End> {
        self.end.as_mut().map(|(end, _)| end)
    }

    /// How many bytes are due, as far as one write would take them.
    pub(crate) fn ripe(&self, now: Moment) -> usize {
        let mut ripe = 0;
        for mark in self.marks.iter().take_while(|mark| mark.due <= now) {
            ripe += mark.len as usize;
            if ripe >= 4 * READ {
                break;
            }
        }
        ripe
    }

    /// The first `len` bytes.
    pub(crate) fn front(&self, len: usize) -> [IoSlice<'_>; 2] {
        let (head, tail) = self.bytes.as_slices();
        let (from_head, from_tail) = (len.min(head.len()), len.saturating_sub(head.len()));
        [IoSlice::new(&head[..from_head]), IoSlice::new(&tail[..from_tail])]
    }

    /// Removes the first `len` bytes, and tells how many of them rules had made wait. Of each such piece that is gone
    /// with its last byte, `gone` hears when it had arrived.
    pub(crate) fn consume(&mut self, mut len: usize, mut gone: impl FnMut(Moment)) -> usize {
        self.bytes.drain(..len);
        let mut held = 0;
        while let Some(mark) = self.marks.front_mut() {
            let part = len.min(mark.len as usize);
            len -= part;
            mark.len -= part as u32;
            held += if mark.held { part } else { 0 };
            if mark.len > 0 {
                break;
            }
            if mark.held {
                gone(mark.arrived);
            }
            self.marks.pop_front();
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP {
            (self.bytes, self.marks) = Default::default();
        }
        held
    }

    /// When the next piece to leave arrived, if a rule makes it wait.
    pub(crate) fn held_since(&self) -> Option<Moment> {
        self.marks.front().filter(|mark| mark.held).map(|mark| mark.arrived)
    }

    /// When each of the pieces arrived that rules make wait.
    pub(crate) fn held(&self) -> impl Iterator<Item = Moment> {
        self.marks.iter().filter(|mark| mark.held).map(|mark| mark.arrived)
    }

    /// The end of the stream, once all bytes are gone and it is due.
    pub(crate) fn ended(&self, now: Moment) -> Option<End> {
        let (end, mark) = self.end?;
        (self.marks.is_empty() && mark.due <= now).then_some(end)
    }

    /// When the next piece or the end is due: [`Moment::NEVER`] if nothing waits or what waits is held.
    pub(crate) fn next_due(&self) -> Moment {
        let next = self.marks.front().or(self.end.as_ref().map(|(_, mark)| mark));
        next.map_or(Moment::NEVER, |mark| mark.due)
    }

    /// Forgets everything: nobody is there to take it.
    pub(crate) fn clear(&mut self) {
        (self.bytes, self.marks, self.end) = Default::default();
    }

    /// Puts what waits, and what will come, under another shape. Nothing is lost and the order stays; what waits leaves
    /// when it would have or when it would under the new shape, whichever is earlier.
    pub(crate) fn reshape(&mut self, shape: Shape) {
        self.shape = shape;
        let quantum = self.shape.quantum() as u32;
        for mut mark in std::mem::take(&mut self.marks) {
            // A piece that was one under the old shape may be too large to leave as one.
            while mark.len > 0 {
                let len = mark.len.min(quantum);
                let due = self.shape.due_again(mark.arrived, len as usize, mark.due);
                self.marks.push_back(Mark { len, held: mark.held || due > mark.arrived, due, ..mark });
                mark.len -= len;
            }
        }
        if let Some((_, mark)) = &mut self.end {
            mark.due = self.shape.due_again(mark.arrived, 0, mark.due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::rules::{Bandwidth, Blackhole, Direction, Latency, Rules, Way};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn shape(rules: &Rules, now: Moment) -> Shape {
        rules.shape(0, Way::Up, 0, now)
    }

    fn up(rule: impl crate::rules::Rule) -> Rules {
        Rules::pass().add(Direction::Up, rule)
    }

    fn take(queue: &mut Queue, now: Moment) -> Vec<u8> {
        let ripe = queue.ripe(now);
        let taken = queue.front(ripe).iter().flat_map(|slice| slice.to_vec()).collect();
        queue.consume(ripe, |_| {});
        taken
    }

    #[test]
    fn pieces_and_the_end_leave_when_they_are_due() {
        let now = Moment::now();
        let mut queue = Queue::new(shape(&up(Latency::new(ms(10))), now));
        queue.push(b"one", now);
        queue.push(b"two", now.after(ms(5)));
        queue.finish(End::Finished, now.after(ms(6)));
        assert_eq!(queue.next_due(), now.after(ms(10)));
        assert_eq!(take(&mut queue, now.after(ms(9))), b"");
        assert_eq!(take(&mut queue, now.after(ms(10))), b"one");
        assert_eq!(take(&mut queue, now.after(ms(15))), b"two");
        assert_eq!(queue.ended(now.after(ms(15))), None);
        assert_eq!(queue.next_due(), now.after(ms(16)));
        assert_eq!(queue.ended(now.after(ms(16))), Some(End::Finished));
    }

    #[test]
    fn a_piece_counts_as_gone_with_its_last_byte() {
        let now = Moment::now();
        let mut queue = Queue::new(shape(&up(Latency::new(ms(5))), now));
        queue.push(b"abc", now);
        queue.push(b"de", now);
        queue.reshape(shape(&Rules::pass(), now));
        queue.push(b"never held", now);
        let mut gone = 0;
        assert_eq!(queue.consume(2, |_| gone += 1), 2);
        assert_eq!(gone, 0);
        assert_eq!(queue.consume(2, |_| gone += 1), 2);
        assert_eq!(gone, 1);
        assert_eq!(queue.consume(11, |_| gone += 1), 1);
        assert_eq!(gone, 2);
        assert_eq!(queue.next_due(), Moment::NEVER);
    }

    #[test]
    fn other_rules_never_make_what_waits_later() {
        let now = Moment::now();
        let mut queue = Queue::new(shape(&up(Latency::new(ms(100))), now));
        queue.push(b"a", now);
        queue.reshape(shape(&up(Latency::new(ms(900))), now));
        assert_eq!(queue.next_due(), now.after(ms(100)));
        queue.push(b"b", now);
        queue.reshape(shape(&up(Blackhole), now));
        assert_eq!(take(&mut queue, now.after(ms(100))), b"a");
        assert_eq!(queue.next_due(), now.after(ms(900)));
        queue.reshape(shape(&Rules::pass(), now));
        assert_eq!(take(&mut queue, now), b"b");
    }

    #[test]
    fn what_a_blackhole_held_leaves_at_the_new_rate() {
        let now = Moment::now();
        let mut queue = Queue::new(shape(&up(Blackhole), now));
        queue.push(&[7; 10_000], now);
        assert_eq!(queue.next_due(), Moment::NEVER);
        let later = now.after(ms(3_000));
        queue.reshape(shape(&up(Bandwidth::bytes_per_second(10_000)), later));
        assert_eq!(queue.ripe(later), 0);
        assert_eq!(queue.ripe(later.after(ms(500))), 5_000);
    }

    #[test]
    fn tiny_pieces_are_bounded_like_large_ones() {
        let now = Moment::now();
        let mut queue = Queue::new(shape(&up(Latency::new(ms(1_000))), now));
        let mut pieces = 0;
        while queue.room() > 0 {
            queue.push(b"x", now);
            pieces += 1;
        }
        let bound = 8 * 1024 * 1024;
        assert!(pieces * (MARK + 1) <= bound + MARK, "{pieces} pieces");
        assert!(pieces > 300_000);
        queue.clear();
        while queue.room() > 0 {
            queue.push(&[0; READ][..queue.room()], now);
        }
        assert!(queue.bytes.len() <= bound && queue.bytes.capacity() <= bound, "{}", queue.bytes.capacity());
    }

    /// One step in a queue's life.
    #[derive(Clone, Debug)]
    enum Act {
        Push(usize),
        Write(usize),
        Pass(u64),
        Reshape(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (1usize..400).prop_map(Act::Push),
            (1usize..400).prop_map(Act::Write),
            (0u64..30).prop_map(Act::Pass),
            (0u8..6).prop_map(Act::Reshape),
        ]
    }

    fn some_rules(which: u8) -> Rules {
        let latency = Latency::new(ms(20)).jitter(ms(15));
        match which {
            0 => Rules::pass(),
            1 => Rules::seeded(5).add(Direction::Up, latency),
            2 => up(Bandwidth::bytes_per_second(50_000)),
            3 => up(Blackhole),
            4 => Rules::seeded(5).add(Direction::Up, latency).add(Direction::Up, Bandwidth::bytes_per_second(90_000)),
            _ => up(Bandwidth::bytes_per_second(0)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Whatever the rules and however they change: every byte once, in order, and all of them when they go.
        #[test]
        fn nothing_is_lost_doubled_or_reordered(acts in prop::collection::vec(act(), 1..200)) {
            let mut now = Moment::now();
            let mut queue = Queue::new(Shape::new(Vec::new()));
            let (mut pushed, mut written) = (0usize, 0usize);
            let byte = |position: usize| (position.wrapping_mul(2_654_435_761) >> 7) as u8;
            let sent = |from: usize, len: usize| (from..from + len).map(byte).collect::<Vec<_>>();
            for (generation, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Push(len) => {
                        queue.push(&sent(pushed, len), now);
                        pushed += len;
                    }
                    Act::Write(most) => {
                        let len = queue.ripe(now).min(most);
                        let taken: Vec<_> = queue.front(len).iter().flat_map(|slice| slice.to_vec()).collect();
                        prop_assert_eq!(taken, sent(written, len));
                        written += len;
                        queue.consume(len, |_| {});
                    }
                    Act::Pass(millis) => now = now.after(ms(millis)),
                    Act::Reshape(which) => {
                        let before: Vec<_> = queue.marks.iter().flat_map(|m| vec![m.due; m.len as usize]).collect();
                        queue.reshape(some_rules(which).shape(1, Way::Up, generation as u64, now));
                        let after: Vec<_> = queue.marks.iter().flat_map(|m| vec![m.due; m.len as usize]).collect();
                        prop_assert_eq!(before.len(), after.len());
                        prop_assert!(before.iter().zip(&after).all(|(before, after)| after <= before));
                    }
                }
                let due: Vec<_> = queue.marks.iter().map(|mark| mark.due).collect();
                prop_assert!(due.is_sorted());
                prop_assert_eq!(queue.marks.iter().map(|mark| mark.len as usize).sum::<usize>(), queue.bytes.len());
            }
            queue.reshape(Shape::new(Vec::new()));
            while !queue.is_empty() {
                let rest = take(&mut queue, now);
                prop_assert!(!rest.is_empty());
                let len = rest.len();
                prop_assert_eq!(rest, sent(written, len));
                written += len;
            }
            prop_assert_eq!(written, pushed);
        }
    }
}
