//! The binary `toprope`.
fn main() {}
