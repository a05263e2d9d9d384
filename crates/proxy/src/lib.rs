//! A TCP proxy that breaks what passes through it, on purpose and to measure.
//!
//! It stands between clients and an upstream and puts their streams under [`Rules`]: [`Latency`], [`Bandwidth`],
//! [`Blackhole`], [`Refuse`], alone or together, in one direction or both, on all connections or a seeded share. The rules
//! can change while connections run, and [`Proxy::stats`] tells what they really did to the traffic.
//!
//! ```
//! use std::{net::TcpListener, time::Duration};
//! use toprope_proxy::{Config, Direction, Latency, Proxy, Rules};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let database = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
//! let slow = Rules::seeded(7).add(Direction::Down, Latency::new(Duration::from_millis(200)));
//! let proxy = Proxy::start(Config::new(TcpListener::bind("127.0.0.1:0")?, database).rules(slow))?;
//! println!("connect to {} instead", proxy.addresses()[0]);
//! let drained = proxy.drain(Duration::from_secs(30)).await;
//! # assert_eq!((drained.carried, drained.cut), (0, 0));
//! # Ok(())
//! # }
//! ```
//!
//! # What it keeps of TCP
//!
//! - Bytes: none lost, doubled or reordered, whatever the rules and however they change.
//! - Half-close: the end of one direction is passed on as such, the other goes on.
//! - Resets: passed on as resets, behind the bytes that came before them. A refused or silent upstream resets the client,
//!   never an orderly end.
//! - Back pressure: a slow receiver slows the sender.
//!
//! The handshake is not kept: the kernel accepts a client before the upstream is called.
//!
//! # Memory, and what it means for throughput
//!
//! A direction of a connection buffers as much as its rules hold back at 1 GB/s, or at the rate of a bandwidth rule: 64 KiB
//! without a delay, and never more than 8 MiB (bytes and bookkeeping). So a delay is no rate limit up to 8 MiB / delay per
//! connection, which is 1 GB/s up to 8 ms, 84 MB/s at 100 ms, 8.4 MB/s at 1 s. An idle connection buffers nothing.

#![forbid(unsafe_code)]

mod clock;
mod config;
mod connection;
mod flow;
mod proxy;
mod queue;
mod rules;
mod shape;
mod stats;
mod timer;

pub use clock::Moment;
pub use rand_chacha::ChaCha8Rng;

pub use config::{Config, Listener, Upstream};
pub use proxy::{Drained, Proxy, StartError};
pub use rules::{Admission, Bandwidth, Blackhole, Direction, Latency, Refuse, Rule, Rules, Scope, Shaper};
pub use stats::{Connections, Delays, Flow, Stats};
