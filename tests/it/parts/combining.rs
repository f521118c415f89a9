//! Parts that are combined (RFC 9111 §3.4, RFC 9110 §15.3.7.3).

use super::*;

#[tokio::test(start_paused = true)]
async fn parts_of_one_strong_validator_are_combined() {
    let origin = tagged("\"1\"");
    let service = cached(Rules::new(), &origin);
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
async fn combined_parts_have_the_fields_of_the_newest_part() {
    let origin = ScriptedOrigin::new(|call, head| {
        let answer = serve(ALPHABET, head).header("etag", "\"1\"").header("x", call.to_string());
        if call == 1 { answer.header("only-in-the-first", "1") } else { answer }
    });
    let service = cached(Rules::new(), &origin);
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
async fn parts_without_a_strong_validator_are_not_combined() {
    for tag in [None, Some("W/\"1\"")] {
        let origin = ScriptedOrigin::new(move |_, head| {
            let answer = serve(ALPHABET, head);
            tag.into_iter().fold(answer, |answer, tag| answer.header("etag", tag))
        });
        let service = cached(Rules::new(), &origin);
        range(&service, "bytes=0-4").await;
        range(&service, "bytes=5-9").await;
        assert!(!range(&service, "bytes=4-5").await.is_hit(), "{tag:?}");
        assert!(!get(&service, "/").await.is_hit(), "{tag:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_representation_replaces_all_parts() {
    for (first, second) in [("\"1\"", "\"2\""), ("W/\"1\"", "W/\"1\""), ("\"1\"", "W/\"1\"")] {
        let origin = ScriptedOrigin::new(move |call, head| match call {
            1 => serve(ALPHABET, head).header("etag", first),
            2 => serve("ABCDEFGHIJ", head).header("etag", second),
            _ => status(599),
        });
        let service = cached(Rules::new(), &origin);
        range(&service, "bytes=0-4").await;
        range(&service, "bytes=4-9").await;
        assert_eq!(range(&service, "bytes=5-6").await.body, "FG", "{first} {second}");
        assert_eq!(range(&service, "bytes=0-1").await.status, 599, "{first} {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_another_length_is_of_another_representation() {
    let origin = ScriptedOrigin::new(|call, head| match call {
        1 => serve(ALPHABET, head).header("etag", "\"1\""),
        _ => serve("abcdefghijkl", head).header("etag", "\"1\""),
    });
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=0-4").await;
    range(&service, "bytes=5-9").await;
    assert!(range(&service, "bytes=6-9").await.is_hit());
    assert!(!range(&service, "bytes=0-4").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_late_part_does_not_displace_a_newer_representation() {
    for late in ["bytes=0-4", "bytes=0-9"] {
        let origin = ScriptedOrigin::new(|call, head| match call {
            1 => serve(ALPHABET, head).header("etag", "\"1\"").after(ms(50)),
            _ => serve("ABCDEFGHIJ", head).header("etag", "\"2\""),
        });
        let service = cached(Rules::new(), &origin);
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
async fn a_newer_complete_response_replaces_all_parts() {
    let origin = ScriptedOrigin::new(|call, head| match call {
        1 => serve(ALPHABET, head).header("etag", "\"1\""),
        _ => serve("ABCDEFGHIJ", head).header("etag", "\"2\""),
    });
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=0-4").await;
    get(&service, "/").await;
    assert_eq!(range(&service, "bytes=0-4").await.body, "ABCDE");
    assert!(get(&service, "/").await.is_hit());
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_part_within_another_takes_no_room() {
    let content = "x".repeat(1000);
    let origin = ScriptedOrigin::new(move |_, head| serve(&content, head).header("etag", "\"1\""));
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=900-999").await;
    for at in 0..20 {
        range(&service, &format!("bytes={}-{}", at * 10, at * 10 + 9)).await;
    }
    assert!(range(&service, "bytes=0-199").await.is_hit());
    assert!(range(&service, "bytes=900-999").await.is_hit(), "there are two parts, not twenty-one");
}

#[tokio::test(start_paused = true)]
async fn a_late_part_does_not_outlive_a_newer_complete_response() {
    let origin = ScriptedOrigin::new(|call, head| match call {
        1 => serve(ALPHABET, head).header("etag", "\"1\"").after(ms(50)),
        2 => ok("ABCDEFGHIJ").max_age(1).header("etag", "\"2\""),
        _ => serve("ABCDEFGHIJ", head).header("etag", "\"2\""),
    });
    let service = cached(Rules::new(), &origin);
    let newer = async {
        tokio::time::sleep(ms(10)).await;
        get(&service, "/").await
    };
    tokio::join!(range(&service, "bytes=0-4"), newer);
    tokio::time::advance(secs(2)).await;
    // For a stale part the complete response is fetched.
    assert_eq!(range(&service, "bytes=0-4").await.body, "ABCDEFGHIJ");
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_later_part_keeps_out_only_a_complete_response_of_another_representation() {
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
        let origin = ScriptedOrigin::new(move |call, head| {
            let (date, answer) = match call {
                1 => (first, serve(ALPHABET, head).after(ms(50))),
                _ => (second, serve(content, head)),
            };
            date.into_iter().fold(answer, |answer, date| answer.header("last-modified", date))
        });
        let service = cached(Rules::new(), &origin);
        let part = async {
            tokio::time::sleep(ms(10)).await;
            range(&service, "bytes=0-4").await
        };
        tokio::join!(get(&service, "/"), part);
        assert_eq!(get(&service, "/").await.is_hit(), is_stored, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_part_takes_no_fields_from_a_newer_one() {
    let origin = ScriptedOrigin::new(|call, head| {
        let answer = serve(ALPHABET, head).header("etag", "\"1\"").header("x", call.to_string());
        if call == 1 {
            answer.header("only-in-the-first", "1").header("age", "8").after(ms(50))
        } else {
            answer
        }
    });
    let service = cached(Rules::new(), &origin);
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
async fn a_late_part_is_not_preferred_to_a_newer_one() {
    let origin = ScriptedOrigin::new(|call, head| match call {
        1 => serve(ALPHABET, head).header("vary", "x").after(ms(50)),
        _ => serve("ABCDEFGHIJ", head),
    });
    let service = cached(Rules::new(), &origin);
    let newer = async {
        tokio::time::sleep(ms(10)).await;
        range(&service, "bytes=0-4").await
    };
    tokio::join!(range(&service, "bytes=0-4"), newer);
    assert_eq!(range(&service, "bytes=0-4").await.body, "ABCDE");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn parts_too_large_together_are_kept_apart() {
    let store = MemoryStore::with_capacity_bytes(1 << 19);
    // Together the bodies fit, but not with the fields.
    let limit = (1 << 15) - 600;
    let content = "x".repeat(2 * limit);
    let origin = ScriptedOrigin::new(move |_, head| serve(&content, head).header("etag", "\"1\""));
    let service = cached_in(&store, Rules::new(), &origin);
    range(&service, &format!("bytes=0-{}", limit / 2)).await;
    let second = format!("bytes={}-{}", limit / 2 + 1, limit);
    range(&service, &second).await;
    assert!(range(&service, &second).await.is_hit());
    assert_eq!(store.stats().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn a_newer_representation_replaces_all_parts_even_if_it_is_stale() {
    let origin = ScriptedOrigin::new(|call, head| match call {
        1 => serve(ALPHABET, head).header("etag", "\"1\""),
        2 => part(5, 9, 10, "FGHIJ").header("etag", "\"2\"").header("age", "10"),
        _ => serve("ABCDEFGHIJ", head).header("etag", "\"2\""),
    });
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=0-4").await;
    range(&service, "bytes=5-9").await;
    assert_eq!(range(&service, "bytes=0-4").await.body, "ABCDE");
}

#[tokio::test(start_paused = true)]
async fn fields_that_the_newest_part_keeps_private_are_not_taken_from_an_older_one() {
    let origin = ScriptedOrigin::new(|call, head| {
        let answer = serve(ALPHABET, head).header("etag", "\"1\"").header("x-user", call.to_string());
        if call == 2 { answer.header("cache-control", "private=\"x-user\"") } else { answer }
    });
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=0-4").await;
    assert_eq!(range(&service, "bytes=5-9").await.header("x-user"), Some("2"));
    let whole = get(&service, "/").await;
    assert!(whole.is_hit());
    assert_eq!(whole.header("x-user"), None);
}

#[tokio::test(start_paused = true)]
async fn a_digest_of_other_bytes_is_not_sent_along() {
    let origin = ScriptedOrigin::new(|_, head| {
        let answer = serve(ALPHABET, head).header("etag", "\"1\"").header("repr-digest", "whole");
        answer.header("content-digest", "these").header("content-md5", "these")
    });
    let digests =
        |reply: &Reply| ["content-digest", "content-md5"].map(|name| reply.header(name).map(str::to_owned));
    let these = [Some("these".to_owned()), Some("these".to_owned())];
    let service = cached(Rules::new(), &origin);
    range(&service, "bytes=0-4").await;
    assert_eq!(digests(&range(&service, "bytes=0-4").await), these);
    let within = range(&service, "bytes=0-3").await;
    assert_eq!((digests(&within), within.header("repr-digest")), ([None, None], Some("whole")));
    range(&service, "bytes=5-9").await;
    let together = get(&service, "/").await;
    assert_eq!((digests(&together), together.is_hit()), ([None, None], true));

    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    assert_eq!(digests(&get(&service, "/").await), these);
    for wanted in ["bytes=0-4", "bytes=0-1,3-4", "bytes=20-"] {
        assert_eq!(digests(&range(&service, wanted).await), [None, None], "{wanted}");
    }
}
