//! The table that ends with us.

use std::{collections::HashMap, time::Duration};

use rustix::net::netlink;

use super::{
    encode::encode,
    message,
    rule::{Chain, Rule},
};
use crate::{
    Error, Result, Unsupported,
    error::Context,
    netlink::{Reply, Request, Socket, attribute, attributes, incomplete},
};

/// A table of ours in the network namespace in which it was made. Nobody else can change it, and the kernel removes it,
/// with all that is in it, when this value is dropped or this process ends in whatever way.
///
/// Its calls block for as long as the kernel takes, mostly a millisecond. Those that take effect do so at once and as a
/// whole, or not at all.
#[derive(Debug)]
#[must_use = "the table is gone when this is dropped"]
pub struct OwnedTable {
    name: String,
    socket: Socket,
}

/// A chain of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChainId {
    name: String,
}

/// A rule of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleId {
    chain: String,
    handle: u64,
}

/// A lease of a table: rules with [`super::Match::Leased`] match only while it lasts, and the kernel itself ends it,
/// even if this process is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseId {
    pub(super) set: String,
}

/// What has met a rule's conditions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    /// Number of packets.
    pub packets: u64,
    /// Their length in bytes, headers included.
    pub bytes: u64,
}

impl OwnedTable {
    /// Makes an empty table in the calling thread's network namespace.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN there; when a table has this name; when the kernel is older than 5.12.
    pub fn create(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let mut table = Self { socket: Socket::open(Some(netlink::NETFILTER))?, name };
        let new = message::new_table(&table.name);
        match table.commit(vec![(new, "make the table".to_owned())]) {
            Ok(_) => Ok(table),
            // A table of another owner gives EPERM, without a right that would help.
            Err(Error::System { needs: None, source, .. })
                if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EEXIST)) =>
            {
                Err(Error::invalid(format!("the nftables table inet {}", table.name), "is taken, by another process"))
            }
            Err(e) => Err(e),
        }
    }

    /// The table's name in the family `inet`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a chain without rules.
    pub fn add_chain(&mut self, chain: &Chain) -> Result<ChainId> {
        let new = message::new_chain(&self.name, chain);
        self.commit(vec![(new, format!("add chain {}", chain.name))])?;
        Ok(ChainId { name: chain.name.clone() })
    }

    /// Deletes a chain with all its rules.
    pub fn delete_chain(&mut self, chain: &ChainId) -> Result<()> {
        let delete = message::delete_chain(&self.name, &chain.name);
        self.commit(vec![(delete, format!("delete chain {}", chain.name))]).map(drop)
    }

    /// Adds rules at the end of a chain, in their order.
    pub fn add_rules(&mut self, chain: &ChainId, rules: &[Rule]) -> Result<Vec<RuleId>> {
        self.change(&[], chain, rules)
    }

    /// Deletes rules.
    pub fn delete_rules(&mut self, rules: &[RuleId]) -> Result<()> {
        self.commit(self.deletions(rules)).map(drop)
    }

    /// Deletes rules of any chains and adds others at the end of one, with no moment in between. The new rules' counters
    /// begin at zero.
    pub fn change(&mut self, delete: &[RuleId], chain: &ChainId, add: &[Rule]) -> Result<Vec<RuleId>> {
        let mut requests = self.deletions(delete);
        let mut sets = 0;
        for (number, rule) in (1..).zip(add) {
            let what = format!("add rule {number} of {} to chain {}", add.len(), chain.name);
            let new = message::new_rule(&self.name, &chain.name, encode(rule, &mut sets)?);
            requests.extend(new.into_iter().map(|request| (request, what.clone())));
        }
        let rules = self.commit(requests)?;
        if rules.len() != add.len() {
            return Err(incomplete("the handle of a new rule"));
        }
        Ok(rules.into_iter().map(|handle| RuleId { chain: chain.name.clone(), handle }).collect())
    }

    /// How much has met a rule's conditions so far.
    pub fn counter(&mut self, rule: &RuleId) -> Result<Counter> {
        let what = format!("read the counter of a rule in chain {} of table {}", rule.chain, self.name);
        let get = message::get_rule(&self.name, &rule.chain, rule.handle);
        let answers = self.socket.ask(get, || what.clone())?;
        answers.iter().find_map(|answer| counter(answer)).ok_or_else(|| incomplete("a rule's counter"))
    }

    /// Adds a lease that lasts from now on. It is precise to about 10 ms, late or early.
    pub fn add_lease(&mut self, name: impl Into<String>, lasts: Duration) -> Result<LeaseId> {
        let lease = LeaseId { set: name.into() };
        let set = message::new_lease_set(&self.name, &lease.set);
        let what = format!("add lease {}", lease.set);
        self.commit(vec![(set, what.clone()), (message::grant(&self.name, &lease.set, lasts), what)])?;
        Ok(lease)
    }

    /// Makes a lease last that long from now, with no moment in which it does not.
    ///
    /// # Errors
    /// [`Error::LeaseRanOut`] when it has: its rules have not matched for a while. [`OwnedTable::grant_lease`] has them
    /// match again.
    pub fn renew_lease(&mut self, lease: &LeaseId, lasts: Duration) -> Result<()> {
        let what = format!("renew lease {}", lease.set);
        // Adding what is there does not make it last longer; deleting it first, in the same batch, does.
        let requests = vec![
            (message::revoke(&self.name, &lease.set), what.clone()),
            (message::grant(&self.name, &lease.set, lasts), what),
        ];
        self.commit(requests).map(drop).map_err(|e| ran_out(e, lease))
    }

    /// Has a lease that ran out or was ended last that long from now.
    pub fn grant_lease(&mut self, lease: &LeaseId, lasts: Duration) -> Result<()> {
        let grant = message::grant(&self.name, &lease.set, lasts);
        self.commit(vec![(grant, format!("grant lease {}", lease.set))]).map(drop)
    }

    /// Ends a lease now.
    ///
    /// # Errors
    /// [`Error::LeaseRanOut`] when it has ended already.
    pub fn end_lease(&mut self, lease: &LeaseId) -> Result<()> {
        let revoke = message::revoke(&self.name, &lease.set);
        let ended = self.commit(vec![(revoke, format!("end lease {}", lease.set))]);
        ended.map(drop).map_err(|e| ran_out(e, lease))
    }

    /// Removes the table, and returns when it is gone.
    pub fn delete(mut self) -> Result<()> {
        let delete = message::delete_table(&self.name);
        self.commit(vec![(delete, "delete the table".to_owned())]).map(drop)
    }

    fn deletions(&self, rules: &[RuleId]) -> Vec<(Request, String)> {
        let delete = |rule: &RuleId| message::delete_rule(&self.name, &rule.chain, rule.handle);
        rules.iter().map(|rule| (delete(rule), format!("delete a rule of chain {}", rule.chain))).collect()
    }

    /// Sends requests, each with what it is for, as one batch. Returns the handles of new rules in their order.
    fn commit(&mut self, requests: Vec<(Request, String)>) -> Result<Vec<u64>> {
        const NEEDS: &str = "CAP_NET_ADMIN";
        let (requests, actions): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let describe = |what: &str| format!("{what} (nftables table inet {})", self.name);
        let count = actions.len();
        let batch = message::batch(requests);
        let begin = self.socket.send(&batch).cannot_without(NEEDS, || describe("send a batch"))?;
        // The first request follows the batch's beginning, which is answered only when the batch is refused as such.
        let place = |sequence: u32| usize::try_from(sequence.wrapping_sub(begin).wrapping_sub(1)).ok();
        let mut answered = vec![false; count];
        let mut handles = HashMap::new();
        let mut failure = None;
        while answered.iter().any(|done| !done) {
            for (sequence, reply) in self.socket.receive().cannot(|| describe("read the kernel's answer"))? {
                if sequence == begin {
                    let refused = |e| Err(e).cannot_without(NEEDS, || describe(actions.first().map_or("", |a| a)));
                    match reply {
                        Reply::Ack(Err(e)) => return refused(e),
                        _ => continue,
                    }
                }
                let Some(place) = place(sequence).filter(|place| *place < count) else { continue };
                match reply {
                    Reply::Data(message::NEW_RULE, rule) => drop(handles.insert(place, handle(&rule))),
                    Reply::Data(..) => {}
                    Reply::Ack(result) => {
                        answered[place] = true;
                        failure = failure.or(result.err().map(|e| (e, place)));
                    }
                }
            }
        }
        if let Some((e, place)) = failure {
            return Err(e).cannot(|| describe(&actions[place]));
        }
        let mut handles: Vec<_> = handles.into_iter().collect();
        handles.sort_unstable_by_key(|(place, _)| *place);
        handles.into_iter().map(|(_, handle)| handle.ok_or_else(|| incomplete("a rule's handle"))).collect()
    }
}

fn ran_out(e: Error, lease: &LeaseId) -> Error {
    match e.raw_os_error() {
        Some(libc::ENOENT) => Error::LeaseRanOut { name: lease.set.clone() },
        _ => e,
    }
}

/// After struct nfgenmsg.
fn body(message: &[u8]) -> &[u8] {
    message.get(4..).unwrap_or_default()
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn handle(rule: &[u8]) -> Option<u64> {
    number(attribute(body(rule), 3)?) // NFTA_RULE_HANDLE
}

fn counter(rule: &[u8]) -> Option<Counter> {
    let expressions = attribute(body(rule), 4)?; // NFTA_RULE_EXPRESSIONS
    attributes(expressions).find_map(|(_, expression)| {
        let data = attribute(expression, 2)?; // NFTA_EXPR_DATA
        (attribute(expression, 1)? == b"counter\0")
            .then(|| Some(Counter { bytes: number(attribute(data, 1)?)?, packets: number(attribute(data, 2)?)? }))?
    })
}

/// Whether the calling thread's network namespace has a table of this name in the family `inet`, whoever made it.
///
/// # Errors
/// Without CAP_NET_ADMIN there.
pub fn exists(table: &str) -> Result<bool> {
    let mut socket = Socket::open(Some(netlink::NETFILTER))?;
    match socket.ask(message::get_table(table), || format!("look for the nftables table inet {table}")) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether a table can be made in the calling thread's network namespace. Changes nothing.
///
/// # Errors
/// Why not, and what would help.
pub fn supported() -> Result<(), Unsupported> {
    let refuse = |why: String, instead: &str| {
        Err(Unsupported { what: "changing this network's packets", why, instead: instead.to_owned() })
    };
    let (major, minor) = crate::kernel_version();
    if (major, minor) < (5, 12) {
        let why = format!("Linux {major}.{minor} has no nftables tables that end with their owner");
        return refuse(why, "use Linux 5.12 or newer");
    }
    let asked = Socket::open(Some(netlink::NETFILTER))
        .and_then(|mut socket| socket.ask(message::get_generation(), || "ask nftables for its generation".to_owned()));
    match asked {
        Ok(_) => Ok(()),
        Err(e) if e.is_permission_denied() => {
            refuse("it needs CAP_NET_ADMIN".to_owned(), "run as root, or inside a network of your own (`toprope exec`)")
        }
        Err(e) => refuse(format!("this kernel has no nftables ({e})"), "use a kernel with CONFIG_NF_TABLES"),
    }
}
