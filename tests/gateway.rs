//! `examples/gateway` as a program: who gets in, rules that change, purges, the dashboard, and its end.
#![cfg(all(feature = "serde", feature = "dashboard"))]

use std::{fs, path::PathBuf, process::Stdio};

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

const RULES: &str = include_str!("../examples/gateway/rules.json");
const PASSWORD: &str = "a password for tests";

fn command(args: &[&str]) -> Command {
    let test = std::env::current_exe().expect("a path");
    let target = test.ancestors().nth(2).expect("the directory of the target");
    let program = target.join("examples").join(format!("gateway{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "run `cargo build --example gateway --features serde,dashboard` first");
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args);
    command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program with rules of its own, and its demonstration upstreams.
struct Gateway {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
    rules: PathBuf,
    client: Client,
}

impl Gateway {
    async fn start(name: &str) -> Self {
        let rules = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
        fs::write(&rules, RULES).expect("a file for the rules");
        let path = rules.to_str().expect("a path in UTF-8");
        let args = ["--listen", "127.0.0.1:0", "--password", PASSWORD, "--rules", path];
        let mut child = command(&args).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = lines.next_line().await.expect("a line").expect("the first one");
        let url =
            line.split_whitespace().find_map(|word| word.strip_suffix(',')).expect("the address").to_owned();
        Self { child, lines, url, rules, client: Client::new() }
    }

    async fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Reply {
        let method: Method = method.parse().expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.url)).body(body.to_owned());
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.expect("a response");
        let status = response.status();
        let field = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let cache = field("cache-status").unwrap_or_default().replace("tower-readthrough;", "");
        Reply { status, cache, body: response.text().await.expect("a body") }
    }

    /// As a client with this token.
    async fn get(&self, path: &str, token: &str) -> Reply {
        self.send("GET", path, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    async fn says(&mut self, end: &str) {
        let line = self.lines.next_line().await.expect("a line").expect("one more");
        assert!(line.ends_with(end), "{line:?} ends with {end:?}");
    }
}

struct Reply {
    status: StatusCode,
    cache: String,
    body: String,
}

#[tokio::test]
async fn tenants_get_in_by_their_tokens_and_share_nothing() {
    let gateway = Gateway::start("tenants").await;
    assert_eq!(gateway.get("/catalogue/prices/7", "guess").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gateway.send("GET", "/catalogue/prices/7", &[], "").await.status, StatusCode::UNAUTHORIZED);
    let first = gateway.get("/catalogue/list?b=2&a=1", "acme-secret").await;
    assert_eq!((first.status, first.cache.as_str()), (StatusCode::OK, "fwd=uri-miss;stored"));
    assert_eq!(gateway.get("/catalogue/list?a=1&b=2", "acme-secret").await.cache, "hit");
    assert_eq!(gateway.get("/catalogue/list?a=1&b=2", "globex-secret").await.cache, "fwd=uri-miss;stored");
    assert_eq!(gateway.get("/catalogue/list?a=1&b=2", "guess").await.status, StatusCode::UNAUTHORIZED);
    let order = gateway.get("/orders/1", "acme-secret").await;
    assert_eq!(
        (order.body.as_str(), order.cache.as_str()),
        (r#"{"order":1}"#, "fwd=bypass;detail=rule-bypass")
    );
}

#[tokio::test]
async fn rules_are_replaced_when_their_file_changes_unless_they_are_invalid() {
    let mut gateway = Gateway::start("reload").await;
    gateway.get("/catalogue/list", "acme-secret").await;
    assert_eq!(gateway.get("/catalogue/list", "acme-secret").await.cache, "hit");
    let bypassed = r#"{"rules": [{"path": "/catalogue/{**rest}", "bypass": true}]}"#;
    fs::write(&gateway.rules, bypassed).expect("the rules change");
    gateway.says("the rules are replaced").await;
    let seen = gateway.get("/catalogue/list", "acme-secret").await;
    assert_eq!(seen.cache, "fwd=bypass;detail=rule-bypass");
    fs::write(&gateway.rules, r#"{"rules": [{"path": "catalogue"}]}"#).expect("the rules change");
    let errors = BufReader::new(gateway.child.stderr.take().expect("its errors"));
    let error = errors.lines().next_line().await.expect("a line").expect("an error");
    assert!(
        error.contains("invalid path pattern") && error.ends_with("the rules stay as they are"),
        "{error}"
    );
    let seen = gateway.get("/catalogue/list", "acme-secret").await;
    assert_eq!(seen.cache, "fwd=bypass;detail=rule-bypass");
}

#[tokio::test]
async fn operators_purge_and_see_the_dashboard_and_tenants_do_not() {
    let gateway = Gateway::start("operators").await;
    gateway.get("/catalogue/list", "acme-secret").await;
    let order = r#"{"all": true}"#;
    let bearer = format!("Bearer {PASSWORD}");
    let json = ("content-type", "application/json");
    for token in ["Bearer acme-secret", "Basic b3BzOmE="] {
        let seen = gateway.send("POST", "/-/purge", &[("authorization", token), json], order).await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED);
        let seen = gateway.send("GET", "/-/cache/data.json", &[("authorization", token)], "").await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(gateway.get("/catalogue/list", "acme-secret").await.cache, "hit");
    let seen = gateway.send("POST", "/-/purge", &[("authorization", &bearer), json], order).await;
    assert_eq!(seen.status, StatusCode::OK);
    assert_eq!(gateway.get("/catalogue/list", "acme-secret").await.cache, "fwd=stale;stored;detail=purged");
    // `ops:a password for tests` in base64.
    let ops = ("authorization", "Basic b3BzOmEgcGFzc3dvcmQgZm9yIHRlc3Rz");
    let page = gateway.send("GET", "/-/cache", &[ops], "").await;
    assert!(page.body.starts_with("<!doctype html>"));
    let figures = gateway.send("GET", "/-/cache/data.json", &[ops], "").await;
    let figures: Value = serde_json::from_str(&figures.body).expect("JSON");
    assert_eq!((&figures["name"], &figures["totals"]["hits"]), (&"Gateway".into(), &1.into()));
    assert_eq!(figures["totals"]["origins"][0]["name"], "catalogue");
}

#[cfg(unix)]
#[tokio::test]
async fn at_its_end_it_answers_what_it_has_accepted() {
    let mut gateway = Gateway::start("end").await;
    let (_, ()) = tokio::join!(
        async {
            let seen = gateway.get("/catalogue/slow", "acme-secret").await;
            assert_eq!(seen.status, StatusCode::OK);
        },
        async {
            // The upstream takes 120 ms: the figures say when the request is there.
            let ops = ("authorization", "Basic b3BzOmEgcGFzc3dvcmQgZm9yIHRlc3Rz");
            loop {
                let figures = gateway.send("GET", "/-/cache/data.json", &[ops], "").await;
                let figures: Value = serde_json::from_str(&figures.body).expect("JSON");
                if figures["totals"]["coalesce"]["fetches"] == 1 {
                    break;
                }
            }
            let id = gateway.child.id().expect("it runs").to_string();
            assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("a signal").success());
        },
    );
    gateway.says("all requests are answered").await;
    assert!(gateway.child.wait().await.expect("an end").success());
}

#[tokio::test]
async fn a_document_is_validated_and_explained() {
    let directory = "examples/gateway";
    let (rules, table) = (format!("{directory}/rules.json"), format!("{directory}/rules.table.json"));
    let done = command(&["--check", &rules, "--table", &table]).output().await.expect("an end");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for line in ["rule 1 `prices`", "  stores  for 2s", "rule 3 `everything else`", "the table is met"] {
        assert!(said.contains(line), "{line:?} is in:\n{said}");
    }
    assert!(!said.contains("warning"), "{said}");
    let wrong = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("wrong.json");
    fs::write(&wrong, r#"{"rules": [{"path": "/p", "fixed_ttl": "soon"}]}"#).expect("a file");
    let failed = command(&["--check", wrong.to_str().expect("a path")]).output().await.expect("an end");
    assert!(!failed.status.success() && !failed.stderr.is_empty());
}

#[test]
fn it_is_less_than_two_hundred_lines() {
    assert!(include_str!("../examples/gateway/main.rs").lines().count() < 200);
}
