use toprope_model::Experiment;
use toprope_model::event::Record;
use toprope_model::verdict::*;
pub fn judge(_: &Experiment, _: &[Record]) -> Judgement {
    panic!()
}
pub fn judge_trial(_: &Experiment, _: &[Record]) -> Judgement {
    panic!()
}
