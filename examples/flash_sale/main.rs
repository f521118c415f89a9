//! A flash sale on real sockets, without and with the layers in front of the shop.
//!
//! ```text
//! cargo run --release --example flash_sale
//! ```
//!
//! A shop with 40 workers makes a page in 8 ms, at best 5,000 of them a second. A sale begins, and
//! 10,000 requests a second arrive for the pages of 20 products. The queue grows, soon every request
//! waits longer than the five seconds after which clients give up, and from then on the shop makes
//! pages for clients that have left.
//!
//! The second run puts `ReadThrough` in between, with a lifetime of 200 ms that no visitor will
//! notice and a limit to the shop. All clients get their page at once, and the shop idles.
//!
//! | here, on two cores | without | with |
//! |---|---|---|
//! | responses with 200 | 73 % | 100 % |
//! | mean latency | 3.2 s | 2 ms |
//! | 99th percentile | 5 s | 11 ms |
//! | pages made | 42,000 | 500 |
//! | shop busy | 98 % | 2 % |
//!
//! The load is an open loop: requests have a schedule, and their latency counts from the moment
//! they were due, so that waiting for a free connection counts. A request that failed counts with
//! the time after which its client gave up. Shop, cache and clients have a thread each and use
//! HTTP/1.1 over loopback. A machine that is too slow shows as a share below 100 % in the run
//! with the layers; `--rate` scales the load. With `--ttl 50ms` the shop is still 90 % idle, and
//! with fewer `--seconds` the queue does not grow long enough for clients to give up.

mod cache;
mod load;
mod origin;
mod report;

use std::{error::Error, process::ExitCode, thread, time::Duration};

use clap::Parser;
use tokio::runtime;

use self::{load::Load, origin::Origin, report::Run};

/// A flash sale, without and with a cache. DUR is a duration such as 50ms or 1s.
#[derive(Parser)]
struct Args {
    /// Requests per second.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// How long requests come in, in each of the two runs.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How long a page may be served from the cache.
    #[arg(long, value_name = "DUR", default_value = "200ms", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let load = Load { rate: args.rate, total: u64::from(args.rate) * u64::from(args.seconds) };
    if !args.json {
        let Args { rate, seconds, .. } = args;
        println!("{rate} requests/s for {seconds} s, once without and once with the layers ...");
    }
    let without = measure(load, None)?;
    let with = measure(load, Some(args.ttl))?;
    if args.json {
        println!("{}", report::json(&without, &with));
    } else {
        println!("{}", report::table(&without, &with));
    }
    Ok(())
}

/// One run against an origin of its own, with a cache in front of it if there is a lifetime.
fn measure(load: Load, ttl: Option<Duration>) -> Result<Run, Box<dyn Error>> {
    let origin = Origin::new();
    let (listener, mut addr) = listen()?;
    let shop = origin.clone();
    on_own_thread(async move { shop.serve(listener).await })?;
    if let Some(ttl) = ttl {
        let (listener, cache) = listen()?;
        let stack = cache::build(addr, ttl)?;
        on_own_thread(async move { cache::serve(listener, stack).await })?;
        addr = cache;
    }
    let clients = runtime::Builder::new_current_thread().enable_all().build()?;
    let clients = clients.block_on(load.run(addr, &origin))?;
    Ok(clients)
}

/// Bound before any client connects, but not registered with a runtime yet.
fn listen() -> std::io::Result<(std::net::TcpListener, std::net::SocketAddr)> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

/// Runs a server until the program ends.
fn on_own_thread(serve: impl Future<Output = std::io::Result<()>> + Send + 'static) -> std::io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        if let Err(error) = runtime.block_on(serve) {
            eprintln!("error: a server ended: {error}");
        }
    });
    Ok(())
}
