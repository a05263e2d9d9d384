//! Policy: what a host lets its ordinary users inject with root's rights.

use std::collections::BTreeMap;

use crate::diagnostic::Problems;
use crate::field::FromNode;
use crate::fields;
use crate::kind::Tables;
use crate::node::{Node, Value};
use crate::units::Dur;

fields! {
    /// A policy's content. What no permission allows is refused.
    pub struct PolicySpec {
        /// Who may inject what. One permission that fits is enough.
        pub allow: Vec<Permission>,
    }
}

fields! {
    /// What some users may inject.
    pub struct Permission {
        /// The users, by name.
        pub users: Vec<String>,
        /// Groups whose members they may be, by name.
        pub groups: Vec<String>,
        /// The kinds of faults.
        pub faults: Vec<String>,
        /// The longest that a fault may stay in force.
        pub longest: Dur,
        /// Parameters that must be there, each with one of the values that are listed. A parameter within another is named
        /// with dots, as on the command line: `target.user: [www-data]`.
        pub with: BTreeMap<String, Vec<String>>,
    }
}

/// Who wants to inject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user's name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The names of the user's groups.
    pub groups: Vec<String>,
}

/// A policy document.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its content.
    pub spec: PolicySpec,
}

impl Policy {
    /// Reads a manifest of `kind: Policy`.
    ///
    /// # Errors
    /// Everything that is wrong with it, at its places; also a fault that does not exist, and a permission for nobody or
    /// of nothing.
    pub fn read(node: &Node, tables: &Tables) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let (_, spec) = crate::experiment::read_manifest(node, "Policy", &mut problems);
        let read = spec.as_ref().and_then(|spec| PolicySpec::from_node(spec, &mut problems));
        let written = spec.as_ref().and_then(|spec| spec.get("allow")).map(|allow| &allow.value);
        let written = match written {
            Some(Value::List(items)) => items.as_slice(),
            _ => &[],
        };
        for (permission, node) in read.iter().flat_map(|spec| &spec.allow).zip(written) {
            if permission.users.is_empty() && permission.groups.is_empty() {
                problems.add(node.span, "this permission is nobody's", "neither `users` nor `groups`");
            }
            let names = match node.get("faults").map(|faults| &faults.value) {
                Some(Value::List(names)) if !names.is_empty() => names.as_slice(),
                _ => {
                    problems.add(node.span, "this permission allows nothing", "no `faults`");
                    &[]
                }
            };
            for name in names {
                let word = name.text().unwrap_or_default();
                if tables.fault(word).is_none() {
                    problems.unknown_name(name.span, "fault", word, tables.faults.iter().map(|f| f.spec.kind));
                }
            }
        }
        match read {
            Some(spec) if problems.0.is_empty() => Ok(Self { spec }),
            _ => Err(problems),
        }
    }

    /// Whether a caller may inject a fault with these parameters for so long; 0 is an instant.
    ///
    /// # Errors
    /// What would have to be different, in words, by the permission that comes nearest.
    pub fn allows(&self, caller: &Caller, fault: &str, params: &Node, for_ms: u64) -> Result<(), String> {
        let theirs = |p: &&Permission| {
            p.users.contains(&caller.name) || p.groups.iter().any(|group| caller.groups.contains(group))
        };
        let mine: Vec<&Permission> = self.spec.allow.iter().filter(theirs).collect();
        let kinds: Vec<&str> = mine.iter().flat_map(|p| &p.faults).map(String::as_str).collect();
        if !kinds.contains(&fault) {
            return Err(match kinds.is_empty() {
                true => format!("it allows {} nothing", caller.name),
                false => format!("it allows {} {}", caller.name, kinds.join(", ")),
            });
        }
        let mut why = String::new();
        for permission in mine.iter().filter(|p| p.faults.iter().any(|kind| kind == fault)) {
            match permission.fits(params, for_ms) {
                Ok(()) => return Ok(()),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }
}

impl Permission {
    fn fits(&self, params: &Node, for_ms: u64) -> Result<(), String> {
        if u128::from(for_ms) > self.longest.0.as_millis() {
            return Err(format!("it allows {} at most", self.longest));
        }
        for (path, values) in &self.with {
            let given = path.split('.').try_fold(params, |node, key| node.get(key)).and_then(plain);
            if !given.as_ref().is_some_and(|given| values.contains(given)) {
                let given = given.map_or("not given".to_owned(), |given| format!("`{given}`"));
                return Err(format!("it allows {path}: {}, and here it is {given}", values.join(", ")));
            }
        }
        Ok(())
    }
}

/// A single value as it would be written.
fn plain(node: &Node) -> Option<String> {
    match &node.value {
        Value::Map(_) | Value::List(_) | Value::Null => None,
        Value::Text(text) => Some(text.clone()),
        _ => Some(node.to_json().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::node::Sources;

    fn permission() -> Permission {
        Permission {
            users: vec!["alice".into()],
            groups: vec!["sre".into()],
            faults: vec!["network-latency".into(), "process-kill".into()],
            longest: "5m".parse().unwrap(),
            with: [
                ("to".to_owned(), vec!["127.0.0.1:8080".to_owned()]),
                ("target.user".to_owned(), vec!["www".into()]),
            ]
            .into(),
        }
    }

    fn caller(name: &str, group: &str) -> Caller {
        Caller { name: name.into(), uid: 1000, groups: vec![group.into()] }
    }

    #[test]
    fn a_caller_may_what_one_permission_allows_and_nothing_else() {
        let policy = Policy { spec: PolicySpec { allow: vec![permission()] } };
        let good = json!({"to": "127.0.0.1:8080", "target": {"user": "www", "pick": "one"}, "delay": "1s"});
        let asks = |who: &Caller, fault: &str, params: serde_json::Value, ms| {
            policy.allows(who, fault, &Node::from_json(&params), ms)
        };
        let alice = caller("alice", "users");
        assert_eq!(asks(&alice, "network-latency", good.clone(), 300_000), Ok(()));
        assert_eq!(asks(&caller("bob", "sre"), "process-kill", good.clone(), 0), Ok(()));
        for (who, fault, params, ms, why) in [
            (&caller("bob", "users"), "network-latency", good.clone(), 1, "it allows bob nothing"),
            (&alice, "cpu-stress", good.clone(), 1, "it allows alice network-latency, process-kill"),
            (&alice, "network-latency", good, 300_001, "it allows 5m at most"),
            (&alice, "network-latency", json!({"target": {"user": "www"}}), 1, "here it is not given"),
            (
                &alice,
                "network-latency",
                json!({"to": "127.0.0.1:8081", "target": {"user": "www"}}),
                1,
                "`127.0.0.1:8081`",
            ),
            (&alice, "network-latency", json!({"to": ["127.0.0.1:8080"], "target": {"user": "www"}}), 1, "not given"),
            (&alice, "network-latency", json!({"to": "127.0.0.1:8080", "target.user": "www"}), 1, "target.user"),
        ] {
            let refused = asks(who, fault, params, ms).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn mistakes_are_found_at_their_places() {
        let tables = Tables::default();
        let read = |spec: &str| {
            let text = format!("apiVersion: toprope.dev/v1alpha1\nkind: Policy\nmetadata: {{name: x}}\nspec: {spec}");
            let node = crate::parse(&mut Sources::default(), "p", &text).unwrap();
            Policy::read(&node, &tables)
        };
        assert!(read("{allow: []}").is_ok());
        for (spec, why) in [
            ("{allow: [{faults: [no-such], longest: 1s, users: [a]}]}", "no-such"),
            ("{allow: [{users: [a], longest: 1s}]}", "allows nothing"),
            ("{allow: [{faults: [], longest: 1s}]}", "nobody's"),
            ("{allow: [{users: [a], faults: [x]}]}", "longest"),
            ("{alow: []}", "alow"),
        ] {
            let problems = read(spec).unwrap_err();
            assert!(problems.0.iter().any(|p| p.message.contains(why)), "{why}: {problems:?}");
        }
    }
}
