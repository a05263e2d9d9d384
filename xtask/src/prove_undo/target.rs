//! What faults are injected into: small services and clients, each a process of its own.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;

/// How long an exchange over loopback may take before it counts as hindered. Faults hinder for much longer.
const PROMPT: Duration = Duration::from_millis(10);
/// How much is sent and comes back.
const PAYLOAD: [u8; 64] = [b'p'; 64];

/// What a target is.
#[derive(Debug, Subcommand)]
pub(crate) enum Target {
    /// Sends back whatever it gets
    Serve {
        /// Where it listens
        address: SocketAddr,
    },
    /// Asks a service again and again, and prints `+` when it answers promptly and `-` when not
    Client {
        /// The service
        address: SocketAddr,
        /// Ends after so many milliseconds, as a process in a crash loop does
        #[arg(long)]
        crash_after: Option<u64>,
        /// What tells its command line from others'
        #[arg(long)]
        tag: Option<u32>,
    },
    /// A flag over HTTP, kept in a file: PUT makes it, DELETE takes it away, GET says `on` or `off`
    Flag {
        /// Where it listens
        address: SocketAddr,
        /// The flag
        file: std::path::PathBuf,
    },
    /// Does nothing
    Idle,
    /// Holds a file without a name, of one MiB
    HoldSpace {
        /// The directory
        directory: std::path::PathBuf,
    },
    /// Holds BPF programs and links
    HoldBpf,
}

/// Is the target, for ever.
///
/// # Errors
/// A socket or file cannot be used.
pub(crate) fn be(target: &Target) -> io::Result<ExitCode> {
    match target {
        Target::Serve { address } => serve(*address, echo),
        Target::Client { address, crash_after, .. } => ask(*address, crash_after.map(Duration::from_millis)),
        Target::Flag { address, file } => {
            let file = file.clone();
            serve(*address, move |stream| answer(stream, &file))
        }
        Target::Idle => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        Target::HoldSpace { directory } => {
            let path = directory.join("unnamed");
            let mut file = File::create(&path)?;
            file.write_all(&vec![1; 1 << 20])?;
            fs::remove_file(path)?;
            be(&Target::Idle)
        }
        Target::HoldBpf => {
            let group = toprope_os::cgroup::V2::find().and_then(|v2| v2.group("/")).map_err(io::Error::other)?;
            let _held = toprope_os::bpf::ConnectRedirect::attach(&group, &[]).map_err(io::Error::other)?;
            be(&Target::Idle)
        }
    }
}

fn serve(at: SocketAddr, each: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> io::Result<ExitCode> {
    let listener = TcpListener::bind(at)?;
    for stream in listener.incoming() {
        let (stream, each) = (stream?, each.clone());
        std::thread::spawn(move || each(stream));
    }
    Ok(ExitCode::SUCCESS)
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let read = stream.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..read])?;
    }
}

fn ask(address: SocketAddr, crash_after: Option<Duration>) -> io::Result<ExitCode> {
    let started = Instant::now();
    let mut out = io::stdout();
    while crash_after.is_none_or(|limit| started.elapsed() < limit) {
        out.write_all(if is_prompt(address) { b"+" } else { b"-" })?;
        out.flush()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(ExitCode::FAILURE)
}

/// Whether a service that sends back what it gets does so promptly, over a new connection.
pub(crate) fn is_prompt(address: SocketAddr) -> bool {
    let exchange = || -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&address, PROMPT)?;
        stream.set_read_timeout(Some(PROMPT))?;
        stream.write_all(&PAYLOAD)?;
        let mut back = [0; PAYLOAD.len()];
        stream.read_exact(&mut back)
    };
    exchange().is_ok()
}

fn answer(stream: TcpStream, flag: &std::path::Path) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    match request.split(' ').next() {
        Some("PUT") => fs::write(flag, body)?,
        // It may have been taken away before.
        Some("DELETE") => drop(fs::remove_file(flag)),
        _ => {}
    }
    let state = if flag.exists() { "on" } else { "off" };
    let mut stream = stream;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{state}", state.len())
}
