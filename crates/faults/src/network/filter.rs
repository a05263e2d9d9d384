//! Rules of the packet filter in force, and what they met.

use toprope_engine::fault::FaultError;
use toprope_os::nft::{Action, Chain, ChainId, Counter, Hook, Match, Rule, RuleId, Transport};

use super::packets::{End, Traffic};
use super::renamed::Renamed;
use super::table::Table;

/// A packet filter in force; the kernel removes it with this process. Dropping it removes it too.
pub(crate) struct Filter {
    table: Table,
    chains: Vec<FilterChain>,
    renamed: Renamed,
}

struct FilterChain {
    end: End,
    id: ChainId,
    rules: Vec<RuleId>,
}

/// A rule for packets that are selected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Selected {
    /// Further conditions.
    pub(crate) when: Vec<Match>,
    pub(crate) action: Action,
}

impl Selected {
    /// Without further conditions.
    pub(crate) fn all(action: Action) -> Self {
        Self { when: vec![], action }
    }
}

/// What becomes of the packets of a protocol (`None` where that is not told): rules in their order.
pub(crate) trait Treatment: Send + Sync {
    /// How many rules there are for each kind of packets.
    const RULES: usize;

    /// Whether packets are refused, so that those that refuse must pass.
    fn refuses(&self) -> bool {
        false
    }

    /// The rules.
    fn rules(&self, transport: Option<Transport>) -> Vec<Selected>;
}

impl Filter {
    /// Makes the table and all its rules.
    pub(crate) async fn begin<T: Treatment>(traffic: &Traffic, treatment: &T) -> Result<Self, FaultError> {
        let table = Table::create(&traffic.table).await?;
        let mut filter = Self { table, chains: vec![], renamed: Renamed::follow(traffic.destination()) };
        for end in traffic.ends() {
            let (name, hook, interface): (_, _, fn(String) -> Match) = match end {
                End::Leaving => ("leaving", Hook::Output, Match::OutInterface),
                End::Arriving => ("arriving", Hook::Input, Match::InInterface),
            };
            let mut spared = Vec::new();
            if !traffic.means_loopback() {
                spared.push(Rule::new(Action::Accept).when(interface("lo".into())).comment("within this host"));
            }
            if treatment.refuses() {
                spared.push(Rule::new(Action::Accept).when(Match::TcpReset).comment("what refuses must arrive"));
            }
            let rules = filter.rules(traffic, end, treatment)?;
            let made = filter.table.with(move |table| {
                let chain = table.add_chain(&Chain::filter(name, hook))?;
                table.add_rules(&chain, &spared)?;
                let rules = table.add_rules(&chain, &rules)?;
                Ok((chain, rules))
            });
            let (id, rules) = made.await?;
            filter.chains.push(FilterChain { end, id, rules });
        }
        Ok(filter)
    }

    /// Puts other rules in the place of these; counters begin anew.
    pub(crate) async fn change<T: Treatment>(&mut self, traffic: &Traffic, treatment: &T) -> Result<(), FaultError> {
        for place in 0..self.chains.len() {
            let FilterChain { end, id, rules: old } = &self.chains[place];
            let (id, old, new) = (id.clone(), old.clone(), self.rules(traffic, *end, treatment)?);
            let changed = self.table.with(move |table| table.change(&old, &id, &new)).await?;
            self.chains[place].rules = changed;
        }
        Ok(())
    }

    /// What each of a treatment's rules has met, over all kinds of packets and both ends.
    pub(crate) async fn counters<T: Treatment>(&self) -> Result<Vec<Counter>, FaultError> {
        let all: Vec<RuleId> = self.chains.iter().flat_map(|c| c.rules.iter().cloned()).collect();
        let counted = self.table.with(move |table| {
            let mut sums = vec![Counter::default(); T::RULES];
            for (place, rule) in all.iter().enumerate() {
                let counter = table.counter(rule)?;
                let sum = &mut sums[place % T::RULES];
                sum.packets += counter.packets;
                sum.bytes += counter.bytes;
            }
            Ok(sums)
        });
        counted.await
    }

    /// What whoever reads of the effect should know: that no packet came by, and what is not reached.
    pub(crate) fn note(&self, packets: u64) -> Option<String> {
        let none = (packets == 0).then(|| "no packet came by so far".to_owned());
        let notes: Vec<String> = none.into_iter().chain(self.renamed.note()).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// Resolves, with the reason, when the kernel has ended the rules although this process lives.
    pub(crate) async fn lost(&mut self) -> String {
        self.table.lost().await
    }

    /// Removes everything; every packet passes when this returns.
    pub(crate) async fn remove(self) -> Result<(), FaultError> {
        self.table.delete().await
    }

    fn rules<T: Treatment>(&self, traffic: &Traffic, end: End, treatment: &T) -> Result<Vec<Rule>, FaultError> {
        let mut rules = Vec::new();
        for selection in traffic.selections(end, treatment.refuses())? {
            for selected in treatment.rules(selection.transport) {
                let conditions = selection.conditions.iter().cloned().chain([self.table.alive()]).chain(selected.when);
                rules.push(conditions.fold(Rule::new(selected.action), Rule::when).comment("toprope"));
            }
        }
        Ok(rules)
    }
}
