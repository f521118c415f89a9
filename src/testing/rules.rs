//! Key rules against tables of requests, as an assertion.

use std::{any::type_name, fs, path::Path};

use serde::de::DeserializeOwned;

use crate::{key::KeyRules, rule_table::RuleTable};

/// Asserts that key rules do what a [table](crate::rule_table) of requests says.
///
/// As [`KeyRules::check_table`], with all points that differ in the message.
///
/// # Panics
///
/// If they do not.
#[track_caller]
pub fn check_rules(rules: &KeyRules, table: &RuleTable) {
    if let Err(error) = rules.check_table(table) {
        panic!("{error}");
    }
}

/// Asserts that the key rules in a JSON file do what the [table](crate::rule_table) in another one says.
///
/// Relative paths begin where the test runs: at the manifest of its package.
///
/// # Panics
///
/// If they do not, or if a file cannot be read or is invalid.
#[track_caller]
pub fn check_rules_file(rules: impl AsRef<Path>, table: impl AsRef<Path>) {
    check_rules(&read(rules.as_ref()), &read(table.as_ref()));
}

#[track_caller]
fn read<T: DeserializeOwned>(path: &Path) -> T {
    let what = type_name::<T>().rsplit("::").next().unwrap_or_default();
    let shown = path.display();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => panic!("{shown} cannot be read: {error}"),
    };
    match serde_json::from_str(&text) {
        Ok(read) => read,
        Err(error) => panic!("{shown} is no `{what}`: {error}"),
    }
}
