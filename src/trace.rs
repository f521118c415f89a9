//! Spans and events, with the feature `tracing`. Without it all of this is nothing.

#[cfg(feature = "snapshot")]
use std::path::Path;
use std::{future::Future, time::Duration};

#[cfg(not(feature = "tracing"))]
pub(crate) use self::off::*;
#[cfg(feature = "tracing")]
pub(crate) use self::on::*;

/// What purges, the second tier and other nodes had to do with a request.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "nothing is told"))]
pub(crate) struct Elsewhere {
    pub(crate) lost: Option<&'static str>,
    pub(crate) second_tier: Option<&'static str>,
    /// `None`: no.
    pub(crate) waited: Option<bool>,
}

#[cfg(feature = "tracing")]
mod on {
    #[cfg(feature = "snapshot")]
    use super::Path;
    use super::{Duration, Elsewhere, Future};
    use http::request::Parts;
    use parking_lot::Mutex;
    use tracing::{Instrument, Span, debug, info_span, warn};

    const TARGET: &str = "tower_readthrough";

    /// The span of a fetch, which is within that of the request that began it.
    #[derive(Clone, Debug)]
    pub(crate) struct FetchSpan(Span);

    impl FetchSpan {
        /// Of a fetch for all that ask for the same. The query of its URL is shown only if that is asked for.
        fn of_fetch(head: &Parts, shows_query: bool) -> Self {
            let query = head.uri.query().filter(|_| shows_query);
            let span =
                info_span!(target: TARGET, "fetch", method = %head.method, path = head.uri.path(), query);
            Self::or_current(span)
        }

        /// Of a refresh in the background.
        pub(crate) fn of_refresh() -> Self {
            Self::or_current(info_span!(target: TARGET, "refresh"))
        }

        /// Where a subscriber does not want the span, what happens in it is in that of the request.
        fn or_current(span: Span) -> Self {
            Self(if span.is_disabled() { Span::current() } else { span })
        }

        /// Notes that the request of the current span waits for it.
        fn joined(&self) {
            self.0.follows_from(Span::current().id());
        }

        pub(crate) fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
            future.instrument(self.0.clone())
        }
    }

    /// The span of a fetch that may not have begun.
    #[derive(Debug)]
    pub(crate) struct SpanOfFetch(Mutex<Option<FetchSpan>>);

    impl SpanOfFetch {
        pub(crate) const fn new() -> Self {
            Self(Mutex::new(None))
        }

        /// The span of the fetch for this request, which begins now.
        pub(crate) fn begin(&self, head: &Parts, shows_query: bool) -> FetchSpan {
            let span = FetchSpan::of_fetch(head, shows_query);
            let _replaced = self.0.lock().replace(span.clone());
            span
        }

        /// Notes that the request of the current span waits for it, if it goes on.
        pub(crate) fn joined(&self) {
            // Without the lock: a subscriber of spans is code of the application.
            let span = self.0.lock().clone();
            span.iter().for_each(FetchSpan::joined);
        }

        /// Its fetch is over. What is left of it is that of the fetch's future.
        pub(crate) fn end(&self) {
            let _span = self.0.lock().take();
        }
    }

    /// What became of a request.
    pub(crate) fn decided(
        outcome: &'static str,
        reason: Option<&'static str>,
        status: Option<u16>,
        not_stored: Option<&'static str>,
        (is_stored, is_collapsed): (bool, bool),
        Elsewhere { lost, second_tier, waited }: Elsewhere,
    ) {
        debug!(
            target: TARGET, outcome, reason, status, not_stored, stored = is_stored, collapsed = is_collapsed, lost,
            second_tier, waited
        );
    }

    /// A fresh response is served from the store.
    #[inline(always)]
    pub(crate) fn hit() {
        debug!(target: TARGET, outcome = "hit");
    }

    /// What came of storing the response of a fetch, which may be known long after its head was handed on.
    pub(crate) fn committed(not_stored: Option<&'static str>) {
        debug!(target: TARGET, stored = not_stored.is_none(), not_stored);
    }

    /// A second tier does nothing.
    #[cfg(feature = "redis")]
    pub(crate) fn tier_without_cluster() {
        warn!(target: TARGET, "the second tier is not used: its store is not part of a cluster");
    }

    /// The server of a second tier cannot be reached. Told once, until it is reached again.
    #[cfg(feature = "redis")]
    pub(crate) fn remote_lost(error: &str) {
        warn!(target: TARGET, error, "no connection to the server of the second tier");
    }

    /// It is reached, after so long.
    #[cfg(feature = "redis")]
    pub(crate) fn remote_back(lasted: Duration, is_first: bool) {
        let seconds = lasted.as_secs_f64();
        match is_first {
            true => warn!(target: TARGET, seconds, "connected to the server of the second tier"),
            false => warn!(target: TARGET, seconds, "connected to the server of the second tier again"),
        }
    }

    /// The load of a snapshot file has ended.
    #[cfg(feature = "snapshot")]
    pub(crate) fn file_loaded(path: &Path, end: &'static str, is_expected: bool, loaded: u64) {
        let path = path.display();
        match is_expected {
            true => debug!(target: TARGET, %path, end, loaded, "the load of the snapshot file has ended"),
            false => {
                warn!(target: TARGET, %path, end, loaded, "the snapshot file was not loaded to its end");
            }
        }
    }

    /// A snapshot file cannot be written. Told once, until it is written again.
    #[cfg(feature = "snapshot")]
    pub(crate) fn file_not_written(error: &dyn std::error::Error) {
        warn!(target: TARGET, %error, "the snapshot file cannot be written");
    }

    /// A snapshot file was written that could not be written before.
    #[cfg(feature = "snapshot")]
    pub(crate) fn file_written_again(path: &Path) {
        warn!(target: TARGET, path = %path.display(), "the snapshot file was written, after writes that failed");
    }

    /// A snapshot file is written later, as is usual between the start of a process and the end of the one before.
    #[cfg(feature = "snapshot")]
    pub(crate) fn file_in_use(path: &Path) {
        debug!(target: TARGET, path = %path.display(), "the snapshot file is not written yet: another process has it");
    }

    /// An origin is down.
    pub(crate) fn outage_began() {
        warn!(target: TARGET, "the origin is down");
    }

    /// It is up again, after so long, and after it went down again so often.
    pub(crate) fn outage_ended(lasted: Duration, relapses: u32) {
        let seconds = lasted.as_secs_f64();
        warn!(target: TARGET, seconds, relapses, "the origin is up again");
    }

    /// A node of a cluster hears of no more purges.
    #[cfg(feature = "redis")]
    pub(crate) fn cut_off(node: &str, error: &str) {
        warn!(target: TARGET, node, error, "cut off from the purges of the other nodes");
    }

    /// It hears of them, after so long.
    #[cfg(feature = "redis")]
    pub(crate) fn caught_up(node: &str, lasted: Duration, is_first: bool) {
        let seconds = lasted.as_secs_f64();
        match is_first {
            true => warn!(target: TARGET, node, seconds, "the purges of the other nodes are heard"),
            false => warn!(target: TARGET, node, seconds, "the purges of the other nodes are heard again"),
        }
    }

    /// The server may drop the log of purges.
    #[cfg(feature = "redis")]
    pub(crate) fn log_may_be_evicted(node: &str) {
        let message = "the server may drop the log of purges when its memory is full: `maxmemory-policy` should not \
                       begin with `allkeys`";
        warn!(target: TARGET, node, message);
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    #[cfg(feature = "snapshot")]
    use super::Path;
    use super::{Duration, Elsewhere, Future};
    use http::request::Parts;

    #[derive(Clone, Debug)]
    pub(crate) struct FetchSpan;

    impl FetchSpan {
        pub(crate) const fn of_refresh() -> Self {
            Self
        }

        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(crate) fn around<F: Future>(&self, future: F) -> F {
            future
        }
    }

    #[derive(Debug)]
    pub(crate) struct SpanOfFetch;

    #[allow(clippy::unused_self, reason = "as with the feature")]
    impl SpanOfFetch {
        pub(crate) const fn new() -> Self {
            Self
        }

        pub(crate) const fn begin(&self, _: &Parts, _: bool) -> FetchSpan {
            FetchSpan
        }

        pub(crate) const fn joined(&self) {}

        pub(crate) const fn end(&self) {}
    }

    pub(crate) const fn decided(
        _: &'static str,
        _: Option<&'static str>,
        _: Option<u16>,
        _: Option<&'static str>,
        _: (bool, bool),
        _: Elsewhere,
    ) {
    }

    #[inline(always)]
    pub(crate) const fn hit() {}

    pub(crate) const fn committed(_: Option<&'static str>) {}

    #[cfg(feature = "redis")]
    pub(crate) const fn tier_without_cluster() {}

    #[cfg(feature = "redis")]
    pub(crate) const fn remote_lost(_: &str) {}

    #[cfg(feature = "redis")]
    pub(crate) const fn remote_back(_: Duration, _: bool) {}

    #[cfg(feature = "snapshot")]
    pub(crate) const fn file_loaded(_: &Path, _: &'static str, _: bool, _: u64) {}

    #[cfg(feature = "snapshot")]
    pub(crate) const fn file_not_written(_: &dyn std::error::Error) {}

    #[cfg(feature = "snapshot")]
    pub(crate) const fn file_written_again(_: &Path) {}

    #[cfg(feature = "snapshot")]
    pub(crate) const fn file_in_use(_: &Path) {}

    pub(crate) const fn outage_began() {}

    pub(crate) const fn outage_ended(_: Duration, _: u32) {}

    #[cfg(feature = "redis")]
    pub(crate) const fn cut_off(_: &str, _: &str) {}

    #[cfg(feature = "redis")]
    pub(crate) const fn caught_up(_: &str, _: Duration, _: bool) {}

    #[cfg(feature = "redis")]
    pub(crate) const fn log_may_be_evicted(_: &str) {}
}
