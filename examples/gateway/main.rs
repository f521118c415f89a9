//! A gateway: authentication, a cache with rules for each endpoint, two upstreams, and all that operators need.
//!
//! ```text
//! cargo run --example gateway --features serde,dashboard,metrics
//! curl -i -H 'authorization: Bearer acme-secret' http://127.0.0.1:3000/catalogue/prices/7
//! ```
//!
//! Without `--catalogue` and `--orders` it starts two small upstreams of its own. Open <http://127.0.0.1:3000/-/cache>
//! as `ops` with the password `change me, please`. With that as a bearer token `/-/purge` takes purges, and Prometheus
//! gets `/-/metrics` (`authorization: {credentials: …}` in its configuration), of which `grafana.json` makes charts.
//!
//! * Authentication comes first, and the tenant is a part of the key: `tenant` in `rules.json`. The form of the
//!   dashboard that explains a URL does so for the first tenant.
//! * The rules are read again when their file changes. An invalid document is reported and changes nothing.
//!   `--check FILE` validates one and prints what each rule does; `--table FILE` also checks it against a table.
//! * Each upstream has a state of its own. While one is down, what is stored of it is served.

mod demo;
#[path = "../common/shutdown.rs"]
mod shutdown;
mod tenants;

use std::{borrow::Cow, error::Error, fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::Request,
    http::{StatusCode, Uri, header, request::Parts, uri::Authority},
    middleware,
    routing::get,
};
use clap::Parser;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::{net::TcpListener, time::timeout};
use tower::ServiceBuilder;
use tower_readthrough::{
    KeyRules, KeyRulesBuilder, KeyRulesHandle, MemoryStore, OriginHealth, OriginLimitLayer, ReadThroughLayer,
    RuleTable, SharedError,
    dashboard::Dashboard,
    purge::{Access, Authorize, Basic, Bearer, PurgeService},
};

use tenants::{Tenant, Tokens, UNAUTHORIZED, authenticate};

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A gateway with a cache.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// The key rules, read again when the file changes.
    #[arg(long, value_name = "FILE", default_value = "examples/gateway/rules.json")]
    rules: PathBuf,
    /// Validate a document of key rules, print what each rule does, and end.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// With `--check`: also check a table of requests and their expected results.
    #[arg(long, value_name = "FILE", requires = "check")]
    table: Option<PathBuf>,
    /// The upstream for `/catalogue`.
    #[arg(long, value_name = "HOST:PORT")]
    catalogue: Option<Authority>,
    /// The upstream for everything else.
    #[arg(long, value_name = "HOST:PORT")]
    orders: Option<Authority>,
    /// The tenants by their bearer tokens.
    #[arg(long, value_name = "TOKEN=TENANT", value_parser = tenants::parse, default_values = tenants::SAMPLES)]
    token: Vec<(String, Tenant)>,
    /// The password of `ops` for the dashboard, and the bearer token for purges and metrics.
    #[arg(long, default_value = "change me, please")]
    password: String,
}

fn upstream_of(head: &Parts) -> Cow<'_, str> {
    if head.uri.path().starts_with("/catalogue") { "catalogue".into() } else { "orders".into() }
}

/// Sends a request to the upstream for its path: the first one is the catalogue.
async fn send(
    client: Client<HttpConnector, Body>,
    [catalogue, orders]: [Authority; 2],
    request: Request,
) -> Result<axum::http::Response<Incoming>> {
    let (mut head, body) = request.into_parts();
    let upstream = if upstream_of(&head) == "catalogue" { catalogue } else { orders };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    head.uri = Uri::builder().scheme("http").authority(upstream).path_and_query(target).build()?;
    head.headers.remove(header::HOST);
    Ok(timeout(Duration::from_secs(10), client.request(Request::from_parts(head, body))).await??)
}

fn read_rules(path: &PathBuf) -> Result<KeyRules> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let document = fs::read_to_string(path).map_err(|error| at(&error))?;
    let rules: KeyRulesBuilder = serde_json::from_str(&document).map_err(|error| at(&error))?;
    let rules = rules.extension("tenant", |Tenant(tenant)| Some(tenant.as_bytes().into()));
    Ok(rules.build().map_err(|error| at(&error))?)
}

/// Compares contents: the time of a change has a coarse grain, and mounted files may lack it.
async fn follow(path: PathBuf, rules: KeyRulesHandle) {
    let mut last = fs::read(&path).ok();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = fs::read(&path).ok();
        if now != std::mem::replace(&mut last, now.clone()) {
            match read_rules(&path).and_then(|new| Ok(rules.replace(new)?)) {
                Ok(_) => println!("{}: the rules are replaced", path.display()),
                Err(error) => eprintln!("{error}; the rules stay as they are"),
            }
        }
    }
}

fn check(document: &PathBuf, table: Option<&PathBuf>) -> Result {
    let rules = read_rules(document)?;
    rules.explain().iter().for_each(|rule| println!("{rule}\n"));
    rules.check().iter().for_each(|warning| println!("warning: {warning}"));
    if let Some(table) = table {
        rules.check_table(&serde_json::from_str::<RuleTable>(&fs::read_to_string(table)?)?)?;
        println!("the table is met");
    }
    Ok(())
}

fn app(args: &Args, upstreams: [Authority; 2]) -> Result<Router> {
    let rules = KeyRulesHandle::new(read_rules(&args.rules)?)?;
    tokio::spawn(follow(args.rules.clone(), rules.clone()));
    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20))
        .key(rules)
        .count_by_rule()
        .outage(OriginHealth::builder().origin(upstream_of).build()?)
        .origin_limit(OriginLimitLayer::new(64))
        .cache_name("gateway")
        .build()?;
    let tokens: Tokens = args.token.clone().into();
    let (explained, (_, first)) = (cache.clone(), tokens[0].clone());
    let operator = Bearer::new(args.password.as_str());
    let dashboard = Dashboard::builder(cache.stats(), Basic::new("ops", &args.password))
        .name("Gateway")
        .purge(cache.purge())
        .explain(move |head| {
            let mut head = head.clone();
            head.extensions.insert(first.clone());
            explained.explain(&head)
        })
        .sample_requests(10)
        .build()?;
    let buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let prometheus =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &buckets)?;
    let (prometheus, exporter) = (prometheus.install_recorder()?, Arc::new(cache.metrics()?));
    let purge = PurgeService::new(cache.purge(), operator.clone());
    let metrics = get(async move |request: Request| {
        if operator.authorize(&request.into_parts().0) != Access::Granted {
            return Err(UNAUTHORIZED);
        }
        exporter.export();
        Ok(prometheus.render())
    });
    let client = Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let gateway = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(tokens, authenticate))
        .layer(HandleErrorLayer::new(async |_: SharedError| StatusCode::BAD_GATEWAY))
        .layer(dashboard.watch(cache))
        // All callers of one fetch get its error.
        .map_err(SharedError::new)
        .service_fn(move |request| send(client.clone(), upstreams.clone(), request));
    let app = Router::new().route("/-/metrics", metrics).nest_service("/-/cache", dashboard);
    Ok(app.nest_service("/-", purge).fallback_service(gateway))
}

#[tokio::main]
async fn main() -> Result {
    let args = Args::parse();
    if let Some(document) = &args.check {
        return check(document, args.table.as_ref());
    }
    let catalogue = demo::or_start(args.catalogue.clone(), demo::catalogue).await?;
    let orders = demo::or_start(args.orders.clone(), demo::orders).await?;
    let app = app(&args, [catalogue, orders])?;
    let listener = TcpListener::bind(args.listen).await?;
    let shutdown = shutdown::shutdown_signal()?;
    println!("gateway on http://{0}, dashboard on http://{0}/-/cache", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(shutdown).await?;
    println!("all requests are answered");
    Ok(())
}
