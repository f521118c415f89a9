//! A validator of one variant confirms no other variant's response (RFC 9111 §4.3.1, RFC 9110 §15.4.5).

use std::fmt;

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body::Body as HttpBody;
use tower::Service;

use super::on_each;

use crate::support::{
    Reply, ScriptedOrigin, ScriptedResponse, get_with, ok, request, secs, send, settle, status,
};

fn field<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    Some(head.headers.get(name)?.to_str().unwrap())
}

/// The cookie of the client, or the coding that it asks for.
fn client(head: &Parts) -> String {
    ["cookie", "accept-encoding", "x-tenant", "authorization"]
        .iter()
        .find_map(|name| field(head, name))
        .unwrap_or("none")
        .to_owned()
}

/// An origin with one version tag for all that it says, which confirms that very tag and no list.
fn versioned(selecting: &'static str, directives: &'static str) -> ScriptedOrigin {
    ScriptedOrigin::new(move |_, head| {
        let answer = match field(head, "if-none-match") {
            Some("\"v7\"") => status(304),
            _ => ok(client(head)).header("x-user", client(head)).header("vary", selecting),
        };
        answer.header("cache-control", directives).header("etag", "\"v7\"")
    })
}

async fn ask<S, B>(service: &S, name: &str, value: &str, others: &[(&str, &str)]) -> Reply
where
    S: Service<http::Request<crate::support::Body>, Response = Response<B>, Error: fmt::Debug> + Clone,
    B: HttpBody<Data = Bytes>,
{
    get_with(service, "/", &[&[(name, value)], others].concat()).await
}

fn is_conditional(head: &Parts) -> bool {
    ["if-none-match", "if-modified-since"].iter().any(|name| head.headers.contains_key(*name))
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_variant_is_fetched_without_conditions() {
    for selecting in ["cookie", "accept-encoding", "x-tenant", "authorization"] {
        on_each!(versioned(selecting, "public, max-age=60"), async |service: &_, origin: &ScriptedOrigin| {
            ask(service, selecting, "a", &[]).await;
            let other = ask(service, selecting, "b", &[]).await;
            assert!(!is_conditional(&origin.last_request()), "{selecting}");
            assert_eq!((&other.body[..], other.header("x-user")), (&b"b"[..], Some("b")), "{selecting}");
            let other = ask(service, selecting, "b", &[]).await;
            assert!(other.is_hit() && other.body == "b");
            assert_eq!(origin.calls(), 2);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_forced_fetch_without_a_variant_does_not_return_another_variant() {
    for directive in ["no-cache", "max-age=0", "min-fresh=100"] {
        on_each!(versioned("cookie", "max-age=60"), async |service: &_, origin: &ScriptedOrigin| {
            ask(service, "cookie", "a", &[]).await;
            let other = ask(service, "cookie", "b", &[("cache-control", directive)]).await;
            assert!(!is_conditional(&origin.last_request()));
            assert_eq!(other.body, "b", "{directive}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_variant_is_revalidated_by_its_own_validator_alone() {
    for others in [&[][..], &[("cache-control", "no-cache")]] {
        on_each!(versioned("cookie", "max-age=10"), async |service: &_, origin: &ScriptedOrigin| {
            for cookie in ["a", "b", "c"] {
                ask(service, "cookie", cookie, &[]).await;
            }
            tokio::time::advance(secs(11)).await;
            let own = ask(service, "cookie", "b", others).await;
            assert_eq!(field(&origin.last_request(), "if-none-match"), Some("\"v7\""), "one tag");
            assert_eq!((own.status.as_u16(), &own.body[..]), (200, &b"b"[..]));
            assert_eq!(origin.calls(), 4);
            // The 304 says nothing about the variants of other clients.
            let other = ask(service, "cookie", "a", &[]).await;
            assert_eq!((&other.body[..], origin.calls()), (&b"a"[..], 5));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_in_the_background_confirms_its_own_variant_alone() {
    on_each!(
        versioned("cookie", "max-age=10, stale-while-revalidate=60"),
        async |service: &_, origin: &ScriptedOrigin| {
            ask(service, "cookie", "a", &[]).await;
            ask(service, "cookie", "b", &[]).await;
            tokio::time::advance(secs(11)).await;
            assert_eq!(ask(service, "cookie", "a", &[]).await.body, "a");
            settle().await;
            assert_eq!(field(&origin.last_request(), "if-none-match"), Some("\"v7\""));
            let own = ask(service, "cookie", "a", &[]).await;
            assert_eq!((&own.body[..], own.cache().starts_with("hit")), (&b"a"[..], true));
            assert_eq!(origin.calls(), 3);
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_304_without_validators_freshens_the_selected_variant() {
    let origin = || {
        ScriptedOrigin::new(|_, head| match field(head, "if-none-match") {
            Some(_) => status(304).max_age(10),
            None => ok(client(head)).max_age(10).header("vary", "cookie").header("etag", "\"v7\""),
        })
    };
    on_each!(origin(), async |service: &_, origin: &ScriptedOrigin| {
        ask(service, "cookie", "a", &[]).await;
        ask(service, "cookie", "b", &[]).await;
        tokio::time::advance(secs(11)).await;
        for cookie in ["a", "b"] {
            assert_eq!(ask(service, "cookie", cookie, &[]).await.body, *cookie);
        }
        assert_eq!(origin.calls(), 4);
    });
}

#[tokio::test(start_paused = true)]
async fn a_condition_of_the_client_is_evaluated_against_its_own_variant() {
    on_each!(versioned("cookie", "max-age=60"), async |service: &_, origin: &ScriptedOrigin| {
        ask(service, "cookie", "a", &[]).await;
        let condition = [("if-none-match", "\"v7\"")];
        let other = ask(service, "cookie", "b", &condition).await;
        assert!(!is_conditional(&origin.last_request()), "everyone gets the response");
        assert_eq!((other.status.as_u16(), other.header("x-user")), (304, Some("b")));
        settle().await;
        let other = ask(service, "cookie", "b", &[]).await;
        assert!(other.is_hit() && other.body == "b");
    });
}

/// A site that sets `Vary: Cookie` once there are cookies.
fn begins_to_vary(confirming: fn(ScriptedResponse) -> ScriptedResponse) -> ScriptedOrigin {
    ScriptedOrigin::new(move |_, head| {
        let answer = match field(head, "if-none-match") {
            Some(_) => confirming(status(304)),
            None if client(head) == "none" => ok("for all"),
            None => ok(client(head)).header("vary", "cookie"),
        };
        answer.max_age(10).header("etag", "\"v7\"")
    })
}

#[tokio::test(start_paused = true)]
async fn a_304_that_names_further_selecting_fields_does_not_confirm() {
    for confirming in [
        (|answer| answer.header("vary", "cookie")) as fn(ScriptedResponse) -> ScriptedResponse,
        |answer| answer.header("vary", "accept-encoding, cookie"),
        |answer| answer.header("vary", "*"),
    ] {
        on_each!(begins_to_vary(confirming), async |service: &_, origin: &ScriptedOrigin| {
            get_with(service, "/", &[]).await;
            tokio::time::advance(secs(11)).await;
            let reply = ask(service, "cookie", "b", &[]).await;
            assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"b"[..]));
            assert_eq!(origin.calls(), 3);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_304_with_fewer_selecting_fields_does_not_widen_a_variant() {
    // Some servers send a 304 without the fields that an outer layer adds to a 200.
    for vary in [None, Some("accept-language")] {
        let origin = || {
            ScriptedOrigin::new(move |_, head| match field(head, "if-none-match") {
                Some(_) => {
                    let answer = status(304).max_age(10).header("etag", "\"v7\"");
                    vary.map_or_else(|| status(304).max_age(10), |vary| answer.header("vary", vary))
                }
                None => {
                    let answer = ok(client(head)).max_age(10).header("etag", "\"v7\"");
                    answer.header("vary", "cookie, accept-language")
                }
            })
        };
        on_each!(origin(), async |service: &_, origin: &ScriptedOrigin| {
            ask(service, "cookie", "a", &[]).await;
            tokio::time::advance(secs(11)).await;
            let own = ask(service, "cookie", "a", &[]).await;
            assert_eq!((&own.body[..], own.header("vary")), (&b"a"[..], Some("cookie, accept-language")));
            assert_eq!(ask(service, "cookie", "b", &[]).await.body, "b", "{vary:?}");
            assert_eq!(origin.calls(), 3);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_to_head_with_further_selecting_fields_freshens_nothing() {
    let origin = || {
        ScriptedOrigin::new(|_, head| {
            let answer = match head.method {
                http::Method::HEAD => ok("").header("vary", "cookie"),
                _ if client(head) == "none" => ok("for all"),
                _ => ok(client(head)).header("vary", "cookie"),
            };
            answer.max_age(10).header("etag", "\"v7\"")
        })
    };
    on_each!(origin(), async |service: &_, _: &ScriptedOrigin| {
        get_with(service, "/", &[]).await;
        tokio::time::advance(secs(11)).await;
        send(service, request("HEAD", "/", &[("cookie", "b")])).await;
        assert_eq!(ask(service, "cookie", "b", &[]).await.body, "b");
    });
}
