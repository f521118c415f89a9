//! Rules as the rows of a [table](crate::rule_table) try them.

use std::{collections::BTreeMap, sync::Arc};

use http::request::Parts;

use super::{
    KeyRules,
    parts::Extension,
    shape::{KeyLayout, QueryShape},
};

/// The values of the extensions that a row names.
#[derive(Clone, Debug)]
pub(crate) struct RowExtensions(Arc<BTreeMap<String, String>>);

impl RowExtensions {
    pub(crate) fn new(values: BTreeMap<String, String>) -> Self {
        Self(Arc::new(values))
    }
}

impl KeyRules {
    /// The same rules, with the extensions that rows have.
    pub(crate) fn for_trials(&self) -> Self {
        let mut source = self.source().clone();
        for extension in &mut source.extensions {
            let name = extension.name.clone();
            *extension = Extension::new(extension.name.clone(), move |row: &RowExtensions| {
                row.0.get(&*name).map(|value| value.as_bytes().into())
            });
        }
        // What has been compiled once compiles again.
        source.compile().unwrap_or_else(|_| self.clone())
    }

    /// The same rules, before anything was learned from `No-Vary-Search`.
    pub(crate) fn fresh(&self) -> Self {
        match self.learns() {
            true => self.source().clone().compile().unwrap_or_else(|_| self.clone()),
            false => self.clone(),
        }
    }

    /// Whether keys depend on what was learned.
    pub(crate) fn learns(&self) -> bool {
        let is_learned = |shape: &KeyLayout| matches!(shape.query, QueryShape::Learned(_));
        self.rules().iter().any(|rule| rule.shape.as_ref().is_some_and(is_learned))
    }

    /// How errors call the rule that is for a request, if one is.
    pub(crate) fn rule_label(&self, head: &Parts) -> Option<String> {
        let Ok((Ok(Some(found)), _)) = self.rule_of(head) else { return None };
        Some(self.source().rules.get(found.rule.index)?.label().to_owned())
    }
}
