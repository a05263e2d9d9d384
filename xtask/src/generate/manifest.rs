//! The page of manifests: experiment and topology.

use std::fmt::Write;

use toprope_model::experiment::{GUARDRAIL_KINDS, GuardrailItem, Metadata, Repeat, STEP_KINDS, Spec, Wait};
use toprope_model::target::Selector;
use toprope_model::topology::TopologySpec;
use toprope_model::{API_VERSION, Field};

use super::NOTICE;
use super::fields::table;

/// The page.
pub(super) fn page() -> String {
    let intro = format!(
        "A manifest is YAML or JSON with `apiVersion: {API_VERSION}`, a `kind`, `metadata` and a `spec`. An editor \
         checks it while it is written, with the schemas in `schema/` (`toprope schema Experiment` prints one). Every \
         item of a list is a map with a single key, which is its kind."
    );
    let mut text = format!("# Manifests\n\n{NOTICE}\n\n{intro}\n");
    section(&mut text, "Metadata", "The same for every kind.", &Metadata::fields());
    section(&mut text, "Experiment", "The `spec` of `kind: Experiment`.", &Spec::fields());
    text.push_str("\n## Steps\n\nA step of the `method` is a [fault](faults.md) or one of these.\n");
    for (kind, about) in STEP_KINDS {
        let fields = match *kind {
            "wait" => Some(Wait::fields()),
            "repeat" => Some(Repeat::fields()),
            _ => None,
        };
        let takes = fields.map_or_else(|| "It takes a list of steps.\n".to_owned(), |fields| table(&fields));
        write!(text, "\n### {kind}\n\n{about}\n\n{takes}").expect("writing to a string cannot fail");
    }
    text.push_str("\n## Guardrails\n\nWhat stops a run before its end; everything in force is then undone.\n");
    for ((kind, about), fields) in GUARDRAIL_KINDS.iter().zip(&GuardrailItem::fields()) {
        write!(text, "\n### {kind}\n\n{about}\n\n{}", table(fields)).expect("writing to a string cannot fail");
    }
    section(
        &mut text,
        "Targets",
        "Which processes a fault hits. Every key that is given must match.",
        &Selector::fields(),
    );
    section(&mut text, "Topology", "The `spec` of `kind: Topology`.", &TopologySpec::fields());
    text
}

fn section(text: &mut String, title: &str, about: &str, fields: &[Field]) {
    write!(text, "\n## {title}\n\n{about}\n\n{}", table(fields)).expect("writing to a string cannot fail");
}
