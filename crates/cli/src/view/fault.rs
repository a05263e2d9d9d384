//! One fault of the method as a reader sees it: each of its injections is a band on the time axis.

use std::collections::VecDeque;

use toprope_model::event::FaultInfo;
use toprope_model::step::{Effect, Plan, Undone};

use super::words::clean;

/// So many bands of one fault are kept; of older ones the counts remain.
const MOST: usize = 256;

/// One injection. Times are in nanoseconds since the run began.
#[derive(Debug, Clone, Default)]
pub struct Band {
    /// Its number.
    pub injection: u32,
    /// When it was in force.
    pub injected: Option<u64>,
    /// When its undo began.
    pub undoing: Option<u64>,
    /// When it was undone, and whether nothing was left to do.
    pub undone: Option<(u64, bool)>,
    /// When and why it ended by itself.
    pub ended: Option<(u64, String)>,
    /// The last measurement of its effect.
    pub effect: Option<Effect>,
    /// The parameter that was changed last, with its value.
    pub adjusted: Option<String>,
}

/// Where a fault stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was done yet.
    Waiting,
    /// It is being applied.
    Injecting,
    /// It is in force.
    InForce,
    /// It happened, at one instant.
    Done,
    /// It is being undone.
    Undoing,
    /// It is undone.
    Undone,
    /// It could not be undone.
    NotUndone,
    /// It could not be injected.
    Failed,
}

/// One fault so far.
#[derive(Debug, Clone)]
pub struct FaultState {
    /// The fault.
    pub info: FaultInfo,
    /// Its injections, the oldest first.
    pub bands: VecDeque<Band>,
    /// How often it was injected in the whole run.
    pub injected: u32,
    /// How often its undo was seen to be complete.
    pub clean: u32,
    /// Who undid it last: `injector`, `guard`, `run`.
    pub undone_by: String,
    /// What the last undo left or said.
    pub undo_notes: Vec<String>,
    /// What could not be undone.
    pub unclean: Vec<String>,
    /// Why it could not be injected.
    pub error: Option<String>,
    /// What it hits.
    pub targets: Vec<String>,
}

impl FaultState {
    /// A fault that was not injected yet.
    pub fn new(info: FaultInfo) -> Self {
        Self {
            info,
            bands: VecDeque::new(),
            injected: 0,
            clean: 0,
            undone_by: String::new(),
            undo_notes: Vec::new(),
            unclean: Vec::new(),
            error: None,
            targets: Vec::new(),
        }
    }

    /// Another trial begins: its axis starts empty.
    pub(super) fn begin_trial(&mut self) {
        self.bands.clear();
    }

    /// The injection of this number.
    pub fn band(&self, injection: u32) -> Option<&Band> {
        self.bands.iter().rev().find(|b| b.injection == injection)
    }

    pub(super) fn band_mut(&mut self, injection: u32) -> Option<&mut Band> {
        self.bands.iter_mut().rev().find(|b| b.injection == injection)
    }

    pub(super) fn injecting(&mut self, injection: u32, plan: &Plan) {
        if self.bands.len() >= MOST {
            self.bands.pop_front();
        }
        self.targets = plan.targets.iter().map(|t| clean(t)).collect();
        self.bands.push_back(Band { injection, ..Band::default() });
        self.injected += 1;
    }

    /// Notes an undo; says whether the fault was in force until now.
    pub(super) fn undone(&mut self, injection: u32, undone: &Undone, at: u64) -> bool {
        let notes: Vec<String> = undone.notes.iter().map(|n| clean(n)).collect();
        if undone.clean {
            self.clean += 1;
        } else {
            self.unclean.extend(notes.iter().cloned());
            if notes.is_empty() {
                self.unclean.push("it is not known what is left".into());
            }
            self.unclean.truncate(MOST);
        }
        self.undone_by = clean(&undone.by);
        self.undo_notes = notes;
        let lasting = self.info.lasting;
        let Some(band) = self.band_mut(injection) else { return false };
        band.undone = Some((at, undone.clean));
        lasting && band.injected.is_some()
    }

    pub(super) fn failed(&mut self, injection: u32, error: &str, at: u64) {
        self.error = Some(clean(error));
        match self.band_mut(injection) {
            Some(band) => {
                band.ended = Some((at, clean(error)));
                self.injected = self.injected.saturating_sub(1);
            }
            None => {
                let ended = Some((at, clean(error)));
                self.bands.push_back(Band { injection, ended, ..Band::default() });
            }
        }
    }

    /// Whether an injection of it is in force.
    pub fn is_in_force(&self) -> bool {
        self.info.lasting && self.bands.back().is_some_and(|b| b.injected.is_some() && b.undone.is_none())
    }

    /// Where it stands.
    pub fn standing(&self) -> Standing {
        let Some(band) = self.bands.back() else { return Standing::Waiting };
        match band {
            Band { undone: Some((_, false)), .. } => Standing::NotUndone,
            Band { injected: None, ended: Some(_), .. } => Standing::Failed,
            Band { injected: None, .. } => Standing::Injecting,
            Band { .. } if !self.info.lasting => Standing::Done,
            Band { undone: Some(_), .. } => Standing::Undone,
            Band { undoing: Some(_), .. } => Standing::Undoing,
            _ => Standing::InForce,
        }
    }

    /// When its present injection ends by plan; `None` once its undo has begun.
    pub fn planned_end(&self) -> Option<u64> {
        let injected = self.bands.back().filter(|b| b.undoing.is_none() && b.undone.is_none())?.injected?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a year")]
        let lasts = (self.info.for_ms.max(0.0) * 1e6) as u64;
        (lasts > 0).then_some(injected + lasts)
    }

    /// The last measurement of its effect.
    pub fn effect(&self) -> Option<&Effect> {
        self.bands.iter().rev().find_map(|b| b.effect.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(lasting: bool) -> FaultState {
        FaultState::new(FaultInfo {
            name: "slow".into(),
            kind: "network-latency".into(),
            parameters: "delay 200ms".into(),
            lasting,
            for_ms: 1000.0,
        })
    }

    #[test]
    fn a_fault_goes_from_waiting_to_undone() {
        let mut f = fault(true);
        assert_eq!(f.standing(), Standing::Waiting);
        f.injecting(0, &Plan::default());
        assert_eq!(f.standing(), Standing::Injecting);
        f.band_mut(0).unwrap().injected = Some(20);
        assert!(f.is_in_force());
        assert_eq!(f.planned_end(), Some(1_000_000_020));
        f.band_mut(0).unwrap().undoing = Some(30);
        assert_eq!(f.standing(), Standing::Undoing);
        assert!(f.undone(0, &Undone { clean: true, by: "injector".into(), notes: vec![], drained: None }, 40));
        assert_eq!((f.standing(), f.is_in_force(), f.planned_end()), (Standing::Undone, false, None));
    }

    #[test]
    fn what_could_not_be_undone_or_injected_is_told() {
        let mut f = fault(true);
        f.injecting(0, &Plan::default());
        f.band_mut(0).unwrap().injected = Some(20);
        f.undone(0, &Undone { clean: false, by: "run".into(), notes: vec![], drained: None }, 40);
        assert_eq!(f.standing(), Standing::NotUndone);
        assert_eq!(f.unclean, ["it is not known what is left"]);
        let mut f = fault(true);
        f.failed(3, "refused", 10);
        assert_eq!((f.standing(), f.injected), (Standing::Failed, 0));
    }

    #[test]
    fn many_injections_take_bounded_memory() {
        let mut f = fault(true);
        for i in 0..1000 {
            f.injecting(i, &Plan::default());
        }
        assert_eq!((f.bands.len(), f.injected), (MOST, 1000));
    }
}
