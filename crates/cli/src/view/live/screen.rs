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

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Read;
    use std::process::Command;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

    use super::*;

    /// Not a test: what the one below runs on a terminal.
    #[test]
    #[ignore = "takes the terminal over that it runs on"]
    fn panics_while_the_screen_is_open() {
        let mut screen = Screen::open().unwrap();
        let _ = std::thread::spawn(|| panic!("a probe said this")).join();
        screen.draw(|frame| frame.render_widget("picture", frame.area())).unwrap();
        panic!("the view said this");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_and_is_told_afterwards() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, vec![]).unwrap().into_string().unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || slave.try_clone().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "view::live::screen::tests::panics_while_the_screen_is_open", "--ignored", "--nocapture"])
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let mut master = File::from(master);
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            // It ends with an error once the other side is closed everywhere.
            let _ = master.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        assert!(!child.wait().unwrap().success());
        let modes = tcgetattr(&slave).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO), "the terminal is still raw");
        drop(slave);
        let text = reader.join().unwrap();
        let (before, after) = text.split_once("\x1b[?1049l").expect("the alternate screen is left");
        assert!(before.contains("\x1b[?1049h") && before.contains("picture"), "{text:?}");
        assert!(after.contains("\x1b[?25h"), "the cursor is shown again: {text:?}");
        for said in ["a probe said this", "the view said this"] {
            assert!(!before.contains(said) && after.contains(said), "{said}: {text:?}");
        }
    }
}
