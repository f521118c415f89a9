//! A caching reverse proxy.
//!
//! ```text
//! cargo run --release --example proxy -- --origin http://127.0.0.1:9000 --default-ttl 10s
//! ```
//!
//! In front it speaks HTTP/1.1 and HTTP/2 (h2c), behind it HTTP/1.1 over a pool of connections.
//! It speaks no TLS: put a terminator in front of it, say so with `--scheme https`, and put the
//! origin into the same network.
//!
//! * **What is stored.** What the origin's `Cache-Control` or `Expires` allows. `--default-ttl`
//!   adds answers that say nothing about it; `--force-ttl` overrules what they say. The two
//!   exclude each other. `--heuristic-freshness` guesses from `Last-Modified`, as most shared caches
//!   do (RFC 9111 §4.2.2); an edited file is then served as it was for up to a day. `no-store`, `private` and `Set-Cookie` keep an answer out in any case
//!   (the last one unless `--store-set-cookie`). Cache directives of clients are followed, as
//!   RFC 9111 has it (the library does not by default), unless `--ignore-request-directives`
//!   protects the origin from them. Every answer says how it came about in a `Cache-Status` field (RFC 9211).
//! * **Cookies and credentials.** Under `--default-ttl` and `--force-ttl` a request with a cookie is not
//!   stored and gets nothing that is (`detail=cookie` in `Cache-Status`), unless `--cookies` says which
//!   ones pages depend on. `--credentials` names fields that count as `Authorization` does.
//! * **When the origin fails**, an answer past its time is served for as long as
//!   `--stale-if-error` says (default: one hour). If there is none: 502 when the origin cannot be
//!   reached or breaks off, 504 when it takes longer than `--origin-timeout` to send the head of
//!   its answer. An upload that moves is not late. A body that breaks off later cuts the
//!   connection to the client.
//! * **Host policy.** The origin sees its own authority in `Host`, and the one that the client
//!   asked for in `X-Forwarded-Host`. `X-Forwarded-For` is appended to, `X-Forwarded-Host` and
//!   `X-Forwarded-Proto` of the client are replaced. Other fields by which a request overrides its
//!   host, scheme, port, path or method are removed: `Forwarded`, `X-Forwarded-*`, `X-Original-*`,
//!   `X-Rewrite-*`, `X-HTTP-Method-Override` and similar ones. The key does not hold them, so a client
//!   could change the links of a page that is stored for all. So are names with an underscore, which
//!   many origins read as the same name with a hyphen. A request that has been here before, as `Via`
//!   tells, gets 508.
//! * **Fields of the connection** (RFC 9110 §7.6.1), those named in `Connection` included, end
//!   here in both directions; `TE` too.
//! * **Framing.** `Expect` ends here, which answers 100 by itself, and so do `Trailer` and the trailers
//!   of requests. A request whose body breaks off or is framed wrongly gets 400, and one with another
//!   transfer coding than `chunked` 501 (RFC 9112 §6.1). Requests with a body have connections of their
//!   own to the origin. `Content-Length` beside `Transfer-Encoding` is removed from a response
//!   (RFC 9112 §6.3); another coding than `chunked`, which was not asked for, means 502.
//! * **Large heads.** A head has at most 256 lines, over HTTP/1 in both directions, and one of a request
//!   at most 64 KiB. Beyond that a client gets 431, and 502 if it is the origin's.
//! * **Connections that the origin closed** while they were idle: an idempotent request without a body
//!   is sent once more on a new connection (RFC 9112 §9.3.1), whatever `--retries` says. All else is
//!   answered with 502.
//! * **Upgrades** (WebSocket) pass through, over HTTP/1.1. They do not count for
//!   `--origin-limit` once they are established, and end with the program. To another version of HTTP
//!   or to TLS there is none: such a request is answered like any other.
//!
//! SIGTERM and Ctrl-C end it: no new connections, and ten seconds for what is under way.

mod connection;
mod front;
mod headers;
mod origin;
mod socket;
mod stack;
mod upload;

use std::{error::Error, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use http::uri::{Authority, Scheme};
use tokio::net::TcpListener;

use self::{front::Front, headers::Hop};

/// A caching reverse proxy. DUR is a duration such as 50ms, 10s or 1h.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Whom to ask: http://HOST[:PORT].
    #[arg(long, value_name = "URL", value_parser = origin::parse_url)]
    origin: Authority,
    /// How clients ask, whatever a request says: https, if a TLS terminator is in front of it.
    #[arg(long, value_name = "SCHEME", value_parser = parse_scheme)]
    scheme: Option<Scheme>,
    /// How long the origin may take to connect and answer.
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = humantime::parse_duration)]
    origin_timeout: Duration,
    /// How long answers stay fresh that do not say it themselves.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, conflicts_with = "force_ttl")]
    default_ttl: Option<Duration>,
    /// How long all answers stay fresh, whatever they say.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    force_ttl: Option<Duration>,
    /// Guess how long answers stay fresh that say only when they last changed: a tenth of the time since
    /// then, a day at most.
    #[arg(long, conflicts_with = "force_ttl")]
    heuristic_freshness: bool,
    /// How much memory stored answers may take.
    #[arg(long, value_name = "N", default_value_t = 256 << 20)]
    max_bytes: u64,
    /// How long past its time an answer may be served while the origin fails.
    #[arg(long, value_name = "DUR", default_value = "1h", value_parser = humantime::parse_duration)]
    stale_if_error: Duration,
    /// How often a request is tried again if that can do no harm; 0: what the origin says is final.
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// How many requests may be under way at the origin.
    #[arg(long, value_name = "N")]
    origin_limit: Option<usize>,
    /// Store answers with Set-Cookie: every client gets the same cookie.
    #[arg(long)]
    store_set_cookie: bool,
    /// The cookies that pages depend on, as NAME,NAME: they are in the key, and the origin gets no others.
    /// With an empty list no page depends on any. By default a request with a cookie is answered by the
    /// origin, unless that said itself how long its answer stays fresh.
    #[arg(long, value_name = "NAMES")]
    cookies: Option<String>,
    /// Fields that are credentials as Authorization is, as NAME,NAME.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    credentials: Vec<String>,
    /// Do not let clients ask for something newer than what is stored.
    #[arg(long)]
    ignore_request_directives: bool,
}

fn parse_scheme(scheme: &str) -> Result<Scheme, &'static str> {
    match scheme {
        "http" => Ok(Scheme::HTTP),
        "https" => Ok(Scheme::HTTPS),
        _ => Err("http or https"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let front = Front { stack: stack::build(&args)?, hop: Arc::new(Hop::new(args.scheme.clone())?) };
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    println!("listening on http://{}", listener.local_addr()?);
    front::serve(listener, front, front::shutdown_signal()?).await;
    Ok(())
}
