//! `command --key value --flag`.

use std::collections::BTreeMap;

const FLAGS: [&str; 1] = ["json"];

pub(crate) struct Args {
    pub(crate) command: String,
    options: BTreeMap<String, String>,
}

impl Args {
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut words = words.into_iter();
        let command = words.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word}: options begin with --"))?;
            let value = if FLAGS.contains(&name) { Some(String::new()) } else { words.next() };
            options.insert(name.to_owned(), value.ok_or_else(|| format!("--{name} needs a value"))?);
        }
        Ok(Self { command, options })
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str, default: usize) -> usize {
        let parse = |text: &str| text.parse().unwrap_or_else(|_| panic!("--{name} takes a number"));
        self.text(name).map_or(default, parse)
    }

    pub(crate) fn only(&self) -> Option<&str> {
        self.text("only")
    }

    pub(crate) fn json(&self) -> bool {
        self.options.contains_key("json")
    }
}
