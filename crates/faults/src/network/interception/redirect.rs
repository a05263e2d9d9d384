//! Redirection by the packet filter: works for everybody's connections, or a user's, or a control group's.

use toprope_engine::fault::FaultError;
use toprope_os::nft::{Action, Chain, ChainId, Hook, Match, Rule, Transport};

use crate::network::clients::Owner;
use crate::network::destination::Destination;
use crate::network::table::Table;

/// The mark on the proxies' own connections, which no redirection of ours touches. One byte, because other programs
/// give meanings to the higher bits (Kubernetes, Calico, Tailscale).
pub(super) const OUR_MARK: u32 = 0xd7;

/// A redirection in force.
pub(super) struct Redirect {
    table: Table,
}

impl Redirect {
    pub(super) async fn begin(
        table: Table,
        owner: &Owner,
        destination: &Destination,
        port: u16,
    ) -> Result<Self, FaultError> {
        let rules = rules(owner, destination, port, &table.alive())?;
        let made = table.with(move |table| {
            let chain: ChainId = table.add_chain(&Chain::redirect("to-proxy", Hook::Output))?;
            table.add_rules(&chain, &rules)
        });
        made.await?;
        Ok(Self { table })
    }

    /// New connections go straight from now on. Those that were redirected stay so: the rules stay, and match no more.
    /// Once no rule translates addresses, the kernel stops to track connections, and would reset these.
    pub(super) async fn stop(&self) -> Result<(), FaultError> {
        self.table.end_lease().await
    }

    /// Nothing of it is left when this returns.
    pub(super) async fn remove(self) -> Result<(), FaultError> {
        self.table.delete().await
    }

    pub(super) async fn lost(&mut self) -> String {
        self.table.lost().await
    }
}

fn rules(owner: &Owner, destination: &Destination, port: u16, alive: &Match) -> Result<Vec<Rule>, FaultError> {
    let mut rules = vec![Rule::new(Action::Accept).when(Match::Mark(OUR_MARK)).comment("the proxy's own connections")];
    if !destination.means_loopback() {
        rules.push(Rule::new(Action::Accept).when(Match::OutInterface("lo".into())).comment("within this host"));
    }
    let owner = owner.conditions()?;
    for network in &destination.networks {
        let transport = match destination.port {
            Some(wanted) => Match::DestinationPort(Transport::Tcp, wanted.into()),
            None => Match::Protocol(6), // TCP
        };
        let conditions = [Match::Destination(*network), transport, Match::TcpOpening].into_iter().chain(owner.clone());
        let rule = conditions.chain([alive.clone()]).fold(Rule::new(Action::Redirect(port)), Rule::when);
        rules.push(rule.comment(format!("toprope: connections to {destination} go through a proxy")));
    }
    Ok(rules)
}
