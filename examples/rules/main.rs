//! Checks documents of key rules, and begins them.
//!
//! ```text
//! cargo run --example rules --features serde,body-key -- --check examples/rules/wordpress.json \
//!     --table examples/rules/wordpress.table.json
//! cargo run --example rules --features serde,body-key -- --schema
//! cargo run --example rules --features serde,body-key -- --from-openapi api.json
//! ```
//!
//! `--check` prints what each rule matches, keys, stores and purges, and warns of what is probably not
//! meant. With `--table` it sends the requests of a table through the layers as well, and says where they do
//! not give what the table says. It fails if the document cannot work or the table is not met, and with
//! `--deny-warnings` if there is a warning.
//!
//! `--schema` prints the JSON Schema of documents, for editors.
//!
//! `--from-openapi` makes a document of the description of an API, OpenAPI 3.0 or 3.1 in JSON, to go on
//! from: reads that need no authorisation have a rule each, with their parameters in the key; everything
//! else is bypassed.
//!
//! The documents beside this file are to be copied: each is of one kind of site, with its table.

mod check;
mod openapi;

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use clap::Parser;

/// Checks documents of key rules, and begins them.
#[derive(Parser)]
#[group(required = true, multiple = false)]
struct Task {
    /// Print what the rules of a document do, and what is probably not meant.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Print the JSON Schema of documents.
    #[arg(long)]
    schema: bool,
    /// Print a document for an API that OpenAPI 3.0 or 3.1 describes, for editing.
    #[arg(long, value_name = "FILE")]
    from_openapi: Option<PathBuf>,
}

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    task: Task,
    /// With `--check`: check requests and what they must give as well.
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

/// What is printed.
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
        return Err("`--table` and `--deny-warnings` go with `--check`".into());
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
