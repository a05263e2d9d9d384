//! The proxy between real sockets on loopback: what comes out of it, when, and how it ends.

mod bytes;
mod endings;
mod harness;
mod timing;
mod upstream;
