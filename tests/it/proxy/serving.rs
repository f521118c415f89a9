//! Hits, misses, and what is keyed and stored.

use super::*;

#[tokio::test]
async fn a_miss_is_followed_by_hits_in_both_versions() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;

    let miss = proxy.get("/a?b=c").await;
    assert_eq!(cache_status(&miss), "tower-readthrough;fwd=uri-miss;stored");
    let miss = echo(miss).await;
    assert_eq!(miss["target"], "/a?b=c");

    let hit = proxy.get("/a?b=c").await;
    assert_eq!(cache_status(&hit), "tower-readthrough;hit");
    assert_eq!(echo(hit).await, miss);

    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let hit = http2.get(proxy.url("/a?b=c")).send().await.unwrap();
    assert_eq!(hit.version(), http::Version::HTTP_2);
    assert_eq!(cache_status(&hit), "tower-readthrough;hit");
    assert_eq!(echo(hit).await, miss);

    let head = http2.head(proxy.url("/a?b=c")).send().await.unwrap();
    assert_eq!(cache_status(&head), "tower-readthrough;hit");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn pages_of_all_sizes_arrive_whole() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    let client = reqwest::Client::new();
    for len in (0..8192).step_by(101).chain([3_000_000]) {
        for _ in ["miss", "hit"] {
            let response = client.get(proxy.url(&format!("/page/{len}"))).send().await.unwrap();
            assert_eq!(response.content_length(), Some(len as u64));
            assert!(response.bytes().await.unwrap() == page(len), "{len} bytes");
        }
    }
}

#[tokio::test]
async fn hits_arrive_whole_at_a_client_that_reads_late() {
    const HITS: usize = 4000;
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    proxy.get("/page/3000").await;
    let (read, mut write) = TcpStream::connect(proxy.addr).await.unwrap().into_split();
    let request = format!("GET /page/3000 HTTP/1.1\r\nhost: {}\r\n\r\n", proxy.addr);
    let asking =
        tokio::spawn(async move { write.write_all(request.repeat(HITS).as_bytes()).await.map(|()| write) });
    // By then the proxy has filled the connection, and can send no complete response.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut read, mut body) = (BufReader::new(read), vec![0; 3000]);
    for _ in 0..HITS {
        let head = read_head(&mut read).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        read.read_exact(&mut body).await.unwrap();
        assert!(body == page(3000));
    }
    asking.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_burst_over_one_connection_is_one_call_for_each_page() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let mut burst = JoinSet::new();
    for number in 0..500 {
        let request = http2.get(proxy.url(&format!("/{}", number % 5)));
        burst.spawn(async move { request.send().await.unwrap().status() });
    }
    while let Some(status) = burst.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(origin.calls(), 5);
}

#[tokio::test]
async fn a_variant_is_stored_for_what_the_origin_saw() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    let get = || reqwest::Client::new().get(proxy.url("/")).header("x-lang", "de");
    let hidden = get().header("connection", "x-lang").send().await.unwrap();
    assert_eq!(field(&echo(hidden).await, "x-lang"), Vec::<&str>::new());
    let german = get().send().await.unwrap();
    assert_eq!(field(&echo(german).await, "x-lang"), ["de"]);
}

#[tokio::test]
async fn the_cookies_that_pages_depend_on_are_in_the_key_and_at_the_origin_and_no_others() {
    let origin = Origin::start().await;
    let get = |proxy: &Proxy, cookie: &'static str| {
        reqwest::Client::new().get(proxy.url("/")).header("cookie", cookie).send()
    };
    let without = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    for calls in [1, 2] {
        let response = get(&without, "_ga=1").await.unwrap();
        assert!(cache_status(&response).contains("detail=cookie"), "{}", cache_status(&response));
        assert_eq!(origin.calls(), calls);
    }
    let named = Proxy::start(origin.addr, &["--default-ttl", "1h", "--cookies", "lang"]).await;
    for (cookie, lang, calls) in
        [("lang=de; _ga=1", "de", 3), ("_ga=2; lang=de", "de", 3), ("lang=en; _ga=1", "en", 4)]
    {
        let response = get(&named, cookie).await.unwrap();
        assert_eq!(field(&echo(response).await, "cookie"), [format!("lang={lang}")], "{cookie}");
        assert_eq!(origin.calls(), calls, "{cookie}");
    }
    let none = Proxy::start(origin.addr, &["--default-ttl", "1h", "--cookies", ""]).await;
    for cookie in ["lang=de", "_ga=1"] {
        let response = get(&none, cookie).await.unwrap();
        assert_eq!(field(&echo(response).await, "cookie"), [""; 0], "{cookie}");
        assert_eq!(origin.calls(), 5, "{cookie}");
    }
}

#[tokio::test]
async fn a_named_credential_keeps_a_response_with_its_client() {
    let origin = Origin::start().await;
    let get = |proxy: &Proxy, pass: Option<&'static str>| {
        let request = reqwest::Client::new().get(proxy.url("/"));
        pass.into_iter().fold(request, |request, pass| request.header("x-pass", pass)).send()
    };
    let args = ["--default-ttl", "1h", "--credentials", "x-other,x-pass"];
    let proxy = Proxy::start(origin.addr, &args).await;
    for (pass, calls) in [(Some("a"), 1), (None, 2), (Some("b"), 3), (None, 3)] {
        let echo = echo(get(&proxy, pass).await.unwrap()).await;
        assert_eq!(field(&echo, "x-pass"), pass.into_iter().collect::<Vec<_>>());
        assert_eq!(origin.calls(), calls, "{pass:?}");
    }
}

#[tokio::test]
async fn an_unreachable_origin_means_502_or_a_stale_response() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1ms", "--retries", "0"]).await;
    let first = echo(proxy.get("/").await).await;
    origin.kill().await;

    // The first ones may still find it fresh.
    let stale = loop {
        let response = proxy.get("/").await;
        assert_eq!(response.status(), StatusCode::OK);
        if cache_status(&response).ends_with(";detail=stale-if-error") {
            break response;
        }
    };
    assert_eq!(echo(stale).await, first);

    assert_eq!(proxy.get("/unknown").await.status(), StatusCode::BAD_GATEWAY);
    let post = reqwest::Client::new().post(proxy.url("/")).body("hello").send().await.unwrap();
    assert_eq!(post.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_silent_origin_means_504() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--origin-timeout", "50ms", "--retries", "0"]).await;
    assert_eq!(proxy.get("/never").await.status(), StatusCode::GATEWAY_TIMEOUT);
}
