//! Parts of what is not stored as a whole: kept, served and put together (RFC 9111 §3.3, §3.4).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{Answer, Origin, Reply, get, get_with, ms, ok, request, secs, send, status};
use futures_util::future::join_all;
use http::{Method, request::Parts};
use proptest::prelude::*;
use tower::Layer;
use tower_readthrough::{
    Fill, FillLayer, KeyLayer, Lookup, LookupLayer, MemoryStore, ReadThroughLayer, Rules, StoreLayer,
};

type Cached = Lookup<Fill<Origin, MemoryStore>, MemoryStore>;

fn cached(origin: &Origin) -> Cached {
    cached_in(&MemoryStore::with_capacity_bytes(1 << 20), origin)
}

fn cached_in(store: &MemoryStore, origin: &Origin) -> Cached {
    StoreLayer::new(store.clone()).rules(Rules::new()).layer(origin.clone())
}

const ALPHABET: &str = "abcdefghij";

/// One range of the content, as `first-last`, or all of it.
fn serve(content: &str, head: &Parts) -> Answer {
    let Some(range) = head.headers.get("range") else { return ok(content.to_owned()).max_age(10) };
    let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let length = content.len();
    let (first, last) = match (first.parse(), last.parse::<usize>()) {
        (Err(_), Ok(suffix)) => (length - suffix, length - 1),
        (first, last) => (first.unwrap(), last.unwrap_or(length - 1)),
    };
    part(first, last, length, &content[first..=last])
}

fn part(first: usize, last: usize, length: usize, body: &str) -> Answer {
    let content_range = format!("bytes {first}-{last}/{length}");
    status(206).max_age(10).header("content-range", content_range).chunk(body.to_owned())
}

fn tagged(tag: &'static str) -> Origin {
    Origin::new(move |_, head| serve(ALPHABET, head).header("etag", tag))
}

async fn range(service: &Cached, range: &str) -> Reply {
    get_with(service, "/", &[("range", range)]).await
}

#[tokio::test(start_paused = true)]
async fn a_part_serves_every_range_within_it_and_nothing_else() {
    let origin = Origin::new(|_, head| serve(ALPHABET, head).header("x", "1"));
    let service = cached(&origin);
    assert_eq!(range(&service, "bytes=4-8").await.body, "efghi");
    for (within, body, content_range) in [
        ("bytes=4-8", "efghi", "bytes 4-8/10"),
        ("bytes=5-6", "fg", "bytes 5-6/10"),
        ("bytes=8-8", "i", "bytes 8-8/10"),
    ] {
        let reply = range(&service, within).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, body.as_bytes()), "{within}");
        assert_eq!(reply.header("content-range"), Some(content_range));
        assert_eq!(reply.header("content-length"), Some(&*body.len().to_string()));
        assert_eq!((reply.header("x"), reply.age()), (Some("1"), Some(0)));
        assert!(reply.is_hit(), "{within}");
    }
    assert_eq!(origin.calls(), 1);
    for beyond in ["bytes=3-8", "bytes=4-", "bytes=-1"] {
        let service = cached(&origin);
        range(&service, "bytes=4-8").await;
        assert!(!range(&service, beyond).await.is_hit(), "{beyond}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_a_part_who_did_not_ask_for_it() {
    let origin = tagged("\"1\"");
    let service = cached(&origin);
    range(&service, "bytes=0-4").await;
    let head = send(&service, request("HEAD", "/", &[("range", "bytes=0-4")])).await;
    assert!(!head.is_hit());
    let whole = get(&service, "/").await;
    assert_eq!((whole.status.as_u16(), &whole.body[..]), (200, ALPHABET.as_bytes()));
    assert_eq!(whole.cache(), "fwd=partial; stored");
    assert_eq!(origin.calls(), 3);
    // From now on parts are cut out of the whole.
    assert_eq!(range(&service, "bytes=2-9").await.body, "cdefghij");
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn parts_of_one_strong_validator_are_put_together() {
    let origin = tagged("\"1\"");
    let service = cached(&origin);
    range(&service, "bytes=0-2").await;
    range(&service, "bytes=6-7").await;
    range(&service, "bytes=2-5").await;
    for (within, body) in [("bytes=0-7", "abcdefgh"), ("bytes=1-6", "bcdefg")] {
        let reply = range(&service, within).await;
        assert!(reply.is_hit() && reply.body == body, "{within}");
    }
    assert!(!range(&service, "bytes=7-8").await.is_hit());
    range(&service, "bytes=-2").await;
    assert_eq!(origin.calls(), 5);

    let whole = get(&service, "/").await;
    assert_eq!((whole.status.as_u16(), &whole.body[..]), (200, ALPHABET.as_bytes()));
    assert_eq!(whole.header("content-length"), Some("10"));
    assert_eq!((whole.header("content-range"), whole.is_hit()), (None, true));
    assert_eq!(origin.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_put_together_has_the_fields_of_the_newest_part() {
    let origin = Origin::new(|call, head| {
        let answer = serve(ALPHABET, head).header("etag", "\"1\"").header("x", call.to_string());
        if call == 1 { answer.header("only-in-the-first", "1") } else { answer }
    });
    let service = cached(&origin);
    range(&service, "bytes=0-4").await;
    tokio::time::advance(secs(6)).await;
    range(&service, "bytes=5-9").await;
    tokio::time::advance(secs(6)).await;
    let whole = get(&service, "/").await;
    assert!(whole.is_hit(), "as fresh as the newest");
    assert_eq!((whole.header("x"), whole.header("only-in-the-first")), (Some("2"), Some("1")));
    assert_eq!((&whole.body[..], whole.age()), (ALPHABET.as_bytes(), Some(6)));
    assert_eq!(whole.headers.get_all("cache-status").iter().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_strong_validator_nothing_is_put_together() {
    for tag in [None, Some("W/\"1\"")] {
        let origin = Origin::new(move |_, head| {
            let answer = serve(ALPHABET, head);
            tag.into_iter().fold(answer, |answer, tag| answer.header("etag", tag))
        });
        let service = cached(&origin);
        range(&service, "bytes=0-4").await;
        range(&service, "bytes=5-9").await;
        assert!(!range(&service, "bytes=4-5").await.is_hit(), "{tag:?}");
        assert!(!get(&service, "/").await.is_hit(), "{tag:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_representation_takes_the_place_of_all_parts() {
    for (first, second) in [("\"1\"", "\"2\""), ("W/\"1\"", "W/\"1\""), ("\"1\"", "W/\"1\"")] {
        let origin = Origin::new(move |call, head| match call {
            1 => serve(ALPHABET, head).header("etag", first),
            2 => serve("ABCDEFGHIJ", head).header("etag", second),
            _ => status(599),
        });
        let service = cached(&origin);
        range(&service, "bytes=0-4").await;
        range(&service, "bytes=4-9").await;
        assert_eq!(range(&service, "bytes=5-6").await.body, "FG", "{first} {second}");
        assert_eq!(range(&service, "bytes=0-1").await.status, 599, "{first} {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_another_length_is_of_another_representation() {
    let origin = Origin::new(|call, head| match call {
        1 => serve(ALPHABET, head).header("etag", "\"1\""),
        _ => serve("abcdefghijkl", head).header("etag", "\"1\""),
    });
    let service = cached(&origin);
    range(&service, "bytes=0-4").await;
    range(&service, "bytes=5-9").await;
    assert!(range(&service, "bytes=6-9").await.is_hit());
    assert!(!range(&service, "bytes=0-4").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_does_not_displace_a_newer_representation() {
    for late in ["bytes=0-4", "bytes=0-9"] {
        let origin = Origin::new(|call, head| match call {
            1 => serve(ALPHABET, head).header("etag", "\"1\"").after(ms(50)),
            _ => serve("ABCDEFGHIJ", head).header("etag", "\"2\""),
        });
        let service = cached(&origin);
        let newer = async {
            tokio::time::sleep(ms(10)).await;
            range(&service, "bytes=4-9").await
        };
        tokio::join!(range(&service, late), newer);
        assert_eq!(range(&service, "bytes=4-9").await.body, "EFGHIJ");
        assert_eq!(origin.calls(), 2);
        assert_eq!(range(&service, "bytes=0-3").await.body, "ABCD", "after {late}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_whole_takes_the_place_of_all_parts() {
    let origin = Origin::new(|call, head| match call {
        1 => serve(ALPHABET, head).header("etag", "\"1\""),
        _ => serve("ABCDEFGHIJ", head).header("etag", "\"2\""),
    });
    let service = cached(&origin);
    range(&service, "bytes=0-4").await;
    get(&service, "/").await;
    assert_eq!(range(&service, "bytes=0-4").await.body, "ABCDE");
    assert!(get(&service, "/").await.is_hit());
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_part_took_up_takes_no_room() {
    let content = "x".repeat(1000);
    let origin = Origin::new(move |_, head| serve(&content, head).header("etag", "\"1\""));
    let service = cached(&origin);
    range(&service, "bytes=900-999").await;
    for at in 0..20 {
        range(&service, &format!("bytes={}-{}", at * 10, at * 10 + 9)).await;
    }
    assert!(range(&service, "bytes=0-199").await.is_hit());
    assert!(range(&service, "bytes=900-999").await.is_hit(), "there are two parts, not twenty-one");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_one_whole_part_is_not_stored() {
    let bodies: [fn() -> Answer; 6] = [
        || part(0, 4, 10, "abcd"),
        || part(0, 4, 10, "abcdef"),
        || part(0, 4, 10, "abcde").cut(),
        || status(206).max_age(10).header("content-range", "bytes 0-4/*").chunk("abcde"),
        || status(206).max_age(10).header("content-range", "bytes 5-4/10").chunk("abcde"),
        || status(206).max_age(10).header("content-type", "multipart/byteranges; boundary=x").chunk("abcde"),
    ];
    for (at, body) in bodies.into_iter().enumerate() {
        let origin = Origin::always(body);
        let service = cached(&origin);
        range(&service, "bytes=0-4").await;
        assert!(!range(&service, "bytes=0-4").await.is_hit(), "{at}");
        assert_eq!(origin.calls(), 2, "{at}");
    }
    // Nor what answers several ranges at once, although it looks like one.
    let origin = Origin::always(|| part(0, 4, 10, "abcde"));
    let service = cached(&origin);
    range(&service, "bytes=0-1,3-4").await;
    assert!(!range(&service, "bytes=0-4").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_part_is_for_those_who_might_have_the_whole() {
    type Row = (&'static [(&'static str, &'static str)], fn(Answer) -> Answer);
    let rows: [Row; 4] = [
        (&[], |answer| answer.header("cache-control", "private")),
        (&[], |answer| answer.header("set-cookie", "a=b")),
        (&[("authorization", "me")], |answer| answer),
        (&[], |answer| answer.header("vary", "*")),
    ];
    for (at, (mine, personal)) in rows.into_iter().enumerate() {
        let origin = Origin::new(move |_, head| personal(serve(ALPHABET, head)));
        let service = cached(&origin);
        let all: Vec<_> = mine.iter().copied().chain([("range", "bytes=0-4")]).collect();
        for _ in 0..2 {
            assert!(!get_with(&service, "/", &all).await.is_hit(), "{at}");
        }
    }
    let origin = Origin::new(|_, head| serve(ALPHABET, head).header("vary", "accept-language"));
    let service = cached(&origin);
    let german = [("range", "bytes=0-4"), ("accept-language", "de")];
    get_with(&service, "/", &german).await;
    assert!(get_with(&service, "/", &german).await.is_hit());
    assert!(!range(&service, "bytes=0-4").await.is_hit(), "another variant");

    let origin = Origin::new(|call, head| {
        let content = if call == 1 { ALPHABET } else { "ABCDEFGHIJ" };
        serve(content, head).header("vary", "accept-language").header("etag", "\"both\"")
    });
    let service = cached(&origin);
    get_with(&service, "/", &german).await;
    for wanted in ["bytes=5-9", "bytes=3-9"] {
        let english = [("range", wanted), ("accept-language", "en")];
        assert!(!get_with(&service, "/", &english).await.is_hit(), "{wanted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_is_served_while_it_is_fresh_and_not_invalidated() {
    let origin = Origin::new(|_, head| match head.method {
        Method::POST => status(204),
        _ => serve(ALPHABET, head).header("etag", "\"1\""),
    });
    let service = cached(&origin);
    range(&service, "bytes=0-4").await;
    tokio::time::advance(secs(10) - ms(1)).await;
    assert!(range(&service, "bytes=0-4").await.is_hit());
    tokio::time::advance(ms(1)).await;
    assert!(!range(&service, "bytes=0-4").await.is_hit(), "stale");
    assert!(range(&service, "bytes=0-4").await.is_hit());
    send(&service, request("POST", "/", &[])).await;
    assert!(!range(&service, "bytes=5-9").await.is_hit());
    assert!(!range(&service, "bytes=0-4").await.is_hit(), "invalidated, and not put together either");
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_stale_from_the_start_is_not_kept() {
    let origin = Origin::new(|_, head| {
        let answer = serve(ALPHABET, head).header("etag", "\"1\"").header("age", "10");
        answer.header("cache-control", "stale-while-revalidate=60")
    });
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    range(&cached_in(&store, &origin), "bytes=0-4").await;
    assert_eq!(store.stats().entries, 0, "nobody could ever get it");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_may_not_be_stored_takes_the_parts_away() {
    let origin = Origin::new(|call, head| match call {
        1 => serve(ALPHABET, head),
        _ => ok("mine").header("cache-control", "private"),
    });
    let service = cached(&origin);
    range(&service, "bytes=0-4").await;
    get(&service, "/").await;
    assert_eq!(range(&service, "bytes=0-4").await.body, "mine");
}

#[tokio::test(start_paused = true)]
async fn conditions_are_judged_by_the_part() {
    let origin = tagged("\"1\"");
    let service = cached(&origin);
    range(&service, "bytes=0-4").await;
    for (condition, value, code) in [
        ("if-range", "\"1\"", 206),
        ("if-none-match", "\"1\"", 304),
        ("if-none-match", "\"2\"", 206),
        ("if-match", "\"2\"", 412),
    ] {
        let reply = get_with(&service, "/", &[("range", "bytes=0-4"), (condition, value)]).await;
        assert_eq!(reply.status, code, "{condition} {value}");
        assert_eq!(origin.calls(), 1);
    }
    get_with(&service, "/", &[("range", "bytes=0-4"), ("if-range", "\"2\"")]).await;
    assert_eq!(origin.calls(), 2, "the client has another representation: it needs the whole");
    assert_eq!(origin.last_request().headers["if-range"], "\"2\"");
}

#[tokio::test(start_paused = true)]
async fn request_directives_count_for_parts() {
    let origin = tagged("\"1\"");
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let lookup = LookupLayer::new(store.clone()).request_directives(true);
    let service = lookup.layer(FillLayer::new(store).layer(origin.clone()));
    let range = ("range", "bytes=0-4");
    get_with(&service, "/", &[range]).await;
    assert!(get_with(&service, "/", &[range]).await.is_hit());
    for directive in ["no-cache", "min-fresh=11"] {
        let reply = get_with(&service, "/", &[range, ("cache-control", directive)]).await;
        assert!(!reply.is_hit() && reply.body == "abcde", "{directive}");
    }
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_to_a_range_is_stored_as_one() {
    let origin = Origin::always(|| ok(ALPHABET).max_age(10));
    let service = cached(&origin);
    assert_eq!(range(&service, "bytes=0-4").await.status, 200, "the origin knows no ranges");
    assert_eq!(range(&service, "bytes=0-4").await.body, "abcde");
    assert!(get(&service, "/").await.is_hit());
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn fill_alone_finds_parts_too() {
    let origin = tagged("\"1\"");
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = KeyLayer::default().layer(FillLayer::new(store).layer(origin.clone()));
    for body in ["abcde", "abcde"] {
        assert_eq!(get_with(&service, "/", &[("range", "bytes=0-4")]).await.body, body);
    }
    assert_eq!(get_with(&service, "/", &[("range", "bytes=1-2")]).await.body, "bc");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_asks_for_one_part_makes_one_request() {
    let origin = Origin::new(|_, head| serve(ALPHABET, head).header("etag", "\"1\"").after(ms(20)));
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ReadThroughLayer::builder(store).build().unwrap().layer(origin.clone());
    let ask = |range: &'static str| {
        let service = service.clone();
        async move { get_with(&service, "/", &[("range", range)]).await }
    };
    let wanted = ["bytes=0-4", "bytes=5-9"].into_iter().cycle().take(200);
    for (at, reply) in join_all(wanted.map(ask)).await.into_iter().enumerate() {
        assert_eq!(reply.status, 206);
        assert_eq!(reply.body, if at % 2 == 0 { "abcde" } else { "fghij" });
    }
    assert_eq!(origin.calls(), 2, "one for each part");
    assert_eq!(get(&service, "/").await.body, ALPHABET);
    assert_eq!(origin.calls(), 2, "which are the whole");
}

#[tokio::test(start_paused = true)]
async fn parts_are_bounded_in_number_and_size() {
    let content = "x".repeat(60_000);
    let origin = Origin::new(move |_, head| serve(&content, head).header("etag", "\"1\""));
    let store = MemoryStore::with_capacity_bytes(1 << 19);
    let service = cached_in(&store, &origin);
    // With gaps between them: nothing can be put together.
    for at in 0..20 {
        range(&service, &format!("bytes={}-{}", at * 100, at * 100 + 50)).await;
    }
    assert!(range(&service, "bytes=1900-1950").await.is_hit());
    assert!(!range(&service, "bytes=0-50").await.is_hit(), "of more than eight the oldest goes");
    // Together they are larger than the store takes (32 KiB).
    range(&service, "bytes=20000-39999").await;
    range(&service, "bytes=40000-59999").await;
    assert!(range(&service, "bytes=20000-39999").await.is_hit(), "kept apart");
    assert!(range(&service, "bytes=40000-59999").await.is_hit());
    assert!(!range(&service, "bytes=30000-49999").await.is_hit());
    assert!(store.stats().bytes <= store.stats().capacity_bytes);
    tokio::time::advance(secs(3 * 3600)).await;
    range(&service, "bytes=0-0").await;
    assert!(store.stats().bytes < 4096, "what has expired gives its room back");
}

#[tokio::test(start_paused = true)]
async fn a_late_part_does_not_outlive_a_newer_whole() {
    let origin = Origin::new(|call, head| match call {
        1 => serve(ALPHABET, head).header("etag", "\"1\"").after(ms(50)),
        2 => ok("ABCDEFGHIJ").max_age(1).header("etag", "\"2\""),
        _ => serve("ABCDEFGHIJ", head).header("etag", "\"2\""),
    });
    let service = cached(&origin);
    let newer = async {
        tokio::time::sleep(ms(10)).await;
        get(&service, "/").await
    };
    tokio::join!(range(&service, "bytes=0-4"), newer);
    tokio::time::advance(secs(2)).await;
    // Of what is stale the whole is asked for.
    assert_eq!(range(&service, "bytes=0-4").await.body, "ABCDEFGHIJ");
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_came_later_keeps_out_only_a_whole_that_it_shows_to_be_another() {
    let modified = [Some("Sun, 06 Nov 1994 08:49:37 GMT"), Some("Sun, 06 Nov 1994 08:49:38 GMT")];
    type Row = (Option<&'static str>, Option<&'static str>, &'static str, bool);
    let rows: [Row; 5] = [
        (None, None, ALPHABET, true),
        (modified[0], modified[0], ALPHABET, true),
        (modified[0], modified[1], ALPHABET, false),
        (None, None, "abcdefghijkl", false),
        (modified[0], modified[0], "abcdefghijkl", false),
    ];
    for (at, (first, second, content, is_stored)) in rows.into_iter().enumerate() {
        let origin = Origin::new(move |call, head| {
            let (date, answer) = match call {
                1 => (first, serve(ALPHABET, head).after(ms(50))),
                _ => (second, serve(content, head)),
            };
            date.into_iter().fold(answer, |answer, date| answer.header("last-modified", date))
        });
        let service = cached(&origin);
        let part = async {
            tokio::time::sleep(ms(10)).await;
            range(&service, "bytes=0-4").await
        };
        tokio::join!(get(&service, "/"), part);
        assert_eq!(get(&service, "/").await.is_hit(), is_stored, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_part_takes_nothing_from_a_newer_one_that_it_is_put_together_with() {
    let origin = Origin::new(|call, head| {
        let answer = serve(ALPHABET, head).header("etag", "\"1\"").header("x", call.to_string());
        if call == 1 {
            answer.header("only-in-the-first", "1").header("age", "8").after(ms(50))
        } else {
            answer
        }
    });
    let service = cached(&origin);
    let newer = async {
        tokio::time::sleep(ms(10)).await;
        range(&service, "bytes=4-8").await
    };
    tokio::join!(range(&service, "bytes=0-4"), newer);
    tokio::time::advance(secs(5)).await;
    let both = range(&service, "bytes=0-8").await;
    assert!(both.is_hit(), "as fresh as the newest");
    assert_eq!((both.header("x"), both.header("only-in-the-first")), (Some("2"), None));
    assert_eq!((&both.body[..], both.age()), (&b"abcdefghi"[..], Some(5)));
}

#[tokio::test(start_paused = true)]
async fn a_late_part_does_not_stand_before_a_newer_one() {
    let origin = Origin::new(|call, head| match call {
        1 => serve(ALPHABET, head).header("vary", "x").after(ms(50)),
        _ => serve("ABCDEFGHIJ", head),
    });
    let service = cached(&origin);
    let newer = async {
        tokio::time::sleep(ms(10)).await;
        range(&service, "bytes=0-4").await
    };
    tokio::join!(range(&service, "bytes=0-4"), newer);
    assert_eq!(range(&service, "bytes=0-4").await.body, "ABCDE");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_together_is_kept_apart() {
    let store = MemoryStore::with_capacity_bytes(1 << 19);
    // Together their bytes fit, but not with the fields.
    let limit = (1 << 15) - 600;
    let content = "x".repeat(2 * limit);
    let origin = Origin::new(move |_, head| serve(&content, head).header("etag", "\"1\""));
    let service = cached_in(&store, &origin);
    range(&service, &format!("bytes=0-{}", limit / 2)).await;
    let second = format!("bytes={}-{}", limit / 2 + 1, limit);
    range(&service, &second).await;
    assert!(range(&service, &second).await.is_hit());
    assert_eq!(store.stats().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn a_newer_representation_takes_the_place_of_all_parts_even_if_it_is_stale() {
    let origin = Origin::new(|call, head| match call {
        1 => serve(ALPHABET, head).header("etag", "\"1\""),
        2 => part(5, 9, 10, "FGHIJ").header("etag", "\"2\"").header("age", "10"),
        _ => serve("ABCDEFGHIJ", head).header("etag", "\"2\""),
    });
    let service = cached(&origin);
    range(&service, "bytes=0-4").await;
    range(&service, "bytes=5-9").await;
    assert_eq!(range(&service, "bytes=0-4").await.body, "ABCDE");
}

#[tokio::test(start_paused = true)]
async fn what_the_newest_part_keeps_for_one_client_is_not_taken_from_an_older_one() {
    let origin = Origin::new(|call, head| {
        let answer = serve(ALPHABET, head).header("etag", "\"1\"").header("x-user", call.to_string());
        if call == 2 { answer.header("cache-control", "private=\"x-user\"") } else { answer }
    });
    let service = cached(&origin);
    range(&service, "bytes=0-4").await;
    assert_eq!(range(&service, "bytes=5-9").await.header("x-user"), Some("2"));
    let whole = get(&service, "/").await;
    assert!(whole.is_hit());
    assert_eq!(whole.header("x-user"), None);
}

#[tokio::test(start_paused = true)]
async fn a_digest_of_other_bytes_is_not_sent_along() {
    let origin = Origin::new(|_, head| {
        let answer = serve(ALPHABET, head).header("etag", "\"1\"").header("repr-digest", "whole");
        answer.header("content-digest", "these").header("content-md5", "these")
    });
    let digests =
        |reply: &Reply| ["content-digest", "content-md5"].map(|name| reply.header(name).map(str::to_owned));
    let these = [Some("these".to_owned()), Some("these".to_owned())];
    let service = cached(&origin);
    range(&service, "bytes=0-4").await;
    assert_eq!(digests(&range(&service, "bytes=0-4").await), these);
    let within = range(&service, "bytes=0-3").await;
    assert_eq!((digests(&within), within.header("repr-digest")), ([None, None], Some("whole")));
    range(&service, "bytes=5-9").await;
    let together = get(&service, "/").await;
    assert_eq!((digests(&together), together.is_hit()), ([None, None], true));

    let service = cached(&origin);
    get(&service, "/").await;
    assert_eq!(digests(&get(&service, "/").await), these);
    for wanted in ["bytes=0-4", "bytes=0-1,3-4", "bytes=20-"] {
        assert_eq!(digests(&range(&service, wanted).await), [None, None], "{wanted}");
    }
}

#[tokio::test(start_paused = true)]
async fn fill_alone_cuts_parts_out_of_a_whole() {
    let origin = tagged("\"1\"");
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = KeyLayer::default().layer(FillLayer::new(store).layer(origin.clone()));
    get(&service, "/").await;
    let reply = get_with(&service, "/", &[("range", "bytes=1-2")]).await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, &b"bc"[..]));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_the_whole_says_nothing_about_its_parts() {
    let film = Arc::new("x".repeat(100_000));
    let origin = Origin::new(move |_, head| match head.headers.contains_key("range") {
        true => serve(&film, head).after(ms(20)),
        false => serve(&film, head).declares(100_000),
    });
    let store = MemoryStore::with_capacity_bytes(1 << 19);
    let service = ReadThroughLayer::builder(store).build().unwrap().layer(origin.clone());
    get(&service, "/").await;
    assert_eq!(get(&service, "/").await.cache(), "fwd=bypass; detail=too-large");
    let parts = (0..50).map(|_| get_with(&service, "/", &[("range", "bytes=0-9")]));
    assert!(join_all(parts).await.iter().all(|reply| reply.body == "xxxxxxxxxx"));
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_parts_says_nothing_about_the_whole() {
    type Unshared = fn() -> Answer;
    let private: Unshared = || part(0, 4, 10, "abcde").header("cache-control", "private");
    // An error may be the fault of one client, and leaves no marker.
    let cases: [(Unshared, &str); 2] = [(|| status(400), "fwd=uri-miss"), (private, "fwd=bypass")];
    for (unshared, why) in cases {
        let origin = Origin::new(move |_, head| match head.headers.contains_key("range") {
            true => unshared(),
            false => ok(ALPHABET).max_age(10).after(ms(20)),
        });
        let service = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).build().unwrap();
        let service = service.layer(origin.clone());
        get_with(&service, "/", &[("range", "bytes=0-4")]).await;
        let again = get_with(&service, "/", &[("range", "bytes=0-4")]).await;
        assert!(again.cache().starts_with(why), "{}", again.cache());
        join_all((0..50).map(|_| get(&service, "/"))).await;
        assert_eq!(origin.calls(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_leaves_parts_of_the_same_alone() {
    let film = Arc::new("x".repeat(100_000));
    let origin = Origin::new(move |call, head| {
        let tag = if call < 4 { "\"1\"" } else { "\"2\"" };
        let answer = serve(&film, head).header("etag", tag);
        if call % 4 == 1 { answer } else { answer.declares(100_000) }
    });
    let service = cached_in(&MemoryStore::with_capacity_bytes(1 << 19), &origin);
    range(&service, "bytes=0-9").await;
    range(&service, "bytes=0-").await;
    get(&service, "/").await;
    assert!(range(&service, "bytes=0-9").await.is_hit());
    range(&service, "bytes=0-").await;
    assert_eq!(origin.calls(), 4);
    assert_eq!(range(&service, "bytes=0-9").await.header("etag"), Some("\"2\""), "not of another");
}

#[derive(Clone, Debug)]
enum Step {
    Range(usize, usize),
    Whole,
    Change,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..20_usize, 0..20_usize).prop_map(|(a, b)| Step::Range(a.min(b), a.max(b))),
        2 => Just(Step::Whole),
        1 => Just(Step::Change),
        1 => (1..8_u64).prop_map(Step::Wait),
    ]
}

fn content(version: usize) -> String {
    (0..20).map(|at| char::from(b'a' + ((at + 3 * version) % 26) as u8)).collect()
}

/// Whatever is served is bytes of one version, which was the current one less than a lifetime ago.
async fn every_answer_is_of_one_recent_version(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let version = Arc::new(AtomicUsize::new(0));
    let current = Arc::clone(&version);
    let origin = Origin::new(move |_, head| {
        let version = current.load(Ordering::SeqCst);
        serve(&content(version), head).header("etag", format!("\"{version}\""))
    });
    let service = cached(&origin);
    let mut changed_at = vec![0];
    let mut now = 0;
    for step in steps {
        let (reply, extent) = match step {
            Step::Change => {
                version.fetch_add(1, Ordering::SeqCst);
                changed_at.push(now);
                continue;
            }
            Step::Wait(seconds) => {
                now += seconds;
                tokio::time::advance(secs(seconds)).await;
                continue;
            }
            Step::Whole => (get(&service, "/").await, 0..20),
            Step::Range(first, last) => {
                (range(&service, &format!("bytes={first}-{last}")).await, first..last + 1)
            }
        };
        // A whole whose length is not known yet is not cut.
        let extent = if reply.status == 200 { 0..20 } else { extent };
        let tag = reply.header("etag").unwrap().trim_matches('"').parse::<usize>().unwrap();
        prop_assert_eq!(&reply.body, &content(tag)[extent.clone()].to_owned());
        let replaced_at = changed_at.get(tag + 1);
        prop_assert!(replaced_at.is_none_or(|at| now < at + 10), "version {} at {}", tag, now);
    }
    Ok(())
}

proptest! {
    #[test]
    fn parts_never_mix_versions(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(every_answer_is_of_one_recent_version(steps))?;
    }
}
