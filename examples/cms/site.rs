//! The site: texts with versions, and pages with tags for the texts on them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_readthrough::Tags;

pub(crate) const ARTICLES: usize = 500;
pub(crate) const SECTIONS: usize = 20;
/// The articles on the home page: the most popular ones.
const HEADLINES: usize = 20;
const RENDERING: Duration = Duration::from_millis(2);

/// Articles, and after them the names of sections.
const TEXTS: usize = ARTICLES + SECTIONS;

/// What an editor may change. Each text is known by its number.
pub(crate) struct Site {
    versions: Vec<AtomicU64>,
    pages_made: AtomicU64,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { versions: (0..TEXTS).map(|_| AtomicU64::new(1)).collect(), pages_made: AtomicU64::new(0) }
    }

    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(home))
            .route("/section/{section}", get(section))
            .route("/article/{article}", get(article))
            .with_state(self)
    }

    /// Returns the new version.
    pub(crate) fn edit(&self, text: usize) -> u64 {
        self.versions[text].fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn pages_made(&self) -> u64 {
        self.pages_made.load(Ordering::Relaxed)
    }

    /// The number and version of each text, read before the page is made.
    async fn page(&self, texts: impl Iterator<Item = usize>) -> Response {
        self.pages_made.fetch_add(1, Ordering::Relaxed);
        let texts: Vec<_> = texts.filter(|text| *text < TEXTS).collect();
        let version = |text: &usize| self.versions[*text].load(Ordering::SeqCst);
        let body: String = texts.iter().map(|text| format!("{text}={}\n", version(text))).collect();
        tokio::time::sleep(RENDERING).await;
        let mut page = body.into_response();
        page.extensions_mut().insert(Tags::from_iter(texts.iter().map(|text| tag(*text))));
        page
    }
}

/// The tag that purges all pages with a text.
pub(crate) fn tag(text: usize) -> String {
    format!("text-{text}")
}

pub(crate) fn name_of(section: usize) -> usize {
    ARTICLES + section
}

async fn home(State(site): State<Arc<Site>>) -> Response {
    site.page(0..HEADLINES).await
}

async fn section(State(site): State<Arc<Site>>, Path(section): Path<usize>) -> Response {
    let articles = (0..ARTICLES).filter(|article| article % SECTIONS == section);
    site.page(articles.chain([name_of(section)])).await
}

async fn article(State(site): State<Arc<Site>>, Path(article): Path<usize>) -> Response {
    site.page([article, name_of(article % SECTIONS)].into_iter()).await
}
