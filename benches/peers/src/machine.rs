//! Where the figures come from.

use std::{fs, process::Command};

const LOCK: &str = include_str!("../Cargo.lock");

const PACKAGES: [&str; 24] = [
    "tower-http-cache",
    "axum-response-cache",
    "cached",
    "http-cache-tower",
    "hitbox-tower",
    "hitbox",
    "hitbox-moka",
    "tower-cache",
    "quick_cache",
    "moka",
    "mini-moka",
    "dashmap",
    "lru",
    "schnellru",
    "sieve-cache",
    "axum",
    "hyper",
    "http",
    "http-body",
    "tower",
    "tokio",
    "bytes",
    "foldhash",
    "mimalloc",
];

/// The latest, where others still take an older one.
fn version(package: &str) -> Option<String> {
    let (_, rest) = LOCK.rsplit_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(format!("{package} {}", rest.split('"').next()?))
}

/// The first line that a program prints, on whichever stream.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
}

fn after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(label))?;
    Some(line.split_once(':')?.1.trim())
}

pub(crate) fn machine() {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let system = [
        Some(format!("{cores} x {}", after(&cpus, "model name").unwrap_or("?"))),
        after(&memory, "MemTotal").map(|total| format!("{total} of memory")),
        says("uname", &["-sr"]).map(|kernel| kernel.split('-').next().unwrap_or_default().to_owned()),
        says("getconf", &["GNU_LIBC_VERSION"]),
        says("rustc", &["--version"]),
        says("date", &["-u", "+%Y-%m-%d"]),
        says("git", &["rev-parse", "--short", "HEAD"]).map(|revision| format!("revision {revision}")),
    ];
    println!("* Machine: {}", join(system.into_iter()));
    println!("* Crates: {}", join(PACKAGES.into_iter().map(version)));
    // What follows the version is of no use.
    let first = |program, arguments: &[&str], words| {
        says(program, arguments).map(|line| {
            line.replace(['(', ')'], "").split_whitespace().take(words).collect::<Vec<_>>().join(" ")
        })
    };
    let programs = [
        first("nginx", &["-v"], 3),
        first("varnishd", &["-V"], 2),
        first("wrk", &["-v"], 2),
        first("valgrind", &["--version"], 1),
    ];
    println!("* Programs: {}", join(programs.into_iter()));
}

fn join(parts: impl Iterator<Item = Option<String>>) -> String {
    parts.flatten().collect::<Vec<_>>().join(", ")
}
