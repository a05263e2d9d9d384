//! Text that others wrote, made fit for a terminal: a manifest may hold what would move the cursor, and a lot of it.

/// So many characters of one message are shown.
const MOST: usize = 1000;

/// A message with what it quotes, without control characters and not without end.
pub(super) fn shown(message: &str) -> String {
    let text = harmless(message);
    match text.char_indices().nth(MOST) {
        None => text,
        Some((cut, _)) => format!("{}…", &text[..cut]),
    }
}

/// The same text with `?` for each byte of a control character, so that every place in it stays where it is.
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        // A return before a newline only ends the line, as Windows does it.
        let fine = !c.is_control() || matches!(c, '\n' | '\t') || (c == '\r' && chars.peek() == Some(&'\n'));
        if fine { out.push(c) } else { out.extend(std::iter::repeat_n('?', c.len_utf8())) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_not_obeyed_and_places_stay() {
        let text = "a\x1b[2J\u{9b}2Jö\tb\nc\r\u{7f}\r\n";
        assert_eq!(harmless(text), "a?[2J??2Jö\tb\nc??\r\n");
        assert_eq!(harmless(text).len(), text.len());
    }

    #[test]
    fn a_message_ends() {
        assert_eq!(shown("short"), "short");
        let cut = shown(&"ö".repeat(100_000));
        assert_eq!(cut.chars().count(), MOST + 1);
        assert!(cut.ends_with("ö…"));
    }
}
