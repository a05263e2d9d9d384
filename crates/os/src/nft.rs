//! Packet filter and redirection (nftables) in a table that the kernel removes with us.
//!
//! A table made with `NFT_TABLE_F_OWNER` lives exactly as long as the netlink socket that made it, so it is gone within
//! milliseconds of our end, `kill -9` included, and nobody else can change it meanwhile. Calling `nft` could not do
//! that: the table would end with `nft`. Hence the messages are encoded here, as in
//! include/uapi/linux/netfilter/nf_tables.h and as libnftnl writes them.

mod encode;
mod list;
mod message;
mod rule;
mod table;

pub use list::{ListedRule, list_rules};
pub use rule::{Action, Cgroup, Chain, Hook, Match, Ports, Rule, Transport, Unreachable};
pub use table::{ChainId, Counter, LeaseId, OwnedTable, RuleId, exists, supported};

#[cfg(test)]
mod tests;
