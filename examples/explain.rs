//! Prints what would become of a request under a document of key rules, and why.
//!
//! ```text
//! cargo run --example explain --features serde -- --rules examples/rules/wordpress.json \
//!     'https://example.com/blog/?utm_source=x' --header 'accept-language: de' \
//!     --response 'cache-control: max-age=60' --response 'vary: accept-language'
//! ```
//!
//! The store is empty at first. With `--response` a request for the URL was answered before with a 200 of these
//! fields, so that the output shows whether it is stored, for how long, and for which requests; the line before says what the
//! cache said to that.

use std::{convert::Infallible, error::Error, fs, path::PathBuf, process::ExitCode};

use axum::body::Body;
use clap::Parser;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use tower::{Layer, ServiceExt, service_fn};
use tower_readthrough::{CacheStatus, KeyRules, MemoryStore, ReadThroughLayer};

/// Explains what would become of a request.
#[derive(Parser)]
struct Args {
    /// The URL.
    url: Uri,
    /// The document with the key rules.
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// A field of the request, as `name: value`.
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,
    /// A field of the response that came before, as `name: value`.
    #[arg(long, value_name = "FIELD")]
    response: Vec<String>,
    /// Show the query, and the key.
    #[arg(long)]
    query: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns what is printed.
async fn run(args: &Args) -> Result<String, Box<dyn Error>> {
    let text =
        fs::read_to_string(&args.rules).map_err(|error| format!("{}: {error}", args.rules.display()))?;
    let rules: KeyRules = serde_json::from_str(&text)?;
    let store = MemoryStore::builder(64 << 20).snapshots(true).build()?;
    let cache = ReadThroughLayer::builder(store).key(rules).build()?;
    let mut request = Request::get(args.url.clone()).body(Body::empty())?;
    *request.headers_mut() = fields(&args.header)?;
    let (head, _) = request.into_parts();
    let mut lines = Vec::new();
    if !args.response.is_empty() {
        let response = fields(&args.response)?;
        let origin = service_fn(move |_: Request<Body>| {
            let mut sent = Response::new(Body::from("content"));
            sent.headers_mut().clone_from(&response);
            async { Ok::<_, Infallible>(sent) }
        });
        let request = Request::from_parts(head.clone(), Body::empty());
        let answered = cache.layer(origin).oneshot(request).await?;
        lines.extend(CacheStatus::of(&answered).map(|status| format!("before: {status}")));
        axum::body::to_bytes(Body::new(answered.into_body()), usize::MAX).await?;
    }
    let explanation = cache.explain(&head);
    lines.push(if args.query { explanation.show_query() } else { explanation }.to_string());
    Ok(lines.join("\n"))
}

fn fields(lines: &[String]) -> Result<HeaderMap, Box<dyn Error>> {
    let mut fields = HeaderMap::new();
    for line in lines {
        let (name, value) =
            line.split_once(':').ok_or_else(|| format!("`{line}` is no field: write `name: value`"))?;
        fields.append(HeaderName::try_from(name.trim())?, HeaderValue::try_from(value.trim())?);
    }
    Ok(fields)
}
