//! Every default that changes what an application does, with its value and the setting that changes it.
//!
//! Nothing is repeated, guessed or refreshed ahead of time, and no field that an application reads is
//! removed from a request, unless a setting below asks for it. Times are the defaults of the stack that [`ReadThrough`](crate::ReadThrough) builds, and of
//! the single layers where nothing else is said. `none` and `no` mean: switched off.
//!
//! # What is stored
//!
//! | setting | default |
//! |---|---|
//! | [`Rules::default_ttl`](crate::Rules::default_ttl) | none |
//! | [`Rules::fixed_ttl`](crate::Rules::fixed_ttl) | none |
//! | [`Rules::negative_ttl`](crate::Rules::negative_ttl) | none |
//! | [`Rules::heuristic`](crate::Rules::heuristic) | none |
//! | [`Rules::stale_while_revalidate_for`](crate::Rules::stale_while_revalidate_for) | 0 s |
//! | [`Rules::stale_if_error_for`](crate::Rules::stale_if_error_for) | 1 h |
//! | [`Rules::stale_despite_revalidate`](crate::Rules::stale_despite_revalidate) | none |
//! | [`Rules::ttl_jitter`](crate::Rules::ttl_jitter) | none |
//! | [`Rules::refresh_ahead`](crate::Rules::refresh_ahead) | none |
//! | [`Rules::revalidate_for`](crate::Rules::revalidate_for) | 10 min |
//! | [`Rules::hit_for_miss_for`](crate::Rules::hit_for_miss_for) | 10 s |
//! | [`Rules::store_set_cookie`](crate::Rules::store_set_cookie) | no |
//! | [`Rules::store_without`](crate::Rules::store_without) | none |
//! | [`Rules::store_private`](crate::Rules::store_private) | no |
//! | [`Rules::store_no_store`](crate::Rules::store_no_store) | no |
//! | [`Rules::store_authorized`](crate::Rules::store_authorized) | no |
//! | [`Rules::never_store`](crate::Rules::never_store) | no |
//! | [`Rules::cookies`](crate::Rules::cookies) | none |
//! | [`Rules::credentials`](crate::Rules::credentials) | none |
//! | [`FillLayer::targets`](crate::FillLayer::targets) | CDN-Cache-Control |
//! | [`FillLayer::strip_targets`](crate::FillLayer::strip_targets) | no |
//! | [`FillLayer::tag_fields`](crate::FillLayer::tag_fields) | none |
//! | [`FillLayer::strip_tags`](crate::FillLayer::strip_tags) | yes |
//! | [`ReadThroughBuilder::failures`](crate::ReadThroughBuilder::failures) | 408, 500, 502, 503, 504 |
//!
//! # The memory store
//!
//! | setting | default |
//! |---|---|
//! | [`MemoryStoreBuilder::max_response_share`](crate::MemoryStoreBuilder::max_response_share) | 1/16 |
//! | [`MemoryStoreBuilder::max_tag_records`](crate::MemoryStoreBuilder::max_tag_records) | 65536 |
//! | [`MemoryStoreBuilder::max_prefix_records`](crate::MemoryStoreBuilder::max_prefix_records) | 1024 |
//! | [`MemoryStoreBuilder::floors`](crate::MemoryStoreBuilder::floors) | capacity / 4096 |
//! | [`MemoryStoreBuilder::snapshots`](crate::MemoryStoreBuilder::snapshots) | no |
//!
//! # The snapshot file
//!
//! | setting | default |
//! |---|---|
//! | [`SnapshotFileBuilder::namespace`](crate::store::SnapshotFileBuilder::namespace) | empty |
//! | [`SnapshotFileBuilder::every`](crate::store::SnapshotFileBuilder::every) | none |
//! | [`SnapshotFileBuilder::trust_freshness`](crate::store::SnapshotFileBuilder::trust_freshness) | no |
//! | [`SnapshotFileBuilder::overlapping`](crate::store::SnapshotFileBuilder::overlapping) | no |
//!
//! # A cluster
//!
//! | setting | default |
//! |---|---|
//! | [`ClusterBuilder::namespace`](crate::cluster::ClusterBuilder::namespace) | readthrough |
//! | [`ClusterBuilder::node`](crate::cluster::ClusterBuilder::node) | random |
//! | [`ClusterBuilder::root_certificates`](crate::cluster::ClusterBuilder::root_certificates) | those of the system |
//! | [`ClusterBuilder::client_certificate`](crate::cluster::ClusterBuilder::client_certificate) | none |
//! | [`ClusterBuilder::when_cut_off`](crate::cluster::ClusterBuilder::when_cut_off) | serve on |
//!
//! # A server as a second tier
//!
//! | setting | default |
//! |---|---|
//! | [`RedisRemoteBuilder::namespace`](crate::remote::RedisRemoteBuilder::namespace) | readthrough |
//! | [`RedisRemoteBuilder::read_timeout`](crate::remote::RedisRemoteBuilder::read_timeout) | 50 ms |
//! | [`RedisRemoteBuilder::write_timeout`](crate::remote::RedisRemoteBuilder::write_timeout) | 1 s |
//! | [`RedisRemoteBuilder::root_certificates`](crate::remote::RedisRemoteBuilder::root_certificates) | those of the system |
//! | [`RedisRemoteBuilder::client_certificate`](crate::remote::RedisRemoteBuilder::client_certificate) | none |
//!
//! # A second tier
//!
//! | setting | default |
//! |---|---|
//! | [`TierBuilder::plain_keys`](crate::tier::TierBuilder::plain_keys) | no |
//! | [`TierBuilder::single_fetch`](crate::tier::TierBuilder::single_fetch) | no |
//! | [`TierBuilder::compression`](crate::tier::TierBuilder::compression) | none |
//! | [`TierBuilder::max_queued`](crate::tier::TierBuilder::max_queued) | 1024 |
//! | [`TierBuilder::max_queued_bytes`](crate::tier::TierBuilder::max_queued_bytes) | 32 MiB |
//!
//! # Keys
//!
//! | setting | default |
//! |---|---|
//! | [`DefaultKey::namespace`](crate::DefaultKey::namespace) | empty |
//! | [`DefaultKey::scheme`](crate::DefaultKey::scheme) | none |
//! | [`KeyRulesBuilder::guard`](crate::KeyRulesBuilder::guard) | none |
//! | [`KeyRulesBuilder::classes`](crate::KeyRulesBuilder::classes) | none |
//!
//! # Answers from the store
//!
//! | setting | default |
//! |---|---|
//! | [`LookupLayer::refresh_deadline`](crate::LookupLayer::refresh_deadline) | 30 s |
//! | [`LookupLayer::max_stale_while_up`](crate::LookupLayer::max_stale_while_up) | none |
//! | [`LookupLayer::max_refreshes`](crate::LookupLayer::max_refreshes) | 1024 |
//! | [`LookupLayer::cache_status`](crate::LookupLayer::cache_status) | short |
//! | [`LookupLayer::cache_name`](crate::LookupLayer::cache_name) | tower-readthrough |
//! | [`LookupLayer::request_directives`](crate::LookupLayer::request_directives) | no |
//! | [`LookupLayer::fetch_whole_for_ranges`](crate::LookupLayer::fetch_whole_for_ranges) | no |
//!
//! # Fetches that are shared
//!
//! In the stack, `max_held_bytes` is the largest response that the store takes, and `max_total_bytes` its
//! capacity.
//!
//! | setting | default |
//! |---|---|
//! | [`CoalesceLayer::max_flights`](crate::CoalesceLayer::max_flights) | 16384 |
//! | [`CoalesceLayer::max_waiters`](crate::CoalesceLayer::max_waiters) | 131072 |
//! | [`CoalesceLayer::max_wait`](crate::CoalesceLayer::max_wait) | 30 s |
//! | [`CoalesceLayer::max_flight_age`](crate::CoalesceLayer::max_flight_age) | 60 s |
//! | [`CoalesceLayer::stale_after`](crate::CoalesceLayer::stale_after) | none |
//! | [`CoalesceLayer::wait_at_most`](crate::CoalesceLayer::wait_at_most) | none |
//! | [`CoalesceLayer::fetch_deadline`](crate::CoalesceLayer::fetch_deadline) | none |
//! | [`CoalesceLayer::abandoned_deadline`](crate::CoalesceLayer::abandoned_deadline) | 30 s |
//! | [`CoalesceLayer::max_held_bytes`](crate::CoalesceLayer::max_held_bytes) | 4 MiB |
//! | [`CoalesceLayer::max_total_bytes`](crate::CoalesceLayer::max_total_bytes) | 64 MiB |
//! | [`CoalesceLayer::max_read_pause`](crate::CoalesceLayer::max_read_pause) | 60 s |
//!
//! # What reaches the origin
//!
//! Those of `RetryPolicy` and `OriginLimitLayer` count where one is configured.
//!
//! | setting | default |
//! |---|---|
//! | [`ReadThroughBuilder::retry`](crate::ReadThroughBuilder::retry) | never |
//! | [`ReadThroughBuilder::origin_limit`](crate::ReadThroughBuilder::origin_limit) | none |
//! | [`RetryPolicy::max_retries`](crate::RetryPolicy::max_retries) | 2 |
//! | [`RetryPolicy::backoff`](crate::RetryPolicy::backoff) | 100 ms, 2 s |
//! | [`RetryPolicy::max_retry_after`](crate::RetryPolicy::max_retry_after) | 2 s |
//! | [`RetryPolicy::deadline`](crate::RetryPolicy::deadline) | 10 s |
//! | [`RetryPolicy::despite_stale`](crate::RetryPolicy::despite_stale) | no |
//! | [`OriginLimitLayer::max_queue`](crate::OriginLimitLayer::max_queue) | 1024 |
//! | [`OriginLimitLayer::max_queue_wait`](crate::OriginLimitLayer::max_queue_wait) | 1 s |
//! | [`OriginLimitLayer::max_read_pause`](crate::OriginLimitLayer::max_read_pause) | 90 s |
//! | [`OriginLimitLayer::retry_after`](crate::OriginLimitLayer::retry_after) | 1 s |
//! | [`OriginLimitLayer::hold_until_complete`](crate::OriginLimitLayer::hold_until_complete) | none |
//! | [`OriginLimitLayer::priority`](crate::OriginLimitLayer::priority) | 3 |
//! | [`OriginLimitLayer::exempt`](crate::OriginLimitLayer::exempt) | none |
//! | [`OriginLimitLayer::failures`](crate::OriginLimitLayer::failures) | of the stack |
//!
//! # The state of the origin
//!
//! | setting | default |
//! |---|---|
//! | [`OriginHealthBuilder::fail_fast`](crate::OriginHealthBuilder::fail_fast) | no |
//! | [`OriginHealthBuilder::probe_every`](crate::OriginHealthBuilder::probe_every) | 1 s, 10 s |
//! | [`OriginHealthBuilder::probe_deadline`](crate::OriginHealthBuilder::probe_deadline) | 5 s |
//! | [`OriginHealthBuilder::key_pause`](crate::OriginHealthBuilder::key_pause) | 1 s, 30 s |
//! | [`OriginHealthBuilder::stalled_after`](crate::OriginHealthBuilder::stalled_after) | 10 s |
//! | [`OriginHealthBuilder::count_without_key`](crate::OriginHealthBuilder::count_without_key) | no |
//! | [`OriginHealthBuilder::origin`](crate::OriginHealthBuilder::origin) | none |
//! | [`OriginHealthBuilder::on_change`](crate::OriginHealthBuilder::on_change) | none |

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use http::{HeaderMap, StatusCode};

    use crate::{
        CoalesceLayer, DefaultFailures, DefaultKey, Failures, FillLayer, KeyRules, LookupLayer, MemoryStore,
        OriginHealth, OriginLimitLayer, ReadThroughLayer, RetryPolicy, Rules,
        http::rules::{RequestRules, Spread, StaleWindows, Ttl, WithheldNames},
    };

    /// A setting and its value, as the table says them.
    pub(crate) type Setting = (&'static str, String);

    pub(crate) fn span(span: Duration) -> String {
        let secs = span.as_secs();
        match span.subsec_millis() {
            0 if secs > 0 && secs.is_multiple_of(3600) => format!("{} h", secs / 3600),
            0 if secs > 60 && secs.is_multiple_of(60) => format!("{} min", secs / 60),
            0 => format!("{secs} s"),
            _ => format!("{} ms", span.as_millis()),
        }
    }

    pub(crate) fn switch(is_on: bool) -> String {
        if is_on { "yes" } else { "no" }.to_owned()
    }

    pub(crate) fn option<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
        value.map_or_else(|| "none".to_owned(), text)
    }

    fn rules() -> Vec<Setting> {
        // Without `..`, so that a new setting needs a row.
        let Rules {
            ttl,
            negative_ttl,
            heuristic,
            stale_while_revalidate_for,
            stale_if_error_for,
            stale_despite_revalidate: StaleWindows { while_revalidating, if_error },
            revalidate_for,
            spread: Spread { jitter, refresh_ahead },
            hit_for_miss_for,
            store_set_cookie,
            store_without,
            store_private,
            store_no_store,
            store_authorized,
            never,
            request: RequestRules { keyed, credentials },
        } = Rules::new();
        let (default_ttl, fixed_ttl) = match ttl {
            Ttl::Origin => (None, None),
            Ttl::OriginOr(ttl) => (Some(ttl), None),
            Ttl::Fixed(ttl) => (None, Some(ttl)),
        };
        let is_builtin = credentials == Rules::new().credentials([]).request.credentials;
        vec![
            ("Rules::default_ttl", option(default_ttl, span)),
            ("Rules::fixed_ttl", option(fixed_ttl, span)),
            ("Rules::negative_ttl", option(negative_ttl, span)),
            ("Rules::heuristic", option(heuristic, |heuristic| format!("{heuristic:?}"))),
            ("Rules::stale_while_revalidate_for", span(stale_while_revalidate_for)),
            ("Rules::stale_if_error_for", span(stale_if_error_for)),
            (
                "Rules::stale_despite_revalidate",
                option((while_revalidating || if_error).then_some("some"), str::to_owned),
            ),
            ("Rules::ttl_jitter", option(jitter, |share| share.as_f64().to_string())),
            ("Rules::refresh_ahead", option(refresh_ahead, |share| share.as_f64().to_string())),
            ("Rules::revalidate_for", span(revalidate_for)),
            ("Rules::hit_for_miss_for", span(hit_for_miss_for)),
            ("Rules::store_set_cookie", switch(store_set_cookie)),
            (
                "Rules::store_without",
                option((store_without != WithheldNames::NONE).then_some("some"), str::to_owned),
            ),
            ("Rules::store_private", switch(store_private)),
            ("Rules::store_no_store", switch(store_no_store)),
            ("Rules::store_authorized", switch(store_authorized)),
            ("Rules::never_store", switch(never)),
            ("Rules::cookies", option(keyed.cookies(), |_| "some".to_owned())),
            ("Rules::credentials", option((!is_builtin).then_some("some"), str::to_owned)),
        ]
    }

    fn failures() -> Setting {
        let fails = |status: &StatusCode| DefaultFailures.is_failure(*status, &HeaderMap::new());
        let statuses = (100..1000).filter_map(|status| StatusCode::from_u16(status).ok()).filter(fails);
        let list: Vec<String> = statuses.map(|status| status.as_u16().to_string()).collect();
        ("ReadThroughBuilder::failures", list.join(", "))
    }

    fn all() -> Vec<Setting> {
        let store = MemoryStore::with_capacity_bytes(64 << 20);
        let mut all = rules();
        all.push(failures());
        all.extend(FillLayer::new(store.clone()).settings());
        all.extend(MemoryStore::builder(64 << 20).settings());
        #[cfg(feature = "redis")]
        all.extend(
            crate::cluster::Cluster::builder("", ReadThroughLayer::builder(store.clone()).purge()).settings(),
        );
        #[cfg(feature = "redis")]
        all.extend(crate::remote::RedisRemote::builder("").settings());
        #[cfg(feature = "redis")]
        all.extend(crate::tier::default_settings());
        #[cfg(feature = "snapshot")]
        all.extend(crate::store::SnapshotFile::builder(store.clone(), "file").settings());
        all.extend(LookupLayer::new(store.clone()).settings());
        all.extend(CoalesceLayer::new().settings());
        all.extend(ReadThroughLayer::builder(store).settings());
        all.extend(RetryPolicy::new().settings());
        all.extend(OriginLimitLayer::new(1).settings());
        all.extend(OriginHealth::builder().settings());
        all.extend(DefaultKey::new().settings());
        all.extend(KeyRules::builder().settings());
        all
    }

    #[test]
    fn the_table_has_every_setting_with_its_value() {
        let rows = include_str!("defaults.rs").lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("//! | [`")?.split_once('`')?;
            Some((name, rest.split('|').nth(1)?.trim().to_owned()))
        });
        let is_here = |name: &str| {
            let of_snapshots = cfg!(feature = "snapshot") || !name.starts_with("SnapshotFile");
            let of_servers = ["Cluster", "RedisRemote", "TierBuilder"].iter().any(|of| name.starts_with(of));
            if name == "TierBuilder::compression" && !cfg!(feature = "zstd") {
                return false;
            }
            if of_servers && name.contains("_certificate") && !cfg!(feature = "redis-tls") {
                return false;
            }
            of_snapshots && (cfg!(feature = "redis") || !of_servers)
        };
        let rows = rows.filter(|(name, _)| is_here(name));
        let (table, code): (BTreeMap<_, _>, BTreeMap<_, _>) = (rows.collect(), all().into_iter().collect());
        assert_eq!(table, code);
    }

    #[test]
    fn spans_are_written_in_their_largest_unit() {
        for (millis, text) in
            [(0, "0 s"), (100, "100 ms"), (60_000, "60 s"), (600_000, "10 min"), (3_600_000, "1 h")]
        {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }
}
