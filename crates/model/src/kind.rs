//! Kinds: what a fault or a probe says about itself, and the tables of all kinds.

use serde::{Deserialize, Serialize};

use crate::diagnostic::Problems;
use crate::field::{Field, FromNode};
use crate::node::Node;

/// What every kind says about itself. One static value per fault and probe, in the kind's own file.
#[derive(Debug, Clone, Copy)]
pub struct KindSpec {
    /// The name in a manifest, in kebab-case: `network-latency`.
    pub kind: &'static str,
    /// One line: what it does.
    pub summary: &'static str,
    /// The rest of the reference page, in Markdown: mechanism, limits, what to expect.
    pub docs: &'static str,
    /// One list item as a user would write it, in YAML, executable as it stands where its target exists.
    pub example: &'static str,
    /// Its own parameters (the common ones come beside them).
    pub fields: fn() -> Vec<Field>,
    /// Reads its parameters only to find what is wrong with them.
    pub check: fn(&Node, &mut Problems),
}

/// [`KindSpec::check`] for parameters declared with [`fields!`](crate::fields).
pub fn check<P: FromNode>(node: &Node, problems: &mut Problems) {
    let _ = P::from_node(node, problems);
}

/// How a fault ends when nobody of ours is left to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UndoKind {
    /// The kernel undoes it when the injector dies.
    KernelOwned,
    /// The journal knows what was found; guard, run or the next sweep restore it.
    Journalled,
    /// It happens once and cannot be taken back (a killed process).
    Irreversible,
}

/// How much harm a fault can do beyond its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Danger {
    /// Its target at most, and only while it lasts.
    Contained,
    /// Other users of the same host feel it too.
    SharesHost,
    /// Something is lost for good: a process, a connection, unsaved data.
    Lasting,
}

/// What a fault needs of the kernel's privileges; the injector drops all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// CAP_NET_ADMIN: nftables, marks. Also had inside a user namespace over its own network.
    NetAdmin,
    /// CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN, for programs on a control group.
    Bpf,
    /// CAP_KILL: to signal processes of other users.
    Kill,
    /// CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: to see which process of another user listens on a port, and to hold such
    /// processes.
    Ptrace,
    /// CAP_DAC_OVERRIDE: to write where the user may not.
    DacOverride,
    /// CAP_SETUID and CAP_SETGID: to run something as the user who wrote the manifest.
    SetUser,
}

/// What a fault says about itself.
#[derive(Debug, Clone, Copy)]
pub struct FaultSpec {
    /// What every kind says.
    pub spec: KindSpec,
    /// Whether it stays in force for a time (`for` must be given) or happens at one instant.
    pub lasting: bool,
    /// Who undoes it at last.
    pub undo: UndoKind,
    /// What it can do at worst.
    pub danger: Danger,
    /// Privileges that it uses where it has them.
    pub needs: &'static [Need],
    /// Parameters without which nothing is done: refused where they are zero, which is allowed as an end of a ramp or of a
    /// search only.
    pub strength: &'static [&'static str],
    /// Whether probes are by default expected to recover from it rather than to stay unaffected.
    pub recovers: bool,
    /// Parameters that can change while it is in force: those that `ramp` takes.
    pub ramps: &'static [&'static str],
}

/// All kinds that manifests may name.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Every fault.
    pub faults: Vec<&'static FaultSpec>,
    /// Every probe.
    pub probes: Vec<&'static KindSpec>,
}

impl Tables {
    /// The fault of a name.
    pub fn fault(&self, kind: &str) -> Option<&'static FaultSpec> {
        self.faults.iter().copied().find(|f| f.spec.kind == kind)
    }

    /// The probe of a name.
    pub fn probe(&self, kind: &str) -> Option<&'static KindSpec> {
        self.probes.iter().copied().find(|p| p.kind == kind)
    }
}
