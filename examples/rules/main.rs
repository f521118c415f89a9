//! Checks and drafts documents of key rules.
//!
//! ```text
//! cargo run --example rules --features serde,body-key -- --check examples/rules/wordpress.json \
//!     --table examples/rules/wordpress.table.json
//! cargo run --example rules --features serde,body-key -- --schema
//! cargo run --example rules --features serde,body-key -- --from-openapi api.json
//! ```
//!
//! `--check` prints what each rule matches, keys, stores and purges, and warns of probable mistakes. With
//! `--table` it also sends the requests of a table through the layers, and compares the results with the table.
//! It fails if the document is invalid or the table is not met, and with `--deny-warnings` if there is a warning.
//!
//! `--schema` prints the JSON Schema of documents, for editors.
//!
//! `--from-openapi` drafts a document from the description of an API, OpenAPI 3.0 or 3.1 in JSON: reads that
//! need no authorisation have a rule each, with their parameters in the key; everything else is bypassed.
//!
//! The documents beside this file, each for one kind of site and with its table, can be copied.

mod check;
mod openapi;

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use clap::Parser;

/// Checks and drafts documents of key rules.
#[derive(Parser)]
#[group(required = true, multiple = false)]
struct Task {
    /// Print what the rules of a document do, and warn of probable mistakes.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Print the JSON Schema of documents.
    #[arg(long)]
    schema: bool,
    /// Draft a document for an API from its description in OpenAPI 3.0 or 3.1.
    #[arg(long, value_name = "FILE")]
    from_openapi: Option<PathBuf>,
}

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    task: Task,
    /// With `--check`: also check a table of requests and their expected results.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// With `--check`: fail if there is a warning.
    #[arg(long)]
    deny_warnings: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns what is printed.
fn run(args: &Args) -> Result<String, Box<dyn Error>> {
    let Args { task, table, deny_warnings } = args;
    let read =
        |path: &PathBuf| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    if let Some(path) = &task.check {
        let table = table.as_ref().map(read).transpose()?;
        let report = check::check(&read(path)?, table.as_deref())?;
        return match report.warnings > 0 && *deny_warnings {
            true => Err(format!("there are warnings\n{}", report.text).into()),
            false => Ok(report.text),
        };
    }
    if table.is_some() || *deny_warnings {
        return Err("`--table` and `--deny-warnings` need `--check`".into());
    }
    match &task.from_openapi {
        Some(path) => {
            let document = openapi::document(&read(path)?)?;
            check::rules(&document)?;
            Ok(document)
        }
        None => Ok(include_str!("schema.json").into()),
    }
}
