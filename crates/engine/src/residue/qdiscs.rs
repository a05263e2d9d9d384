//! Queueing disciplines that delay, lose or throttle: `netem` is what chaos tools use, `tbf` how some of them limit.

use toprope_os::route::qdiscs;

use super::{Class, Finding, Scene, Survey, Unseen};

pub(super) const CLASS: Class = Class { name: "qdisc", own: false, look };

/// Those that nobody has by default.
const SUSPECT: [&str; 2] = ["netem", "tbf"];

fn look(_: &Scene, survey: &mut Survey) {
    let all = match qdiscs() {
        Ok(all) => all,
        Err(error) => {
            let help = "ask `tc qdisc show`".to_owned();
            return survey.unseen.push(Unseen { class: CLASS.name, own: false, what: error.to_string(), help });
        }
    };
    for qdisc in all.iter().filter(|q| SUSPECT.contains(&q.kind.as_str())) {
        let (kind, interface, place) = (&qdisc.kind, &qdisc.interface, qdisc.place());
        let does = if kind == "netem" { "delays, loses or changes packets" } else { "limits the rate" };
        survey.findings.push(Finding {
            class: CLASS.name,
            own: false,
            what: format!("the queueing discipline {kind} at {interface} {does}"),
            evidence: format!("qdisc {kind} {:x}: dev {interface} {place}", qdisc.handle >> 16),
            since: None,
            undo: format!("tc qdisc del dev {interface} {place}"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_own_network, look, ran};
    use super::*;

    #[test]
    fn a_stray_qdisc_is_found_and_its_command_removes_it() {
        in_own_network("a_stray_qdisc_is_found_and_its_command_removes_it", || {
            assert_eq!(look(CLASS), Survey::default());
            let tbf = "qdisc add dev lo root tbf rate 1mbit burst 10k latency 50ms";
            if !ran("tc", &tbf.split(' ').collect::<Vec<_>>()) {
                return;
            }
            let found = look(CLASS).findings;
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].what.contains("tbf at lo") && !found[0].own);
            let words: Vec<&str> = found[0].undo.split(' ').collect();
            ran(words[0], &words[1..]);
            assert_eq!(look(CLASS), Survey::default());
        });
    }
}
