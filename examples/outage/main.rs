//! An outage on real sockets: two origins, one after the other is gone, and both come back.
//!
//! ```text
//! cargo run --release --example outage
//! ```
//!
//! A site of 500 pages, each fresh for two seconds, gets 500 requests a second, after all pages were stored. Its pages come from a first
//! origin, and from a second one while the first fails. Every few seconds something happens: the first
//! origin is killed, then the second, then both come back. The program prints a line for each second: how many
//! requests there were, how many failed, how many got a stale page, what each origin was asked, and
//! the state in which the cache believes them to be.
//!
//! What to look for: no request fails at any time. With one origin gone, pages are as fresh as before. With
//! both gone, all pages are stale after two seconds, and the origins are asked once in a while instead of 500
//! times a second. When both are back, pages are fresh again within seconds.
//!
//! `--json` prints one object for machines instead: `failed`, `stale`, `origin_calls`, `attempts_while_down` and
//! `seconds_to_fresh`.

mod cache;
mod load;
mod origin;
mod report;

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Parser;
use tokio::time::Instant;
use tower_readthrough::warm_up::warm_up;

use self::{load::Load, origin::Origin, report::Timeline};

/// An outage of two origins, with a cache in front of them.
#[derive(Parser)]
struct Args {
    /// Requests per second.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rate: u32,
    /// How long each of the four phases takes, in seconds; the last one takes twice as long.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(4..=3600))]
    seconds: u32,
    /// Print one JSON object instead of a timeline.
    #[arg(long)]
    json: bool,
}

/// What is up, phase by phase, and how many times `--seconds` a phase takes.
const PHASES: [(&str, [bool; 2], u32); 4] = [
    ("both origins are up", [true, true], 1),
    ("the first origin is killed", [false, true], 1),
    ("the second origin is killed, too", [false, false], 1),
    ("both come back", [true, true], 2),
];

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut origins = [Origin::start().await?, Origin::start().await?];
    let cache = cache::build([origins[0].address(), origins[1].address()])?;
    warm_up(&cache.stack, load::all_pages(), 16).await;
    let load = Load::begin(cache.stack.clone(), args.rate);
    let mut timeline = Timeline::new(args.rate);
    let mut second = Instant::now();
    for (phase, (name, are_up, times)) in PHASES.into_iter().enumerate() {
        for (origin, is_up) in origins.iter_mut().zip(are_up) {
            origin.set_up(is_up).await?;
        }
        if !args.json {
            println!("{name}");
        }
        for _ in 0..args.seconds * times {
            second += Duration::from_secs(1);
            tokio::time::sleep_until(second).await;
            let line = timeline.add(phase, load.take(), cache.asked(), cache.states());
            if !args.json {
                println!("{line}");
            }
        }
    }
    if args.json {
        println!("{}", timeline.json());
    } else {
        println!("{}", timeline.summary());
    }
    Ok(())
}
