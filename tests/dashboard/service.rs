//! The dashboard as a service: which requests get what, and that its figures are those of the cache.

use std::{collections::HashSet, time::Duration};

use http::{StatusCode, request::Parts};
use serde_json::Value;
use tower::Layer;
use tower_readthrough::{
    BuildError, MemoryStore, ReadThroughLayer, Stats,
    dashboard::{Dashboard, DashboardBuilder},
    purge::{Access, Basic},
    testing::{Answer, Client, DropAfter, ScriptedOrigin, Seen, time},
};

/// Grants access to requests with `x-user: ops`, and knows other users.
fn check(head: &Parts) -> Access {
    match head.headers.get("x-user").map(|user| user.as_bytes()) {
        Some(b"ops") => Access::Granted,
        Some(_) => Access::Forbidden,
        None => Access::Unauthenticated,
    }
}

fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(1 << 20)
}

fn layer() -> ReadThroughLayer<MemoryStore> {
    ReadThroughLayer::builder(store()).build().expect("a cache")
}

fn open(dashboard: Dashboard) -> Client<Dashboard> {
    Client::new(dashboard).header("x-user", "ops")
}

async fn figures(client: &Client<Dashboard>) -> Value {
    let seen = client.get("/data.json").send().await;
    seen.expect_status(200);
    serde_json::from_slice(&seen.body).expect("JSON")
}

fn error_of(seen: &Seen) -> String {
    let said: Value = serde_json::from_slice(&seen.body).expect("JSON");
    said["error"].as_str().expect("a reason").to_owned()
}

#[tokio::test]
async fn nothing_is_shown_or_done_before_the_check_grants_access() {
    let cache = layer();
    let dashboard =
        Dashboard::builder(cache.stats(), check).purge(cache.purge()).build().expect("a dashboard");
    let anyone = Client::new(dashboard.clone());
    for path in ["/", "/data.json", "/purge", "/other"] {
        for method in ["GET", "POST", "PUT"] {
            let request = anyone.request(method, path).header("sec-fetch-site", "same-origin");
            let seen = request.send().await;
            assert_eq!(
                (seen.status.as_u16(), seen.header("www-authenticate")),
                (401, Some("Bearer realm=\"dashboard\""))
            );
            let other = anyone
                .request(method, path)
                .header("sec-fetch-site", "same-origin")
                .header("x-user", "guest");
            assert_eq!(other.send().await.status, StatusCode::FORBIDDEN);
        }
    }
    assert_eq!(cache.stats().snapshot().purges.total(), 0);
    let basic = Client::new(Dashboard::new(Stats::new(), Basic::new("ops", "secret")));
    assert_eq!(basic.get("/").send().await.header("www-authenticate"), Some("Basic realm=\"dashboard\""));
    basic.get("/").header("authorization", "Basic b3BzOnNlY3JldA==").send().await.expect_status(200);
}

#[tokio::test]
async fn each_path_has_its_methods() {
    let cache = layer();
    let with =
        open(Dashboard::builder(cache.stats(), check).purge(cache.purge()).build().expect("a dashboard"));
    let without = open(Dashboard::new(cache.stats(), check));
    for (client, method, path, status, allow) in [
        (&with, "GET", "/", 200, None),
        (&with, "GET", "", 200, None),
        (&with, "HEAD", "/", 200, None),
        (&with, "HEAD", "/data.json", 200, None),
        (&with, "POST", "/", 405, Some("GET, HEAD")),
        (&with, "DELETE", "/data.json", 405, Some("GET, HEAD")),
        (&with, "GET", "/purge", 405, Some("POST")),
        (&with, "GET", "/page.html", 404, None),
        (&with, "GET", "/data.json/", 404, None),
        (&without, "POST", "/purge", 404, None),
        (&without, "GET", "/purge", 404, None),
    ] {
        let target = if path.is_empty() { "http://example.com" } else { path };
        let seen = client.request(method, target).header("sec-fetch-site", "same-origin").send().await;
        assert_eq!((seen.status.as_u16(), seen.header("allow")), (status, allow), "{method} {path}");
        assert_eq!(seen.body.is_empty(), method == "HEAD", "{method} {path}");
    }
    let mounted = Dashboard::builder(cache.stats(), check).mounted_at("/admin/cache").build();
    let mounted = open(mounted.expect("a dashboard"));
    for (path, status) in [
        ("/admin/cache", 200),
        ("/admin/cache/", 200),
        ("/admin/cache/data.json", 200),
        ("/", 404),
        ("/admin/cachedata.json", 404),
    ] {
        mounted.get(path).send().await.expect_status(status);
    }
}

#[tokio::test]
async fn only_a_page_of_the_same_origin_may_purge() {
    let cache = layer();
    let origin = ScriptedOrigin::always(|| Answer::ok("x").max_age(60));
    let client = Client::new(cache.layer(origin.clone()));
    client.get("/p").send().await;
    let dashboard =
        open(Dashboard::builder(cache.stats(), check).purge(cache.purge()).build().expect("a dashboard"));
    let order = |fields: &[(&str, &str)]| {
        let post =
            dashboard.post("/purge").header("content-type", "application/json").body(r#"{"all": true}"#);
        fields.iter().fold(post, |post, (name, value)| post.header(name, value))
    };
    for fields in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("sec-fetch-site", "cross-site"), ("origin", "http://example.com")],
        &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
    ] {
        let seen = order(fields).send().await;
        assert_eq!(seen.status, StatusCode::FORBIDDEN, "{fields:?}");
        assert_eq!(error_of(&seen), "only a page of this origin may change anything");
    }
    client.get("/p").send().await.expect_hit();
    for fields in [("sec-fetch-site", "same-origin"), ("origin", "http://example.com")] {
        order(&[fields]).send().await.expect_status(200);
        assert!(!client.get("/p").send().await.is_hit(), "{fields:?}");
    }
    let large = order(&[("sec-fetch-site", "same-origin")]).body("x".repeat((16 << 10) + 1)).send().await;
    large.expect_status(413);
    let form = dashboard.post("/purge").header("sec-fetch-site", "same-origin").body(r#"{"all": true}"#);
    form.send().await.expect_status(415);
}

#[tokio::test]
async fn no_response_may_be_stored_or_framed_and_each_page_has_a_nonce_of_its_own() {
    let dashboard = Dashboard::new(Stats::new(), check);
    let (anyone, client) = (Client::new(dashboard.clone()), open(dashboard));
    for seen in [
        client.get("/").send().await,
        client.get("/data.json").send().await,
        client.get("/none").send().await,
        anyone.get("/").send().await,
    ] {
        assert_eq!(seen.header("cache-control"), Some("no-store"));
        assert_eq!(seen.header("x-frame-options"), Some("DENY"));
        assert_eq!(seen.header("x-content-type-options"), Some("nosniff"));
        let policy = seen.header("content-security-policy").expect("a policy");
        assert!(
            policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
    }
    let mut nonces = HashSet::new();
    for _ in 0..100 {
        let seen = client.get("/").send().await;
        let policy = seen.header("content-security-policy").expect("a policy");
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
        let page = String::from_utf8(seen.body.to_vec()).expect("text");
        assert_eq!((nonce.len(), page.matches(&format!("nonce=\"{nonce}\"")).count()), (32, 2));
        // Nothing is loaded from elsewhere, and nothing is written as markup.
        for forbidden in [
            "src=",
            "@import",
            "url(",
            "innerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            " style=",
            "onclick",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        nonces.insert(nonce.to_owned());
    }
    assert_eq!(nonces.len(), 100);
}

#[tokio::test]
async fn it_tells_what_would_become_of_a_request_without_its_query() {
    let cache = layer();
    let explained = cache.clone();
    let builder = Dashboard::builder(cache.stats(), check);
    let page = open(builder.explain(move |head| explained.explain(head)).build().expect("a dashboard"));
    let origin = ScriptedOrigin::always(|| Answer::ok("x").max_age(60));
    Client::new(cache.layer(origin.clone())).get("/p?token=secret").send().await;
    let text = async |url: &str| {
        let seen = page.get(&format!("/explain.json?url={url}")).send().await;
        let said: Value = serde_json::from_slice(&seen.body).expect("JSON");
        (seen.status.as_u16(), said["text"].as_str().or(said["error"].as_str()).expect("a text").to_owned())
    };
    let (status, said) = text("http%3A%2F%2Fexample.com%2Fp%3Ftoken%3Dsecret").await;
    assert_eq!(status, 200);
    assert!(said.contains("hit") && !said.contains("secret"), "{said}");
    assert!(text("http%3A%2F%2Fexample.com%2Fother").await.1.contains("uri-miss"));
    for wrong in ["", "%2Fp", "http%3A%2F%2F", "%FF"] {
        assert_eq!(text(wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(origin.calls(), 1);
    open(Dashboard::new(cache.stats(), check))
        .get("/explain.json?url=http%3A%2F%2Fh%2F")
        .send()
        .await
        .expect_status(404);
}

#[tokio::test(start_paused = true)]
async fn the_figures_are_those_of_the_cache() {
    let cache = layer();
    let dashboard = Dashboard::builder(cache.stats(), check).name("shop").build().expect("a dashboard");
    let origin = ScriptedOrigin::strict()
        .on("/slow/{id}", Answer::ok("x").max_age(600).after(Duration::from_millis(800)).repeat())
        .on("/quick", Answer::ok("x").header("cache-control", "no-store").repeat())
        .on("/down", Answer::error().repeat());
    let client = Client::new(dashboard.watch(cache).layer(origin.clone()));
    let page = open(dashboard);
    for target in ["/slow/1?token=secret", "/slow/1?token=secret", "/quick", "/quick", "/slow/2"] {
        client.get(target).send().await;
    }
    assert!(client.get("/down").try_send().await.is_err());
    let seen = figures(&page).await;
    assert_eq!(seen["name"], "shop");
    assert_eq!((&seen["requests"]["total"], &seen["totals"]["hits"]), (&6.into(), &1.into()));
    assert_eq!(seen["recent"]["not_stored"]["no-store"], 2);
    assert_eq!(seen["totals"]["origins"][0]["attempts"], origin.calls());
    let rows = |rows: &Value, value: &str| -> Vec<(String, f64)> {
        let row = |row: &Value| {
            (row["key"].as_str().expect("a key").to_owned(), row[value].as_f64().expect("a number"))
        };
        rows.as_array().expect("rows").iter().map(row).collect()
    };
    let by_time = rows(&seen["keys"]["by_time"], "seconds");
    assert_eq!(by_time[..2], [("example.com/slow/1".into(), 0.8), ("example.com/slow/2".into(), 0.8)]);
    let by_fetches = rows(&seen["keys"]["by_fetches"], "count");
    assert_eq!((&by_fetches[0], by_fetches.len()), (&("example.com/quick".into(), 2.0), 4));
    let decisions = seen["decisions"].as_array().expect("decisions");
    let decision = |at: usize| {
        let decision = &decisions[at];
        let text = |name: &str| decision[name].as_str().unwrap_or_default().to_owned();
        (text("target"), text("outcome"), text("reason"), text("not_stored"), decision["status"].as_u64())
    };
    // The last one first, and no hits.
    assert_eq!(decisions.len(), 5);
    assert_eq!(
        decision(0),
        ("example.com/down".into(), "failed".into(), "uri-miss".into(), String::new(), None)
    );
    let (no, yes) = ("no-store".to_owned(), String::new());
    assert_eq!(decision(2), ("example.com/quick".into(), "forwarded".into(), "bypass".into(), no, Some(200)));
    assert_eq!(
        decision(4),
        ("example.com/slow/1".into(), "forwarded".into(), "uri-miss".into(), yes, Some(200))
    );
    assert_eq!((&decisions[4]["stored"], &decisions[4]["seconds"]), (&true.into(), &0.8.into()));
    assert!(!seen.to_string().contains("secret"), "a query is shown");
    assert_eq!((&seen["keys"]["by_requests"], &seen["can_purge"]), (&Value::Null, &false.into()));
}

#[tokio::test(start_paused = true)]
async fn the_charts_go_back_five_minutes_in_steps_of_two_seconds() {
    let cache = layer();
    let dashboard = Dashboard::new(cache.stats(), check);
    let origin = ScriptedOrigin::always(|| Answer::ok("x").max_age(6_000));
    let client = Client::new(cache.layer(origin.clone()));
    let page = open(dashboard);
    time::settle().await;
    client.get("/a").send().await;
    time::pass(Duration::from_secs(3)).await;
    for _ in 0..3 {
        client.get("/a").send().await;
    }
    client.get("/b").send().await;
    time::pass(Duration::from_secs(4)).await;
    let history = figures(&page).await["history"].clone();
    let expected = [Value::from(0.0), 0.75.into(), Value::Null];
    assert_eq!(history["hit_ratio"].as_array().expect("steps")[..], expected);
    assert_eq!(
        history["requests"].as_array().expect("steps")[..],
        [Value::from(0.5), 2.0.into(), 0.0.into()]
    );
    assert_eq!(
        history["origin_calls"].as_array().expect("steps")[..],
        [Value::from(0.5), 0.5.into(), 0.0.into()]
    );
    assert_eq!((&history["step_seconds"], &history["slots"]), (&2.into(), &150.into()));

    time::pass(Duration::from_secs(600)).await;
    client.get("/a").send().await.expect_hit();
    let seen = figures(&page).await;
    assert_eq!(seen["history"]["hit_ratio"].as_array().map(Vec::len), Some(150));
    assert_eq!((&seen["requests"]["total"], &seen["requests"]["recent"]), (&6.into(), &1.into()));
    assert_eq!(seen["hit_ratio"], 1.0);
    let over = seen["recent"]["over_seconds"].as_f64().expect("seconds");
    assert!((280.0..=300.0).contains(&over), "{over}");
}

#[tokio::test(start_paused = true)]
async fn the_counters_are_read_no_longer_than_there_is_a_dashboard() {
    let cache = layer();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let dashboard = Dashboard::new(cache.stats(), check);
    let (watched, page) = (dashboard.watch(cache), open(dashboard));
    figures(&page).await;
    assert_eq!(tasks(), before + 1);
    drop(page);
    time::pass(Duration::from_secs(3)).await;
    assert_eq!(tasks(), before + 1, "the watched cache is still there");
    drop(watched);
    time::pass(Duration::from_secs(3)).await;
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn hits_and_requests_are_sampled_where_that_is_asked_for() {
    let cache = layer();
    let dashboard =
        Dashboard::builder(cache.stats(), check).sample_hits(10).sample_requests(4).show_queries(true);
    let dashboard = dashboard.build().expect("a dashboard");
    let origin = ScriptedOrigin::always(|| Answer::ok("x").max_age(600));
    let client = Client::new(dashboard.watch(cache).layer(origin.clone()));
    let page = open(dashboard);
    for _ in 0..45 {
        client.get("/a?b=1").send().await;
    }
    let seen = figures(&page).await;
    let outcomes =
        seen["decisions"].as_array().expect("decisions").iter().map(|seen| seen["outcome"].clone());
    assert_eq!(outcomes.collect::<Vec<_>>(), ["hit", "hit", "hit", "hit", "hit", "forwarded"]);
    let row = &seen["keys"]["by_requests"][0];
    assert_eq!((&row["key"], &row["count"]), (&"example.com/a?b=1".into(), &48.into()));
    assert_eq!((&seen["hits_sampled"], &seen["keys"]["sampled"]), (&10.into(), &4.into()));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_nothing_waits_for_counts_until_it_is_dropped() {
    let cache = ReadThroughLayer::builder(store())
        .coalesce(|coalesce| coalesce.fetch_deadline(Duration::from_secs(5)))
        .build();
    let cache = cache.expect("a cache");
    let dashboard = Dashboard::new(cache.stats(), check);
    let origin = ScriptedOrigin::always(Answer::never);
    let client = Client::new(dashboard.watch(cache).layer(origin.clone()));
    let page = open(dashboard);
    assert!(client.get("/").drop_after(DropAfter::Time(Duration::from_secs(1))).await.is_none());
    time::pass(Duration::from_secs(60)).await;
    assert_eq!(origin.under_way(), 0);
    let time = figures(&page).await["keys"]["by_time"][0]["seconds"].as_f64().expect("seconds");
    assert!((4.9..=6.0).contains(&time), "{time}");
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let cache = layer();
    let dashboard = Dashboard::new(cache.stats(), check);
    let origin = ScriptedOrigin::always(|| Answer::ok("x").max_age(600));
    let client = Client::new(dashboard.watch(cache).layer(origin.clone()));
    let page = open(dashboard);
    for number in 0..200 {
        client.get(&format!("/{number}/{}", "x".repeat(400))).send().await;
    }
    let seen = figures(&page).await;
    let decisions = seen["decisions"].as_array().expect("decisions");
    assert_eq!(decisions.len(), 50);
    let target = decisions[0]["target"].as_str().expect("a target");
    assert!(target.starts_with("example.com/199/x") && target.ends_with("x…"), "{target}");
    assert_eq!(target.chars().count(), 241);
    assert_eq!(seen["keys"]["by_fetches"].as_array().map(Vec::len), Some(12));
    assert!(seen["keys"]["by_fetches"][0]["error"].as_u64() > Some(0), "an estimate says so");
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let builder = || Dashboard::builder(Stats::new(), check);
    let refused =
        |builder: DashboardBuilder| -> BuildError { builder.build().map(drop).expect_err("an error") };
    for (builder, expected) in [
        (builder().name(""), "`name`: `` cannot be a title: give it 1 to 60 characters"),
        (builder().name("x".repeat(61)), "cannot be a title"),
        (builder().mounted_at("/"), "`mounted_at`: `/` cannot be a path to mount at"),
        (builder().mounted_at("admin"), "`mounted_at`: `admin` cannot be a path to mount at"),
        (builder().sample_hits(0), "`sample_hits` is zero, so that nothing would be sampled"),
        (builder().sample_requests(0), "`sample_requests` is zero, so that nothing would be sampled"),
    ] {
        let said = refused(builder).to_string();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_dashboard_can_be_made_outside_a_runtime() {
    let dashboard = Dashboard::new(Stats::new(), check);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let page = open(dashboard);
        figures(&page).await;
        time::pass(Duration::from_secs(4)).await;
        assert_eq!(figures(&page).await["history"]["requests"].as_array().map(Vec::len), Some(2));
    });
}
