//! What a purge reaches.

use super::*;

#[tokio::test(start_paused = true)]
async fn each_kind_reaches_what_it_names_and_nothing_else() {
    assert!(spares(|_| ()).await);
    for url in [URI, "http://H/a/b?c=1", "https://h/a/b?c=1"] {
        assert!(reaches(|purge| _ = purge.url(url).unwrap()).await, "{url}");
    }
    for url in ["http://h/a/b", "http://h/a/b?c=2", "http://other/a/b?c=1", "http://h:81/a/b?c=1"] {
        assert!(spares(|purge| _ = purge.url(url).unwrap()).await, "{url}");
    }
    assert!(reaches(|purge| _ = purge.key(&key(URI))).await);
    assert!(spares(|purge| _ = purge.key(&key("http://h/"))).await);
    for tag in ["red", "green"] {
        assert!(reaches(|purge| _ = purge.tag(tag)).await, "{tag}");
    }
    for tag in ["Red", "red green", "re", ""] {
        assert!(spares(|purge| _ = purge.tag(tag)).await, "{tag}");
    }
    assert!(reaches(|purge| _ = purge.everything()).await);
}

#[tokio::test(start_paused = true)]
async fn prefixes_of_paths_end_with_a_segment_and_those_of_keys_anywhere() {
    for prefix in
        ["http://h", "http://h/", "http://H/a", "http://h/a/", "http://h/a/b", "http://h/a/b/", "https://h/a"]
    {
        assert!(reaches(|purge| _ = purge.path_prefix(prefix).unwrap()).await, "{prefix}");
    }
    for prefix in
        ["http://h/a/b/c", "http://h/b", "http://h//a", "http://h/a/bb", "http://other/a", "http://h:81/a"]
    {
        assert!(spares(|purge| _ = purge.path_prefix(prefix).unwrap()).await, "{prefix}");
    }
    let key = key(URI);
    for length in [0, 1, key.as_bytes().len() - 1, key.as_bytes().len()] {
        assert!(reaches(|purge| _ = purge.key_prefix(&key.as_bytes()[..length])).await, "{length}");
    }
    assert!(spares(|purge| _ = purge.key_prefix(b"http")).await, "the key begins with a length");
    let longer = [key.as_bytes(), b"x"].concat();
    assert!(spares(|purge| _ = purge.key_prefix(&longer)).await);
}

#[tokio::test(start_paused = true)]
async fn paths_of_any_depth_are_reached() {
    let origin = tagged();
    let (service, purge, _) = stack_of(&origin, fixed(60_000));
    let deep = format!("http://h{}", "/x".repeat(3_000));
    call(&service, get_request(&deep)).await;
    for prefix in [format!("http://h{}", "/x".repeat(10)), deep.clone(), format!("{deep}/")] {
        let before = origin.calls();
        purge.path_prefix(&prefix).unwrap();
        call(&service, get_request(&deep)).await;
        assert_eq!(origin.calls(), before + 1);
    }
    purge.path_prefix(&format!("http://h{}/y", "/x".repeat(31))).unwrap();
    let before = origin.calls();
    call(&service, get_request(&deep)).await;
    assert_eq!(origin.calls(), before, "another path within the segments that count");
    purge.key_prefix(vec![b'k'; 5_000]);
}

#[test]
fn an_invalid_url_is_refused_with_a_reason() {
    let purge = LookupLayer::new(store()).purge();
    assert!(matches!(purge.url("/a"), Err(PurgeError::NotAbsolute(_))));
    assert!(matches!(purge.url("h:80"), Err(PurgeError::NotAbsolute(_))));
    assert!(matches!(purge.url(""), Err(PurgeError::NotAUrl(_))));
    assert!(matches!(purge.url("http://a b/"), Err(PurgeError::NotAUrl(_))));
    assert!(matches!(purge.url("http://me@h/"), Err(PurgeError::HasUser(_))));
    assert!(matches!(purge.path_prefix("http://h/a?b"), Err(PurgeError::HasQuery(_))));
    assert!(matches!(purge.path_prefix("blog"), Err(PurgeError::NotAbsolute(_))));
    assert!(purge.url("/a").unwrap_err().to_string().contains("http://"));
}

#[tokio::test(start_paused = true)]
async fn a_purge_says_which_number_it_took() {
    let store = store();
    let first = LookupLayer::new(store.clone()).purge().tag("x");
    let second = LookupLayer::new(store.clone()).purge().soft().url("http://h/").unwrap();
    assert!(first.number() < second.number());
    assert_eq!(second.number(), store.sequence().current());
    assert!(!first.is_soft() && second.is_soft());
}

/// One entry per product, and per language.
struct ByProduct;

impl KeyExtractor for ByProduct {
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        let language = head.headers.get("accept-language").map_or(&[][..], |value| value.as_bytes());
        Some(CacheKey::from_parts([self.identity(&head.uri, None, &head.extensions)?.as_bytes(), language]))
    }

    fn identity(&self, uri: &Uri, _: Option<&HeaderValue>, _: &Extensions) -> Option<CacheKey> {
        let product = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("pid="))?;
        Some(CacheKey::from_parts(["product", product]))
    }
}

#[tokio::test(start_paused = true)]
async fn a_url_names_entries_by_the_rules_of_the_layer() {
    let origin = tagged();
    let builder = ReadThroughLayer::builder(store()).key(ByProduct).rules(fixed(60_000));
    let (purge, service) = (builder.purge(), builder.build().unwrap().layer(origin.clone()));
    let ask = async |language: &'static str| {
        let mut request = get_request("http://h/p?pid=7&session=1");
        request.headers_mut().insert("accept-language", language.parse().unwrap());
        call(&service, request).await
    };
    for language in ["de", "en", "de", "en"] {
        ask(language).await;
    }
    assert_eq!(origin.calls(), 2);
    purge.url("http://h/p?pid=8").unwrap();
    for language in ["de", "en"] {
        ask(language).await;
    }
    assert_eq!(origin.calls(), 2);
    purge.url("http://h/p?session=2&pid=7").unwrap();
    for language in ["de", "en", "de", "en"] {
        ask(language).await;
    }
    assert_eq!(origin.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn every_layer_that_reads_the_store_obeys_a_purge() {
    let origin = tagged();
    let store = store();
    let layer = StoreLayer::new(store.clone()).rules(fixed(60_000));
    let purge = layer.purge();
    let service = layer.layer(origin.clone());
    call(&service, get_request(URI)).await;
    call(&service, get_request(URI)).await;
    assert_eq!(origin.calls(), 1);
    purge.tag("red");
    call(&service, get_request(URI)).await;
    assert_eq!(origin.calls(), 2);
    LookupLayer::new(store.clone()).purge().url(URI).unwrap();
    call(&service, get_request(URI)).await;
    assert_eq!(origin.calls(), 3);
}

/// Of one process it is done when the call returns.
#[tokio::test(start_paused = true)]
async fn a_purge_without_a_cluster_is_local_and_applied_everywhere_at_once() {
    use std::time::Duration;
    use tower_readthrough::PurgeState;

    let (_, purge, _) = stack_of(&tagged(), fixed(60_000));
    let purged = purge.tag("red");
    assert_eq!(purged.state(), PurgeState::Local);
    purged.applied_everywhere(Duration::ZERO).await.unwrap();
}
