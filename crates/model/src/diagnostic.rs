//! Errors that point: what is wrong, where it was written, and what to write instead.

use crate::node::Span;

/// One thing that is wrong with a text, at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// Where; `None` for what no text holds.
    pub span: Option<Span>,
    /// What stands beside the caret.
    pub label: String,
    /// What to do about it, where that is known.
    pub help: Option<String>,
}

/// So many problems are kept; nobody reads more, and a hostile manifest has millions.
const MOST: usize = 1000;

/// What was found wrong so far: reading goes on, so that one look shows all. Those beyond the first thousand are only
/// counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Diagnostic>, usize);

impl Problems {
    /// One problem.
    pub fn one(problem: Diagnostic) -> Self {
        Self(vec![problem], 0)
    }

    /// How many there are, those that are not kept among them.
    pub fn count(&self) -> usize {
        self.0.len() + self.1
    }

    /// Notes a problem at a place.
    pub fn add(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) -> &mut Diagnostic {
        if self.is_full() {
            // What the caller adds to it goes with it when the next one comes.
            self.0.truncate(MOST);
            self.1 += 1;
        }
        let span = (span != Span::default()).then_some(span);
        self.0.push(Diagnostic { message: message.into(), span, label: label.into(), help: None });
        self.0.last_mut().expect("it was pushed in the line above")
    }

    fn is_full(&self) -> bool {
        self.0.len() > MOST
    }

    /// Notes a name that does not exist, with the nearest one that does.
    pub fn unknown_name<'a>(
        &mut self,
        span: Span,
        what: &str,
        name: &str,
        valid: impl IntoIterator<Item = &'a str>,
    ) -> &mut Diagnostic {
        if self.is_full() {
            // To find the nearest name costs more than all the rest.
            return self.add(span, format!("unknown {what} `{name}`"), "not known here");
        }
        let valid: Vec<&str> = valid.into_iter().collect();
        let help = match nearest(name, valid.iter().copied()) {
            // `-http:` is a key of a map, `- http:` begins an item of a list.
            _ if name.len() > 1 && name.starts_with('-') => {
                format!("in a list a space follows the dash: - {}", name.trim_start_matches('-'))
            }
            Some(near) => format!("did you mean `{near}`?"),
            None if valid.is_empty() => format!("no {what} is known here"),
            None => format!("known: {}", valid.join(", ")),
        };
        self.add(span, format!("unknown {what} `{name}`"), "not known here").help(help)
    }

    /// `Err` if anything was noted.
    ///
    /// # Errors
    /// Itself, if anything was noted.
    pub fn into_result(self) -> Result<(), Problems> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl Diagnostic {
    /// Adds what to do about it.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            let sep = if i > 0 { "; " } else { "" };
            write!(f, "{sep}{}", d.message)?;
            if !d.label.is_empty() {
                write!(f, " ({})", d.label)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The valid name that is most like a name, if one is like enough to be what was meant.
pub fn nearest<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a name that long, and to compare it costs its length squared.
    const LONGEST: usize = 100;
    if name.len() > LONGEST {
        return None;
    }
    valid
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(likeness, candidate)| {
            *likeness >= 0.5 || (name.len() > 2 && (candidate.starts_with(name) || name.starts_with(candidate)))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_problems_are_kept_and_all_are_counted() {
        let mut problems = Problems::default();
        for n in 0..5 * MOST {
            let name = format!("htpp{n}");
            problems.unknown_name(Span::default(), "probe", &name, ["http", "tcp"]).help = None;
        }
        assert_eq!(problems.count(), 5 * MOST);
        assert_eq!(problems.0.len(), MOST + 1);
        assert_eq!(problems.0[MOST - 1].message, format!("unknown probe `htpp{}`", MOST - 1));
        assert_eq!(Problems::one(problems.0[0].clone()).count(), 1);
    }
}
