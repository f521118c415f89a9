//! A slow axum handler behind the recommended stack.
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! It prints the address and a few `curl` lines to try. The first request takes the 200 ms of the
//! handler; for the next ten seconds all others, HEAD included, take well under a millisecond. A
//! client that has the response already gets 304 from the cache: the handler only sends an `ETag`,
//! and does not evaluate conditions.
//!
//! `--listen ADDR` listens elsewhere; with port 0 the system chooses one. Ctrl-C lets requests
//! under way finish, and ends the program.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use axum::{Router, extract::Path, http::header, response::IntoResponse, routing::get};
use clap::Parser;
use tokio::net::TcpListener;
use tower_readthrough::{BuildError, MemoryStore, ReadThroughLayer, Rules};

/// A slow handler behind a read-through cache.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let app = app()?;
    let listener = TcpListener::bind(args.listen).await?;
    print_hints(listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(ctrl_c()).await?;
    Ok(())
}

fn app() -> Result<Router, BuildError> {
    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20))
        // The handler sends no freshness, so the rules give it. Nor does it read cookies, which browsers
        // send.
        .rules(Rules::new().default_ttl(Duration::from_secs(10)).cookies([]))
        .build()?;
    Ok(Router::new().route("/hello/{name}", get(hello)).layer(cache))
}

/// Responds slowly, with the number of the call.
async fn hello(Path(name): Path<String>) -> impl IntoResponse {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    let etag = format!("\"{call}\"");
    ([(header::ETAG, etag)], format!("Hello {name}, this is call {call} of the handler.\n"))
}

fn print_hints(addr: SocketAddr) {
    let url = format!("http://{addr}/hello/world");
    println!("listening on http://{addr}");
    println!();
    println!("The first takes 200 ms, the second does not, and says how old it is (Age):");
    println!("  curl -i -w '%{{time_total}} s\\n' {url}");
    println!("  curl -i -w '%{{time_total}} s\\n' {url}");
    println!("A HEAD request is answered from what the GET left:");
    println!("  curl -I -w '%{{time_total}} s\\n' {url}");
    println!("304 for a client that has the first answer:");
    println!("  curl -i -H 'If-None-Match: \"1\"' {url}");
    println!("A hundred at once for something new are one call of the handler:");
    println!("  seq 100 | xargs -P 100 -I _ curl -s http://{addr}/hello/everybody | sort | uniq -c");
}

async fn ctrl_c() {
    let signal: io::Result<()> = tokio::signal::ctrl_c().await;
    if signal.is_err() {
        // Without the signal there is nothing to wait for.
        std::future::pending::<()>().await;
    }
}
