//! How long `toprope --version` takes.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::{Row, percentiles};
use crate::failure::Failure;
use crate::workspace::output;

/// Starts it again and again, and beside it a program that does nothing: what is left is Toprope's own.
pub(super) fn measure(toprope: &Path, rounds: usize) -> Result<Vec<Row>, Failure> {
    let time = |program: &Path| {
        let begun = Instant::now();
        output(Command::new(program).arg("--version")).map(|_| begun.elapsed())
    };
    let nothing = Path::new("/bin/true");
    // The first start reads the binary from the disk.
    time(toprope)?;
    let (mut own, mut least) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        own.push(time(toprope)?);
        least.push(time(nothing)?);
    }
    let measured = format!("{}; `/bin/true` in turn with it {}", percentiles(&mut own), percentiles(&mut least));
    Ok(vec![Row { what: "`toprope --version`".into(), goal: "≤ 10 ms", measured }])
}
