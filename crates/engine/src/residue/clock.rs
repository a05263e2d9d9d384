//! A wall clock that is off, as far as a host can know that by itself.
//!
//! Without a network nobody knows the time. What can be known: that the battery clock says another time, that the clock
//! was set back behind something that was written under it, and that the kernel is told to run it at a bent rate.

use std::time::Duration;

use toprope_os::time::{Discipline, battery_clock, discipline, wall};

use super::{Class, Finding, Scene, Survey, Unseen, at};

pub(super) const CLASS: Class = Class { name: "clock", own: false, look };

/// The battery clock counts whole seconds and drifts: less than this is no news.
const DRIFT: Duration = Duration::from_secs(60);
/// What a tick of 1/100 s is, in microseconds.
const TICK: i64 = 10_000;
/// How far time daemons bend a tick: less than this is no news.
const BENT: i64 = 100;

/// What a host knows of its time.
#[derive(Debug, Clone, Default)]
struct Readings {
    wall: Duration,
    battery: Option<Duration>,
    discipline: Option<Discipline>,
    /// When a journal was last written to, by the wall clock of then.
    written: Option<Duration>,
}

fn look(scene: &Scene, survey: &mut Survey) {
    let journals = scene.journals.iter().filter_map(|j| std::fs::metadata(j.directory()).ok()?.modified().ok());
    let written = journals.filter_map(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).max();
    let readings = Readings { wall: wall(), battery: battery_clock(), discipline: discipline().ok(), written };
    if readings.battery.is_none() {
        survey.unseen.push(Unseen {
            class: CLASS.name,
            own: false,
            what: "whether the clock is right: there is no battery clock in UTC to ask".to_owned(),
            help: "compare `date` with another host's".to_owned(),
        });
    }
    survey.findings.extend(judge(&readings));
}

fn judge(readings: &Readings) -> Vec<Finding> {
    let set = "set it anew: `chronyc makestep`, `timedatectl set-ntp true`, or `hwclock --hctosys`";
    let finding = |what: String, evidence: String| Finding {
        class: CLASS.name,
        own: false,
        what,
        evidence,
        since: None,
        undo: set.to_owned(),
    };
    let now = at(readings.wall.as_secs());
    let mut found = Vec::new();
    if let Some(battery) = readings.battery
        && battery.abs_diff(readings.wall) > DRIFT
    {
        let apart = battery.abs_diff(readings.wall).as_secs();
        let evidence = format!("it says {now}, and the battery clock {}", at(battery.as_secs()));
        found.push(finding(format!("the clock and the battery clock are {apart} s apart"), evidence));
    }
    if let Some(written) = readings.written
        && written > readings.wall + Duration::from_secs(1)
    {
        let evidence = format!("it says {now}, and a journal was written at {}", at(written.as_secs()));
        found.push(finding("the clock was set back".to_owned(), evidence));
    }
    if let Some(Discipline { tick, .. }) = readings.discipline
        && (tick - TICK).abs() > BENT
    {
        let evidence = format!("adjtimex(2): a tick takes {tick} µs, and {TICK} is right");
        let mut bent = finding("the clock runs at a bent rate".to_owned(), evidence);
        bent.undo = format!("adjtimex --tick {TICK}");
        found.push(bent);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(2_000_000_000);

    fn right() -> Readings {
        let discipline = Some(Discipline { tick: TICK, parts_per_million: 30 });
        Readings { wall: NOW, battery: Some(NOW + Duration::from_secs(2)), discipline, written: Some(NOW) }
    }

    #[test]
    fn a_clock_that_is_right_is_not_told() {
        assert_eq!(judge(&right()), []);
        assert_eq!(judge(&Readings { wall: NOW, ..Readings::default() }), [], "nothing is known");
    }

    #[test]
    fn each_way_of_being_off_is_told_by_what_shows_it() {
        let hour = Duration::from_secs(3600);
        let off = [
            (Readings { battery: Some(NOW + hour), ..right() }, "battery"),
            (Readings { battery: Some(NOW - hour), ..right() }, "battery"),
            (Readings { written: Some(NOW + hour), ..right() }, "set back"),
            (Readings { discipline: Some(Discipline { tick: 10_900, parts_per_million: 0 }), ..right() }, "bent"),
        ];
        for (readings, word) in off {
            let found = judge(&readings);
            assert_eq!(found.len(), 1, "{readings:?}: {found:?}");
            assert!(found[0].what.contains(word), "{found:?}");
        }
    }

    #[test]
    fn this_hosts_readings_can_be_had() {
        assert!(wall() > Duration::from_secs(1_500_000_000));
        assert!(discipline().unwrap().tick.abs_diff(TICK) < 2000);
    }
}
