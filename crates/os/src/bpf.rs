//! Redirection of the connections that named processes make, by BPF programs of a control group: the packet filter
//! cannot tell processes apart, and needs a control group or user of their own for that.
//!
//! The programs run inside connect(2): who is named and asks for a destination that is named is connected to a local
//! port instead. They are attached by links that are never pinned, so the kernel detaches them with our last
//! descriptor, `kill -9` included (measured: below 1 ms). A flow that was connected stays connected.
//!
//! The programs are assembled here: a compiler for them would be needed where Toprope is built, or its output committed.

mod assembler;
mod listing;
mod program;
mod redirect;
mod sys;

pub use listing::{links, programs};
pub use redirect::{ConnectRedirect, ConnectRule, supported};

#[cfg(test)]
mod tests;
