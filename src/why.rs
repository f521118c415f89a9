//! Why was this not cached? Each reason, and what to do about it.
//!
//! The reason is the `detail` of the `Cache-Status` field of the response, where it is known when the head of the
//! response is sent:
//!
//! ```text
//! Cache-Status: tower-readthrough;fwd=uri-miss;detail=set-cookie
//! ```
//!
//! The same names are in the extension of the response ([`CacheStatus`](crate::CacheStatus)), in what an
//! [`Observer`](crate::Observer) is told, in [`Stats`](crate::Stats), and in metrics. What is known before the
//! origin is asked is also in what [`explain`](crate::ReadThroughLayer::explain) returns; of refusals only
//! `not-stored` is, since limits are those of the moment. What is known only when the body is over is in all but the
//! field and the extension, which have been sent by then. So the field says `stored` only of a response whose length
//! is known, and nothing of one that may turn out to be too large. `stored` means that the response is stored once its
//! body has arrived, unless that breaks off or something of the table overtakes it: a purge, or a later fetch.
//!
//! ```
//! use axum::{Router, body::Body, routing::get};
//! use http::Request;
//! use tower::ServiceExt;
//! use tower_readthrough::{CacheStatus, MemoryStore, NotStored, ReadThroughLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).build()?;
//! let app = Router::new().route("/", get(async || ([("set-cookie", "a=b"), ("cache-control", "max-age=60")], "")));
//! let request = Request::get("/").header("host", "example.com").body(Body::empty())?;
//! let response = app.layer(cache).oneshot(request).await?;
//! let why = CacheStatus::of(&response).and_then(|status| status.not_stored_reason());
//! assert_eq!(why, Some(NotStored::SetCookie));
//! assert_eq!(why.map(NotStored::fields), Some(&["set-cookie"][..]));
//! # Ok(())
//! # }
//! ```
//!
//! # `NotStored`: the response is not stored
//!
//! | reason | known | what to do |
//! |---|---|---|
//! | `no-store` | with the head | The response says `no-store`, or the request does and its directives are followed. Leave the directive out, or say [`store_no_store`](crate::Rules::store_no_store) if it is there by mistake. |
//! | `private` | with the head | The response says `private`: it is for one user. If it is not, leave that out, or say [`store_private`](crate::Rules::store_private). |
//! | `set-cookie` | with the head | The response sets a cookie. Leave the cookie out of what is shared ([`store_without`](crate::Rules::store_without)), or store it if all clients may have the same one ([`store_set_cookie`](crate::Rules::store_set_cookie)). |
//! | `authorization` | with the head | The request has credentials. If the response is for all that are let in, send it with `public` or `s-maxage`; if it differs by user, put the user into the key ([`KeyRule::headers`](crate::KeyRule::headers)). |
//! | `cookie` | with the head | The request has a `Cookie`, and only a default lifetime would make the response fresh. Name the cookies that matter ([`KeyRule::cookies`](crate::KeyRule::cookies), an empty list if none does), or let the response have a `max-age` of its own. |
//! | `token` | with the head | As `cookie`, for fields such as `X-Api-Key`. Put the field into the key ([`KeyRule::headers`](crate::KeyRule::headers)), or see [`only_credentials`](crate::Rules::only_credentials). |
//! | `vary-star` | with the head | The response has `Vary: *`, or a `Vary` that is no list of names. Name the fields that it depends on. |
//! | `not-fresh` | with the head | The response has no lifetime, or one of zero. Send `max-age`, or give it one ([`default_ttl`](crate::Rules::default_ttl)). |
//! | `status` | with the head | The status is an error about one request, or one without a lifetime. For 404 and 410 see [`negative_ttl`](crate::Rules::negative_ttl). |
//! | `failure` | with the head | The origin has failed ([`Failures`](crate::Failures)). See the [guide](crate::outage). |
//! | `method` | with the head | A response to HEAD has no content. Ask with GET. |
//! | `partial` | with the head | The response is a part, or answers a condition of one client. See [`fetch_whole_for_ranges`](crate::LookupLayer::fetch_whole_for_ranges). |
//! | `framing` | with the head | The length that the response declares is invalid or not that of its body. Mend the origin. |
//! | `stream` | with the head | The response may have no end. If it has one, declare its length, or give it a `max-age`. |
//! | `no-vary-search` | with the head | `No-Vary-Search` differs between responses for the path. Send the same one with all of them. |
//! | `too-many-tags` | with the head | The response has more than some thousand tags. Use fewer and wider ones. |
//! | `policy` | with the head | [`never_store`](crate::Rules::never_store), by the rules, a key rule or a [`Policy`](crate::Policy); or no layer decides about storing. |
//! | `too-large` | after the body | The response is larger than the store takes of one. Give the store more room, or a larger [share](crate::MemoryStoreBuilder::max_response_share). Where the length is declared it is known with the head. |
//! | `incomplete` | after the body | The body broke off, or the client left and nothing read the rest. Look at the origin and the network. |
//! | `purged-meanwhile` | after the body | A purge came while the response was fetched. The next request stores it. Before the head of the response it is known with that. |
//! | `outdated` | after the body | The response of a later fetch is stored already. Nothing is to be done. |
//! | `expired` | after the body | The body took longer than the response stays fresh. Give it a longer lifetime, or `stale-while-revalidate`. |
//! | `store-refused` | after the body | A store of your own did not keep it. |
//!
//! # `Unkeyed`: the request has no key
//!
//! | reason | known | what to do |
//! |---|---|---|
//! | `no-host` | before the fetch | Neither the URI nor `Host` names a host. In tests, send a `Host` field. |
//! | `unusable-host` | before the fetch | `Host` is invalid, there are several, or it is not that of the URI. |
//! | `rule-bypass` | before the fetch | A key rule says [`bypass`](crate::KeyRule::bypass). |
//! | `ambiguous-path` | before the fetch | Servers read the path in different ways, for which different rules apply. Send it in its normal form. |
//! | `ambiguous-condition` | before the fetch | As that, for the condition of a rule. |
//! | `missing-extension` | before the fetch | A rule has an extension in its keys that no layer above has put into the request. |
//! | `body` | before the fetch | The request has a body. See [keys from bodies](crate::key#keys-from-bodies). |
//! | `upgrade` | before the fetch | The request asks for another protocol, such as WebSocket. |
//! | `method-override` | before the fetch | A framework could read another method from the request. |
//! | `no-key` | before the fetch | A [`KeyExtractor`](crate::KeyExtractor) of your own returned none. |
//!
//! # `Forward`: the origin was asked
//!
//! | reason | known | what to do |
//! |---|---|---|
//! | `uri-miss` | before the fetch | Nothing was stored under the key: the first request, or the response was pushed out ([`StoreStats::evictions`](crate::StoreStats)), or it is never stored, which its own reason says. |
//! | `vary-miss` | before the fetch | Only other variants were stored. If there are too many, choose among fewer values ([`accept_language`](crate::KeyRulesBuilder::accept_language), [`Guard`](crate::Guard)). |
//! | `miss` | before the fetch | Nothing usable, for no more specific reason. |
//! | `stale` | before the fetch | The lifetime was over, or something else has made it stale or removed it (then `detail` says what: see `Lost`). Give it a longer one, or [`stale_while_revalidate_for`](crate::Rules::stale_while_revalidate_for). |
//! | `partial` | before the fetch | Only a part was stored. |
//! | `bypass` | before the fetch | The last response was for one client, so no other client waits for the next ([`hit_for_miss_for`](crate::Rules::hit_for_miss_for)). That response said why. |
//! | `request` | before the fetch | The request has directives or credentials for which the stored response may not be used. |
//!
//! # `Lost`: what made a stored response stale, or removed it, other than the end of its lifetime
//!
//! These come with `fwd=stale`, and beside the reasons why a stale response was served.
//!
//! | reason | known | what to do |
//! |---|---|---|
//! | `purged` | before the fetch | It was [purged](crate::Purge). |
//! | `invalidated` | before the fetch | An unsafe request, such as a POST, has changed what it is about (RFC 9111 §4.4). |
//! | `unproven` | before the fetch | It is not known whether it was purged: it came from a file, or the node may have missed purges of others. The origin confirms it once. |
//! | `cut-off` | before the fetch | The node has heard of no purges for longer than it [may](crate::several_nodes). Look at the server of the cluster, and at the network. |
//!
//! # `Stale`: a stale response was served
//!
//! | reason | known | what to do |
//! |---|---|---|
//! | `stale-while-revalidate` | before the fetch | A fresh one is being fetched. |
//! | `stale-if-error` | with the head | The origin failed. |
//! | `max-stale` | before the fetch | The client accepts stale responses. |
//! | `origin-slow` | with the head | The origin took longer than [`stale_after`](crate::CoalesceLayer::stale_after). |
//! | `origin-failed` | before the fetch | The last fetch failed, and its pause is not over. |
//! | `origin-down` | before the fetch | The origin is down. |
//! | `origin-recovering` | before the fetch | The origin is recovering. |
//! | `origin-busy` | before the fetch | The origin said that it gets too many requests. |
//!
//! # `Refused`: the cache responded with an error
//!
//! | reason | known | what to do |
//! |---|---|---|
//! | `queue-full` | before the fetch | More requests than the origin takes. Raise the [limit](crate::OriginLimitLayer), or give the origin more room. |
//! | `queue-timeout` | before the fetch | As that, after a wait. |
//! | `too-many-waiters` | before the fetch | Too many callers of one fetch ([`max_waiters`](crate::CoalesceLayer::max_waiters)). |
//! | `wait-timeout` | with the head | No response in the time that a caller waits ([`wait_at_most`](crate::CoalesceLayer::wait_at_most)). |
//! | `fetch-aborted` | with the head | The fetch panicked or was cancelled. |
//! | `fetch-timeout` | with the head | No response within the [`fetch_deadline`](crate::CoalesceLayer::fetch_deadline). |
//! | `origin-down` | before the fetch | The origin is down, and [`fail_fast`](crate::OriginHealthBuilder::fail_fast) is set or the request was not one that finds out. |
//! | `origin-recovering` | before the fetch | The origin is recovering, and something stale may be served, or no client waits for the response. |
//! | `origin-busy` | before the fetch | As that, after the origin said that it gets too many requests. |
//! | `attempt-timeout` | with the head | No response while the origin is down. |
//! | `not-stored` | before the fetch | The client wants only what is stored (`only-if-cached`). |

#[cfg(test)]
mod tests {
    use crate::{Forward, Known, Lost, Named, NotStored, Refused, Stale, Unkeyed};

    const PAGE: &str = include_str!("why.rs");

    /// The rows under a heading: the name and the second cell.
    fn rows(heading: &str) -> Vec<(&'static str, &'static str)> {
        let section = PAGE.split("//! # `").find(|section| section.starts_with(heading));
        let lines = section.unwrap_or_default().lines();
        let cells = lines.filter_map(|line| line.strip_prefix("//! | `")?.split_once("` | "));
        cells.map(|(name, rest)| (name, rest.split(" |").next().unwrap_or_default())).collect()
    }

    fn check<R: Named>(heading: &str, known: impl Fn(R) -> Known) {
        let in_words = |reason: R| match known(reason) {
            Known::BeforeFetch => "before the fetch",
            Known::WithHead => "with the head",
            Known::AfterBody => "after the body",
        };
        let mut expected: Vec<_> = R::ALL.iter().map(|reason| (reason.as_str(), in_words(*reason))).collect();
        let mut found = rows(heading);
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "{heading}");
    }

    #[test]
    fn the_page_lists_each_reason_once_and_no_other() {
        check("NotStored", NotStored::known);
        check("Unkeyed", Unkeyed::known);
        check("Forward", Forward::known);
        check("Stale", Stale::known);
        check("Lost", Lost::known);
        check("Refused", Refused::known);
    }
}
