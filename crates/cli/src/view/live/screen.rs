//! The terminal while it is ours. Whatever happens, it is given back as it was.

use std::io::{BufWriter, Stdout, Write};
use std::sync::{Mutex, Once};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::{Frame, Terminal};

/// Holds a whole frame, so that one is written in one piece.
const BUFFER: usize = 64 * 1024;

/// While a screen is open: what panics said meanwhile. On the screen nobody could read it.
static PANICS: Mutex<Option<Vec<String>>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// The terminal, taken over. Dropping it gives it back, also while a panic unwinds.
pub struct Screen {
    terminal: Option<Terminal<CrosstermBackend<BufWriter<Stdout>>>>,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// Standard output is no terminal that can be taken over; nothing has changed.
    pub fn open() -> std::io::Result<Self> {
        hold_panics();
        enable_raw_mode()?;
        // From here on whatever fails is taken back by `drop`.
        let mut screen = Self { terminal: None };
        let mut out = BufWriter::with_capacity(BUFFER, std::io::stdout());
        execute!(out, EnterAlternateScreen, Hide)?;
        screen.terminal = Some(Terminal::new(CrosstermBackend::new(out))?);
        Ok(screen)
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&mut self, frame: impl FnOnce(&mut Frame)) -> std::io::Result<()> {
        match &mut self.terminal {
            Some(terminal) => terminal.draw(frame).map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // What fails here fails because the terminal is gone, and then nobody needs it back.
        drop(self.terminal.take());
        let mut out = std::io::stdout();
        let _ = execute!(out, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        let _ = out.flush();
        let held = PANICS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        for text in held.into_iter().flatten() {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}

/// Keeps what panics say until the terminal is given back. The run catches panics of its probes, and goes on.
fn hold_panics() {
    *PANICS.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Vec::new());
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let held = PANICS.lock().map(|mut held| held.as_mut().map(|held| held.push(info.to_string())).is_some());
            if !held.unwrap_or(false) {
                usual(info);
            }
        }));
    });
}
