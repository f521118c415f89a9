//! Runs this program again, for one measurement among others.

use std::{
    env,
    process::{Command, Stdio},
};

use serde_json::Value;

/// What it prints.
pub(crate) fn output(words: &[String]) -> Result<String, String> {
    let failed = |why: String| format!("{}: {why}", words.join(" "));
    eprintln!("{}", words.join(" "));
    let this = env::current_exe().map_err(|error| failed(error.to_string()))?;
    let output = Command::new(this).args(words).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    // `bounds` fails once it has printed which are missed.
    if output.stdout.is_empty() {
        return Err(failed(output.status.to_string()));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}

/// The figures of a measurement: candidate, then key.
pub(crate) fn figures(words: &[String]) -> Result<Value, String> {
    let mut words = words.to_vec();
    words.push("--json".into());
    serde_json::from_str(&output(&words)?).map_err(|error| error.to_string())
}

pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
