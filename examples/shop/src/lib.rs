//! The demo shop: five small HTTP services, as five real processes, to practise chaos engineering on.
//!
//! The shop has five planted weaknesses, each an honest piece of code of the kind that reaches production; with
//! `fixed` the same shop runs repaired. `README.md` beside this crate tells what each weakness does, how it shows and how
//! it was mended; [`TOPOLOGY`] tells what depends on what.
//!
//! - [`Shop`] starts the five processes, keeps them, and ends them when it is dropped.
//! - [`cli`] is the command line: `shop up`, and `shop SERVICE`, which is what each of the processes runs.
//! - [`run`] serves one service inside the calling process.

mod cart;
mod catalog;
pub mod cli;
mod error;
mod gateway;
mod keeper;
mod metrics;
mod payments;
mod recommendations;
mod reply;
mod serve;
mod service;
mod shop;
mod store;

pub use error::Error;
pub use serve::{Options, run};
pub use service::{Addresses, DEFAULT_BASE_PORT, Service, free_base_port, ports};
pub use shop::{Launch, Output, Shop};

/// The shop's topology manifest, with the addresses that [`DEFAULT_BASE_PORT`] gives.
pub const TOPOLOGY: &str = include_str!("../topology.yaml");
