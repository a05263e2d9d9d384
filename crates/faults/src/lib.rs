//! Every built-in fault: one file each, and one line in [`FAULTS`].

mod command;
mod cpu_stress;
mod disk_fill;
mod extent;
mod http;
mod manual;
mod memory_stress;
mod network;
mod network_bandwidth;
mod network_latency;
mod network_loss;
mod network_partition;
mod process_kill;
mod process_pause;
mod process_restart;
mod program;
mod scripted;
mod targeted;
mod thread;

#[cfg(test)]
mod every_fault;
#[cfg(test)]
mod testing;

use toprope_engine::fault::FaultTable;

/// The table of faults, in the order in which they are listed to users.
#[rustfmt::skip]
pub static FAULTS: FaultTable = FaultTable(&[
    &process_kill::ProcessKill,
    &process_pause::ProcessPause,
    &process_restart::ProcessRestart,
    &cpu_stress::CpuStress,
    &memory_stress::MemoryStress,
    &disk_fill::DiskFill,
    &network_partition::NetworkPartition,
    &network_loss::NetworkLoss,
    &network_latency::NetworkLatency,
    &network_bandwidth::NetworkBandwidth,
    &command::Command,
    &http::Http,
    &manual::ManualStep,
]);
