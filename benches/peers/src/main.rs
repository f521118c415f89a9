//! Measures this crate beside what else a user could take. See the README for the commands.

mod alloc;
mod args;
mod bounds;
mod candidates;
mod clock;
mod curves;
mod itself;
mod machine;
mod measure;
mod origin;
mod ratio;
mod report;
mod runner;
mod serve;
mod table;
mod zipf;

use std::{
    env,
    process::{Command, ExitCode},
};

use self::{args::Args, table::Table};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

const USAGE: &str = "\
usage: peers COMMAND [--only a,b] [--json | --columns a,b] [...]

  check      what comes back on a hit
  list       the candidates
  hit        cost of a hit, one thread     [--workload hot1k|zipf|hot600k] [--rounds N] [--ms N] ...
  mt         the same, several threads     [--threads N] and the same
  miss       cost of a miss, with eviction [--rounds N] [--ops N]
  post       a request without a key, beside the bare service
  stampede   many ask for one cold key     [--callers N] [--body N] [--delay-ms N] [--rounds N]
  ttl        10,000 req/s against a TTL of 50 ms   [--delay-ms N] [--rounds N]
  mem        what an entry takes           [--n N] [--body N] [--fields N]
  ratio      hit ratio on traces           [--n N]
  bounds     what the crate holds itself to; fails if something is missed
  report     renews the tables in BENCHMARKS.md   [--match TEXT]
  machine    where the figures come from
  curves     figures against sizes, to benches/curves   [--curve a,b] [--most N] [--out DIR]
  plot       draws them again              [--curve a,b] [--out DIR]
  e2e        loopback servers under wrk    [--body N] [--conns N] [--rounds N] [--secs N]
  serve      one of those servers          --cand NAME [--port N] [--body N]
  instr      instructions per request, by callgrind    [hit|miss|post] [--key-rules N] [candidate ...]
  files      the files of the crate that a request crosses, by callgrind    [hit|miss|post] [candidate]
  one        requests to one candidate, for callgrind  --cand NAME [--kind hit|miss|post] [--ops N]";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((command, options)) if command == "e2e" => script("python3", "e2e/run.py", options),
        Some((command, options)) if command == "instr" => script("sh", "instr.sh", options),
        Some((command, options)) if command == "files" => script("sh", "files.sh", options),
        _ => Args::parse(words).and_then(|args| run(&args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    match table_of(args) {
        Some(table) => table.print(args),
        None => match args.command.as_str() {
            "bounds" => return bounds::bounds(args),
            "report" => return report::report(args),
            "machine" => machine::machine(),
            "curves" => return curves::curves(args),
            "plot" => return curves::plot(args),
            "serve" => serve::serve(args),
            "one" => measure::one(args),
            "stampede-one" => measure::stampede_one(args),
            "ttl-one" => measure::ttl_one(args),
            "mem-one" => measure::mem_one(args),
            _ => return Err(USAGE.into()),
        },
    }
    Ok(())
}

/// Hands over to a script that starts this program again.
fn script(interpreter: &str, name: &str, options: &[String]) -> Result<(), String> {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let status = Command::new(interpreter).arg(&path).args(options).env("PEERS", this).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{path}: {status}")),
        Err(error) => Err(format!("{interpreter}: {error}")),
    }
}

fn table_of(args: &Args) -> Option<Table> {
    Some(match args.command.as_str() {
        "check" => measure::check(args),
        "list" => measure::list(),
        "hit" => measure::hit(args),
        "mt" => measure::mt(args),
        "miss" => measure::miss(args),
        "post" | "pass" => measure::pass(args),
        "stampede" => measure::stampede(args),
        "ttl" => measure::ttl(args),
        "mem" => measure::mem(args),
        "ratio" => ratio::ratio(args),
        _ => return None,
    })
}
