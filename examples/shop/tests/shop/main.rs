//! The shop as its customers and its operators meet it: real processes, killed, stopped and asked over HTTP.

#![expect(clippy::unwrap_used, reason = "a test's own helpers fail the test as the test itself does")]

mod keeping;
mod normal;
mod support;
mod weaknesses;
