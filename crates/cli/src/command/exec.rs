//! `toprope exec`: any command, run unchanged under faults.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value as Json, json};
use toprope_model::target::Endpoint;
use toprope_os::namespace::{self, UserMap};
use toprope_os::user::Identity;

use super::inject::fault_step;
use super::run::{execute, setup};
use crate::args::ExecArgs;
use crate::invocation::{Failure, keep_launcher, state, tables};
use crate::reach::Outside;
use crate::{load, show};

/// Runs the command once while the faults are in force; the verdict is its exit status.
pub fn exec(args: &ExecArgs) -> Result<u8, Failure> {
    let command = args.command.iter().map(|word| word.to_str().map(str::to_owned)).collect::<Option<Vec<String>>>();
    let command = command.ok_or_else(|| Failure::new("the command is not UTF-8"))?;
    must_be_there(&command[0])?;
    let mut steps: Vec<Json> = args.faults.iter().map(|text| step(text)).collect::<Result<_, _>>()?;
    if steps.is_empty() {
        return Err(Failure::new("no --fault was given")
            .help("for instance --fault 'network-latency to=127.0.0.1:5432 delay=200ms'"));
    }
    let reach = network(&steps, &args.reach)?;
    // Asked for before another network, and maybe another user, is entered.
    state()?;
    let carried = match reach {
        Some(addresses) => Some(enter_network(&addresses)?),
        None => None,
    };
    for step in &mut steps {
        lasting(step, &args.timeout, carried.is_some())?;
    }
    let manifest = json!({
        "apiVersion": toprope_model::API_VERSION,
        "kind": "Experiment",
        "metadata": {"name": "exec"},
        "spec": {
            "hypothesis": format!("`{}` succeeds under {}", command.join(" "), args.faults.join(" and ")),
            "steady-state": {"for": "0s"},
            "probes": [{"command": {
                "name": "command", "run": command, "when": "at", "samples": 1, "timeout": args.timeout, "show": true
            }}],
            "method": [{"parallel": steps}],
        },
    });
    let loaded = load::from_json(&manifest, None, &tables())?;
    let mut setup = setup(&loaded, "exec")?;
    setup.seed = args.seed;
    if carried.is_some() && !Identity::current().is_ok_and(|i| i.uid == 0) {
        // Where the injectors are, there is only one user: root, who is this one.
        setup.invoking_user = None;
    }
    let exit = execute(&loaded, setup, &args.output);
    drop(carried);
    exit
}

/// Refuses a program that is not there, before anything is injected for it.
fn must_be_there(program: &str) -> Result<(), Failure> {
    let there = match program.contains('/') {
        true => std::path::Path::new(program).is_file(),
        false => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|directory| directory.join(program).is_file()),
    };
    match there {
        true => Ok(()),
        false => Err(Failure::new(format!("there is no program `{program}`"))
            .help("write its name as in PATH, or its path; shell syntax needs a shell: -- sh -c '…'")),
    }
}

/// `kind key=value …` as a step.
fn step(text: &str) -> Result<Json, Failure> {
    let mut words = text.split_whitespace().map(str::to_owned);
    let kind = words.next().ok_or_else(|| Failure::new("--fault is empty"))?;
    fault_step(&kind, &words.collect::<Vec<_>>())
}

/// Every fault stays in force while the command runs; inside a network of its own, `from` is the command.
fn lasting(step: &mut Json, timeout: &str, own_network: bool) -> Result<(), Failure> {
    let Some((kind, params)) = step.as_object_mut().and_then(|map| map.iter_mut().next()) else { return Ok(()) };
    let tables = tables();
    let Some(spec) = tables.fault(kind) else { return Ok(()) };
    if !spec.lasting {
        let message = format!("`{kind}` happens at one instant, and a command is run under faults that stay in force");
        return Err(Failure::new(message).help("use it in an experiment: toprope run"));
    }
    let has = |key: &str| (spec.spec.fields)().iter().any(|f| f.key == key);
    if own_network && has("from") && params.get("from").is_none() {
        params["from"] = json!({"host": true});
    }
    if params.get("for").is_none() {
        params["for"] = json!(timeout);
    }
    if has("to") && params.get("drain").is_none() {
        params["drain"] = json!("1s");
    }
    Ok(())
}

/// The addresses that the command must reach, if it needs a network of its own; `None` if it does not.
fn network(steps: &[Json], reach: &[String]) -> Result<Option<Vec<SocketAddr>>, Failure> {
    let mut addresses = BTreeSet::new();
    let mut needed = !reach.is_empty();
    for text in reach {
        addresses.extend(loopback(text)?);
    }
    for step in steps {
        let Some((kind, params)) = step.as_object().and_then(|map| map.iter().next()) else { continue };
        if !kind.starts_with("network-") || params.get("listen").is_some() {
            continue;
        }
        needed = true;
        match params.get("to").and_then(Json::as_str) {
            Some(to) => addresses.extend(loopback(to)?),
            None => return Err(Failure::new(format!("`{kind}` needs `to=127.0.0.1:PORT` under exec"))),
        }
    }
    Ok(needed.then(|| addresses.into_iter().collect()))
}

/// A service on this host's loopback; a name means both families.
fn loopback(text: &str) -> Result<Vec<SocketAddr>, Failure> {
    let endpoint: Endpoint = text.parse().map_err(|why| Failure::new(format!("`{text}` is no address: {why}")))?;
    let Some(port) = endpoint.port else { return Err(Failure::new(format!("`{text}` has no port"))) };
    match endpoint.host.as_deref() {
        None | Some("localhost") => Ok(vec![([127, 0, 0, 1], port).into()]),
        Some(host) => match host.parse::<std::net::IpAddr>() {
            Ok(ip) if ip.is_loopback() => Ok(vec![SocketAddr::new(ip, port)]),
            _ => Err(Failure::new(format!("`{text}` is not on this host's loopback")).help(
                "under exec a command has a network of its own, with this host's loopback services and no others",
            )),
        },
    }
}

/// Leaves this host's network for one with nothing but the given services in it.
fn enter_network(addresses: &[SocketAddr]) -> Result<std::os::unix::net::UnixStream, Failure> {
    let failed = |e: toprope_os::Error| Failure::new(e.to_string());
    let is_root = Identity::current().is_ok_and(|i| i.uid == 0);
    if !is_root && let Err(why) = namespace::supported() {
        let message = format!("a command needs a network of its own here, and that cannot be had: {why}");
        return Err(Failure::new(message).help(
            "give the fault a listener and point the command at it: --fault 'network-latency listen=127.0.0.1:15432 to=127.0.0.1:5432 …'",
        ));
    }
    let outside = Outside::start()?;
    let me = Identity::current().map_err(failed)?;
    if is_root {
        namespace::enter_new_net().map_err(failed)?;
    } else {
        namespace::enter_new_user_and_net(UserMap::Root).map_err(failed)?;
    }
    let carried = outside.reach(addresses)?;
    if !is_root {
        // Only who starts injectors stays root in that network; the command sees the user that it is.
        keep_launcher()?;
        if let Err(why) = namespace::enter_new_user_as(me.uid, me.gid) {
            show::note(&format!(
                "the command sees itself as root, because user {} cannot be shown to it: {why}",
                me.uid
            ));
        }
    }
    let shown = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    show::note(&format!("the command has a network of its own, with {shown} of this host's loopback in it"));
    Ok(carried)
}
