//! The rules of everybody's tables.

use rustix::net::netlink;

use super::message;
use crate::{
    Result,
    netlink::{Socket, attribute, attributes},
};

/// A rule, whoever made it, as far as it can be told in few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRule {
    /// The family, as nft(8) writes it.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its number, by which nft(8) deletes it.
    pub handle: u64,
    /// Its comment; also one that iptables(8) wrote.
    pub comment: Option<String>,
    /// Whether it drops packets or has the sender told that they are refused.
    pub refuses: bool,
    /// Whether it leaves to chance which packets it meets.
    pub by_chance: bool,
}

/// Every rule of the calling thread's network namespace. What iptables-legacy(8) made is not among them.
///
/// # Errors
/// Without CAP_NET_ADMIN there; where the kernel has no nftables.
pub fn list_rules() -> Result<Vec<ListedRule>> {
    let mut socket = Socket::open(Some(netlink::NETFILTER))?;
    let entries = socket.dump(message::list_rules(), || "list the rules of nftables".to_owned())?;
    Ok(entries.iter().filter_map(|entry| read(entry)).collect())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn read(entry: &[u8]) -> Option<ListedRule> {
    let family = match entry.first()? {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => return None,
    };
    let body = entry.get(4..)?; // after struct nfgenmsg
    let mut rule = ListedRule {
        family,
        table: text(attribute(body, 1)?), // NFTA_RULE_TABLE
        chain: text(attribute(body, 2)?), // NFTA_RULE_CHAIN
        handle: u64::from_be_bytes(attribute(body, 3)?.try_into().ok()?), // NFTA_RULE_HANDLE
        comment: attribute(body, 7).and_then(comment), // NFTA_RULE_USERDATA
        refuses: false,
        by_chance: false,
    };
    for (_, expression) in attributes(attribute(body, 4).unwrap_or_default()) {
        // NFTA_EXPR_NAME and NFTA_EXPR_DATA
        let (Some(name), data) = (attribute(expression, 1), attribute(expression, 2).unwrap_or_default()) else {
            continue;
        };
        match text(name).as_str() {
            "reject" => rule.refuses = true,
            "immediate" => rule.refuses |= drops(data),
            "numgen" => rule.by_chance = true,
            // An extension of iptables: its name is NFTA_TARGET_NAME or NFTA_MATCH_NAME, what it was told the third.
            "target" => rule.refuses |= matches!(text(attribute(data, 1)?).as_str(), "REJECT" | "DROP"),
            "match" => match text(attribute(data, 1)?).as_str() {
                "statistic" => rule.by_chance = true,
                "comment" => {
                    let said = attribute(data, 3).unwrap_or_default();
                    let end = said.iter().position(|b| *b == 0).unwrap_or(said.len());
                    rule.comment = Some(text(&said[..end]));
                }
                _ => {}
            },
            _ => {}
        }
    }
    Some(rule)
}

/// Whether a verdict is to drop: NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE.
fn drops(immediate: &[u8]) -> bool {
    const DROP: [u8; 4] = [0; 4]; // NF_DROP
    let code = attribute(immediate, 2).and_then(|d| attribute(d, 2)).and_then(|v| attribute(v, 1));
    code.is_some_and(|code| code == DROP)
}

/// The comment in a rule's user data: kind, length, value, of which a comment is kind 0 (libnftnl/udata.h).
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text(value));
        }
        data = &rest[value.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{namespace::Namespace, testing::is_root, testing::skip};
    use std::process::Command;

    #[test]
    fn what_nft_makes_is_listed_with_what_it_does_and_says() {
        let test = "what_nft_makes_is_listed_with_what_it_does_and_says";
        if !is_root(test) {
            return;
        }
        let net = Namespace::new_net().expect("root may");
        net.run(|| {
            match list_rules() {
                Ok(rules) => assert_eq!(rules, []),
                Err(e) => return skip(test, e),
            }
            let script = "table inet t { chain c { \
                tcp dport 80 drop comment \"chaos-here\"\n tcp dport 81 reject\n tcp dport 82 accept\n \
                numgen random mod 100 < 10 drop\n }\n }";
            match Command::new("nft").arg(script).status() {
                Ok(done) => assert!(done.success(), "{script}"),
                Err(_) => return skip(test, "nft is not installed"),
            }
            let rules = list_rules().expect("root may");
            let told: Vec<_> = rules.iter().map(|r| (r.comment.as_deref(), r.refuses, r.by_chance)).collect();
            let expected =
                [(Some("chaos-here"), true, false), (None, true, false), (None, false, false), (None, true, true)];
            assert_eq!(told, expected);
            assert_eq!((rules[0].family, rules[0].table.as_str(), rules[0].chain.as_str()), ("inet", "t", "c"));
        })
        .expect("entered");
    }

    #[test]
    fn comments_are_found_among_other_user_data() {
        assert_eq!(comment(&[1, 2, 9, 9, 0, 3, b'a', b'b', 0]).as_deref(), Some("ab"));
        assert_eq!(comment(&[0, 9, b'a']), None);
        assert_eq!(comment(&[]), None);
    }
}
