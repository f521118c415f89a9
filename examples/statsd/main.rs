//! Counters of a cache to StatsD, once a second.
//!
//! ```text
//! cargo run --example statsd --features metrics -- --statsd 127.0.0.1:8125
//! nc -ul 8125        # another terminal, to see what arrives
//! curl http://127.0.0.1:3000/
//! ```
//!
//! The exporter is that of `metrics-exporter-statsd`. StatsD adds up what it gets: the cache sends differences, and a
//! hit sends nothing.

use std::{error::Error, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use clap::Parser;
use metrics_exporter_statsd::StatsdBuilder;
use tokio::net::TcpListener;
use tower_readthrough::{MemoryStore, ReadThroughLayer, Rules};

/// A cached page whose counters go to StatsD.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// The StatsD server, by UDP.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8125")]
    statsd: SocketAddr,
    /// How often the counters are sent, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    every: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let statsd = StatsdBuilder::from(args.statsd.ip().to_string(), args.statsd.port());
    metrics::set_global_recorder(statsd.build(Some("shop"))?)?;
    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(16 << 20))
        .rules(Rules::new().default_ttl(Duration::from_secs(10)))
        .cache_name("shop")
        .build()?;
    let exporter = cache.metrics()?.spawn(Duration::from_millis(args.every));
    let app = Router::new().route("/", get(async || "hello")).layer(cache);
    let listener = TcpListener::bind(args.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(async { _ = tokio::signal::ctrl_c().await }).await?;
    exporter.abort();
    Ok(())
}
