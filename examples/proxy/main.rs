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
//! * **What is stored.** Responses that `Cache-Control` or `Expires` of the origin allow to store.
//!   `--default-ttl` is the lifetime of responses without freshness, and `--force-ttl` that of all
//!   responses; they exclude each other. `--heuristic-freshness` takes a lifetime from `Last-Modified`,
//!   as most shared caches do (RFC 9111 §4.2.2); an edited file may then be served stale for up to a
//!   day. A response with `no-store`, `private` or `Set-Cookie` is never stored (`Set-Cookie` unless
//!   `--store-set-cookie`). Cache directives of clients are honoured, as in RFC 9111 (the library does
//!   not by default), unless `--ignore-request-directives` protects the origin from them. Every
//!   response has a `Cache-Status` field (RFC 9211).
//! * **Cookies and credentials.** Under `--default-ttl` and `--force-ttl` a request with a cookie is not
//!   stored and gets no stored response (`detail=cookie` in `Cache-Status`), unless `--cookies` names
//!   those that pages depend on. `--credentials` names fields that count as `Authorization` does.
//! * **When the origin fails**, a stale response is served for up to `--stale-if-error` (default: one
//!   hour). Without one, the client gets 502 if the origin cannot be reached or breaks off, and 504 if
//!   it takes longer than `--origin-timeout` to send the head of its response. An upload that makes
//!   progress is not late. A body that breaks off later cuts the connection to the client.
//! * **Outages.** An `--origin` that is down is asked once in a while until it is back, and another `--origin` takes
//!   over. `--stale-after` bounds how long a client waits that can have something stale, `--origin-limit` the
//!   requests under way, `--fail-fast` refuses what has nothing stored, `--probe` asks by itself,
//!   and `--refresh-ahead` renews responses before they expire.
//! * **Host policy.** The origin sees its own authority in `Host`, and that of the client's request
//!   in `X-Forwarded-Host`. `X-Forwarded-For` is appended to, `X-Forwarded-Host` and
//!   `X-Forwarded-Proto` of the client are replaced. Other fields by which a request overrides its
//!   host, scheme, port, path or method are removed: `Forwarded`, `X-Forwarded-*`, `X-Original-*`,
//!   `X-Rewrite-*`, `X-HTTP-Method-Override` and similar ones. The key does not hold them, so a client
//!   could change the links of a page that is stored for all. So are names with an underscore, which
//!   many origins read as the same name with a hyphen. A request that has passed this proxy before, by
//!   its `Via`, gets 508.
//! * **Fields of the connection** (RFC 9110 §7.6.1), those named in `Connection` included, end
//!   here in both directions; `TE` too.
//! * **Framing.** `Expect` ends here, and the proxy sends 100 itself; `Trailer` and the trailers of
//!   requests end here too. A request with a body that breaks off or is framed wrongly gets 400, and
//!   one with another transfer coding than `chunked` 501 (RFC 9112 §6.1). Requests with a body have connections of their
//!   own to the origin. `Content-Length` beside `Transfer-Encoding` is removed from a response
//!   (RFC 9112 §6.3); another coding than `chunked`, which was not requested, means 502.
//! * **Large heads.** A head has at most 256 lines, over HTTP/1 in both directions, and one of a request
//!   at most 64 KiB. A client that exceeds this gets 431; if the origin does, the client gets 502.
//! * **Connections that the origin closed** while they were idle: an idempotent request without a body
//!   is sent once more on a new connection (RFC 9112 §9.3.1), in addition to `--retries`. All other
//!   requests get 502.
//! * **Upgrades** (WebSocket) pass through, over HTTP/1.1. They do not count for
//!   `--origin-limit` once they are established, and end with the program. A request to upgrade to
//!   another version of HTTP or to TLS is handled like any other.
//!
//! SIGTERM and Ctrl-C end the program: no new connections, and ten seconds for requests under way.

mod connection;
mod front;
mod headers;
mod origin;
#[path = "../common/shutdown.rs"]
mod shutdown;
mod socket;
mod stack;
mod upload;

use std::{error::Error, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use http::uri::{Authority, PathAndQuery, Scheme};
use tokio::net::TcpListener;

use self::{front::Front, headers::Hop, shutdown::shutdown_signal};

/// A caching reverse proxy. DUR is a duration such as 50ms, 10s or 1h.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The origin: http://HOST[:PORT]. Given several times: the origins in the order in which they are asked,
    /// the next one while those before it fail.
    #[arg(long, value_name = "URL", required = true, value_parser = origin::parse_url)]
    origin: Vec<Authority>,
    /// The scheme of the clients: https, if a TLS terminator is in front of the proxy.
    #[arg(long, value_name = "SCHEME", value_parser = parse_scheme)]
    scheme: Option<Scheme>,
    /// How long the origin may take to connect and to send the head of a response.
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = humantime::parse_duration)]
    origin_timeout: Duration,
    /// The lifetime of responses without freshness.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration, conflicts_with = "force_ttl")]
    default_ttl: Option<Duration>,
    /// The lifetime of all responses, whatever their own freshness.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    force_ttl: Option<Duration>,
    /// Give responses that have only a Last-Modified a lifetime of a tenth of the time since then, of a day
    /// at most.
    #[arg(long, conflicts_with = "force_ttl")]
    heuristic_freshness: bool,
    /// How much memory stored responses may take.
    #[arg(long, value_name = "N", default_value_t = 256 << 20)]
    max_bytes: u64,
    /// How long a stale response may be served while the origin fails.
    #[arg(long, value_name = "DUR", default_value = "1h", value_parser = humantime::parse_duration)]
    stale_if_error: Duration,
    /// How often a safe request is retried; 0: never.
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// How many requests may be under way at an origin.
    #[arg(long, value_name = "N")]
    origin_limit: Option<usize>,
    /// How long a client waits for the origin if a stale response can be served instead.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    stale_after: Option<Duration>,
    /// While the origin is down, refuse at once what has nothing stored, with 503.
    #[arg(long, requires = "origin_limit")]
    fail_fast: bool,
    /// Refresh responses that are requested after this share of their lifetime, such as 0.6, before they expire.
    #[arg(long, value_name = "SHARE")]
    refresh_ahead: Option<f64>,
    /// Ask an origin that is down for this path every five seconds, to notice when it is back.
    #[arg(long, value_name = "PATH")]
    probe: Option<PathAndQuery>,
    /// Store responses with Set-Cookie: every client gets the same cookie.
    #[arg(long)]
    store_set_cookie: bool,
    /// The cookies that pages depend on, as NAME,NAME: they are in the key, and the origin gets no others.
    /// With an empty list no page depends on any. By default a request with a cookie goes to the origin,
    /// unless the response has freshness of its own.
    #[arg(long, value_name = "NAMES")]
    cookies: Option<String>,
    /// Fields that are credentials as Authorization is, as NAME,NAME.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    credentials: Vec<String>,
    /// Ignore cache directives of clients.
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
    let shutdown = shutdown_signal()?;
    println!("listening on http://{}", listener.local_addr()?);
    front::serve(listener, front, shutdown).await;
    Ok(())
}
