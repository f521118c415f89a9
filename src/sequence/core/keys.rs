//! What purges and responses have in common, and which paths a purge by pattern is about.

use std::sync::Arc;

use smallvec::SmallVec;

/// What became of a stored response that may not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Purged,
    /// By a request with an unsafe method (RFC 9111 §4.4).
    Invalidated,
}

/// Where the floor of a URI or a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloorIndex(u32);

impl FloorIndex {
    pub(crate) const fn new(index: u32) -> Self {
        Self(index)
    }

    pub(super) const fn get(self) -> usize {
        self.0 as usize
    }
}

/// The hash of something that responses share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TagHash(u64);

impl TagHash {
    /// All responses have it.
    pub(crate) const EVERYTHING: Self = Self(0);

    pub(crate) const fn new(hash: u64) -> Self {
        Self(hash)
    }

    pub(super) const fn get(self) -> u64 {
        self.0
    }

    /// A soft purge of a floor leaves a record: it has a moment, for which a floor has no room.
    pub(super) fn of_floor(floor: FloorIndex) -> Self {
        Self(u64::from(floor.0).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// What is purged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PurgeKind<'a> {
    Floor(FloorIndex),
    Tag(TagHash),
    KeyPrefix(&'a [u8]),
    Paths(&'a Pattern),
}

/// Paths of a host, or of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// What all responses of the host have.
    host: Option<TagHash>,
    path: Glob,
}

/// Which paths, in their normal form. Read in proportion to the length of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Glob {
    /// Texts with anything between them; one text alone is the whole path.
    Texts(Box<[Box<str>]>),
    /// As many segments as these, and with `rest` at least one more.
    Segments { segments: Box<[Segment]>, rest: bool },
}

/// What one segment of a path is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Text(Box<str>),
    /// Anything but nothing, between these.
    Any {
        before: Box<str>,
        after: Box<str>,
    },
}

impl Pattern {
    pub(crate) fn new(host: Option<TagHash>, path: Glob) -> Self {
        Self { host, path }
    }

    pub(super) fn matches(&self, keys: &PurgeKeys) -> bool {
        let path = keys.path();
        self.host.is_none_or(|host| keys.tags().contains(&host))
            && (path.is_empty() || path.split('\n').any(|path| self.path.matches(path)))
    }
}

impl Glob {
    /// A slash at the end of the path changes nothing.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.is_whole(path) || path.strip_suffix('/').is_some_and(|path| self.is_whole(path))
    }

    fn is_whole(&self, path: &str) -> bool {
        match self {
            Self::Texts(texts) => are_in(texts, path),
            Self::Segments { segments, rest } => {
                let mut of_path = path.split('/').skip(1);
                let is_start =
                    segments.iter().all(|own| of_path.next().is_some_and(|segment| own.matches(segment)));
                is_start && of_path.any(|segment| !segment.is_empty()) == *rest
            }
        }
    }
}

/// Whether the path is these texts, in their order and without overlap, with anything between them.
fn are_in(texts: &[Box<str>], path: &str) -> bool {
    let [first, others @ ..] = texts else { return path.is_empty() };
    let Some(mut rest) = path.strip_prefix(&**first) else { return false };
    let [between @ .., last] = others else { return rest.is_empty() };
    for text in between {
        // The first place will do: it leaves most to what follows.
        let Some((_, after)) = rest.split_once(&**text) else { return false };
        rest = after;
    }
    rest.ends_with(&**last)
}

impl Segment {
    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Text(text) => **text == *segment,
            Self::Any { before, after } => {
                let rest = segment.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**after));
                rest.is_some_and(|value| !value.is_empty())
            }
        }
    }
}

/// Groups count three times, and the path counts too.
const MAX_TAGS: usize = 1024;

/// The host and four segments.
const USUAL_TAGS: usize = 5;

/// What purges can match of a response, or of the request for one: its key, the floors of that and of its
/// URI, its tags, its path and the prefixes of that.
#[derive(Debug)]
pub(crate) struct PurgeKeys {
    key: Arc<[u8]>,
    /// That of the URI, which unsafe requests reach, and that of the key.
    floors: [FloorIndex; 2],
    tags: SmallVec<[TagHash; USUAL_TAGS]>,
    path: Path,
}

impl PurgeKeys {
    pub(crate) fn new(
        key: Arc<[u8]>,
        floors: [FloorIndex; 2],
        tags: impl IntoIterator<Item = TagHash>,
        path: &str,
        texts: Option<PurgeTexts>,
    ) -> Self {
        let path = match texts {
            None => Path::of(path, &key),
            Some(_) => Path::own(path.into(), texts),
        };
        Self { key, floors, tags: tags.into_iter().collect(), path }
    }

    /// The same with more tags.
    pub(crate) fn with(&self, tags: &[TagHash], texts: Option<&PurgeTexts>) -> Self {
        let mut path = self.path.clone();
        if let (Path::Own(own), Some(more)) = (&mut path, texts) {
            own.texts = own.texts.take().map(|texts| texts.and(more));
        }
        Self { key: Arc::clone(&self.key), floors: self.floors, tags: self.tags_and(tags), path }
    }

    /// The same with these texts, if it keeps any, and the tags that are in them.
    pub(crate) fn of_texts(mut self, texts: PurgeTexts, tags: &[TagHash]) -> Self {
        if let Path::Own(own) = &mut self.path
            && own.texts.is_some()
        {
            own.texts = Some(texts);
        }
        Self { tags: self.tags_and(tags), ..self }
    }

    fn tags_and(&self, more: &[TagHash]) -> SmallVec<[TagHash; USUAL_TAGS]> {
        let mut tags: SmallVec<[_; 4 * USUAL_TAGS]> = self.tags.iter().chain(more).copied().collect();
        tags.sort_unstable();
        tags.dedup();
        // Without the room that a list has to grow.
        SmallVec::from_slice(&tags)
    }

    /// The same with the tags and the paths of another one.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let path = self.path.and(&other.path, [&self.key, &other.key]);
        Self { path, ..self.with(&other.tags, None) }
    }

    /// Whether there are so many tags that to keep them all would cost too much, and to keep some of them
    /// would let purges miss it.
    pub(crate) fn is_excessive(&self) -> bool {
        self.tags.len() > MAX_TAGS
    }

    /// The floor of the URI, the one of the two that unsafe requests reach.
    pub(crate) fn uri_floor(&self) -> FloorIndex {
        self.floors[0]
    }

    /// The words from which all of it was made, if they were kept.
    pub(crate) fn texts(&self) -> Option<&PurgeTexts> {
        match &self.path {
            Path::Own(own) => own.texts.as_ref(),
            Path::InKey { .. } => None,
        }
    }

    /// What it costs to keep, for the store's books. The key is in them already.
    pub(crate) fn bytes(&self) -> usize {
        // Two reference counts, and the steps in which allocators give memory.
        let tags = if self.tags.spilled() { self.tags.capacity() * size_of::<TagHash>() } else { 0 };
        2 * size_of::<usize>() + size_of::<Self>() + tags.next_multiple_of(16) + self.path.heap_bytes()
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn floors(&self) -> [FloorIndex; 2] {
        self.floors
    }

    pub(super) fn tags(&self) -> &[TagHash] {
        &self.tags
    }

    /// The path of the URL that was asked for, in its normal form. Several in lines, and an empty one is any.
    pub(super) fn path(&self) -> &str {
        self.path.text(&self.key)
    }
}

/// Where a path is looked for in a key.
const MAX_SLASHES: usize = 8;

/// Of more paths than these a response is at any path.
const MAX_PATHS: usize = 8;

#[derive(Clone, Debug)]
enum Path {
    /// As it stands in the key, which most have.
    InKey {
        start: u32,
        length: u32,
    },
    Own(Box<OwnPath>),
}

#[derive(Clone, Debug)]
struct OwnPath {
    text: Box<str>,
    texts: Option<PurgeTexts>,
}

impl Path {
    fn of(path: &str, key: &[u8]) -> Self {
        let bytes = path.as_bytes();
        let find = |(at, _): (usize, &u8)| key[at..].starts_with(bytes).then_some(at);
        // Few, so that no key makes this long.
        let start =
            key.iter().enumerate().filter(|(_, byte)| **byte == b'/').take(MAX_SLASHES).find_map(find);
        match (start.map(u32::try_from), u32::try_from(bytes.len())) {
            (Some(Ok(start)), Ok(length)) => Self::InKey { start, length },
            _ => Self::own(path.into(), None),
        }
    }

    fn own(text: Box<str>, texts: Option<PurgeTexts>) -> Self {
        Self::Own(Box::new(OwnPath { text, texts }))
    }

    /// Of what was made of several responses.
    fn and(&self, other: &Self, [key, other_key]: [&[u8]; 2]) -> Self {
        let paths = [self.text(key), other.text(other_key)];
        let mut all: Vec<&str> = paths.iter().flat_map(|text| text.split('\n')).collect();
        all.sort_unstable();
        all.dedup();
        let texts = match (self, other) {
            // Those of one alone would let purges miss it.
            (Self::Own(own), Self::Own(other)) => {
                own.texts.clone().zip(other.texts.as_ref()).map(|(own, other)| own.and(other))
            }
            _ => None,
        };
        match all.len() {
            1 if texts.is_none() => self.without_texts(),
            1..=MAX_PATHS if !all.contains(&"") => Self::own(all.join("\n").into(), texts),
            _ => Self::own("".into(), texts),
        }
    }

    fn without_texts(&self) -> Self {
        match self {
            Self::Own(own) => Self::own(own.text.clone(), None),
            in_key => in_key.clone(),
        }
    }

    fn text<'a>(&'a self, key: &'a [u8]) -> &'a str {
        match self {
            Self::Own(own) => &own.text,
            Self::InKey { start, length } => {
                let path = key.get(*start as usize..).and_then(|rest| rest.get(..*length as usize));
                path.and_then(|path| str::from_utf8(path).ok()).unwrap_or_default()
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        let Self::Own(own) = self else { return 0 };
        let texts = own.texts.as_ref().map_or(0, PurgeTexts::heap_bytes);
        size_of::<OwnPath>() + own.text.len().next_multiple_of(16) + texts
    }
}

/// All that purges compare with a response, in words: what they compare is hashes, which are different in
/// each process.
///
/// Part of a [`Snapshot`](crate::store::Snapshot).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeTexts {
    /// The URLs of the requests that it answers, as `http://host/path?query`, or `//host/path?query` where
    /// the request did not say the scheme. The first one is that of the last fetch; others come from
    /// responses that it was combined with, each without its query and once: only host and path count of them.
    pub urls: Vec<String>,
    /// What the [key extractor](crate::KeyExtractor::identity) says that the first URL names, if it says
    /// something.
    pub identity: Option<Vec<u8>>,
    /// Its tags. The case counts.
    pub tags: Vec<Vec<u8>>,
    /// Its groups (RFC 9875), each behind a URL of the origin to which it belongs.
    pub groups: Vec<(String, String)>,
}

impl PurgeTexts {
    /// With those of another one.
    fn and(mut self, other: &Self) -> Self {
        self.add_urls(&other.urls);
        add(&mut self.tags, &other.tags);
        add(&mut self.groups, &other.groups);
        self
    }

    /// Many URLs that differ in their queries alone may have the same key.
    fn add_urls(&mut self, others: &[String]) {
        for url in others.iter().map(|url| without_query(url)) {
            if !self.urls.iter().any(|own| without_query(own) == url) {
                self.urls.push(url.to_owned());
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        const EACH: usize = size_of::<String>() + 16;
        let urls: usize = self.urls.iter().map(|url| url.len() + EACH).sum();
        let tags: usize = self.tags.iter().map(|tag| tag.len() + EACH).sum();
        let groups: usize = self.groups.iter().map(|(url, group)| url.len() + group.len() + 2 * EACH).sum();
        urls + tags + groups + self.identity.as_ref().map_or(0, |identity| identity.len() + EACH)
    }
}

fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(url, _)| url)
}

fn add<T: Clone + PartialEq>(texts: &mut Vec<T>, others: &[T]) {
    for other in others {
        if !texts.contains(other) {
            texts.push(other.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_paths_are_kept_each_once_and_too_many_are_any() {
        let of = |path: &str| Path::of(path, b"key");
        let mut all = of("/0").and(&of("/0"), [b"key", b"key"]);
        assert_eq!(all.text(b"key"), "/0");
        for number in 1..MAX_PATHS {
            all = all.and(&of(&format!("/{number}")), [b"key", b"key"]);
        }
        assert_eq!(all.text(b"key").lines().count(), MAX_PATHS);
        let any = all.and(&of("/x"), [b"key", b"key"]);
        assert_eq!(any.text(b"key"), "");
        assert_eq!(any.and(&of("/y"), [b"key", b"key"]).text(b"key"), "");
        assert_eq!(of("/y").and(&any, [b"key", b"key"]).text(b"key"), "");
    }

    fn texts(pattern: &str) -> Glob {
        Glob::Texts(pattern.split('*').map(Into::into).collect())
    }

    #[test]
    fn a_star_is_anything_and_all_else_is_itself() {
        for (pattern, matching, others) in [
            ("/a", &["/a", "/a/"][..], &["/", "/ab", "/a/b", "/b/a"][..]),
            ("/a/*", &["/a/", "/a/b", "/a/b/c/"], &["/a", "/ab", "/b/a/c"]),
            ("*", &["/", "/a", "/a/b"], &[]),
            ("/*", &["/", "/a"], &[]),
            ("*.jpg", &["/a.jpg", "/a/b.jpg", "/.jpg"], &["/a.jpg2", "/a.jpeg"]),
            ("/a*a", &["/aa", "/a/a", "/aaa"], &["/a"]),
            ("/*/b/*/d", &["/a/b/c/d", "/a/b/b/d/d"], &["/a/b/d", "/b/c/d"]),
            ("/a*b*c", &["/abc", "/axbbxc"], &["/acb", "/ac"]),
        ] {
            for path in matching {
                assert!(texts(pattern).matches(path), "{pattern} {path}");
            }
            for path in others {
                assert!(!texts(pattern).matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn segments_are_compared_one_by_one() {
        let any = |before: &str, after: &str| Segment::Any { before: before.into(), after: after.into() };
        let user = || [Segment::Text("user".into()), any("", "")];
        let one = Glob::Segments { segments: user().into(), rest: false };
        let below = Glob::Segments { segments: user().into(), rest: true };
        for (path, is_one, is_below) in [
            ("/user/7", true, false),
            ("/user/7/", true, false),
            ("/user/", false, false),
            ("/user", false, false),
            ("/users/7", false, false),
            ("/user/7/posts", false, true),
            ("/user/7/posts/1", false, true),
        ] {
            assert_eq!((one.matches(path), below.matches(path)), (is_one, is_below), "{path}");
        }
        let image = Glob::Segments { segments: [any("img-", ".png")].into(), rest: false };
        assert!(image.matches("/img-7.png") && !image.matches("/img-.png") && !image.matches("/img-7.gif"));
    }

    /// As slow as it is simple.
    fn is_by_trial(pattern: &[u8], path: &[u8]) -> bool {
        match (pattern, path) {
            ([], path) => path.is_empty(),
            ([b'*', rest @ ..], path) => (0..=path.len()).any(|at| is_by_trial(rest, &path[at..])),
            ([own, rest @ ..], [byte, path @ ..]) => own == byte && is_by_trial(rest, path),
            _ => false,
        }
    }

    proptest::proptest! {
        #[test]
        fn stars_match_as_by_trial(pattern in "[/ab*]{0,8}", path in "[/ab]{0,10}") {
            let pieces: Box<[Box<str>]> = pattern.split('*').map(Into::into).collect();
            proptest::prop_assert_eq!(are_in(&pieces, &path), is_by_trial(pattern.as_bytes(), path.as_bytes()));
        }
    }
}
