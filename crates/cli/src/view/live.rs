//! The live view: the run as it goes, on a whole terminal.
//!
//! One thread does it all: takes what has happened, draws at most ten times a second, and reads keys in between.

mod axis;
mod desk;
mod frame;
mod keys;
mod screen;
mod table;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;
use toprope_engine::halt::{Reach, Scope};
use toprope_engine::run::StopSwitch;
use toprope_model::event::Record;

use crate::invocation;

use super::ink::Ink;
use super::lines;
use super::state::RunState;
use super::story::{Entry, Story};
pub use desk::{Desk, Request};
use keys::{Key, Keys};
use screen::Screen;

/// From one frame to the next.
const FRAME: Duration = Duration::from_millis(100);
/// So many lines of the story are kept, to be shown and to be left on the terminal at the end.
const KEPT: usize = 500;

/// What the view stands still at while it is paused.
#[derive(Debug)]
struct Frozen {
    run: RunState,
    tail: VecDeque<Entry>,
    now: u64,
}

/// Everything that is shown.
#[derive(Debug)]
pub struct Live {
    story: Story,
    tail: VecDeque<Entry>,
    /// Lines that are no longer kept.
    dropped: usize,
    /// When the run began, by this process's clock.
    began: Instant,
    frozen: Option<Box<Frozen>>,
    help: bool,
    /// How many probes are scrolled out at the top, and how many fit.
    scroll: usize,
    page: usize,
    request: Option<Request>,
    /// Whether somebody here has stopped the run.
    stopped: bool,
    ink: Ink,
}

impl Live {
    fn new(ink: Ink) -> Self {
        Self {
            story: Story::default(),
            tail: VecDeque::new(),
            dropped: 0,
            began: Instant::now(),
            frozen: None,
            help: false,
            scroll: 0,
            page: 1,
            request: None,
            stopped: false,
            ink,
        }
    }

    fn take(&mut self, record: &Record) {
        if record.seq == 0 {
            let since = Duration::from_nanos(record.at);
            self.began = Instant::now().checked_sub(since).unwrap_or_else(Instant::now);
        }
        for entry in self.story.take(record) {
            if self.tail.len() >= KEPT {
                self.tail.pop_front();
                self.dropped += 1;
            }
            self.tail.push_back(entry);
        }
    }

    /// Nanoseconds since the run began.
    fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        elapsed.max(self.story.state().at)
    }

    fn ask(&mut self, requests: &mut UnboundedReceiver<Request>) {
        if self.request.as_ref().is_none_or(Request::is_over) {
            // The next one that still waits, if any.
            self.request = std::iter::from_fn(|| requests.try_recv().ok()).find(|r| !r.is_over());
        }
    }

    fn key(&mut self, key: Key, stop: &StopSwitch) {
        match (key, &self.request) {
            (Key::Char('y') | Key::Enter, Some(_)) => self.answer(Ok(())),
            (Key::Char('n'), Some(_)) => self.answer(Err("whoever was asked said that it cannot be done".into())),
            (Key::Char('H'), _) => self.halt(stop),
            (Key::Char('q') | Key::Control('c'), _) => self.stop(stop),
            (Key::Char('?' | 'h'), _) => self.help = !self.help,
            (Key::Escape, _) => self.help = false,
            (Key::Char('p' | ' '), _) => self.pause(),
            (Key::Up | Key::Char('k'), _) => self.scroll = self.scroll.saturating_sub(1),
            (Key::Down | Key::Char('j'), _) => self.scroll_to(self.scroll + 1),
            (Key::PageUp, _) => self.scroll = self.scroll.saturating_sub(self.page),
            (Key::PageDown, _) => self.scroll_to(self.scroll + self.page),
            (Key::Home, _) => self.scroll = 0,
            (Key::End, _) => self.scroll_to(usize::MAX),
            _ => {}
        }
    }

    fn scroll_to(&mut self, first: usize) {
        self.scroll = first.min(self.story.state().probes.len().saturating_sub(self.page));
    }

    fn stop(&mut self, stop: &StopSwitch) {
        stop.pull("person", "stopped from the keyboard");
        self.stopped = true;
        self.frozen = None;
    }

    /// Stops every run on this host, and this one whatever becomes of the others.
    fn halt(&mut self, stop: &StopSwitch) {
        let why = "from the live view of a run";
        let halted = invocation::levers().and_then(|levers| Ok(levers.pull(&Scope::All, &invocation::user(), why)?));
        let why = match halted {
            Ok(Reach::Host) => {
                "all runs on this host were halted from the keyboard; `toprope halt --lift` allows them again"
            }
            Ok(Reach::Own) => {
                "all runs of this user were halted from the keyboard; `toprope halt --lift` allows them again"
            }
            Err(_) => "stopped from the keyboard; other runs could not be halted",
        };
        stop.pull("person", why);
        self.stop(stop);
    }

    fn answer(&mut self, answer: Result<(), String>) {
        if let Some(request) = self.request.take() {
            request.answer(answer);
        }
    }

    fn pause(&mut self) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            None => {
                let run = self.story.state().clone();
                Some(Box::new(Frozen { run, tail: self.tail.clone(), now: self.now() }))
            }
        };
    }
}

/// What the live view is given.
pub struct Inputs {
    /// The run's events.
    pub records: UnboundedReceiver<Arc<Record>>,
    /// Questions to whoever watches.
    pub requests: UnboundedReceiver<Request>,
    /// Ends the run.
    pub stop: StopSwitch,
    /// Set when the view shall end although the run goes on.
    pub leave: Arc<AtomicBool>,
}

/// Shows the run until it is over, leaves its story on the terminal, and returns what was seen. Blocks: call it on a
/// thread of its own.
pub fn show(mut inputs: Inputs, ink: Ink) -> RunState {
    // A run that is refused before its first event leaves the terminal alone.
    let Some(first) = inputs.records.blocking_recv() else { return RunState::default() };
    let Ok(mut screen) = Screen::open() else {
        drop(inputs.requests);
        let rest = std::iter::from_fn(|| inputs.records.blocking_recv());
        return lines::show(std::iter::once(first).chain(rest), std::io::stdout(), ink);
    };
    let mut live = Live::new(ink);
    live.take(&first);
    let mut keys = Keys::new();
    let mut visible = true;
    while follow(&mut live, &mut inputs.records) && !inputs.leave.load(Ordering::Relaxed) {
        live.ask(&mut inputs.requests);
        // A terminal that is gone is not drawn on again; the run is followed to its end all the same.
        if visible {
            let mut page = live.page;
            visible = screen.draw(|frame| page = frame::draw(frame, &live, live.now())).is_ok();
            live.page = page;
        }
        // A key is seen in the next frame, which does not come sooner for it.
        let next = Instant::now() + FRAME;
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            keys.within(left).into_iter().for_each(|key| live.key(key, &inputs.stop));
        }
    }
    drop(screen);
    leave_story(&live, ink);
    live.story.into_state()
}

/// Takes everything that has happened; says whether more may come.
fn follow(live: &mut Live, records: &mut UnboundedReceiver<Arc<Record>>) -> bool {
    loop {
        match records.try_recv() {
            Ok(record) => live.take(&record),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
}

/// What was told, as plain lines where the view was.
fn leave_story(live: &Live, ink: Ink) {
    let mut text = String::new();
    if live.dropped > 0 {
        text.push_str(&format!("… {} earlier lines are in the log\n", live.dropped));
    }
    for entry in &live.tail {
        text.push_str(&entry.line(ink));
        text.push('\n');
    }
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests;
