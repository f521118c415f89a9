//! A client of a JSON API that goes on answering while the API is down, also right after its own start.
//!
//! ```text
//! cargo run --example client --features snapshot -- --api http://127.0.0.1:8080 --snapshot /tmp/api-cache
//! ```
//!
//! Each line of the input is a path. For each the program prints the status, how the response came about
//! (RFC 9211) and the body, or the error if there is no response.
//!
//! The [`Api`](api::Api) is what an SDK would be: reqwest, with retries and a read-through cache around it.
//! Responses are fresh for as long as the API says, and cover for it for a day when it fails. What is stored is
//! written to the file every minute, and when the program is told to end, by SIGTERM, Ctrl-C or the end of the
//! input. The next start loads it. Until the API has confirmed a response that was loaded, it is only used if
//! the API fails.
//!
//! To see that: ask for a path, end the program, stop the API, start the program again, and ask once more.

mod api;
#[path = "../common/shutdown.rs"]
mod shutdown;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use http::Uri;
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    runtime,
    time::timeout,
};
use tower_readthrough::{MemoryStore, store::SnapshotFile};

use self::{api::Api, shutdown::shutdown_signal};

/// A client with a cache that outlives it.
#[derive(Parser)]
struct Args {
    /// Where the API is.
    #[arg(long, value_name = "URL")]
    api: Uri,
    /// Where the cache is kept.
    #[arg(long, value_name = "FILE")]
    snapshot: PathBuf,
    /// How much of the cache may be lost if the program is killed, in seconds.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    write_every: u64,
}

/// How long the program waits for what was stored, before it answers without.
const LOAD_AT_MOST: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let run = |args: &Args| {
        let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(run(args));
        // Without waiting for the thread that reads the input.
        runtime.shutdown_background();
        ended
    };
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    // First: from here on a signal does not end the program before what is stored is written.
    let shutdown = shutdown_signal()?;
    let store = MemoryStore::builder(64 << 20).snapshots(true).build()?;
    let file = SnapshotFile::builder(store.clone(), &args.snapshot)
        // Another API has other responses under the same paths.
        .namespace(args.api.to_string())
        .every(Duration::from_secs(args.write_every))
        .open()?;
    let api = Api::new(args.api.clone(), store)?;
    match timeout(LOAD_AT_MOST, file.loaded()).await {
        Ok(report) => eprintln!("{} responses loaded: {:?}", report.loaded, report.end),
        Err(_) => eprintln!("still loading"),
    }
    tokio::select! {
        answered = answer(&api) => answered?,
        () = shutdown => {}
    }
    let written = file.write().await?;
    eprintln!("{} responses written, {} bytes", written.responses, written.bytes);
    Ok(())
}

/// Answers each line of the input.
async fn answer(api: &Api) -> Result<(), Box<dyn Error>> {
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(path) = lines.next_line().await? {
        match api.get(path.trim()).await {
            Ok(answer) => println!("{} {} {}", answer.status.as_u16(), answer.cache_status, answer.body),
            Err(error) => println!("error {error}"),
        }
    }
    Ok(())
}
