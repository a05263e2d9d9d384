//! What holds for every kind of probe, whoever wrote it: tests that walk the table.

use std::collections::BTreeSet;

use toprope_model::experiment::{ProbeCommon, ProbeItem};
use toprope_model::{Field, FromNode, Node, Problems, Sources, Type, Value};

use super::testing::context;
use super::{PROBES, ProbeKind};

/// The one list item of a kind's example.
fn example(kind: &dyn ProbeKind) -> ProbeItem {
    let spec = kind.spec();
    let read = toprope_model::parse(&mut Sources::default(), spec.kind, spec.example);
    let node = read.unwrap_or_else(|e| panic!("{}: {e}", spec.kind));
    let Value::List(items) = node.value else { panic!("the example of {} is no list", spec.kind) };
    let [item] = items.as_slice() else { panic!("the example of {} is not one item", spec.kind) };
    let mut problems = Problems::default();
    ProbeItem::from_node(item, &mut problems).unwrap_or_else(|| panic!("{}: {problems}", spec.kind))
}

#[test]
fn kinds_are_unique_and_in_kebab_case() {
    let mut seen = BTreeSet::new();
    for kind in PROBES {
        let name = kind.spec().kind;
        assert!(seen.insert(name), "{name} is there twice");
        let kebab = name
            .split('-')
            .all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
        assert!(kebab, "{name} is not in kebab-case");
    }
}

#[test]
fn every_kind_and_every_field_says_what_it_is() {
    fn documented(kind: &str, fields: &[Field]) {
        for field in fields {
            assert!(
                field.doc.ends_with(['.', ')']),
                "{kind}: `{}` is not documented in a sentence: {:?}",
                field.key,
                field.doc
            );
            if let Type::Object(inner) = &field.ty {
                documented(kind, inner);
            }
        }
    }
    for kind in PROBES {
        let spec = kind.spec();
        assert!(spec.summary.ends_with('.') && !spec.summary.contains('\n'), "{}: {:?}", spec.kind, spec.summary);
        assert!(spec.docs.len() > 100, "{} is hardly documented", spec.kind);
        documented(spec.kind, &(spec.fields)());
    }
}

#[test]
fn no_kind_takes_a_key_that_all_probes_have() {
    let common = ProbeCommon::keys();
    for kind in PROBES {
        for field in (kind.spec().fields)() {
            assert!(!common.contains(&field.key), "{}: `{}` is a key of every probe", kind.spec().kind, field.key);
        }
    }
}

#[test]
fn every_example_is_read_and_built() {
    for kind in PROBES {
        let item = example(*kind);
        assert_eq!(item.kind, kind.spec().kind);
        let mut problems = Problems::default();
        (kind.spec().check)(&item.params, &mut problems);
        assert!(problems.0.is_empty(), "{}: {problems}", item.kind);
        let probe = kind.build(&item.params, &context()).unwrap_or_else(|e| panic!("{}: {e}", item.kind));
        assert!(!probe.asks().is_empty() && !probe.asks().contains('\n'), "{}: {:?}", item.kind, probe.asks());
    }
}

#[test]
fn nonsense_is_refused_by_check_and_by_build() {
    for kind in PROBES {
        let nonsense = Node::from_json(&serde_json::json!({"no-such-key": 1}));
        let mut problems = Problems::default();
        (kind.spec().check)(&nonsense, &mut problems);
        assert!(problems.to_string().contains("no-such-key"), "{}: {problems}", kind.spec().kind);
        assert!(kind.build(&nonsense, &context()).is_err(), "{} builds from nonsense", kind.spec().kind);
    }
}

#[test]
fn the_schema_knows_every_kind() {
    let tables = toprope_model::Tables { faults: vec![], probes: PROBES.iter().map(|kind| kind.spec()).collect() };
    let schema = toprope_model::schema::experiment(&tables);
    for kind in PROBES {
        let properties = &schema["$defs"]["probe"]["properties"][kind.spec().kind]["properties"];
        for field in (kind.spec().fields)() {
            assert!(
                properties[&field.key]["type"].is_string(),
                "{}: `{}` has no one type",
                kind.spec().kind,
                field.key
            );
        }
    }
}
