//! `toprope init`: a first experiment from what is listening on this machine.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use toprope_model::Node;
use toprope_os::process::ProcessInfo;
use toprope_os::sockets::{SocketOwners, TcpState, tcp_sockets};

use crate::args::InitArgs;
use crate::invocation::{Failure, runtime, tables};
use crate::{load, show};

/// How long a port may take to show that it speaks HTTP.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many ports are asked; a machine with more has its own list.
const MOST: usize = 30;

/// Something that listens.
#[derive(Debug, Clone, PartialEq)]
struct Listening {
    address: SocketAddr,
    process: Option<String>,
    /// The path that answered well, if it speaks HTTP.
    http: Option<u16>,
}

/// Writes an experiment that is ready to be planned, and says what to do with it.
pub fn init(args: &InitArgs) -> Result<u8, Failure> {
    let standard_output = args.file == Path::new("-");
    if args.file.exists() && !args.force && !standard_output {
        let message = format!("{} is there already", args.file.display());
        return Err(Failure::new(message).help("give another name, or --force to replace it"));
    }
    let mut found = listening(args.port)?;
    runtime()?.block_on(ask(&mut found));
    // What answers with a page is the best to begin with, then what speaks HTTP at all, then whatever listens.
    found.sort_by_key(|l| (l.http.is_none_or(|s| s >= 400), l.http.is_none(), l.process.is_none(), l.address.port()));
    let manifest = experiment(found.first());
    load::from_json(&manifest, None, &tables())?;
    let text = with_comments(&Node::from_json(&manifest).to_yaml(), &found);
    if standard_output {
        show::text(&text);
        return Ok(0);
    }
    let mut options = std::fs::File::options();
    let file =
        if args.force { options.write(true).create(true).truncate(true) } else { options.write(true).create_new(true) };
    let written = file.open(&args.file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| Failure::new(format!("cannot write {}: {e}", args.file.display())))?;
    let name = args.file.display();
    show::line(&format!(
        "wrote {name}\n\nnext:\n  toprope plan {name}   what it would do here, changing nothing\n  toprope run {name}    do it, undo it, and see"
    ));
    Ok(0)
}

fn listening(only: Option<u16>) -> Result<Vec<Listening>, Failure> {
    let sockets = tcp_sockets().map_err(|e| Failure::new(e.to_string()))?;
    let owners = SocketOwners::of_all().map_err(|e| Failure::new(e.to_string()))?;
    let mut found: Vec<Listening> = Vec::new();
    for socket in sockets.iter().filter(|s| s.state == TcpState::Listen) {
        let port = socket.local.port();
        if only.is_some_and(|p| p != port) || found.iter().any(|l| l.address.port() == port) {
            continue;
        }
        let ip = match socket.local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let owner = owners.pids(socket.inode).first().and_then(|pid| ProcessInfo::of(*pid).ok());
        found.push(Listening { address: SocketAddr::new(ip, port), process: owner.map(|p| p.name), http: None });
    }
    if let (Some(port), true) = (only, found.is_empty()) {
        return Err(Failure::new(format!("nothing listens on port {port}")).help("leave out --port to see what does"));
    }
    found.truncate(MOST);
    Ok(found)
}

async fn ask(found: &mut [Listening]) {
    let asked = found.iter().map(|l| status(l.address));
    let statuses = futures::future::join_all(asked).await;
    found.iter_mut().zip(statuses).for_each(|(l, status)| l.http = status);
}

/// The status of `GET /`; `None` from what does not speak HTTP.
async fn status(address: SocketAddr) -> Option<u16> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let answer = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = [0u8; 12];
        stream.read_exact(&mut head).await.ok()?;
        std::str::from_utf8(&head).ok()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
    };
    tokio::time::timeout(PATIENCE, answer).await.ok().flatten()
}

fn experiment(first: Option<&Listening>) -> Json {
    let (name, hypothesis, probe, method) = match first {
        Some(l) => {
            let who = l.process.clone().unwrap_or_else(|| format!("port-{}", l.address.port()));
            let probe = match l.http {
                Some(status) => {
                    json!({"http": {"get": format!("http://{}/", l.address), "status": status, "interval": "100ms",
                    "timeout": "1s", "recovers": {"within": "5s"}}})
                }
                None => {
                    json!({"tcp": {"connect": l.address.to_string(), "interval": "100ms", "timeout": "1s", "recovers": {"within": "5s"}}})
                }
            };
            let method = json!({"process-pause": {"target": {"port": l.address.port()}, "for": "2s"}});
            (
                format!("{}-comes-back", slug(&who)),
                format!("{who} answers again within 5 seconds after it hung for 2"),
                probe,
                method,
            )
        }
        None => (
            "this-host-stays-usable".to_owned(),
            "a program still starts at once on a busy host".to_owned(),
            json!({"command": {"run": ["true"], "interval": "200ms", "p90": "< 200ms"}}),
            json!({"cpu-stress": {"load": "90%", "for": "5s"}}),
        ),
    };
    json!({
        "apiVersion": toprope_model::API_VERSION,
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {"hypothesis": hypothesis, "probes": [probe], "method": [method]},
    })
}

/// A name that a manifest may have.
fn slug(text: &str) -> String {
    let slug: String = text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    slug.trim_matches('-').to_owned()
}

fn with_comments(yaml: &str, found: &[Listening]) -> String {
    let mut text =
        String::from("# Written by `toprope init`. `toprope faults` and `toprope probes` list what else there is.\n");
    if found.len() > 1 {
        text.push_str("#\n# What listens on this machine:\n");
    }
    for l in found.iter().filter(|_| found.len() > 1) {
        let what = l.http.map_or(String::new(), |status| format!(", HTTP {status}"));
        text.push_str(&format!("#   {:<24} {}{what}\n", l.address.to_string(), l.process.as_deref().unwrap_or("?")));
    }
    text + yaml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_listens_the_experiment_is_valid() {
        let at = |http| Listening { address: "127.0.0.1:80".parse().unwrap(), process: Some("Foo Bar".into()), http };
        for first in [None, Some(at(None)), Some(at(Some(200))), Some(at(Some(404)))] {
            let manifest = experiment(first.as_ref());
            load::from_json(&manifest, None, &tables()).unwrap_or_else(|e| panic!("{e:?}"));
        }
    }
}
