//! One direction of a connection: read, hold until due, write.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::task::Context;

use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;

use crate::clock::Moment;
use crate::queue::{End, Queue};
use crate::rules::Way;
use crate::shape::{READ, Shape};
use crate::stats::Counters;

/// How many times a flow may read and write before the other direction and the other connections have their turn.
const TURNS: usize = 16;

thread_local! {
    /// Where a read lands first: connections hold memory only for bytes that must wait.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It carries bytes.
    Open,
    /// All bytes and the end of the stream were delivered.
    Finished,
    /// Its sender was reset, and so must its receiver be.
    Reset,
    /// Its receiver is gone.
    Broken,
}

pub(crate) struct Flow {
    way: Way,
    queue: Queue,
    state: State,
    /// The sender has ended, or failed: there is nothing more to read.
    read_all: bool,
    /// A write to the sender failed, so its socket is dead, even if reading it says that it ended in order.
    sender_gone: bool,
    /// The receiver takes no more for now.
    blocked: bool,
    /// Since when bytes have been held back.
    busy_since: Option<Moment>,
    /// The connection's number.
    number: u64,
    /// Since when the oldest of them has been, as the counters know it.
    waits_since: Option<Moment>,
    counters: Arc<Counters>,
}

impl Flow {
    /// A flow that passes everything.
    pub(crate) fn new(way: Way, number: u64, counters: Arc<Counters>) -> Flow {
        Flow {
            way,
            queue: Queue::new(Shape::new(Vec::new())),
            state: State::Open,
            read_all: false,
            sender_gone: false,
            blocked: false,
            busy_since: None,
            number,
            waits_since: None,
            counters,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Puts the flow under other rules.
    pub(crate) fn reshape(&mut self, shape: Shape) {
        self.queue.reshape(shape);
        self.tell_wait();
    }

    /// Has the counters know how long the oldest bytes have been held back.
    fn tell_wait(&mut self) {
        let since = self.queue.held_since();
        if since != self.waits_since {
            self.waits_since = since;
            self.counters.meter(self.way).waits(self.number, since);
        }
    }

    /// Nobody will take what is held back.
    fn give_up(&mut self) {
        if self.queue.held_since().is_some() {
            self.counters.meter(self.way).gave_up(self.queue.held());
        }
        self.queue.clear();
        self.tell_wait();
    }

    /// When the flow must be polled again though neither socket stirs.
    pub(crate) fn wakes_at(&self) -> Moment {
        match self.state {
            State::Open if !self.blocked => self.queue.next_due(),
            _ => Moment::NEVER,
        }
    }

    /// Tells that the sender's socket is dead: its stream does not end in order, however it looks from here.
    pub(crate) fn sender_gone(&mut self) {
        self.sender_gone = true;
        if let Some(end) = self.queue.end_mut() {
            *end = End::Reset;
        }
        if self.state == State::Finished {
            self.state = State::Reset;
        }
    }

    /// Moves what can be moved now, and has `cx` woken when a socket allows more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, from: &TcpStream, to: &TcpStream) {
        for _ in 0..TURNS {
            if self.state != State::Open {
                return;
            }
            self.deliver(cx, to);
            if self.state != State::Open || !self.read(cx, from, to) {
                return;
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Writes what is due.
    fn deliver(&mut self, cx: &mut Context<'_>, to: &TcpStream) {
        self.blocked = false;
        let now = Moment::now();
        loop {
            let ripe = self.queue.ripe(now);
            if ripe == 0 {
                break;
            }
            if to.poll_write_ready(cx).is_pending() {
                self.blocked = true;
                return;
            }
            match to.try_write_vectored(&self.queue.front(ripe)) {
                Ok(written) => self.delivered(written),
                Err(error) if again(&error) => {}
                Err(_) => return self.receiver_gone(),
            }
        }
        match self.queue.ended(now) {
            Some(End::Finished) => match shutdown(to, Shutdown::Write) {
                Ok(()) => self.state = State::Finished,
                Err(_) => self.receiver_gone(),
            },
            Some(End::Reset) => self.state = State::Reset,
            None => {}
        }
    }

    /// Accounts for `len` bytes that left the queue.
    fn delivered(&mut self, len: usize) {
        let now = Moment::now();
        let meter = self.counters.meter(self.way);
        meter.delivered(len);
        let mut recorder = meter.recorder();
        let held = self.queue.consume(len, |arrived| recorder.delayed(now.since(arrived)));
        drop(recorder);
        if let Some(since) = self.busy_since
            && held > 0
        {
            meter.held(held, now.since(since));
        }
        self.busy_since = (!self.queue.is_empty()).then_some(now);
        self.tell_wait();
    }

    /// Reads once if there is something to read and room for it; false when there is nothing to do for now.
    fn read(&mut self, cx: &mut Context<'_>, from: &TcpStream, to: &TcpStream) -> bool {
        let room = self.queue.room();
        if self.read_all || room == 0 || from.poll_read_ready(cx).is_pending() {
            return false;
        }
        SCRATCH.with_borrow_mut(|scratch| match from.try_read(&mut scratch[..room]) {
            Ok(0) => self.end(if self.sender_gone { End::Reset } else { End::Finished }),
            Ok(len) => self.received(&scratch[..len], to),
            Err(error) if again(&error) => {}
            Err(_) => self.end(End::Reset),
        });
        true
    }

    fn received(&mut self, chunk: &[u8], to: &TcpStream) {
        let meter = self.counters.meter(self.way);
        meter.received(chunk.len());
        let mut rest = chunk;
        if self.queue.is_open_road() {
            match to.try_write(chunk) {
                Ok(written) => {
                    meter.delivered(written);
                    rest = &chunk[written..];
                }
                Err(error) if again(&error) => {}
                Err(_) => return self.receiver_gone(),
            }
        }
        if !rest.is_empty() {
            let now = Moment::now();
            self.busy_since.get_or_insert(now);
            self.queue.push(rest, now);
            self.tell_wait();
        }
    }

    fn end(&mut self, end: End) {
        self.read_all = true;
        self.queue.finish(end, Moment::now());
    }

    fn receiver_gone(&mut self) {
        self.state = State::Broken;
        self.give_up();
    }
}

impl Drop for Flow {
    /// A connection that ends before its bytes are due.
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Whether a socket call failed only for now.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
