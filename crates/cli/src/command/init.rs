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
    speaks: Speaks,
}

/// What is known of how something talks. Only an answer shows that a process works: its kernel accepts connections for
/// one that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// HTTP, with this status for `GET /`.
    Http(u16),
    Redis,
    Postgres,
    /// It says something as soon as one has connected, as servers for mail, MySQL and SSH do.
    First,
    /// Nothing that was understood.
    Unknown,
}

impl Speaks {
    fn in_words(self) -> String {
        match self {
            Self::Http(status) => format!(", HTTP {status}"),
            Self::Redis => ", Redis".into(),
            Self::Postgres => ", PostgreSQL".into(),
            Self::First | Self::Unknown => String::new(),
        }
    }

    /// The best to begin with first: what answers with a page, then what speaks HTTP at all, then what answers.
    fn rank(self) -> u8 {
        match self {
            Self::Http(status) if status < 400 => 0,
            Self::Http(_) => 1,
            Self::Redis | Self::Postgres => 2,
            Self::First => 3,
            Self::Unknown => 4,
        }
    }
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
    found.sort_by_key(|l| (l.speaks.rank(), l.process.is_none(), l.address.port()));
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
    let sockets = tcp_sockets(&[TcpState::Listen]).map_err(|e| Failure::new(e.to_string()))?;
    let owners = SocketOwners::of_all().map_err(|e| Failure::new(e.to_string()))?;
    let mut found: Vec<Listening> = Vec::new();
    for socket in &sockets {
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
        let (address, process) = (SocketAddr::new(ip, port), owner.map(|p| p.name));
        found.push(Listening { address, process, speaks: Speaks::Unknown });
    }
    if let (Some(port), true) = (only, found.is_empty()) {
        return Err(Failure::new(format!("nothing listens on port {port}")).help("leave out --port to see what does"));
    }
    found.truncate(MOST);
    Ok(found)
}

async fn ask(found: &mut [Listening]) {
    let asked = found.iter().map(|l| speaks(l.address));
    let answers = futures::future::join_all(asked).await;
    found.iter_mut().zip(answers).for_each(|(l, speaks)| l.speaks = speaks);
}

/// Finds out how something talks, with one new connection for each question.
async fn speaks(address: SocketAddr) -> Speaks {
    // PostgreSQL's SSLRequest, which it answers with one byte whoever asks (its protocol, "SSL Session Encryption").
    const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
    if let Some(status) = status(address).await {
        return Speaks::Http(status);
    }
    if !said(address, b"").await.is_empty() {
        return Speaks::First;
    }
    let pong = said(address, b"PING\r\n").await;
    if [b"+PONG".as_slice(), b"-NOAUTH", b"-DENIED"].iter().any(|answer| pong.starts_with(answer)) {
        return Speaks::Redis;
    }
    match said(address, SSL_REQUEST).await.as_slice() {
        b"S" | b"N" => Speaks::Postgres,
        _ => Speaks::Unknown,
    }
}

/// The first that something says to this; nothing if it says nothing in time.
async fn said(address: SocketAddr, question: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let answer = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(question).await.ok()?;
        let mut bytes = [0u8; 64];
        let n = stream.read(&mut bytes).await.ok()?;
        Some(bytes[..n].to_vec())
    };
    tokio::time::timeout(PATIENCE, answer).await.ok().flatten().unwrap_or_default()
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
            let (kind, mut probe) = match l.speaks {
                Speaks::Http(status) => ("http", json!({"get": format!("http://{}/", l.address), "status": status})),
                Speaks::Redis => ("redis", json!({"url": format!("redis://{}", l.address)})),
                Speaks::Postgres => {
                    ("sql", json!({"url": format!("postgres://postgres@{}/postgres", l.address), "query": "select 1"}))
                }
                Speaks::First => ("tcp", json!({"connect": l.address.to_string(), "matches": "(?s)."})),
                Speaks::Unknown => ("tcp", json!({"connect": l.address.to_string()})),
            };
            probe["interval"] = json!("100ms");
            probe["timeout"] = json!("1s");
            probe["recovers"] = json!({"within": "5s"});
            let name = format!("{}-comes-back", slug(&who));
            let (hypothesis, method) = match l.speaks {
                // To connect is all that can be asked, and the kernel lets one connect to a process that hangs.
                Speaks::Unknown => (
                    format!("{who} can be reached again within 5 seconds after the network to it was cut for 2"),
                    json!({"network-partition": {
                        "from": {"host": true}, "to": l.address.to_string(), "for": "2s"
                    }}),
                ),
                _ => (
                    format!("{who} answers again within 5 seconds after it hung for 2"),
                    json!({"process-pause": {"target": {"port": l.address.port()}, "for": "2s"}}),
                ),
            };
            (name, hypothesis, json!({kind: probe}), method)
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
        let what = l.speaks.in_words();
        text.push_str(&format!("#   {:<24} {}{what}\n", l.address.to_string(), l.process.as_deref().unwrap_or("?")));
    }
    if found.first().is_some_and(|l| l.speaks == Speaks::Postgres) {
        text.push_str("# Write a user and a database that it has; a password is given with `password: {env: NAME}`.\n");
    }
    if found.first().is_some_and(|l| l.speaks == Speaks::Redis) {
        text.push_str("# Where it wants a password: `password: {env: NAME}`.\n");
    }
    text + yaml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_listens_the_experiment_is_valid() {
        let at =
            |speaks| Listening { address: "127.0.0.1:80".parse().unwrap(), process: Some("Foo Bar".into()), speaks };
        let all =
            [Speaks::Http(200), Speaks::Http(404), Speaks::Redis, Speaks::Postgres, Speaks::First, Speaks::Unknown];
        for first in all.map(at).into_iter().map(Some).chain([None]) {
            let manifest = experiment(first.as_ref());
            load::from_json(&manifest, None, &tables()).unwrap_or_else(|e| panic!("{e:?}"));
            // The kernel accepts for a process that hangs: who only connects would see no pause, and hold in vain.
            let (spec, text) = (&manifest["spec"], manifest.to_string());
            let only_connects = spec["probes"][0]["tcp"].is_object() && !text.contains("matches");
            assert!(!(only_connects && text.contains("process-pause")), "{text}");
        }
    }

    #[tokio::test]
    async fn how_something_talks_is_found_out_by_asking() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        /// Answers what begins with a question.
        async fn server(greeting: &'static [u8], question: &'static [u8], answer: &'static [u8]) -> SocketAddr {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        stream.write_all(greeting).await?;
                        let mut asked = [0; 256];
                        while let Ok(n @ 1..) = stream.read(&mut asked).await {
                            if !question.is_empty() && asked[..n].starts_with(question) {
                                stream.write_all(answer).await?;
                            }
                        }
                        Ok::<_, std::io::Error>(())
                    });
                }
            });
            address
        }
        assert_eq!(speaks(server(b"", b"GET ", b"HTTP/1.1 404 Not Found\r\n").await).await, Speaks::Http(404));
        assert_eq!(speaks(server(b"", b"PING", b"+PONG\r\n").await).await, Speaks::Redis);
        assert_eq!(speaks(server(b"", &[0, 0, 0, 8], b"N").await).await, Speaks::Postgres);
        assert_eq!(speaks(server(b"SSH-2.0-x\r\n", b"", b"").await).await, Speaks::First);
        assert_eq!(speaks(server(b"", b"", b"").await).await, Speaks::Unknown);
    }
}
