//! The ruleset of nftables, all families.

use super::{Class, Facts, Place, program};

/// The class.
pub(super) struct Nftables;

impl Class for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn look(&self, _: &Place) -> Result<Facts, String> {
        Ok(program::counted(with_headings(program::lines("nft", &["--stateless", "list", "ruleset"])?)))
    }
}

/// Each line behind the blocks that it is in: a rule says nothing without its chain and table.
fn with_headings(lines: Vec<String>) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for line in lines {
        if line == "}" {
            blocks.pop();
            continue;
        }
        let (text, opens) = line.strip_suffix('{').map_or((line.as_str(), false), |text| (text.trim_end(), true));
        all.push(blocks.iter().map(String::as_str).chain([text]).collect::<Vec<_>>().join(" / "));
        if opens {
            blocks.push(text.to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_told_with_its_chain_and_table() {
        let ruleset = ["table inet x {", "chain out {", "tcp dport 9 drop", "}", "}"].map(str::to_owned).to_vec();
        assert_eq!(
            with_headings(ruleset),
            ["table inet x", "table inet x / chain out", "table inet x / chain out / tcp dport 9 drop"]
        );
    }
}
