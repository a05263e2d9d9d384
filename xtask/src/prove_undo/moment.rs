//! At which instant of its life a run is struck. The journal tells when that is; it says nothing of what is left.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use toprope_model::journal::Mark;

use super::dice::Dice;
use super::sandbox::HOME;
use super::victims::Victims;

/// A part of a run's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Moment {
    /// From its start to the intent in the journal.
    Before,
    /// From there until it is in force.
    Applying,
    /// While it is in force.
    InForce,
    /// From the first word of the undo on.
    Undoing,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Nothing,
    Intended,
    Applied,
    Undoing,
}

impl Moment {
    const ALL: [Self; 4] = [Self::Before, Self::Applying, Self::InForce, Self::Undoing];

    /// One by chance, of those in which the victims have something to lose.
    pub(crate) fn of(victims: Victims, dice: &mut Dice) -> Self {
        match victims {
            Victims::Sweep | Victims::Forgotten => Self::InForce,
            Victims::Frozen => *dice.one_of(&[Self::Applying, Self::InForce, Self::InForce, Self::Undoing]),
            _ => *dice.one_of(&Self::ALL),
        }
    }

    /// Waits for it, and then for a moment of chance. Returns early when the run is over.
    pub(crate) fn wait(self, dice: &mut Dice, mut is_over: impl FnMut() -> bool) {
        let (reached, spread) = match self {
            // From the start of the program to the intent it takes about as long.
            Self::Before => (Progress::Nothing, Duration::from_millis(700)),
            Self::Applying => (Progress::Intended, Duration::from_millis(30)),
            Self::InForce => (Progress::Applied, Duration::from_millis(400)),
            Self::Undoing => (Progress::Undoing, Duration::from_millis(20)),
        };
        let patience = Instant::now() + Duration::from_secs(40);
        while progress() < reached && Instant::now() < patience && !is_over() {
            std::thread::sleep(Duration::from_micros(300));
        }
        std::thread::sleep(dice.below(spread));
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Before => "before it was applied",
            Self::Applying => "while it was applied",
            Self::InForce => "while it was in force",
            Self::Undoing => "while it was undone",
        })
    }
}

/// The furthest that any record in the journal has come.
fn progress() -> Progress {
    let entries = std::fs::read_dir(format!("{HOME}/journal")).into_iter().flatten().flatten();
    let records = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "jsonl"));
    let of = |text: String| {
        let marks = text.lines().skip(1).filter_map(|line| serde_json::from_str::<Mark>(line).ok());
        let progress = marks.map(|mark| match mark {
            Mark::Applying(_) => Progress::Intended,
            Mark::Applied => Progress::Applied,
            Mark::Undoing(_) | Mark::Undone(_) | Mark::UndoFailed(_) => Progress::Undoing,
        });
        progress.max().unwrap_or(Progress::Intended)
    };
    records.filter_map(|record| std::fs::read_to_string(record.path()).ok()).map(of).max().unwrap_or(Progress::Nothing)
}
