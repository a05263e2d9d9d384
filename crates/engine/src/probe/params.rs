//! Parameters whose fields depend on each other: checked the same way when a manifest is read and when a probe is built.

use toprope_model::{FromNode, Node, Problems};

use super::ProbeError;

/// A probe's parameters, declared with [`toprope_model::fields!`].
pub(super) trait Params: FromNode {
    /// Notes what is wrong with fields that are valid one by one.
    fn verify(&self, node: &Node, problems: &mut Problems);
}

/// [`toprope_model::KindSpec::check`] for such parameters.
pub(super) fn check<P: Params>(node: &Node, problems: &mut Problems) {
    if let Some(params) = P::from_node(node, problems) {
        params.verify(node, problems);
    }
}

/// Reads them to build a probe. They were checked when the manifest was read; whoever comes without one is checked here.
pub(super) fn read<P: Params>(node: &Node) -> Result<P, ProbeError> {
    let mut problems = Problems::default();
    let params = P::from_node(node, &mut problems);
    if let Some(params) = &params {
        params.verify(node, &mut problems);
    }
    match params {
        Some(params) if problems.0.is_empty() => Ok(params),
        _ => Err(ProbeError(format!("the parameters are not valid: {problems}"))),
    }
}

/// Notes unless exactly one of several keys was given; the label and help name them.
pub(super) fn exactly_one(node: &Node, keys: &[&str], problems: &mut Problems) {
    let mut given = node.entries().unwrap_or_default().iter().filter(|e| keys.contains(&e.key.as_str()));
    match (given.next(), given.next()) {
        (Some(_), None) => {}
        (None, _) => {
            let label = format!("one of {} must be given", keys.join(", "));
            problems.add(node.span, format!("`{}` is missing", keys[0]), label);
        }
        (Some(first), Some(second)) => {
            let message = format!("`{}` and `{}` exclude each other", first.key, second.key);
            problems.add(second.key_span, message, format!("only one of {}", keys.join(", ")));
        }
    }
}
