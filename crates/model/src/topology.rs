//! Topology: business functions, services, what they depend on, where they listen, who owns them.

use std::collections::BTreeMap;

use crate::diagnostic::Problems;
use crate::field::FromNode;
use crate::fields;
use crate::node::Node;
use crate::target::{Endpoint, Pattern};
use crate::units::Dur;

fields! {
    /// A topology's content.
    pub struct TopologySpec {
        /// What the business does with its services: name to function.
        pub functions: BTreeMap<String, Function>,
        /// The services by name.
        pub services: BTreeMap<String, Service>,
    }
}

fields! {
    /// A business function.
    pub struct Function {
        /// Why it matters, in a sentence.
        pub about: Option<String>,
        /// How critical it is; 1 is the most critical.
        pub tier: Option<u32>,
        /// The services that it uses directly.
        pub uses: Vec<String>,
    }
}

fields! {
    /// A service, of one's own or somebody else's.
    pub struct Service {
        /// What it does, in a sentence.
        pub about: Option<String>,
        /// The team or person that answers for it.
        pub owner: Option<String>,
        /// How critical it is; 1 is the most critical.
        pub tier: Option<u32>,
        /// Where it listens.
        pub address: Option<Endpoint>,
        /// The name of its processes.
        pub process: Option<String>,
        /// A regular expression for the command line of its processes.
        pub command_line: Option<Pattern>,
        /// Its systemd unit.
        pub unit: Option<String>,
        /// The zones that it runs in.
        pub zones: Vec<String>,
        /// How many instances it has.
        pub instances: Option<u32>,
        /// Where it says how it is.
        pub health: Option<String>,
        /// Where it shows its metrics.
        pub metrics: Option<String>,
        /// What it depends on: service name to how.
        pub depends_on: BTreeMap<String, Dependency>,
    }
}

fields! {
    /// How one service depends on another.
    pub struct Dependency {
        /// Whether it cannot do its work without it.
        pub hard: bool = "true",
        /// The timeout of its calls.
        pub timeout: Option<Dur>,
        /// How often a call is made again after the first.
        pub retries: Option<u32>,
        /// What it does instead, in a sentence.
        pub fallback: Option<String>,
        /// The alert that should fire when this dependency fails.
        pub alert: Option<String>,
    }
}

/// A topology document.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// Its name.
    pub name: String,
    /// Its content.
    pub spec: TopologySpec,
    /// The whole manifest as it was read.
    pub node: Node,
}

impl Topology {
    /// Reads a manifest of `kind: Topology`.
    ///
    /// # Errors
    /// Everything that is wrong with it, at its places; also a dependency on a service that is not there.
    pub fn read(node: &Node) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let (name, spec) = crate::experiment::read_manifest(node, "Topology", &mut problems);
        let spec = spec.and_then(|spec| TopologySpec::from_node(&spec, &mut problems).map(|read| (spec, read)));
        if let Some((spec_node, spec)) = &spec {
            let names: Vec<&str> = spec.services.keys().map(String::as_str).collect();
            for entry in spec_node.get("services").and_then(Node::entries).unwrap_or_default() {
                for dep in entry.node.get("depends-on").and_then(Node::entries).unwrap_or_default() {
                    if !names.contains(&dep.key.as_str()) {
                        problems.unknown_name(dep.key_span, "service", &dep.key, names.iter().copied());
                    }
                }
            }
        }
        match (spec, name) {
            (Some((_, spec)), Some((name, _))) if problems.0.is_empty() => Ok(Self { name, spec, node: node.clone() }),
            _ => Err(problems),
        }
    }
}
