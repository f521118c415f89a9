//! Tables of requests and their expected results by key rules (feature `serde`).
//!
//! Rules are easily right for the request that their author had in mind, and wrong for the next one: a
//! cookie that every browser sends, another order of parameters, a preview. A table states the expected result
//! of each request in one line. [`KeyRules::check_table`] sends the requests through the layers that serve
//! requests, with a service that gives the response of the row as their origin.
//!
//! ```
//! # #[cfg(feature = "serde")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_readthrough::KeyRules;
//!
//! let rules: KeyRules = serde_json::from_str(
//!     r#"{ "rules": [
//!         { "path": "/account/{*rest}", "bypass": true },
//!         { "name": "product", "path": "/product", "keep_query": ["pid"], "cookies": [], "fixed_ttl": "200ms" }
//!     ] }"#,
//! )?;
//! let table = r#"{
//!     "host": "shop.example",
//!     "rows": [
//!         { "request": "GET /product?pid=7", "entry": "product 7", "rule": "product", "ttl": "200ms" },
//!         { "request": "GET /product?utm_source=x&pid=7", "headers": { "cookie": "_ga=1" },
//!           "entry": "product 7", "origin": "/product?pid=7", "origin_headers": { "cookie": null } },
//!         { "request": "GET /product?pid=8", "entry": "product 8" },
//!         { "request": "GET /Account/orders/", "bypass": "rule-bypass" }
//!     ]
//! }"#;
//! rules.check_table(&serde_json::from_str(table)?)?;
//!
//! let wrong = r#"{ "host": "shop.example", "rows": [{ "request": "GET /product", "ttl": "1s" }] }"#;
//! let error = rules.check_table(&serde_json::from_str(wrong)?).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "the table is not met in 1 point:\nrow 0 (`GET /product`): `ttl` must be 1s, and is 200ms",
//! );
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "serde"))]
//! # fn main() {}
//! ```
//!
//! # The format
//!
//! A table has `rows`, and settings for all rows: `host`, request `headers`, and the `response` of the service. A
//! row may override them. Its `headers` are added to those of the table, and `null` removes one.
//!
//! | field of a row | meaning |
//! |---|---|
//! | `request` | method and target: `GET /product?pid=7` |
//! | `host` | the `Host` field |
//! | `headers` | fields of the request, each a string or a list of them |
//! | `body` | body of the request: a string, or JSON, which is sent in its shortest form |
//! | `extensions` | values of [`extensions`](crate::KeyRule::extensions) by name |
//! | `status`, `response` | status and fields of the response of the service. Default: 200, no fields |
//! | `why` | a remark, which is repeated in errors |
//! | **`rule`** | name of the rule for the request, or its path if it has no name; `null`: no rule |
//! | **`entry`** | any label. Rows with the same label share stored responses; rows with another one, or none, do not |
//! | **`bypass`** | why the request has no key: the `detail` of [`Unkeyed`](crate::Unkeyed), or `method` for other methods |
//! | **`ttl`** | how long the response is fresh: `200ms`, `1h` |
//! | **`stale_while_revalidate`**, **`stale_if_error`** | how long after that it is served stale |
//! | **`not_stored`** | why the response is not stored: the `detail` of [`NotStored`](crate::NotStored) |
//! | **`tags`** | all tags of the stored response, in any order |
//! | **`purged_by`**, **`kept_by`** | purges that reach the stored response, and purges that do not: `url /product?pid=7`, `prefix /product`, `pattern /product/*`, `host shop.example`, `tag product-7` |
//! | **`origin`** | path and query that the service gets |
//! | **`origin_headers`** | fields that the service gets, as in `headers`; `null`: absent |
//! | **`stored_headers`** | fields of the stored response, which later clients get |
//!
//! The fields in bold are expectations, of which each row needs at least one. If its response is stored, a row
//! without an `entry` must not share it with any other row.
//!
//! # Limits
//!
//! * Rows are checked with the [`Rules`](crate::Rules) of [`RuleTable::rules`], and without a
//!   [`Policy`](crate::Policy) or another extractor.
//! * Extensions have the values of the row, instead of those that
//!   [`KeyRulesBuilder::extension`](crate::KeyRulesBuilder::extension) would read.
//! * Rows are compared in pairs: a table of a few thousand rows takes seconds.

mod expect;
mod format;
mod trial;

use std::fmt;

pub use self::format::RuleTable;

use self::trial::Trials;
use crate::key::KeyRules;

impl KeyRules {
    /// Checks the rules against a [table](crate::rule_table) of requests and their expected results.
    ///
    /// Each row is sent through the layers, with an empty store. What was learned from `No-Vary-Search` is not
    /// used, and nothing is learned. Needs no runtime and waits for nothing; may be called in a runtime.
    ///
    /// # Errors
    ///
    /// All expectations that are not met, and all rows that cannot be sent or expect nothing.
    pub fn check_table(&self, table: &RuleTable) -> Result<(), TableError> {
        let mut misses = Vec::new();
        if table.rows().is_empty() {
            misses.push(TableMiss::of_table("the table has no rows; add at least one"));
        }
        let trials = Trials::new(self, table, &mut misses);
        for trial in trials.iter() {
            misses.extend(expect::misses_of(&trials, trial));
        }
        misses.extend(expect::misses_of_pairs(&trials));
        match misses.is_empty() {
            true => Ok(()),
            false => Err(TableError::new(misses)),
        }
    }
}

/// The points in which key rules do not meet a [table](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableError {
    misses: Vec<TableMiss>,
}

impl TableError {
    fn new(mut misses: Vec<TableMiss>) -> Self {
        misses.sort_by_key(|miss| miss.row.as_ref().map(|(row, _)| *row));
        Self { misses }
    }

    /// All points in which the table is not met, in the order of the rows.
    pub fn misses(&self) -> &[TableMiss] {
        &self.misses
    }
}

/// One point in which a [table](self) is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMiss {
    row: Option<(usize, Box<str>)>,
    message: Box<str>,
}

impl TableMiss {
    fn of_table(message: &str) -> Self {
        Self { row: None, message: message.into() }
    }

    fn of_row(row: usize, label: &str, message: impl Into<Box<str>>) -> Self {
        Self { row: Some((row, label.into())), message: message.into() }
    }

    /// The position of the row, from 0. `None` if it is about the whole table.
    pub fn row(&self) -> Option<usize> {
        self.row.as_ref().map(|(row, _)| *row)
    }
}

impl fmt::Display for TableMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.row {
            Some((row, label)) => write!(f, "row {row} ({label}): {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.misses.len() == 1 { "" } else { "s" };
        write!(f, "the table is not met in {} point{plural}:", self.misses.len())?;
        self.misses.iter().try_for_each(|miss| write!(f, "\n{miss}"))
    }
}

impl std::error::Error for TableError {}
