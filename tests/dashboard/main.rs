//! The dashboard: as a service, and in a real browser, headless Chromium, driven over HTTP by the W3C WebDriver
//! protocol.
//!
//! The browser needs `chromium` and `chromedriver` in the path (Debian: `apt-get install chromium chromium-driver`). Without them
//! each test says in one line that it was skipped, unless `READTHROUGH_REQUIRE_TOOLS` is 1, as in `.ci/run`.
#![cfg(feature = "dashboard")]

mod browser;
mod service;

use std::net::SocketAddr;

use axum::{
    Router,
    extract::{Path, Request},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};
use tower_readthrough::{
    MemoryStore, ReadThroughLayer, Rules, Stats, Unkeyed, dashboard::Dashboard, purge::Basic, testing::Client,
};

use self::browser::Browser;

const PASSWORD: &str = "a password for tests";

/// A cache with a dashboard over real sockets.
struct Site {
    address: SocketAddr,
    stats: Stats,
    /// The application, without the sockets.
    app: Client<Router>,
    /// Method, path and status of each response to a POST.
    posts: mpsc::UnboundedReceiver<(String, StatusCode)>,
}

async fn product(Path(id): Path<String>) -> Response {
    let control = if id == "alone" { "no-store" } else { "max-age=60" };
    match id.as_str() {
        "broken" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => ([(header::CACHE_CONTROL, control)], format!("product {id}")).into_response(),
    }
}

impl Site {
    async fn start() -> Self {
        let store = MemoryStore::with_capacity_bytes(1 << 20);
        let cache = ReadThroughLayer::builder(store).rules(Rules::new()).build().expect("a cache");
        let dashboard = Dashboard::builder(cache.stats(), Basic::new("ops", PASSWORD))
            .name("Shop <b>&amp;</b>")
            .purge(cache.purge())
            .explain({
                let cache = cache.clone();
                move |head| cache.explain(head)
            })
            .build()
            .expect("a dashboard");
        let stats = cache.stats();
        let (note, posts) = mpsc::unbounded_channel();
        let noted = move |request: Request, next: Next| {
            let note = note.clone();
            async move {
                let post = (request.method() == "POST").then(|| request.uri().path().to_owned());
                let response = next.run(request).await;
                post.map(|path| note.send((path, response.status())));
                response
            }
        };
        let app = Router::new()
            .route("/p/{id}", get(product))
            .layer(dashboard.watch(cache))
            .nest_service("/-/cache", dashboard)
            .layer(middleware::from_fn(noted));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let served = app.clone();
        tokio::spawn(async move { axum::serve(listener, served).await });
        let app = Client::new(app).host(format!("http://{address}"));
        Self { address, stats, app, posts }
    }

    /// Opens the dashboard, with credentials as the browser keeps them once it has asked for them.
    async fn open(&self, browser: &Browser) {
        let Self { address, .. } = self;
        let password = PASSWORD.replace(' ', "%20");
        browser.go(&format!("http://ops:{password}@{address}/-/cache/data.json")).await;
        browser.go(&format!("http://{address}/-/cache")).await;
        browser.until("return document.getElementById('state').textContent === 'Up to date'").await;
    }
}

/// Starts a browser, or says why the test is skipped.
macro_rules! browser {
    () => {
        match Browser::start().await {
            Ok(browser) => browser,
            Err(why) => {
                let is_required = std::env::var("READTHROUGH_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
                assert!(!is_required, "{why}");
                eprintln!("skipped: {why}");
                return;
            }
        }
    };
}

#[cfg(feature = "redis")]
mod nodes;
#[cfg(feature = "redis")]
#[allow(dead_code, reason = "a part of it is for other tests")]
#[path = "../cluster/server.rs"]
mod redis_server;

#[tokio::test]
async fn the_page_shows_the_figures_of_a_real_cache() {
    let browser = browser!();
    let site = Site::start().await;
    for _ in 0..3 {
        for target in
            ["/p/1?secret=7", "/p/<img src=x onerror=document.title=1>".replace(' ', "%20").as_str()]
        {
            let target = target.replace('<', "%3C").replace('>', "%3E");
            site.app.get(&target).send().await.expect_status(200);
        }
    }
    // A URI cannot hold markup, and a `Host` can.
    let host = site.app.clone().host("").header("host", "<img src=x><b>bold</b>");
    host.get("/p/3").send().await.expect_unkeyed(Unkeyed::UnusableHost);
    site.app.get("/p/alone").send().await;
    site.app.get("/p/broken").send().await.expect_status(500);
    site.open(&browser).await;
    let seen = site.stats.snapshot();
    assert_eq!((seen.hits, seen.requests()), (4, 9));
    assert_eq!(browser.text("h1").await, "Shop <b>&amp;</b>");
    assert_eq!(browser.text("#hit-ratio").await, "50.0 %");
    assert_eq!(browser.text("#requests-total").await, "9 since the start");
    assert_eq!(browser.text("#fetches").await, "0");
    let rows = async |table: &str| browser.rows(table).await;
    assert_eq!(rows("#forwarded").await[0], ["uri-miss", "4"]);
    assert_eq!(rows("#not-stored").await, [["no-store", "1"], ["failure", "1"]]);
    let origin = &rows("#origins").await[0];
    assert_eq!(origin[..4], ["default", "up", "4", "1"]);
    let host = site.address;
    let keys: Vec<_> = rows("#by-fetches").await.into_iter().map(|row| row[0].clone()).collect();
    assert!(keys.contains(&format!("{host}/p/1")), "{keys:?}");
    let decisions = rows("#decisions").await;
    assert_eq!(decisions.len(), 5);
    let broken = format!("{host}/p/broken");
    assert_eq!(decisions[0][1..5], ["GET", &broken, "forwarded", "uri-miss"]);
    assert_eq!(decisions[0][6], "500");
    assert_eq!(decisions[1][3..7], ["forwarded", "uri-miss", "no: no-store", "200"]);
    assert_eq!(decisions[4][3..7], ["forwarded", "uri-miss", "yes", "200"]);
    assert_eq!(decisions[2][2..5], ["<img src=x><b>bold</b>/p/3", "unkeyed", "unusable-host"]);
    let text = browser.text("body").await;
    assert!(!text.contains("secret"), "a query is shown");
    // What came from requests is text.
    assert_eq!(browser.run("return document.querySelectorAll('img, b').length").await, 0);
    assert_eq!(browser.run("return document.title").await, "Shop <b>&amp;</b> – cache");
    browser.fill("#explain-url", &format!("http://{host}/p/1?secret=7")).await;
    browser.click("#explain-send").await;
    browser.until("return document.getElementById('explained').textContent !== ''").await;
    assert!(browser.text("#explained").await.contains("hit"));
    // The page goes on by itself.
    site.app.get("/p/2").send().await;
    browser
        .until("return document.getElementById('requests-total').textContent === '10 since the start'")
        .await;
    browser.until("return document.querySelectorAll('#chart-load .line').length > 0").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_page_purges_and_a_page_of_another_site_does_not() {
    let browser = browser!();
    let mut site = Site::start().await;
    let address = site.address;
    site.app.get("/p/1").send().await;
    site.app.get("/p/1").send().await.expect_hit();
    site.open(&browser).await;

    // A page of another site, with the credentials of the browser.
    let attack = format!(
        "<title>attack</title><script>const order = JSON.stringify({{all: true}});
        const url = 'http://{address}/-/cache/purge';
        fetch(url, {{method: 'POST', mode: 'no-cors', credentials: 'include', body: order}})
          .finally(() => {{ document.title = 'done'; document.forms[0].submit(); }});</script>
        <form method='post' enctype='text/plain' action='http://{address}/-/cache/purge'><input name='{{\"all\":true,\"tags\":[\"' value='\"]}}'></form>"
    );
    let other = Router::new().route("/", get(async move || Html(attack)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, other).await });
    browser.go(&format!("http://localhost:{port}/")).await;
    for _ in 0..2 {
        let (path, status) = site.posts.recv().await.expect("a POST");
        assert_eq!((path.as_str(), status), ("/-/cache/purge", StatusCode::FORBIDDEN));
    }
    assert_eq!(site.stats.snapshot().purges.total(), 0);
    site.app.get("/p/1").send().await.expect_hit();

    site.open(&browser).await;
    browser.fill("#purge-value", &format!("http://{address}/p/1")).await;
    browser.click("#purge-send").await;
    browser.until("return document.getElementById('purged').textContent !== ''").await;
    assert_eq!(browser.text("#purged").await, format!("Purged url {address}/p/1."));
    assert_eq!(site.posts.recv().await.map(|(_, status)| status), Some(StatusCode::OK));
    let again = site.app.get("/p/1").send().await;
    assert_eq!(again.decision.and_then(|decision| decision.detail()), Some("purged"));

    browser.fill("#purge-value", "no url").await;
    browser.click("#purge-send").await;
    browser.until("return document.getElementById('purged').className === 'wrong'").await;
    assert!(browser.text("#purged").await.starts_with("Nothing was purged: "));
}

/// All texts that are seen, with the contrast to what is behind them (WCAG 2.2, 1.4.3), where it is too low.
const TOO_FAINT: &str = r#"
    const parse = (color) => { const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
    const light = ([r, g, b]) => { const c = [r, g, b].map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
    const behind = (node) => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor); if (c[3] === 1) return c; }
        return [255, 255, 255]; };
    const faint = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!own || node.closest(".hidden, script, style, [hidden], .skip, option")) continue;
        const style = getComputedStyle(node);
        const ink = parse(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
        const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(node.tagName + ": " + node.textContent.trim().slice(0, 30));
    }
    return faint;
"#;

/// What is wider than the screen, tables in a region that scrolls by itself aside.
const TOO_WIDE: &str = r#"
    const width = document.documentElement.clientWidth;
    const wide = [...document.querySelectorAll("body *")].filter((node) => !node.closest(".scroll, .skip, script, style")
        && node.getBoundingClientRect().right > width + 0.5).map((node) => `${node.tagName} ${node.id} ${node.textContent.trim().slice(0, 20)}`);
    return document.documentElement.scrollWidth > width ? ["the page scrolls", ...wide] : wide;
"#;

#[tokio::test]
async fn it_fits_small_and_large_screens_in_light_and_dark() {
    let browser = browser!();
    let site = Site::start().await;
    for path in ["/p/1", "/p/1", "/p/alone", "/p/broken", &format!("/p/{}", "long".repeat(80))] {
        site.app.get(path).send().await;
    }
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        for width in [375, 768, 1600] {
            browser.resize(width, 900).await;
            site.open(&browser).await;
            browser.until("return document.querySelectorAll('#chart-ratio .dot').length > 0").await;
            assert_eq!(browser.run(TOO_WIDE).await, json!([]), "{scheme} at {width}");
            assert_eq!(browser.run(TOO_FAINT).await, json!([]), "{scheme} at {width}");
            browser.shoot(&format!("dashboard-{scheme}-{width}")).await;
        }
        grounds.push(browser.run("return getComputedStyle(document.body).backgroundColor").await);
    }
    assert_ne!(grounds[0], grounds[1]);
}

/// What a screen reader could not tell, by the rules that axe checks first.
const UNLABELLED: &str = r#"
    const faults = [];
    const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
    if (new Set(ids).size !== ids.length) faults.push("an id is used twice");
    if (!document.documentElement.lang) faults.push("no language");
    if (document.querySelectorAll("main").length !== 1 || document.querySelectorAll("h1").length !== 1) faults.push("one main, one h1");
    for (const attribute of ["aria-labelledby", "aria-describedby"])
        for (const node of document.querySelectorAll(`[${attribute}]`))
            for (const id of node.getAttribute(attribute).split(" "))
                if (!document.getElementById(id)) faults.push(`${attribute} names ${id}, which is not there`);
    for (const svg of document.querySelectorAll("svg"))
        if (svg.getAttribute("role") !== "img" || !svg.getAttribute("aria-labelledby")) faults.push("a chart without a name");
    for (const table of document.querySelectorAll("table")) {
        if (!table.tHead || [...table.tHead.rows[0].cells].some((cell) => cell.tagName !== "TH" || cell.scope !== "col")) faults.push(`${table.id} without headers`);
        for (const row of table.tBodies[0].rows)
            if (row.cells.length > 1 && ![...row.cells].some((cell) => cell.tagName === "TH" && cell.scope === "row")) faults.push(`${table.id} without a row header`);
    }
    for (const section of document.querySelectorAll("section, form"))
        if (!section.getAttribute("aria-labelledby")) faults.push("a landmark without a name");
    let level = 0;
    for (const heading of document.querySelectorAll("h1, h2, h3")) {
        const next = Number(heading.tagName[1]);
        if (next > level + 1) faults.push("a level of headings is left out");
        level = next;
    }
    for (const field of document.querySelectorAll("input, select, button, meter"))
        if (!field.labels?.length && !field.getAttribute("aria-label") && !field.textContent.trim()) faults.push(`${field.id} without a label`);
    return faults;
"#;

#[tokio::test]
async fn it_is_read_by_screen_readers_and_used_by_keyboard() {
    let browser = browser!();
    let site = Site::start().await;
    site.app.get("/p/1").send().await;
    site.open(&browser).await;
    browser.until("return document.querySelectorAll('#chart-ratio .dot').length > 0").await;
    assert_eq!(browser.run(UNLABELLED).await, json!([]));
    for (css, role, label) in [
        ("#chart-ratio", "image", "Hit ratio 0.0 % Last 5 minutes: now 0.0 %, lowest 0.0 %, highest 0.0 %."),
        ("#purge-kind", "combobox", "What"),
        ("#purge-value", "textbox", "Value"),
        ("#purge-send", "button", "Purge"),
        ("#fill", "meter", "Share of the store in use"),
        ("#state", "status", ""),
        ("#purge", "form", "Purge"),
    ] {
        let (found, name) = browser.computed(css).await;
        assert!(found == role || (role == "image" && found == "img"), "{css} has the role {found}");
        assert_eq!(name, label, "{css}");
    }

    // Every control has the focus in turn, and shows it.
    browser.run("document.activeElement.blur()").await;
    let mut reached = Vec::new();
    for _ in 0..12 {
        browser.press("\u{E004}").await;
        let focus = "const node = document.activeElement; const style = getComputedStyle(node);
            return [node.id || node.className || node.tagName, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2]";
        let focus = browser.run(focus).await;
        if focus[0] == "BODY" {
            break;
        }
        assert_eq!(focus[1], true, "{focus}");
        reached.push(focus[0].as_str().unwrap_or_default().to_owned());
    }
    let expected = [
        "skip",
        "scroll",
        "scroll tall",
        "explain-url",
        "explain-send",
        "purge-kind",
        "purge-value",
        "purge-soft",
        "purge-send",
    ];
    assert_eq!(reached, expected);

    // A purge without a mouse.
    browser.run("document.getElementById('purge-value').focus()").await;
    browser.press(&format!("http://{}/p/1\u{E007}", site.address)).await;
    browser.until("return document.getElementById('purged').textContent.startsWith('Purged url')").await;
    assert_eq!(site.stats.snapshot().purges.total(), 1);
}

#[tokio::test]
async fn it_says_when_its_figures_are_old() {
    let browser = browser!();
    let site = Site::start().await;
    site.open(&browser).await;
    // As if the password had been changed.
    let refused = "window.fetch = async () => new Response('', {status: 401}); return true";
    assert_eq!(browser.run(refused).await, true);
    browser.until("return document.getElementById('state').className === 'lost'").await;
    assert_eq!(browser.text("#state").await, "The figures below are old: the server responded with 401");
}

#[tokio::test]
async fn the_browser_finds_nothing_that_the_policy_forbids_and_runs_no_other_script() {
    let browser = browser!();
    let site = Site::start().await;
    site.open(&browser).await;
    let injected = "
        const script = document.createElement('script'); script.textContent = 'window.ran = true'; document.body.append(script);
        const image = new Image(); image.src = 'http://localhost:9/x.png';
        document.body.insertAdjacentHTML('beforeend', '<p id=styled style=\"color: rgb(1, 2, 3)\">x</p>');
        return [window.ran === true, getComputedStyle(document.getElementById('styled')).color === 'rgb(1, 2, 3)']";
    assert_eq!(browser.run(injected).await, json!([false, false]));
    let framed = format!(
        "<iframe src='http://{}/-/cache' onload='document.title = \"loaded\"'></iframe>",
        site.address
    );
    let other = Router::new().route("/", get(async move || Html(framed)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, other).await });
    browser.go(&format!("http://localhost:{port}/")).await;
    browser.until("return document.title === 'loaded'").await;
    let reached = "try { return frames[0].document.title } catch { return 'refused' }";
    assert_ne!(browser.run(reached).await, Value::from("Shop <b>&amp;</b> – cache"));
    assert!(browser.errors().await.iter().any(|error| error.contains("frame-ancestors")));
}
