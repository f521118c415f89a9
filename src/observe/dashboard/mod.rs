//! A page that shows what the cache does, for operators (feature `dashboard`).
//!
//! [`Dashboard`] is a Tower service to be mounted at any path, beside the cache and not below it. It serves one HTML
//! page without anything from elsewhere, and one JSON document that the page reads every two seconds:
//!
//! * hit ratio, calls of the origin and their latency, of the last five minutes in steps of two seconds;
//! * fetches, callers that wait for them, the store, and each origin with its state;
//! * the [nodes](crate::ClusterStatus) of a cluster and how far each is behind, what the [second tier](crate::TierStatus)
//!   does, and the [snapshot file](crate::store::SnapshotFile);
//! * why the origin was asked, why responses were not stored, what was served stale, refused, failed or could not be used;
//! * the keys for which the origin has worked longest, and those that were fetched most often;
//! * the last decisions with their reasons;
//! * what would become of a request, and why, if the dashboard is told [how to find out](DashboardBuilder::explain);
//! * a form to [purge](crate::purge), if the dashboard has a [handle](DashboardBuilder::purge) for it.
//!
//! What is counted comes from [`Stats`]. Keys and decisions come from two thin layers that
//! [`watch`](Dashboard::watch) puts round the cache: without them both lists stay empty. A hit pays them for a
//! copy of its URI, which copies no text.
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, body::Body, routing::get};
//! use http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_readthrough::{ReadThroughLayer, dashboard::Dashboard, purge::Basic};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = ReadThroughLayer::with_ttl(Duration::from_secs(10));
//! let check = Basic::new("ops", "a long password");
//! let dashboard = Dashboard::builder(cache.stats(), check).name("shop").purge(cache.purge()).build()?;
//! let app = Router::new()
//!     .route("/", get(async || "hello"))
//!     .layer(dashboard.watch(cache))
//!     .nest_service("/-/cache", dashboard);
//!
//! let ask = async |path: &str, credentials: &str| {
//!     let request = Request::get(path).header("host", "shop").header("authorization", credentials);
//!     app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
//! };
//! ask("/", "").await;
//! assert_eq!(ask("/-/cache", "Basic guess").await.status(), StatusCode::UNAUTHORIZED);
//! let page = ask("/-/cache/", "Basic b3BzOmEgbG9uZyBwYXNzd29yZA==").await;
//! assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
//! let figures = ask("/-/cache/data.json", "Basic b3BzOmEgbG9uZyBwYXNzd29yZA==").await;
//! let figures = axum::body::to_bytes(figures.into_body(), 1 << 20).await?;
//! let figures: serde_json::Value = serde_json::from_slice(&figures)?;
//! assert_eq!(figures["requests"]["total"], 1);
//! assert_eq!(figures["decisions"][0]["reason"], "uri-miss");
//! # Ok(())
//! # }
//! ```
//!
//! # Access
//!
//! No request gets anything before a check has granted it access: a dashboard cannot be made without one.
//! [`Basic`](crate::purge::Basic) asks the browser for a name and a password, which belong on TLS; a closure over the
//! head of the request can ask whatever the rest of the application asks.
//!
//! Keys and targets are shown without their query, which may hold what is personal, unless
//! [`show_queries`](DashboardBuilder::show_queries) is set. A purge is taken only from a page of the same origin
//! (`Sec-Fetch-Site: same-origin`, or without that field an equal `Origin`). No response may be stored or framed,
//! and the page may load nothing and connect to nothing but its own origin (`Content-Security-Policy`).
//!
//! | path below the mount | method | response |
//! |---|---|---|
//! | none, or `/` | GET, HEAD | the page |
//! | `/data.json` | GET, HEAD | the figures. The numbers of `totals` and `recent` are those of [`StatsSnapshot`](crate::StatsSnapshot); the rest may change between versions |
//! | `/explain.json?url=` | GET, HEAD | an object with the `text` of the [explanation](crate::Explanation); 400 if it is no absolute URL, 404 without [`explain`](DashboardBuilder::explain) |
//! | `/purge` | POST | as that of [`PurgeService`](crate::purge::PurgeService); 404 without a purge handle |
//!
//! Errors are a JSON object with `error`: 401 and 403 by the check; 403 for an unsafe method from elsewhere; 404; 405; 413
//! for a purge of more than 16 KiB, and the others of the purge service.
//!
//! # Limits
//!
//! * Charts begin when the dashboard is made in a runtime, or at its first request. Then a task reads the counters
//!   every two seconds, until the dashboard is dropped.
//! * 64 keys are tracked by time and 64 by fetches. With more, the sum of a key that came late may be too large; the
//!   page writes `≤` where it may be.
//! * 50 decisions are kept, hits not among them unless [`sample_hits`](DashboardBuilder::sample_hits) is set. Targets
//!   are cut after 240 bytes.
//! * All figures are those of one process.

mod board;
mod document;
mod history;
mod service;
mod sketch;
mod watch;

use std::sync::Arc;

use http::request::Parts;

use self::board::{Board, Settings};
pub use self::{
    service::Dashboard,
    watch::{Watched, WatchedCache, WatchedCacheFuture, WatchedOrigin, WatchedOriginFuture},
};
use super::{Explanation, Stats};
use crate::{
    build_error::BuildError,
    purge::{Access, Authorize, Purge, PurgeService},
};

impl Dashboard {
    /// Makes a dashboard that shows these counters to requests that the check grants access, with the default settings.
    pub fn new(stats: Stats, check: impl Authorize) -> Self {
        Self::builder(stats, check).make()
    }

    /// Begins a dashboard with other settings.
    pub fn builder(stats: Stats, check: impl Authorize) -> DashboardBuilder {
        DashboardBuilder {
            stats,
            check: Box::new(check),
            purge: None,
            explain: None,
            mounted_at: "".into(),
            settings: Settings {
                name: "Cache".into(),
                shows_queries: false,
                hits_sampled: None,
                requests_sampled: None,
            },
        }
    }

    /// Puts a cache between two layers that tell this dashboard of its decisions and of what it fetches.
    pub fn watch<L>(&self, cache: L) -> Watched<L> {
        Watched::new(cache, Arc::clone(self.board()))
    }
}

/// The settings of a [`Dashboard`].
#[must_use = "the settings do nothing until `build`"]
pub struct DashboardBuilder {
    stats: Stats,
    check: Box<dyn Authorize>,
    purge: Option<Purge>,
    explain: Option<Box<service::Explain>>,
    mounted_at: Box<str>,
    settings: Settings,
}

impl DashboardBuilder {
    /// The title of the page, of up to 60 characters. Default: `Cache`.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Shows a form that purges through this handle. Default: none.
    pub fn purge(mut self, purge: Purge) -> Self {
        self.purge = Some(purge);
        self
    }

    /// Shows a form that tells what would become of a GET request to a URL, and why, without asking the origin. The
    /// function gets a head with this URL and nothing else; it adds what the key needs and the URL does not say.
    /// Default: none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_readthrough::{ReadThroughLayer, dashboard::Dashboard, purge::Basic};
    ///
    /// let cache = ReadThroughLayer::with_ttl(Duration::from_secs(10));
    /// let dashboard = Dashboard::builder(cache.stats(), Basic::new("ops", "a long password"));
    /// let explained = cache.clone();
    /// let dashboard = dashboard.explain(move |head| explained.explain(head)).build()?;
    /// # drop(dashboard);
    /// # Ok::<(), tower_readthrough::BuildError>(())
    /// ```
    pub fn explain(mut self, explain: impl Fn(&Parts) -> Explanation + Send + Sync + 'static) -> Self {
        self.explain = Some(Box::new(explain));
        self
    }

    /// The path below which the requests arrive, such as `/admin/cache`, where nothing cuts it off before, as axum's
    /// `nest_service` does. Default: none.
    pub fn mounted_at(mut self, path: impl Into<Box<str>>) -> Self {
        self.mounted_at = path.into();
        self
    }

    /// Whether keys and targets are shown with their query. Default: no. Without it all queries of a path are one key.
    pub fn show_queries(mut self, show: bool) -> Self {
        self.settings.shows_queries = show;
        self
    }

    /// Shows one hit in so many among the last decisions, at least 1. Default: none.
    pub fn sample_hits(mut self, every: u32) -> Self {
        self.settings.hits_sampled = Some(every);
        self
    }

    /// Counts one request in so many by its key, at least 1, and lists the keys that are requested most often.
    /// Default: none.
    pub fn sample_requests(mut self, every: u32) -> Self {
        self.settings.requests_sampled = Some(every);
        self
    }

    /// Makes the dashboard.
    ///
    /// # Errors
    ///
    /// If the name is empty or too long, the path does not begin with `/` or ends with one, or one in 0 is to be
    /// sampled.
    pub fn build(self) -> Result<Dashboard, BuildError> {
        let Settings { name, hits_sampled, requests_sampled, .. } = &self.settings;
        if !(1..=60).contains(&name.chars().count()) {
            return Err(BuildError::Title { setting: "name", title: name.clone() });
        }
        let path = &self.mounted_at;
        if !path.is_empty() && (!path.starts_with('/') || path.ends_with('/')) {
            return Err(BuildError::Mount { setting: "mounted_at", path: path.clone() });
        }
        for (setting, every) in [("sample_hits", hits_sampled), ("sample_requests", requests_sampled)] {
            if *every == Some(0) {
                return Err(BuildError::ZeroLimit { setting, consequence: "nothing would be sampled" });
            }
        }
        Ok(self.make())
    }

    fn make(self) -> Dashboard {
        let Self { stats, check, purge, explain, mounted_at, settings } = self;
        // The dashboard itself has checked access by then.
        let granted = |_: &Parts| Access::Granted;
        let purge =
            purge.map(|purge| PurgeService::new(purge, granted).max_body_bytes(service::MAX_BODY_BYTES));
        let board = Arc::new(Board::new(stats, settings));
        Dashboard::from_shared(service::Shared { board, check, purge, explain, mounted_at })
    }
}

impl std::fmt::Debug for DashboardBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mounted_at, settings, .. } = self;
        f.debug_struct("DashboardBuilder")
            .field("settings", settings)
            .field("mounted_at", mounted_at)
            .finish_non_exhaustive()
    }
}
