//! Probes of targets that misbehave: each sample is bad, told why, and costs no more than its timeout.

use std::time::Duration;

use toprope_model::event::{Event, Sample};
use toprope_os::process::{ProcessInfo, processes};
use toprope_tests::hostile::{Hostile, Manner};
use toprope_tests::{Toprope, eventually};

fn samples(toprope: &Toprope) -> Vec<Sample> {
    let sample = |event| match event {
        Event::Sample(sample) => Some(sample),
        _ => None,
    };
    toprope.events().into_iter().filter_map(sample).collect()
}

/// One probe for each manner, all in one run: the servers turn hostile with the fault.
#[test]
fn whatever_a_server_answers_a_probe_ends_in_time_and_says_why() {
    let toprope = Toprope::new();
    let flag = toprope.path("flag");
    let servers: Vec<(Manner, Hostile)> =
        Manner::ALL.map(|manner| (manner, Hostile::while_there(flag.clone(), manner))).into();
    let probes: String = servers
        .iter()
        .map(|(manner, server)| {
            format!(
                "- http: {{name: {manner:?}, get: '{}', matches: ok, follow: 5, interval: 250ms, timeout: 500ms, \
                 recovers: {{within: 4s}}}}\n",
                server.url()
            )
        })
        .collect();
    let spec = format!(
        "probes:\n{probes}method:\n- command: {{apply: [touch, flag], check: [test, -e, flag], undo: [rm, -f, flag], \
         for: 1500ms}}"
    );
    let experiment = toprope.experiment("hostile", &spec);
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    let (id, mut most) = (run.id(), 0);
    while run.is_running() {
        // It may end while it is looked at.
        most = ProcessInfo::of(id.pid()).map_or(most, |process| most.max(process.rss));
        std::thread::sleep(Duration::from_millis(20));
    }
    let done = run.wait().expect(0);
    assert!(done.took < Duration::from_secs(15), "{done}");
    assert!(most < 300 << 20, "{most} bytes of memory");
    let samples = samples(&toprope);
    for (index, (manner, _)) in servers.iter().enumerate() {
        let mine: Vec<&Sample> = samples.iter().filter(|s| s.probe as usize == index).collect();
        let bad: Vec<&str> = mine.iter().filter(|s| !s.ok && !s.broken).filter_map(|s| s.why.as_deref()).collect();
        assert!(!bad.is_empty(), "{manner:?}: no bad sample of {}", mine.len());
        assert!(mine.iter().all(|s| !s.broken), "{manner:?} is the system's fault, not the probe's: {mine:?}");
        let expected = match manner {
            Manner::Silent | Manner::Dripping => "no answer within 500ms",
            Manner::Redirecting => "redirect",
            _ => "",
        };
        assert!(bad.iter().all(|why| why.contains(expected)), "{manner:?}: {bad:?}");
        assert!(bad.iter().all(|why| !why.is_empty() && why.len() < 600), "{manner:?}: {bad:?}");
    }
    toprope.assert_clean();
}

#[test]
fn a_command_that_prints_without_end_is_killed_with_all_that_it_started() {
    let toprope = Toprope::new();
    let mark = format!("endless-{}", std::process::id());
    let experiment = toprope.experiment(
        "endless",
        &format!(
            "probes:
- command: {{run: [sh, -c, 'yes {mark} & yes {mark}; wait'], interval: 200ms, timeout: 2s}}
method:
- command: {{apply: ['true'], check: ['false'], undo: ['true'], for: 1s}}"
        ),
    );
    let done = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(3);
    assert!(done.stdout.contains("printed more than 1048576 bytes"), "{done}");
    let log = toprope.runs()[0].join("events.jsonl");
    assert!(log.metadata().unwrap().len() < 1 << 20, "what it printed is in the log");
    eventually("what the probe started is gone", || {
        processes().unwrap().iter().all(|p| p.name != "yes" || !p.cmdline.contains(&mark))
    });
    toprope.assert_clean();
}

#[test]
fn a_probe_that_hangs_does_not_hold_up_the_end() {
    let toprope = Toprope::new();
    let experiment = toprope.experiment(
        "hangs",
        "probes:
- command: {run: [sh, -c, 'test ! -e flag || sleep 60'], interval: 100ms, timeout: 1s}
method:
- command: {apply: [touch, flag], check: [test, -e, flag], undo: [rm, -f, flag], for: 1s}",
    );
    let done = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(1);
    assert!(done.took < Duration::from_secs(12), "{done}");
    assert!(samples(&toprope).iter().any(|s| s.why.as_deref().is_some_and(|why| why.contains("no answer within 1s"))));
    toprope.assert_clean();
}
