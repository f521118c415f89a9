//! Renews the figures in BENCHMARKS.md.
//!
//! A line `<!-- run: hit --rounds 41 -->` says which command the text up to the next
//! `<!-- end -->` comes from.

use std::{fs, io};

use crate::{
    args::Args,
    itself::{output, words},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const FILE: &str = "BENCHMARKS.md";
const END: &str = "<!-- end -->";

fn command(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- run: ")?.strip_suffix(" -->")
}

/// With `--match TEXT`, only commands that contain it.
pub(crate) fn report(args: &Args) -> Result<(), String> {
    let wanted = args.text("match").unwrap_or_default();
    renew(&format!("{ROOT}/{FILE}"), wanted).map_err(|error| format!("{FILE}: {error}"))
}

fn renew(file: &str, wanted: &str) -> io::Result<()> {
    let mut text = fs::read_to_string(file)?;
    let commands: Vec<String> = text.lines().filter_map(command).map(str::to_owned).collect();
    for command in commands.iter().filter(|command| command.contains(wanted)) {
        match output(&words(command)) {
            Ok(figures) => text = replace(&text, command, figures.trim()),
            Err(error) => eprintln!("kept as it was: {error}"),
        }
        // Some of them take minutes: what is there is not to be lost.
        fs::write(file, &text)?;
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
