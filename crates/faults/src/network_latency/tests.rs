use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use toprope_os::nft;
use toprope_os::process::Signal;

use super::*;
use crate::network::testing::{
    Asking, Client, DELAY, Holder, Redis, STRAIGHT, ask, ask_as, bystander, echo, hold, in_force, in_own_namespaces,
    in_own_network, observed, observed_accepted, observed_samples, role, server, without_privileges,
};
use crate::testing::{PATIENCE, Victim, eventually, host, params, planned};

fn table(step: &Step) -> String {
    step.data["way"]["redirect"]["table"].as_str().expect("it is a redirection").to_owned()
}

fn everybody(to: SocketAddr) -> serde_json::Value {
    json!({"from": {"host": true}, "to": to.to_string(), "delay": "500ms"})
}

/// From plan to the end of the drain, on one address, with the effect seen by clients.
async fn life_of_a_redirection(listen: &str) {
    let (to, other) = (echo(listen), echo(listen));
    let (mut old, _bystander) = (Client::connect(to).unwrap(), bystander(to));
    let parameters = params(everybody(to));
    let (plan, step) = planned(&NetworkLatency, &parameters, &host()).await;
    assert_eq!(plan.path, "a proxy, behind a redirection by nftables");
    assert!(plan.warnings.iter().any(|w| w.starts_with(&format!("1 connection to {to} open already"))), "{plan:?}");
    assert_eq!(step.claims, [format!("tcp to {to}")]);
    assert!(ask(to).unwrap() < STRAIGHT, "a plan changes nothing");

    let mut injection = NetworkLatency.apply(&step, &parameters, &host()).await.unwrap();
    let effect = observed(&mut injection).await;
    assert_eq!((effect.took, effect.reached), (None, Some(0.0)), "only the old connection is there: {effect:?}");
    let mut slow = Client::connect(to).unwrap();
    let note = observed_accepted(&mut injection).await.note.expect("it says why it is not known");
    assert!(note.starts_with("1 connection came by, with too little to measure"), "{note}");
    assert!(slow.ask().unwrap() >= DELAY);
    assert!(slow.ask().unwrap() < DELAY * 2, "one way only");
    assert!(old.ask().unwrap() < STRAIGHT && ask(other).unwrap() < STRAIGHT);
    let effect = observed_samples(&mut injection, 2).await;
    assert_eq!((effect.took, effect.reached), (Some(true), Some(0.5)), "{effect:?}");
    let [delay] = &effect.measures[..] else { panic!("{effect:?}") };
    assert_eq!((delay.asked, delay.samples), (Some(500.0), 2));
    assert!((500.0..900.0).contains(&delay.measured), "{effect:?}");
    let spread = delay.spread.expect("it was measured of every chunk");
    assert!(spread.min >= 500.0 && spread.min <= spread.p50 && spread.p50 <= spread.p99, "{effect:?}");
    assert!(spread.p99 <= spread.max, "{effect:?}");

    let draining = injection.release(PATIENCE).await.unwrap().expect("one is in flight");
    assert!(ask(to).unwrap() < STRAIGHT, "new connections go straight at once");
    assert!(slow.ask().unwrap() < STRAIGHT, "those in flight go on, without delay");
    assert!(nft::exists(&table(&step)).unwrap(), "its address translation is needed");
    drop(slow);
    assert_eq!(draining.await, (1, 0));
    for _ in 0..2 {
        let notes = NetworkLatency.undo(&step, &host()).await.unwrap();
        assert!(notes[0].contains("is gone"), "{notes:?}");
    }
    assert!(!nft::exists(&table(&step)).unwrap());
    assert!(ask(to).unwrap() < STRAIGHT && old.ask().unwrap() < STRAIGHT);
}

#[test]
fn redirected_connections_are_slower_and_no_others() {
    in_own_network("redirected_connections_are_slower_and_no_others", || life_of_a_redirection("127.0.0.1:0"));
}

#[test]
fn redirected_connections_of_ipv6_are_slower_and_no_others() {
    in_own_network("redirected_connections_of_ipv6_are_slower_and_no_others", || life_of_a_redirection("[::1]:0"));
}

#[test]
fn without_privileges_it_works_in_a_network_of_ones_own() {
    let test = "network_latency::tests::without_privileges_it_works_in_a_network_of_ones_own";
    in_own_namespaces(test, || life_of_a_redirection("127.0.0.1:0"));
}

#[test]
fn a_port_alone_means_every_address() {
    in_own_network("a_port_alone_means_every_address", || async {
        let to = echo("127.0.0.2:0");
        let parameters = json!({"from": {"host": true}, "to": format!(":{}", to.port()), "delay": "500ms"});
        let (_, injection) = in_force(&NetworkLatency, parameters).await;
        assert!(ask(to).unwrap() >= DELAY);
        injection.release(PATIENCE).await.unwrap();
        assert!(ask(to).unwrap() < STRAIGHT);
    });
}

#[test]
fn only_the_meant_users_connections_are_slower() {
    in_own_network("only_the_meant_users_connections_are_slower", || async {
        let to = server();
        let parameters = json!({"from": {"user": "65534"}, "to": to.to_string(), "delay": "500ms"});
        let (_, mut injection) = in_force(&NetworkLatency, parameters).await;
        assert!(ask_as(65534, to) >= DELAY);
        assert!(ask_as(0, to) < DELAY);
        assert_eq!(observed_samples(&mut injection, 1).await.measures[0].samples, 1);
        injection.release(PATIENCE).await.unwrap();
        assert!(ask_as(65534, to) < DELAY);
    });
}

#[test]
fn connections_that_come_and_go_are_never_taken_for_ones_past_the_proxy() {
    in_own_network("connections_that_come_and_go_are_never_taken_for_ones_past_the_proxy", || async {
        let to = server();
        let parameters = json!({"from": {"host": true}, "to": to.to_string(), "delay": "1ms"});
        let (_, mut injection) = in_force(&NetworkLatency, parameters).await;
        let (ip, port) = (to.ip(), to.port());
        let busy = format!(
            "exec bash -c 'echo ready; while exec 3<>/dev/tcp/{ip}/{port}; do \
             echo hello >&3; read -r -u 3 line; exec 3>&-; done'"
        );
        let clients: Vec<Victim> = (0..4).map(|_| Victim::script(&busy)).collect();
        let until = Instant::now() + Duration::from_secs(3);
        let mut samples = 0;
        while Instant::now() < until || samples < 100 {
            let effect = observed(&mut injection).await;
            assert!(effect.reached.is_none_or(|share| share == 1.0), "after {samples}: {effect:?}");
            samples = effect.measures.iter().map(|m| m.samples).sum();
        }
        drop(clients);
        injection.release(PATIENCE).await.unwrap();
    });
}

/// A program that connects, asks and is answered once for each line that it is sent, and tells how long that took.
fn asking(to: SocketAddr) -> Asking {
    let (ip, port) = (to.ip(), to.port());
    Asking::start(&format!(
        "while read -r _; do begin=${{EPOCHREALTIME/./}}; exec 3<>/dev/tcp/{ip}/{port}; echo hello >&3; \
         read -r -u 3 line; echo $line $((${{EPOCHREALTIME/./}} - begin)); done"
    ))
}

#[test]
fn only_the_meant_processes_connections_are_slower() {
    in_own_network("only_the_meant_processes_connections_are_slower", || async {
        if let Err(why) = toprope_os::bpf::supported() {
            return eprintln!("SKIPPED only_the_meant_processes_connections_are_slower: {why}");
        }
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let to = echo(listen);
            let (mut meant, mut other) = (asking(to), asking(to));
            let bystander = bystander(to);
            let parameters = params(json!({"from": {"pid": meant.pid()}, "to": to.to_string(), "delay": "500ms"}));
            let (plan, step) = planned(&NetworkLatency, &parameters, &host()).await;
            assert_eq!(plan.path, "a proxy, behind a redirection by BPF in connect(2)");
            assert_eq!(plan.targets, [format!("bash (pid {})", meant.pid())]);
            assert!(plan.warnings.is_empty(), "the open connection is somebody else's: {plan:?}");
            let mut injection = NetworkLatency.apply(&step, &parameters, &host()).await.unwrap();
            assert!(meant.ask() >= DELAY && other.ask() < STRAIGHT);
            let effect = observed_samples(&mut injection, 1).await;
            assert_eq!((effect.took, effect.reached), (Some(true), Some(1.0)), "{effect:?}");
            let draining = injection.release(PATIENCE).await.unwrap().expect("one is in flight");
            assert!(meant.ask() < STRAIGHT, "new connections go straight at once");
            assert_eq!(draining.await, (1, 0), "the client has closed the old one for a new one");
            assert!(NetworkLatency.undo(&step, &host()).await.unwrap()[0].contains("is gone"));
            drop(bystander);
        }
    });
}

#[test]
fn a_process_selected_by_name_is_meant_with_its_children_and_when_it_is_started_again() {
    const TEST: &str = "a_process_selected_by_name_is_meant_with_its_children_and_when_it_is_started_again";
    in_own_network(TEST, || async {
        if let Err(why) = toprope_os::bpf::supported() {
            return eprintln!("SKIPPED {TEST}: {why}");
        }
        let to = server();
        let name = format!("toprope-asks-{}", std::process::id());
        let ask = format!(
            "begin=${{EPOCHREALTIME/./}}; exec 3<>/dev/tcp/127.0.0.1/{}; echo hello >&3; read -r -u 3 line; \
             echo $line $((${{EPOCHREALTIME/./}} - begin)); true",
            to.port()
        );
        let script = format!("exec -a {name} bash -c 'while read -r _; do bash -c \"sleep 1; $0\"; done' '{ask}'");
        let mut first = Asking::start(&script);
        let selector = json!({"command-line": format!("^{name} ")});
        eventually("it has its name", || {
            let cmdline = std::fs::read_to_string(format!("/proc/{}/cmdline", first.pid()));
            cmdline.is_ok_and(|text| text.starts_with(&name))
        });
        let parameters = json!({"from": selector, "to": to.to_string(), "delay": "500ms"});
        let (_, injection) = in_force(&NetworkLatency, parameters).await;
        assert!(first.ask() >= DELAY, "a child that was started a second ago");
        drop(first);
        let mut second = Asking::start(&script);
        eventually("the second is meant", || second.ask() >= DELAY);
        injection.release(PATIENCE).await.unwrap();
        assert!(second.ask() < STRAIGHT);
    });
}

#[test]
fn when_its_process_is_killed_the_programs_are_gone() {
    const TEST: &str = "network_latency::tests::when_its_process_is_killed_the_programs_are_gone";
    if role().is_some() {
        return hold(&NetworkLatency);
    }
    in_own_network(TEST, || async {
        if let Err(why) = toprope_os::bpf::supported() {
            return eprintln!("SKIPPED {TEST}: {why}");
        }
        let to = server();
        let mut client = asking(to);
        let parameters = json!({"from": {"pid": client.pid()}, "to": to.to_string(), "delay": "500ms"});
        let holder = Holder::start(TEST, &parameters);
        assert!(client.ask() >= DELAY);
        holder.signal(Signal::KILL);
        let killed = Instant::now();
        let notes = NetworkLatency.undo(&holder.step, &host()).await.unwrap();
        assert!(killed.elapsed().as_secs_f64() < 1.0, "{:?}", killed.elapsed());
        assert!(notes[0].contains("is gone"), "{notes:?}");
        assert!(client.ask() < STRAIGHT);
    });
}

#[test]
fn without_privileges_the_refusal_of_single_processes_names_what_would_work() {
    let test = "network_latency::tests::without_privileges_the_refusal_of_single_processes_names_what_would_work";
    without_privileges(test, || async {
        let client = crate::testing::Victim::sleeping();
        let parameters = json!({"from": {"pid": client.pid()}, "to": "127.0.0.1:9", "delay": "500ms"});
        let e = NetworkLatency.plan(&params(parameters), &host()).await.unwrap_err();
        assert!(e.message.contains("CAP_BPF"), "{e}");
        let help = e.help.unwrap();
        assert!(["as root", "`user`", "toprope exec", "listen:"].iter().all(|word| help.contains(word)), "{help}");
    });
}

#[test]
fn each_direction_is_delayed_as_told_and_a_ramp_changes_it() {
    in_own_network("each_direction_is_delayed_as_told_and_a_ramp_changes_it", || async {
        let to = server();
        let with = |delay: &str, direction: &str| {
            let to = to.to_string();
            json!({"from": {"host": true}, "to": to, "delay": delay, "direction": direction})
        };
        let (_, mut injection) = in_force(&NetworkLatency, with("0ms", "both")).await;
        let mut client = Client::connect(to).unwrap();
        assert!(client.ask().unwrap() < STRAIGHT);
        injection.adjust(&params(with("500ms", "both"))).await.unwrap();
        assert!(client.ask().unwrap() >= DELAY * 2);
        let effect = observed_samples(&mut injection, 2).await;
        assert_eq!((effect.measures.len(), effect.took), (2, Some(true)), "{effect:?}");
        assert!(effect.measures.iter().all(|m| m.samples == 1 && m.measured >= 500.0), "{effect:?}");
        injection.adjust(&params(with("500ms", "out"))).await.unwrap();
        let asked = client.ask().unwrap();
        assert!((DELAY..DELAY * 2).contains(&asked), "{asked:?}");
        let effect = observed_samples(&mut injection, 1).await;
        assert_eq!(effect.measures[0].name, "delay of what is sent");
    });
}

#[test]
fn a_client_that_was_told_to_connect_elsewhere_needs_no_privileges() {
    let test = "network_latency::tests::a_client_that_was_told_to_connect_elsewhere_needs_no_privileges";
    without_privileges(test, || async {
        let to = server();
        // A port that was free a moment ago; whoever takes it now makes the test fail, which says so.
        let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _bystander = bystander(to);
        let parameters = params(json!({"to": to.to_string(), "listen": at.to_string(), "delay": "500ms"}));
        let (plan, _) = planned(&NetworkLatency, &parameters, &host()).await;
        assert!(plan.path.contains(&at.to_string()) && plan.warnings[0].contains(" past "), "{plan:?}");
        assert!(Client::connect(at).is_err(), "a plan changes nothing");

        let through = NetworkLatency.pass_through(&parameters, &host()).await.unwrap();
        let e = NetworkLatency.plan(&parameters, &host()).await.unwrap_err();
        assert!(e.message.contains("somebody listens on"), "{e}");
        let mut old = Client::connect(at).unwrap();
        assert!(old.ask().unwrap() < STRAIGHT, "it forwards unchanged");

        let passage = NetworkLatency.passage(&parameters).unwrap().unwrap();
        let holder = toprope_os::process::ProcessId::current().unwrap();
        let pass_throughs = vec![toprope_engine::pass_through::Opened { passage, holder }];
        let inside = Host { pass_throughs, pass_through: Some(through.clone()), ..host() };
        let (plan, step) = planned(&NetworkLatency, &parameters, &inside).await;
        assert!(plan.warnings[0].starts_with("1 connection to "), "its own are not past it: {plan:?}");
        let e = NetworkLatency.apply(&step, &parameters, &host()).await.err().unwrap();
        assert!(e.message.contains("not the pass-through"), "{e}");
        let mut injection = NetworkLatency.apply(&step, &parameters, &inside).await.unwrap();
        let (_, second) = planned(&NetworkLatency, &parameters, &inside).await;
        let e = NetworkLatency.apply(&second, &parameters, &inside).await.err().unwrap();
        assert!(e.message.contains("another fault is in force"), "{e}");
        let mut new = Client::connect(at).unwrap();
        assert!(new.ask().unwrap() >= DELAY && old.ask().unwrap() >= DELAY);
        assert!(ask(to).unwrap() < STRAIGHT);
        let effect = observed_samples(&mut injection, 2).await;
        assert_eq!((effect.took, effect.reached), (Some(true), Some(2.0 / 3.0)), "{effect:?}");
        assert!(injection.release(PATIENCE).await.unwrap().is_none());
        assert!(new.ask().unwrap() < STRAIGHT && old.ask().unwrap() < STRAIGHT, "all go on");
        assert!(NetworkLatency.undo(&step, &host()).await.unwrap()[0].contains("are gone"));

        // As when the injector is killed.
        let injection = NetworkLatency.apply(&second, &parameters, &inside).await.unwrap();
        assert!(old.ask().unwrap() >= DELAY);
        drop(injection);
        assert!(old.ask().unwrap() < STRAIGHT);

        drop(inside);
        let closing = tokio::spawn(through.close(PATIENCE));
        eventually("nobody listens any more", || Client::connect(at).is_err());
        assert!(old.ask().unwrap() < STRAIGHT, "what is in flight goes on");
        drop((old, new));
        let (ended, cut) = closing.await.unwrap();
        assert!(ended >= 2 && cut == 0, "{ended} ended, {cut} were cut");
    });
}

#[test]
fn without_privileges_the_refusal_names_what_would_work() {
    let test = "network_latency::tests::without_privileges_the_refusal_names_what_would_work";
    without_privileges(test, || async {
        let e = NetworkLatency.plan(&params(everybody(server())), &host()).await.unwrap_err();
        assert!(e.message.contains("cannot be redirected") && e.message.contains("CAP_NET_ADMIN"), "{e}");
        let help = e.help.clone().unwrap();
        assert!(help.contains("as root") && help.contains("toprope exec") && help.contains("listen:"), "{help}");
        assert_eq!(format!("{e}; {help}").matches("as root").count(), 1, "the advice is given once: {e}; {help}");
    });
}

#[test]
fn when_its_process_is_killed_the_kernel_undoes_it() {
    const TEST: &str = "network_latency::tests::when_its_process_is_killed_the_kernel_undoes_it";
    if role().is_some() {
        return hold(&NetworkLatency);
    }
    in_own_network(TEST, || async {
        let to = server();
        let holder = Holder::start(TEST, &everybody(to));
        let mut led = Client::connect(to).unwrap();
        assert!(led.ask().unwrap() >= DELAY);
        holder.signal(Signal::KILL);
        let killed = Instant::now();
        eventually("new connections go straight", || ask(to).is_ok_and(|took| took < STRAIGHT));
        assert!(killed.elapsed().as_secs_f64() < 1.0, "{:?}", killed.elapsed());
        for _ in 0..2 {
            let notes = NetworkLatency.undo(&holder.step, &host()).await.unwrap();
            assert!(notes[0].contains("is gone"), "{notes:?}");
        }
        assert!(!nft::exists(&table(&holder.step)).unwrap());
        assert!(led.ask().is_err(), "what it led is cut");
    });
}

#[test]
fn while_its_process_stands_still_new_connections_go_straight() {
    const TEST: &str = "network_latency::tests::while_its_process_stands_still_new_connections_go_straight";
    if role().is_some() {
        return hold(&NetworkLatency);
    }
    in_own_network(TEST, || async {
        let to = server();
        let holder = Holder::start(TEST, &everybody(to));
        assert!(ask(to).unwrap() >= DELAY);
        holder.signal(Signal::STOP);
        std::thread::sleep(crate::network::testing::LEASE);
        eventually("new connections go straight", || {
            let mut client = Client::connect(to).unwrap();
            client.ask_within(STRAIGHT).is_ok()
        });
    });
}

#[test]
fn processes_in_another_network_are_refused() {
    in_own_network("processes_in_another_network_are_refused", || async {
        let away = toprope_os::namespace::Namespace::new_net().unwrap().run(crate::testing::Victim::sleeping).unwrap();
        let parameters = json!({"from": {"pid": away.pid()}, "to": "127.0.0.1:9", "delay": "500ms"});
        let e = NetworkLatency.plan(&params(parameters), &host()).await.unwrap_err();
        assert!(
            e.message.contains("all are in another network") && e.help.unwrap().contains("nsenter"),
            "{}",
            e.message
        );
    });
}

#[test]
fn a_real_client_of_redis_waits() {
    in_own_network("a_real_client_of_redis_waits", || async {
        let Some(redis) = Redis::start("a_real_client_of_redis_waits") else { return };
        assert!(redis.ping(3).unwrap() < DELAY);
        let (_, mut injection) = in_force(&NetworkLatency, everybody(redis.at)).await;
        let took = redis.ping(3).unwrap();
        assert!((DELAY * 3..DELAY * 6).contains(&took), "{took:?}");
        let effect = observed_samples(&mut injection, 3).await;
        assert_eq!((effect.took, effect.reached), (Some(true), Some(1.0)), "{effect:?}");
        injection.release(PATIENCE).await.unwrap();
        assert!(redis.ping(3).unwrap() < DELAY);
    });
}

#[test]
fn what_does_not_go_together_is_refused_at_its_place() {
    for (parameters, says) in [
        (json!({"to": "127.0.0.1:1", "delay": "1s"}), "whose connections are meant"),
        (json!({"to": ":1", "listen": ":2", "delay": "1s"}), "`to` must be one host and port"),
        (json!({"to": "10.0.0.0/8:1", "listen": ":2", "delay": "1s"}), "`to` must be one host and port"),
        (json!({"to": "127.0.0.1:1", "listen": "here", "delay": "1s"}), "not an address to listen on"),
        (json!({"to": "127.0.0.1:1", "from": {}, "delay": "1s"}), "selects nothing"),
    ] {
        let mut problems = Problems::default();
        check(&Node::from_json(&parameters), &mut problems);
        assert!(problems.to_string().contains(says), "{parameters}: {problems}");
    }
    let mut problems = Problems::default();
    check(&Node::from_json(&json!({"to": "db:1", "listen": ":15432", "delay": "1s"})), &mut problems);
    assert!(problems.0.is_empty(), "{problems}");
}

#[test]
fn a_delay_that_nobody_waits_for_is_seen_all_the_same() {
    use std::io::Write;
    in_own_network("a_delay_that_nobody_waits_for_is_seen_all_the_same", || async {
        for gives_up_by_reset in [false, true] {
            let to = server();
            let parameters = json!({"from": {"host": true}, "to": to.to_string(), "delay": "1h"});
            let (_, mut injection) = in_force(&NetworkLatency, parameters).await;
            let mut client = std::net::TcpStream::connect(to).unwrap();
            client.write_all(b"hello\n").unwrap();
            std::thread::sleep(Duration::from_millis(300));
            if gives_up_by_reset {
                toprope_os::sockets::reset_on_close(&client).unwrap();
            }
            drop(client);
            let begun = Instant::now();
            let effect = loop {
                let effect = observed(&mut injection).await;
                if effect.took.is_some() || begun.elapsed() > PATIENCE {
                    break effect;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            assert_eq!(effect.took, Some(true), "by a reset: {gives_up_by_reset}: {effect:?}");
            let [held] = &effect.measures[..] else { panic!("{effect:?}") };
            assert_eq!((held.name.as_str(), held.asked), ("time for which what comes back is held so far", None));
            assert!(held.measured >= 100.0, "{effect:?}");
            injection.release(PATIENCE).await.unwrap();
        }
    });
}
