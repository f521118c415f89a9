//! Purges that another node has said.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Uri, header, request::Parts};

use tokio::time::Instant;

use super::{Purge, pattern::UrlPattern};
use crate::{
    key::{CacheKey, Origins, Target},
    observe::Stats,
    sequence::{Journal, Message, MessageKind, Purging, Strength},
};

/// What a message means here: no code of the application is needed any more to apply it.
#[derive(Debug)]
pub(crate) struct Applicable {
    what: Purging,
    strength: Strength,
    /// Of what can be given back at once.
    key: Option<CacheKey>,
    /// Under which it was applied.
    number: AtomicU64,
}

impl Purge {
    /// Reads a message by the rules of this node. What cannot be read may mean anything: then everything is
    /// unproven. So it is if the rules panic, which must not end the task that reads the log.
    pub(crate) fn read(&self, message: &Message) -> Applicable {
        let read = catch_unwind(AssertUnwindSafe(|| self.meant(message))).ok().flatten();
        let (what, strength, key) = match read {
            Some((what, key)) => (what, message.strength, key.filter(|_| message.strength == Strength::Hard)),
            None => (Purging::everything(), Strength::Unproven, None),
        };
        Applicable { what, strength, key, number: AtomicU64::new(0) }
    }

    fn meant(&self, message: &Message) -> Option<(Purging, Option<CacheKey>)> {
        let of_key = |key: CacheKey| (self.sequence().of_key(&key), Some(key));
        match message.kind {
            MessageKind::Url => request_for(&message.text()).map(|head| self.shared.of_url(&head)),
            MessageKind::Key => Some(of_key(CacheKey::new(&message.argument))),
            MessageKind::Tag => Some((self.sequence().of_tag(&message.text()), None)),
            MessageKind::Group => self.group(&message.text()).map(|what| (what, None)),
            MessageKind::Path => request_for(&message.text()).map(|head| (self.shared.of_path(&head), None)),
            MessageKind::Pattern => UrlPattern::parse(&message.text())
                .ok()
                .map(|UrlPattern { host, paths, .. }| (self.shared.of_paths(host.as_ref(), &paths), None)),
            MessageKind::KeyPrefix => Some((self.sequence().of_key_prefix(&message.argument), None)),
            MessageKind::Everything => Some((Purging::everything(), None)),
        }
    }

    fn group(&self, argument: &str) -> Option<Purging> {
        let (url, group) = argument.split_once('\n')?;
        let (uri, host) = Target::parse_text(url)?;
        let target = Target::new(&uri, host.as_ref(), Origins::default());
        Some(self.sequence().of_group(group, target))
    }

    /// Returns the least number that it took.
    pub(crate) fn apply(&self, Applicable { what, strength, number, .. }: &Applicable) -> u64 {
        let (least, last) = self.sequence().purge(what, *strength);
        number.store(last, Ordering::Relaxed);
        least
    }

    /// Gives back what can be given back at once, and lets the store know of the purge.
    pub(crate) fn settle(&self, Applicable { key, number, .. }: &Applicable) {
        let number = number.load(Ordering::Relaxed);
        // Stores may be code of the application, too.
        _ = catch_unwind(AssertUnwindSafe(|| {
            if let Some(key) = key.as_ref().filter(|_| number > 0) {
                self.shared.give_back(key, number);
            }
            self.shared.relieve();
        }));
    }

    /// Whether others know of all purges.
    pub(crate) fn is_joined(&self) -> bool {
        self.sequence().journal().is_some()
    }

    /// Lets others know of all purges from now on. False if that is done already, or cannot be.
    pub(crate) fn keep_journal(&self, journal: Arc<dyn Journal>) -> bool {
        let is_first = self.sequence().keep_journal(journal);
        if is_first {
            // What is loaded from elsewhere is judged by purges of before.
            self.sequence().keep_records();
        }
        is_first
    }

    /// Purges all that is held, for what may have been purged elsewhere.
    pub(crate) fn doubt(&self, strength: Strength) {
        self.sequence().purge(&Purging::everything(), strength);
    }

    /// What is not [heard](Self::heard) in time leaves all that is held unproven.
    pub(crate) fn limit_hearing(&self) {
        self.sequence().limit_hearing();
    }

    /// All purges of that moment are applied, which is enough for so long.
    pub(crate) fn heard(&self, at: Instant, enough_for: Duration) {
        self.sequence().heard(at, enough_for);
    }

    /// Whether that is long ago.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.sequence().is_cut_off()
    }

    /// Where what is purged is counted, if it is.
    pub(crate) fn stats(&self) -> Option<&Stats> {
        self.stats.as_ref()
    }

    /// The number of the last fetch or purge.
    pub(crate) fn current(&self) -> u64 {
        self.sequence().current()
    }
}

/// The head of a request for a URL as another node has said it.
fn request_for(url: &str) -> Option<Parts> {
    let (uri, host): (Uri, Option<HeaderValue>) = Target::parse_text(url)?;
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = uri;
    head.headers.extend(host.map(|host| (header::HOST, host)));
    Some(head)
}
