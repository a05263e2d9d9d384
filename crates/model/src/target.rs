//! Who is meant: selectors of processes and addresses as they stand in a manifest.

use crate::diagnostic::Problems;
use crate::field::{FromNode, Type};
use crate::node::Node;
use crate::units::Percent;
use crate::{fields, text_type};

fields! {
    /// Selects processes. Every key that is given must match; at least one must be given.
    pub struct Selector {
        /// The process of this number.
        pub pid: Option<u32>,
        /// Processes whose name (the kernel's, cut to 15 characters, or the file name of their program) is this.
        pub process: Option<String>,
        /// Processes whose command line matches this regular expression.
        pub command_line: Option<Pattern>,
        /// Processes of this user, by name or number.
        pub user: Option<String>,
        /// Processes in this control group or below it, as a path from the hierarchy's root.
        pub cgroup: Option<String>,
        /// Processes of this systemd unit.
        pub unit: Option<String>,
        /// The processes that listen on this TCP port.
        pub port: Option<u16>,
        /// The processes of this service of the topology.
        pub service: Option<String>,
        /// Every process of this host; must be said in so many words.
        pub host: Option<bool>,
        /// How many of the matching processes: `one`, `all`, a number, or a percentage (rounded down). Which ones is
        /// drawn from the run's seed.
        pub pick: Pick = "all",
    }
}

/// A regular expression that compiles.
#[derive(Debug, Clone)]
pub struct Pattern(pub regex::Regex);

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The limit keeps a hostile expression from costing more than its text.
        regex::RegexBuilder::new(text).size_limit(1 << 20).build().map(Self).map_err(|e| match e {
            regex::Error::Syntax(text) => text.lines().last().unwrap_or("it does not parse").trim().to_owned(),
            other => other.to_string(),
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

text_type!(Pattern, "a regular expression", "^worker-[0-9]+$");

/// How many of those that match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pick {
    /// All of them.
    All,
    /// One of them, drawn from the seed.
    One,
    /// This many, drawn from the seed.
    Count(usize),
    /// This share, rounded down, drawn from the seed.
    Share(Percent),
}

impl std::str::FromStr for Pick {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "one" => Ok(Self::One),
            _ if text.ends_with('%') => text.parse().map(Self::Share).map_err(|_| "the percentage is not one"),
            _ => match text.parse() {
                Ok(0) => Err("nothing would be picked"),
                Ok(n) => Ok(Self::Count(n)),
                Err(_) => Err("write one, all, a number or a percentage"),
            },
        }
    }
}

impl std::fmt::Display for Pick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::One => f.write_str("one"),
            Self::Count(n) => write!(f, "{n}"),
            Self::Share(p) => write!(f, "{p}"),
        }
    }
}

text_type!(Pick, "a number to pick", "one");

impl Pick {
    /// How many of `matched` this picks.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a count")]
    pub fn count(self, matched: usize) -> usize {
        match self {
            Self::All => matched,
            Self::One => matched.min(1),
            Self::Count(n) => n.min(matched),
            Self::Share(p) => (matched as f64 * p.share() + 1e-9).floor() as usize,
        }
    }
}

impl Selector {
    /// Whether nothing was said that could select.
    pub fn is_empty(&self) -> bool {
        self.pid.is_none()
            && self.process.is_none()
            && self.command_line.is_none()
            && self.user.is_none()
            && self.cgroup.is_none()
            && self.unit.is_none()
            && self.port.is_none()
            && self.service.is_none()
            && self.host.is_none()
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        let mut part = |key: &str, value: Option<String>| parts.extend(value.map(|v| format!("{key} {v}")));
        part("pid", self.pid.map(|v| v.to_string()));
        part("process", self.process.clone());
        part("command line", self.command_line.as_ref().map(|v| format!("/{v}/")));
        part("user", self.user.clone());
        part("cgroup", self.cgroup.clone());
        part("unit", self.unit.clone());
        part("listener on port", self.port.map(|v| v.to_string()));
        part("service", self.service.clone());
        if self.host == Some(true) {
            parts.push("every process of this host".into());
        }
        f.write_str(&parts.join(", "))?;
        match self.pick {
            Pick::All => Ok(()),
            pick => write!(f, " (pick {pick})"),
        }
    }
}

/// A selector that says at least something; what faults take as their target.
#[derive(Debug, Clone, PartialEq)]
pub struct Target(pub Selector);

impl FromNode for Target {
    fn ty() -> Type {
        Selector::ty()
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        let selector = Selector::from_node(node, problems)?;
        if selector.is_empty() || selector.host == Some(false) {
            problems
                .add(node.span, "this selects nothing", "says neither which processes nor `host: true`")
                .help("for instance {process: nginx}, {port: 8080}, {user: www-data}, or {host: true} for all");
            return None;
        }
        Some(Self(selector))
    }
}

/// Where connections go: an address, a network, a port, or a service of the topology.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Host name, address or network in CIDR notation; `None` is any.
    pub host: Option<String>,
    /// Port; `None` is any.
    pub port: Option<u16>,
}

impl std::str::FromStr for Endpoint {
    type Err = &'static str;

    /// Reads `host:port`, `:port`, `host`, `10.0.0.0/8`, `[::1]:80`, `::1`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let port = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err("the port is not a number from 1 to 65535"),
            Ok(n) => Ok(n),
        };
        if text.is_empty() || text.contains(char::is_whitespace) {
            return Err("write host:port, :port or an address");
        }
        if text.contains("://") {
            return Err("an address is wanted here, not a URL: leave out the scheme and the path");
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or("the closing ] is missing")?;
            let port = rest.strip_prefix(':').map(port).transpose()?;
            return Ok(Self { host: Some(host.into()), port });
        }
        if text.matches(':').count() > 1 {
            return Ok(Self { host: Some(text.into()), port: None });
        }
        match text.split_once(':') {
            Some(("" | "*", p)) => Ok(Self { host: None, port: Some(port(p)?) }),
            Some((host, p)) => Ok(Self { host: Some(host.into()), port: Some(port(p)?) }),
            None => Ok(Self { host: Some(text.into()), port: None }),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.host, self.port) {
            (Some(host), Some(port)) if host.contains(':') => write!(f, "[{host}]:{port}"),
            (Some(host), Some(port)) => write!(f, "{host}:{port}"),
            (Some(host), None) => f.write_str(host),
            (None, Some(port)) => write!(f, ":{port}"),
            (None, None) => f.write_str("anywhere"),
        }
    }
}

text_type!(Endpoint, "an address", "127.0.0.1:5432");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_and_print() {
        for text in ["127.0.0.1:5432", ":80", "10.0.0.0/8", "[::1]:80", "db.internal:5432", "::1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["", "http://x:1/", "x:0", "x:99999", "[::1", "a b"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_rounded_down() {
        assert_eq!("50%".parse::<Pick>().unwrap().count(3), 1);
        assert_eq!("10%".parse::<Pick>().unwrap().count(9), 0);
        assert_eq!("100%".parse::<Pick>().unwrap().count(3), 3);
        assert_eq!("2".parse::<Pick>().unwrap().count(1), 1);
    }

    #[test]
    fn a_target_must_say_something() {
        let mut problems = Problems::default();
        assert!(Target::from_node(&Node::from_json(&serde_json::json!({"pick": "one"})), &mut problems).is_none());
        assert!(problems.to_string().contains("selects nothing"));
    }
}
