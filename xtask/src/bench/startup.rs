//! How long `toprope --version` takes.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::{Row, percentiles};
use crate::failure::Failure;
use crate::workspace::output;

/// Starts it again and again.
pub(super) fn measure(toprope: &Path, rounds: usize) -> Result<Vec<Row>, Failure> {
    let mut times = Vec::new();
    // The first start reads the binary from the disk.
    for _ in 0..=rounds {
        let begun = Instant::now();
        output(Command::new(toprope).arg("--version"))?;
        times.push(begun.elapsed());
    }
    let measured = percentiles(&mut times[1..]);
    Ok(vec![Row { what: "`toprope --version`".into(), goal: "≤ 10 ms", measured }])
}
