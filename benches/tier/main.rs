//! What a second tier costs. Nothing is asserted of times: both sides of each comparison are measured by turns, in one
//! run.
//!
//! ```text
//! cargo bench --bench tier --all-features
//! cargo bench --bench tier --all-features -- answers misses
//! ```
//!
//! The second one measures these parts alone, of `reads`, `envelopes`, `answers`, `hits`, `misses` and `restart`. A
//! `redis-server` is started for each, on a free port, and ended with it.

mod answers;
#[cfg(feature = "zstd")]
mod envelopes;
mod hits;
mod link;
mod misses;
mod node;
mod remote;
mod restart;
mod server;
mod times;

use std::{env, fs, process::ExitCode};

use self::server::Server;

const PARTS: [&str; 6] = ["reads", "envelopes", "answers", "hits", "misses", "restart"];

/// How busy the machine is with other things, where it says so.
fn load() -> String {
    fs::read_to_string("/proc/loadavg").map_or_else(|_| "unknown".to_owned(), |load| load.trim().to_owned())
}

async fn measure(part: &'static str, server: Server) {
    match part {
        "reads" => remote::measure(&server).await,
        #[cfg(feature = "zstd")]
        "envelopes" => envelopes::measure(),
        "answers" => answers::measure(&server).await,
        "hits" => hits::measure(server).await,
        "misses" => misses::measure().await,
        "restart" => restart::measure(&server).await,
        _ => println!("the feature `zstd` is off"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // Cargo adds one of its own.
    let asked: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let Some(unknown) = asked.iter().find(|part| !PARTS.contains(&part.as_str())) {
        eprintln!("there is no part `{unknown}`: {}", PARTS.join(", "));
        return ExitCode::FAILURE;
    }
    for part in PARTS.into_iter().filter(|part| asked.is_empty() || asked.iter().any(|asked| asked == part)) {
        let Some(server) = Server::start().await else {
            eprintln!("`redis-server` is missing: apt-get install redis-server");
            return ExitCode::FAILURE;
        };
        println!("\n{part} (load before: {})", load());
        // As a request of a server: on a thread of the runtime.
        tokio::spawn(measure(part, server)).await.unwrap();
    }
    ExitCode::SUCCESS
}
