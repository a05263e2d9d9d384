//! Every built-in fault: one file each, and one line in [`FAULTS`].

mod network;
mod network_latency;
mod process_kill;
mod process_pause;
mod targeted;

#[cfg(test)]
mod testing;

use toprope_engine::fault::FaultTable;

/// The table of faults, in the order in which they are listed to users.
pub static FAULTS: FaultTable =
    FaultTable(&[&process_kill::ProcessKill, &process_pause::ProcessPause, &network_latency::NetworkLatency]);
