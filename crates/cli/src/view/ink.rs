//! Colour, where the reader's terminal has it and the reader wants it. Nothing is said by colour alone.

use std::io::IsTerminal;

use ratatui::style::{Color, Modifier, Style};

/// What a piece of text is, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As everything.
    Plain,
    /// It is well.
    Good,
    /// It is not.
    Bad,
    /// It may matter.
    Warn,
    /// A fault.
    Fault,
    /// A heading.
    Strong,
    /// Beside the point.
    Dim,
}

/// Whether colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ink(bool);

impl Ink {
    /// No colours, for tests.
    #[cfg(test)]
    pub const NONE: Self = Self(false);

    /// Colours if this stream is a terminal that has them and `NO_COLOR` (see <https://no-color.org>) is not set.
    pub fn of(stream: &impl IsTerminal) -> Self {
        let set = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self(stream.is_terminal() && !dumb && set("NO_COLOR").is_none())
    }

    /// All colours, for tests.
    #[cfg(test)]
    pub const ALL: Self = Self(true);

    /// The text in its tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => "",
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Warn => "33",
            Tone::Fault => "35",
            Tone::Strong => "1",
            Tone::Dim => "2",
        };
        if self.0 && !code.is_empty() && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// The style of a tone in the live view.
    pub fn style(self, tone: Tone) -> Style {
        let coloured = |color| if self.0 { Style::new().fg(color) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Good => coloured(Color::Green),
            Tone::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Warn => coloured(Color::Yellow),
            Tone::Fault => coloured(Color::Magenta),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_nothing_is_added() {
        assert_eq!(Ink::NONE.paint(Tone::Bad, "bad"), "bad");
        assert_eq!(Ink::ALL.paint(Tone::Bad, "bad"), "\x1b[1;31mbad\x1b[0m");
        assert_eq!(Ink::ALL.paint(Tone::Plain, "x"), "x");
        assert_eq!(Ink::NONE.style(Tone::Good), Style::new());
    }
}
