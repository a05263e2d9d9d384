//! What can go wrong in starting or serving the shop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::Service;

/// Why the shop, or one of its services, could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The base port leaves no room for five ports.
    #[error("the shop needs five ports from its base port on, and {base} has not so many: choose one from 1 to 65531")]
    Ports {
        /// The base port that was asked for.
        base: u16,
    },
    /// No five free ports in a row.
    #[error("no five free ports in a row from 20000 to 29999: end what listens there, or name a base port")]
    NoFreePorts,
    /// The address to listen on is taken or not ours.
    #[error("{service} cannot listen on {listen}: {source}. Is another shop running? Choose another port")]
    Bind {
        /// The service that was to listen.
        service: Service,
        /// Where.
        listen: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The data directory cannot be made.
    #[error("cannot make the data directory {}: {source}. Choose a directory you may write with --data", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A store cannot be opened, or written when the service ends.
    #[error("the store {}: {source}. Remove the file to begin with an empty store", path.display())]
    Store {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// The HTTP client cannot be built.
    #[error("cannot build the gateway's HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The TLS configuration that the HTTP client must have, although it speaks plain HTTP only.
    #[error("cannot build the gateway's TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    /// The kernel refused something that a service needs to run at all.
    #[error("cannot {what}: {source}")]
    Os {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The process that this service must not outlive has gone already.
    #[error("the parent process {parent} has gone: not starting {service}")]
    Orphaned {
        /// The service.
        service: Service,
        /// The process that was to be its parent.
        parent: u32,
    },
    /// A service's process cannot be started.
    #[error("cannot start {service} with {}: {source}", exe.display())]
    Spawn {
        /// The service.
        service: Service,
        /// The executable.
        exe: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A service's process ended while the shop waited for it.
    #[error("{service} ended ({status}) before it was healthy{}", last_words(.log))]
    Exited {
        /// The service.
        service: Service,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote; empty when it wrote to the terminal.
        log: String,
    },
    /// A service did not become healthy in time.
    #[error("{service} at {address} was not healthy within {waited:?}{}", last_words(.log))]
    Unhealthy {
        /// The service.
        service: Service,
        /// Where it was asked.
        address: SocketAddr,
        /// How long the shop waited.
        waited: Duration,
        /// The end of what it wrote; empty when it wrote to the terminal.
        log: String,
    },
    /// The thread that keeps the processes has gone.
    #[error("the thread that keeps the shop's processes has ended: start the shop anew")]
    KeeperGone,
}

fn last_words(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(". It wrote:\n{log}") }
}
