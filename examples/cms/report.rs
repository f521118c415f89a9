//! The results, as a table and as JSON.

use serde_json::json;

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) origin_calls: u64,
    pub(crate) edits: u64,
    /// Responses with a text older than an edit before the request.
    pub(crate) stale_after_edit: u64,
}

impl Report {
    fn hit_ratio(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }

    pub(crate) fn json(&self) -> String {
        json!({
            "hits": self.hits,
            "misses": self.misses,
            "origin_calls": self.origin_calls,
            "edits": self.edits,
            "hit_ratio": self.hit_ratio(),
            "stale_after_edit": self.stale_after_edit,
        })
        .to_string()
    }

    pub(crate) fn table(&self) -> String {
        let row = |name: &str, value: String| format!("{name:<24}{value:>10}\n");
        let mut table = row("hits", self.hits.to_string());
        table += &row("misses", self.misses.to_string());
        table += &row("hit ratio", format!("{:.1} %", self.hit_ratio() * 100.0));
        table += &row("pages made", self.origin_calls.to_string());
        table += &row("edits", self.edits.to_string());
        table + row("older than an edit", self.stale_after_edit.to_string()).trim_end()
    }
}
