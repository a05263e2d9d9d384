//! `toprope schema`

use toprope_model::schema;

use crate::args::SchemaArgs;
use crate::invocation::{Failure, tables};
use crate::show;

/// Prints a manifest's JSON schema.
pub fn schema(args: &SchemaArgs) -> Result<u8, Failure> {
    let schema = match args.kind.to_lowercase().as_str() {
        "experiment" => schema::file::experiment(&tables()),
        "policy" => schema::policy(),
        "topology" => schema::file::topology(&tables()),
        _ => {
            return Err(Failure::new(format!("there is no schema of `{}`", args.kind))
                .help("known: Experiment, Policy, Topology"));
        }
    };
    show::line(&serde_json::to_string_pretty(&schema).unwrap_or_default());
    Ok(0)
}
