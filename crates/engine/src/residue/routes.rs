//! Routes that lead nowhere.

use toprope_os::route::refusing_routes;

use super::{Class, Finding, Scene, Survey, Unseen};

pub(super) const CLASS: Class = Class { name: "route", own: false, look };

fn look(_: &Scene, survey: &mut Survey) {
    let all = match refusing_routes() {
        Ok(all) => all,
        Err(error) => {
            let help = "ask `ip route show table all`".to_owned();
            return survey.unseen.push(Unseen { class: CLASS.name, own: false, what: error.to_string(), help });
        }
    };
    for route in all {
        let (word, to, table) = (route.refusal.word(), route.to, route.table);
        let by = match route.protocol {
            3 => "by hand".to_owned(), // RTPROT_BOOT
            4 => "as a static route, often an administrator's".to_owned(),
            other => format!("by routing protocol {other}, mostly a daemon's own"),
        };
        let v6 = if to.address().is_ipv6() { " -6" } else { "" };
        survey.findings.push(Finding {
            class: CLASS.name,
            own: false,
            what: format!("nothing reaches {to}: its route is {word}"),
            evidence: format!("{word} {to} in table {table}, made {by}"),
            since: None,
            undo: format!("ip{v6} route del {word} {to} table {table}"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_own_network, look, ran};
    use super::*;

    #[test]
    fn routes_that_refuse_are_found_and_their_commands_remove_them() {
        in_own_network("routes_that_refuse_are_found_and_their_commands_remove_them", || {
            assert_eq!(look(CLASS), Survey::default());
            for route in ["blackhole 198.51.100.0/24", "prohibit 203.0.113.7", "unreachable 2001:db8::/32"] {
                let family = if route.contains("::") { "-6" } else { "-4" };
                let words: Vec<&str> = [family, "route", "add"].into_iter().chain(route.split(' ')).collect();
                if !ran("ip", &words) {
                    return;
                }
            }
            let found = look(CLASS).findings;
            assert_eq!(found.len(), 3, "{found:?}");
            for finding in found {
                let words: Vec<&str> = finding.undo.split(' ').collect();
                ran(words[0], &words[1..]);
            }
            assert_eq!(look(CLASS), Survey::default());
        });
    }
}
