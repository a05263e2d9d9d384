//! Tables and rules of the packet filter before nftables. `iptables` that speaks to nftables is seen there.

use super::{Class, Facts, Place, program};

/// The class.
pub(super) struct Iptables;

impl Class for Iptables {
    fn name(&self) -> &'static str {
        "iptables"
    }

    fn look(&self, _: &Place) -> Result<Facts, String> {
        let mut facts = Facts::new();
        for (file, save) in [("ip_tables_names", "iptables-legacy-save"), ("ip6_tables_names", "ip6tables-legacy-save")]
        {
            // The file is not there where the kernel has no such tables, and the program would make them by looking.
            let tables = std::fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
            for table in tables.lines() {
                facts.insert(format!("table {table} of {file}"), "there".into());
                for line in program::lines(save, &["-t", table])? {
                    // A comment holds the time; the numbers behind a chain count packets.
                    let rule = line.split(" [").next().unwrap_or_default();
                    if !rule.starts_with('#') {
                        facts.insert(format!("{table}: {rule}"), "there".into());
                    }
                }
            }
        }
        Ok(facts)
    }
}
