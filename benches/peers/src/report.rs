//! Renews the figures in a document.
//!
//! A line `<!-- run: hit --rounds 41 -->` says which command the text up to the next
//! `<!-- end -->` comes from.

use std::fs;

use crate::{
    args::Args,
    itself::{output, words},
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../BENCHMARKS.md");
const END: &str = "<!-- end -->";

fn command(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- run: ")?.strip_suffix(" -->")
}

/// With `--match TEXT`, only commands that contain it.
pub(crate) fn report(args: &Args) -> Result<(), String> {
    let file = args.text("file").unwrap_or(FILE);
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let wanted = args.text("match").unwrap_or_default();
    let mut renewed = text.clone();
    for command in text.lines().filter_map(command).filter(|command| command.contains(wanted)) {
        match output(&words(command)) {
            Ok(figures) => renewed = replace(&renewed, command, figures.trim()),
            Err(error) => eprintln!("kept as it was: {error}"),
        }
        // Some of them take minutes: what is there is not to be lost.
        fs::write(file, &renewed).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}

fn replace(text: &str, of: &str, figures: &str) -> String {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line == END {
            inside = false;
        }
        if !inside {
            lines.push(line.to_owned());
        }
        if command(line) == Some(of) {
            inside = true;
            lines.push(format!("\n`{of}`\n\n{figures}\n"));
        }
    }
    lines.join("\n") + "\n"
}
