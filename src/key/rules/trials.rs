//! Rules for checking [tables](crate::rule_table) of requests.

use std::{collections::BTreeMap, sync::Arc};

use http::request::Parts;

use super::{
    KeyRules,
    layout::{Extension, KeyLayout},
};

/// The values of a row for the extensions of rules.
#[derive(Clone, Debug)]
pub(crate) struct RowExtensions(Arc<BTreeMap<String, String>>);

impl RowExtensions {
    pub(crate) fn new(values: BTreeMap<String, String>) -> Self {
        Self(Arc::new(values))
    }
}

impl KeyRules {
    /// The same rules, which read extensions from the [values of a row](RowExtensions).
    pub(crate) fn for_trials(&self) -> Self {
        let mut source = self.source().clone();
        for extension in &mut source.extensions {
            let name: Box<str> = extension.name().into();
            *extension = Extension::new(name.clone(), move |row: &RowExtensions| {
                row.0.get(&*name).map(|value| value.as_bytes().into())
            });
        }
        // These rules have been compiled before.
        source.compile().unwrap_or_else(|_| self.clone())
    }

    /// The same rules, with nothing learned from `No-Vary-Search`.
    pub(crate) fn fresh(&self) -> Self {
        match self.learns() {
            true => self.source().clone().compile().unwrap_or_else(|_| self.clone()),
            false => self.clone(),
        }
    }

    /// Whether any rule learns from `No-Vary-Search`.
    pub(crate) fn learns(&self) -> bool {
        self.rules().iter().any(|rule| rule.layout().and_then(KeyLayout::learned).is_some())
    }

    /// What errors call the rule for a request, if there is one.
    pub(crate) fn rule_label(&self, head: &Parts) -> Option<String> {
        let Ok((Ok(Some(found)), _)) = self.rule_of(head) else { return None };
        self.label(found.rule()).map(str::to_owned)
    }
}
