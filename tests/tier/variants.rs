//! Responses that request fields select.

use super::*;

fn by_language() -> ScriptedOrigin {
    ScriptedOrigin::new(|_, head| {
        let language = head.headers.get("accept-language").map_or("none", |value| value.to_str().unwrap());
        ok(language.to_owned()).header("vary", "accept-language").max_age(60)
    })
}

async fn page(node: &Node, language: &str) -> (String, String) {
    let reply = get_with(&node.service, "/", &[("accept-language", language)]).await;
    (String::from_utf8(reply.body.to_vec()).unwrap(), reply.cache())
}

#[tokio::test(start_paused = true)]
async fn each_variant_is_found_by_another_node_and_none_is_served_for_another() {
    let (site, origin) = (Site::default(), by_language());
    let (here, there) = (site.node_of(&origin), site.node_of(&origin));
    for language in ["de", "en"] {
        page(&here, language).await;
    }
    here.written().await;
    for language in ["en", "de"] {
        assert_eq!(page(&there, language).await, (language.to_owned(), "hit; detail=second-tier".to_owned()));
    }
    assert_eq!(origin.calls(), 2);
    assert_eq!(page(&there, "fr").await.0, "fr");
    assert_eq!(origin.calls(), 3);
    let reply = there.get("/").await;
    assert_eq!((&*reply.body, origin.calls()), (&b"none"[..], 4));
}

#[tokio::test(start_paused = true)]
async fn a_variant_takes_two_reads_and_one_once_its_fields_are_known() {
    let (site, origin) = (Site::default(), by_language());
    let (here, there) = (site.node_of(&origin), site.node_of(&origin));
    for language in ["de", "en", "fr"] {
        page(&here, language).await;
    }
    here.written().await;
    for (language, expected) in [("de", 2), ("en", 1), ("fr", 1)] {
        let reads = site.reads();
        page(&there, language).await;
        assert_eq!(site.reads() - reads, expected, "{language}");
    }
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_adds_its_fields_to_those_that_others_have_noted() {
    let site = Site::default();
    let vary = |field: &'static str| {
        ScriptedOrigin::new(move |call, _| ok(call.to_string()).header("vary", field).max_age(60))
    };
    let (first, second) = (site.node_of(&vary("accept-language")), site.node_of(&vary("x-tenant")));
    let fields = |value: &'static str| [("accept-language", value), ("x-tenant", value)];
    get_with(&first.service, "/", &fields("a")).await;
    first.written().await;
    get_with(&second.service, "/", &fields("b")).await;
    second.written().await;
    let nothing = ScriptedOrigin::always(error);
    for value in ["a", "b"] {
        let third = site.node_of(&nothing);
        let reply = get_with(&third.service, "/", &fields(value)).await;
        assert_eq!(reply.cache(), "hit; detail=second-tier", "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_that_a_request_selects_the_last_one_is_served() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("0").header("vary", "accept-language").max_age(600),
        _ => ok("1").max_age(600),
    });
    let here = site.node_of(&origin);
    page(&here, "de").await;
    here.written().await;
    tokio::time::advance(secs(5)).await;
    here.cache.purge().everything();
    tokio::time::advance(secs(5)).await;
    page(&here, "de").await;
    here.written().await;
    let there = site.node_of(&origin);
    assert_eq!(page(&there, "de").await, ("1".to_owned(), "hit; detail=second-tier".to_owned()));
}

/// Digests may be the same by chance: here each read gets what is kept for another key.
#[tokio::test(start_paused = true)]
async fn the_key_of_a_response_is_compared_and_so_are_its_selecting_fields() {
    let (site, origin) = (Site::default(), by_language());
    let here = site.node_of(&origin);
    page(&here, "de").await;
    get_with(&here.service, "/other", &[("accept-language", "de")]).await;
    here.written().await;
    page(&here, "en").await;
    here.written().await;
    // All variants are that of one: the key or the language is wrong for the others.
    let variants: Vec<_> = site.remote.keys().into_iter().filter(|key| key.starts_with(b"1:v:")).collect();
    assert_eq!(variants.len(), 3);
    for wrong in variants {
        let (bytes, _) = site.remote.kept(&wrong).unwrap();
        let other = Site { remote: ScriptedRemote::new(), log: site.log.clone() };
        let again = other.node_of(&origin);
        for path in ["/", "/other"] {
            for language in ["de", "en"] {
                get_with(&again.service, path, &[("accept-language", language)]).await;
            }
        }
        again.written().await;
        other.remote.change(|key, kept| if key.starts_with(b"1:v:") { bytes.clone() } else { kept });
        let there = other.node_of(&origin);
        let mut found = 0;
        for path in ["/", "/other"] {
            for language in ["de", "en"] {
                let reply = get_with(&there.service, path, &[("accept-language", language)]).await;
                assert_eq!(reply.body, language, "{path}");
                found += usize::from(reply.is_hit());
            }
        }
        assert_eq!((found, there.count(TierRead::OtherKey)), (1, 3));
    }
}
