//! Rules of the packet filter that refuse traffic and look like chaos.
//!
//! A rule that drops is what firewalls are made of. It is told only where a chaos tool's name is on it, its chain or its
//! table, or where chance decides whom it drops, which no firewall wants.

use toprope_os::nft::{ListedRule, list_rules};

use super::{Class, Finding, Scene, Survey, Unseen};

pub(super) const CLASS: Class = Class { name: "packet-filter", own: true, look };

/// Words in the names that chaos tools give: Chaos Mesh, Chaos Toolkit, ChaosBlade, Litmus, Pumba, Gremlin, Blockade,
/// Toxiproxy's helpers.
const NAMES: [&str; 8] = ["chaos", "litmus", "pumba", "blade", "gremlin", "blockade", "toxi", "fault-inject"];

fn look(_: &Scene, survey: &mut Survey) {
    match list_rules() {
        Ok(rules) => survey.findings.extend(rules.iter().filter_map(suspect)),
        Err(error) => survey.unseen.push(Unseen {
            class: CLASS.name,
            own: false,
            what: error.to_string(),
            help: "ask `sudo toprope residue`, or `nft list ruleset`".to_owned(),
        }),
    }
    // The names of iptables' own tables, where its older form is in use.
    let legacy =
        ["ip_tables_names", "ip6_tables_names"].map(|file| std::fs::read_to_string(format!("/proc/net/{file}")));
    if legacy.iter().flatten().any(|names| !names.trim().is_empty()) {
        survey.unseen.push(Unseen {
            class: CLASS.name,
            own: false,
            what: "the tables of iptables-legacy, which are not nftables'".to_owned(),
            help: "ask `iptables-legacy-save` and `ip6tables-legacy-save`".to_owned(),
        });
    }
}

/// Whether a table is named as Toprope names its own.
fn is_own(rule: &ListedRule) -> bool {
    rule.family == "inet"
        && rule.table.strip_prefix("toprope-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn suspect(rule: &ListedRule) -> Option<Finding> {
    let ListedRule { family, table, chain, handle, comment, .. } = rule;
    let comment = comment.as_deref().unwrap_or_default();
    let place = format!("{family} {table} {chain}");
    let said = if comment.is_empty() { String::new() } else { format!(", which says {comment:?}") };
    let evidence = format!("rule {handle} of {place}{said}");
    if is_own(rule) {
        return Some(Finding {
            class: CLASS.name,
            own: true,
            what: format!("the table {table} of Toprope's is in force"),
            evidence,
            since: None,
            undo: "it goes with its injector: `toprope undo --force`".to_owned(),
        });
    }
    let named = [table, chain, comment].iter().any(|text| {
        let text = text.to_lowercase();
        NAMES.iter().any(|name| text.contains(name))
    });
    let what = match (rule.refuses, named, rule.by_chance) {
        (true, true, _) => "a rule with a chaos tool's name refuses traffic",
        (true, false, true) => "a rule drops packets by chance",
        _ => return None,
    };
    let undo = format!("nft delete rule {place} handle {handle}");
    Some(Finding { class: CLASS.name, own: false, what: format!("{what} ({place})"), evidence, since: None, undo })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_own_network, look, ran};
    use super::*;

    #[test]
    fn rules_that_look_like_chaos_are_found_and_a_firewalls_are_not() {
        in_own_network("rules_that_look_like_chaos_are_found_and_a_firewalls_are_not", || {
            if list_rules().is_err() {
                return eprintln!("SKIPPED: no nftables here");
            }
            let firewall = "table inet filter { chain input { tcp dport 23 drop\n tcp dport 22 accept\n }\n }";
            if !ran("nft", &[firewall]) {
                return;
            }
            assert_eq!(look(CLASS).findings, []);
            let chaos = "table ip mangle { chain CHAOS-INPUT { ip saddr 198.51.100.1 drop\n }\n }\n\
                         table inet filter { chain output { tcp dport 80 reject comment \"pumba loss\"\n \
                         numgen random mod 100 < 10 drop\n }\n }";
            ran("nft", &[chaos]);
            let found = look(CLASS).findings;
            assert_eq!(found.len(), 3, "{found:?}");
            for finding in found {
                let words: Vec<&str> = finding.undo.split(' ').collect();
                ran(words[0], &words[1..]);
            }
            assert_eq!(look(CLASS).findings, []);
        });
    }

    #[test]
    fn a_table_of_ours_is_ours() {
        let rule = |table: &str| ListedRule {
            family: "inet",
            table: table.into(),
            chain: "c".into(),
            handle: 1,
            comment: None,
            refuses: true,
            by_chance: false,
        };
        assert!(suspect(&rule("toprope-17-0")).unwrap().own);
        assert_eq!(suspect(&rule("toprope-like")), None);
    }
}
