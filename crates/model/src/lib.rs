//! The nouns of Toprope: manifest, topology, target, event, verdict, journal record.
//!
//! Data and the text it is written in, nothing else: no I/O and no clock. A manifest's text becomes a tree in which
//! every value knows its place ([`node`]); the tree is read against fields that are declared once ([`fields!`]), and
//! the same declaration yields the JSON schema, the reference and the errors.

pub mod comparison;
pub mod diagnostic;
pub mod event;
pub mod experiment;
pub mod field;
pub mod journal;
pub mod kind;
pub mod node;
mod parse;
pub mod policy;
pub mod schema;
pub mod search;
pub mod step;
pub mod target;
pub mod topology;
pub mod units;
pub mod verdict;

pub use comparison::Comparison;
pub use diagnostic::{Diagnostic, Problems};
pub use experiment::Experiment;
pub use field::{Field, FromNode, Type};
pub use kind::{KindSpec, Tables};
pub use node::{Node, Source, Sources, Span, Value};
pub use parse::{MAX_BYTES, parse};
pub use units::{Dur, Percent, Rate, Share, Size};

/// The version of the manifests that this crate reads.
pub const API_VERSION: &str = "toprope.dev/v1alpha1";
