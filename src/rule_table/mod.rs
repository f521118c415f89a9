//! Tables of requests and what key rules must make of them (feature `serde`).
//!
//! Rules are easily right for the request that their author had in mind, and wrong for the next one: a
//! cookie that every browser has, another order of parameters, a preview. A table says in one line for
//! each request what it must give, and [`KeyRules::check_table`] sends it through the layers that serve
//! requests, with a service in their midst that gives the response of the row.
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
//! A table has `rows`, and what they have in common: `host`, request `headers`, and the `response` that the
//! service gives. A row that says the same itself has its own; of `headers` it adds to those of the table,
//! and `null` takes one away.
//!
//! | field of a row | meaning |
//! |---|---|
//! | `request` | method and target: `GET /product?pid=7` |
//! | `host` | the `Host` field |
//! | `headers` | fields of the request, each a string or a list of them |
//! | `body` | of the request: a string, or JSON that is sent in its shortest form |
//! | `extensions` | values of [`extensions`](crate::KeyRule::extensions) by their names |
//! | `status`, `response` | status and fields of the response of the service. Default: 200, no fields |
//! | `why` | a remark, which errors repeat |
//! | **`rule`** | name of the rule that is for the request, or its path if it has no name; `null`: no rule is |
//! | **`entry`** | a label of your own. Rows with the same label get each other's stored response; those with another one, or without, do not |
//! | **`bypass`** | why there is no key: the `detail` of [`Unkeyed`](crate::Unkeyed), or `method` for a method that never has one |
//! | **`ttl`** | for how long the response is fresh, as `200ms` or `1h` |
//! | **`stale_while_revalidate`**, **`stale_if_error`** | how long after that it is served stale, in either case |
//! | **`not_stored`** | why the response is not stored: the `detail` of [`Unshareable`](crate::Unshareable) |
//! | **`tags`** | all tags of the stored response, in any order |
//! | **`purged_by`**, **`kept_by`** | purges that reach the stored response, and that do not: `url /product?pid=7`, `prefix /product`, `pattern /product/*`, `host shop.example`, `tag product-7` |
//! | **`origin`** | path and query that the service gets |
//! | **`origin_headers`** | fields that the service gets, as in `headers`; `null`: it gets none of this name |
//! | **`stored_headers`** | the same of the stored response, which is what all but its first client get |
//!
//! The fields in bold are expectations, of which each row has at least one. That rows without an `entry`
//! share nothing with any other is checked for all rows whose response is stored.
//!
//! # Limits
//!
//! * Rows are told from what they give with the [`Rules`](crate::Rules) of [`RuleTable::rules`], and without a
//!   [`Policy`](crate::Policy) or an extractor of your own.
//! * Extensions have the values of the row, whatever
//!   [`KeyRulesBuilder::extension`](crate::KeyRulesBuilder::extension) would read.
//! * Rows are compared in pairs: a table of some thousand rows takes seconds.

mod error;
mod expect;
mod format;
mod pairs;
mod trial;

pub use self::{
    error::{TableError, TableMiss},
    format::RuleTable,
};

use self::{expect::misses_of, pairs::misses_of_pairs, trial::Trials};
use crate::key::KeyRules;

impl KeyRules {
    /// Checks the rules against a [table](crate::rule_table) of requests and what they must give.
    ///
    /// The rows are sent through the layers themselves, each with an empty store. What was learned from
    /// `No-Vary-Search` so far does not count, and nothing is learned. It takes no runtime and no time to
    /// wait, and may be called in a runtime.
    ///
    /// # Errors
    ///
    /// All rows that do not give what they must, and rows that cannot be sent or expect nothing.
    pub fn check_table(&self, table: &RuleTable) -> Result<(), TableError> {
        let mut misses = Vec::new();
        if table.rows().is_empty() {
            misses.push(TableMiss::of_table("it has no rows, so that it checks nothing"));
        }
        let trials = Trials::new(self, table, &mut misses);
        for trial in trials.iter() {
            misses.extend(misses_of(&trials, trial));
        }
        misses.extend(misses_of_pairs(&trials));
        match misses.is_empty() {
            true => Ok(()),
            false => Err(TableError::new(misses)),
        }
    }
}
