//! Describes the rules of a document, and warns of probable mistakes.

use std::{collections::BTreeSet, error::Error, fmt::Write};

use serde_json::Value;
use tower_readthrough::{KeyRules, KeyRulesBuilder, RuleError, RuleTable};

pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) warnings: usize,
}

/// Describes the rules of a document, and checks them against a table.
pub(crate) fn check(document: &str, table: Option<&str>) -> Result<Report, Box<dyn Error>> {
    let rules = rules(document)?;
    let mut text = String::new();
    for summary in rules.explain() {
        writeln!(text, "{summary}\n")?;
    }
    let warnings = rules.check();
    for warning in &warnings {
        writeln!(text, "warning: {warning}")?;
    }
    if warnings.is_empty() {
        writeln!(text, "no warnings")?;
    }
    if let Some(table) = table {
        rules.check_table(&serde_json::from_str::<RuleTable>(table)?)?;
        writeln!(text, "the table is met")?;
    }
    Ok(Report { text, warnings: warnings.len() })
}

/// The rules of a document. Extensions are defined in code, so here only the rows of a table have values for them.
pub(crate) fn rules(document: &str) -> Result<KeyRules, Box<dyn Error>> {
    let mut builder: KeyRulesBuilder = serde_json::from_str(document)?;
    for name in extensions(&serde_json::from_str(document)?) {
        builder = builder.extension(name, |(): &()| None);
    }
    Ok(build(builder)?)
}

fn extensions(document: &Value) -> BTreeSet<&str> {
    let rules = document["rules"].as_array().into_iter().flatten();
    let names = rules.filter_map(|rule| rule["extensions"].as_array()).flatten();
    names.filter_map(Value::as_str).collect()
}

#[cfg(feature = "body-key")]
fn build(builder: KeyRulesBuilder) -> Result<KeyRules, RuleError> {
    builder.build_with_bodies().map(|layer| layer.rules())
}

#[cfg(not(feature = "body-key"))]
fn build(builder: KeyRulesBuilder) -> Result<KeyRules, RuleError> {
    builder.build()
}
