//! A gateway: authentication, a cache with rules for each endpoint, two upstreams, and all that operators need.
//!
//! ```text
//! cargo run --example gateway --features serde,dashboard,metrics
//! curl -i -H 'authorization: Bearer acme-secret' http://127.0.0.1:3000/catalogue/prices/7
//! ```
//!
//! Without `--catalogue` and `--orders` it starts two small upstreams of its own. Open <http://127.0.0.1:3000/-/cache>
//! as `ops` with the password `change me, please`. `/-/purge` takes purges with the same word as a bearer token, and
//! `/-/metrics` is for Prometheus; `grafana.json` shows what that scrapes.
//!
//! * Who a client is comes first, and the tenant is a part of the key: `tenant` in `rules.json`.
//! * The rules are read again when their file changes. An invalid document is reported and changes nothing.
//!   `--check FILE` validates one and prints what each rule does; `--table FILE` also checks it against a table.
//! * Each upstream has a state of its own. While one is down, what is stored of it is served.

mod demo;

use std::{
    borrow::Cow, error::Error, fs, net::SocketAddr, path::Path, path::PathBuf, sync::Arc, time::Duration,
};

use axum::{
    Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::{Request, State},
    http::{StatusCode, Uri, header, request::Parts, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
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
    purge::{Basic, Bearer, PurgeService},
};

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
    #[arg(long, value_name = "TOKEN=TENANT", default_values = ["acme-secret=acme", "globex-secret=globex"])]
    token: Vec<String>,
    /// The password of `ops` for the dashboard, and the bearer token for purges.
    #[arg(long, default_value = "change me, please")]
    password: String,
}

/// Who the client is: in the extensions of each request that is let in, and in the keys.
#[derive(Clone)]
struct Tenant(String);

type Tokens = Arc<[(String, Tenant)]>;
async fn authenticate(State(tokens): State<Tokens>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    let Some((_, tenant)) = tokens.iter().find(|(token, _)| Some(token.as_str()) == given) else {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response();
    };
    request.extensions_mut().insert(tenant.clone());
    next.run(request).await
}

fn upstream_of(head: &Parts) -> Cow<'_, str> {
    if head.uri.path().starts_with("/catalogue") { "catalogue".into() } else { "orders".into() }
}

#[derive(Clone)]
struct Upstreams {
    client: Client<HttpConnector, Body>,
    catalogue: Authority,
    orders: Authority,
}

impl Upstreams {
    async fn send(self, request: Request) -> Result<axum::http::Response<Incoming>> {
        let (mut head, body) = request.into_parts();
        let upstream = if upstream_of(&head) == "catalogue" { self.catalogue } else { self.orders };
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        head.uri = Uri::builder().scheme("http").authority(upstream).path_and_query(target).build()?;
        head.headers.remove(header::HOST);
        Ok(timeout(Duration::from_secs(10), self.client.request(Request::from_parts(head, body))).await??)
    }
}

fn read_rules(path: &Path) -> Result<KeyRules> {
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

fn check(document: &Path, table: Option<&Path>) -> Result {
    let rules = read_rules(document)?;
    rules.explain().iter().for_each(|rule| println!("{rule}\n"));
    rules.check().iter().for_each(|warning| println!("warning: {warning}"));
    if let Some(table) = table {
        rules.check_table(&serde_json::from_str::<RuleTable>(&fs::read_to_string(table)?)?)?;
        println!("the table is met");
    }
    Ok(())
}

fn app(args: &Args, upstreams: Upstreams) -> Result<Router> {
    let rules = KeyRulesHandle::new(read_rules(&args.rules)?)?;
    tokio::spawn(follow(args.rules.clone(), rules.clone()));
    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20))
        .key(rules)
        .outage(OriginHealth::builder().origin(upstream_of).build()?)
        .origin_limit(OriginLimitLayer::new(64))
        .cache_name("gateway")
        .build()?;
    let dashboard = Dashboard::builder(cache.stats(), Basic::new("ops", &args.password))
        .name("Gateway")
        .purge(cache.purge())
        .sample_requests(10)
        .build()?;
    let buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let prometheus =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &buckets)?;
    let (prometheus, exporter) = (prometheus.install_recorder()?, Arc::new(cache.metrics()?));
    let metrics = get(async move || {
        exporter.export();
        prometheus.render()
    });
    let purge = PurgeService::new(cache.purge(), Bearer::new(args.password.as_str()));
    let pairs = args.token.iter().filter_map(|pair| pair.split_once('='));
    let tokens: Tokens = pairs.map(|(token, tenant)| (token.into(), Tenant(tenant.into()))).collect();
    let gateway = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(tokens, authenticate))
        .layer(HandleErrorLayer::new(async |_: SharedError| StatusCode::BAD_GATEWAY))
        .layer(dashboard.watch(cache))
        // All callers of one fetch get its error.
        .map_err(SharedError::new)
        .service_fn(move |request| upstreams.clone().send(request));
    let app = Router::new().route("/-/metrics", metrics).nest_service("/-/cache", dashboard);
    Ok(app.nest_service("/-", purge).fallback_service(gateway))
}

#[tokio::main]
async fn main() -> Result {
    let args = Args::parse();
    if let Some(document) = &args.check {
        return check(document, args.table.as_deref());
    }
    let catalogue = demo::or_start(args.catalogue.clone(), demo::catalogue).await?;
    let orders = demo::or_start(args.orders.clone(), demo::orders).await?;
    let client = Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let app = app(&args, Upstreams { client, catalogue, orders })?;
    let listener = TcpListener::bind(args.listen).await?;
    println!("gateway on http://{0}, dashboard on http://{0}/-/cache", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(demo::ended()).await?;
    println!("all requests are answered");
    Ok(())
}
