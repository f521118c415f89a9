use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use tokio::time::Instant;

use super::{header::seal, *};
use crate::{
    Sequence,
    store::{Audience, Lifetimes, Moment, PurgeTexts, SelectingField, SelectingValue},
};

const MAX_BODY: usize = 4096;

fn fields(most: usize) -> impl Strategy<Value = HeaderMap> {
    let names = ["etag", "vary", "x-a", "x-b", "set-cookie", "content-type", "last-modified"];
    let field = (proptest::sample::select(names.to_vec()), proptest::collection::vec(0x20_u8..=0xff, 0..20));
    proptest::collection::vec(field, 0..most).prop_map(|fields| {
        let value = |value: Vec<u8>| HeaderValue::from_bytes(&value).ok();
        let field = |(name, of)| Some((HeaderName::from_static(name), value(of)?));
        fields.into_iter().filter_map(field).fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
    })
}

fn selection() -> impl Strategy<Value = Vec<SelectingField>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
    let value = (bytes(), bytes())
        .prop_map(|(normal, written)| SelectingValue { normal: normal.into(), written: written.into() });
    let names = proptest::sample::select(vec!["accept", "accept-encoding", "x-own"]);
    let field = (names, proptest::option::of(value))
        .prop_map(|(name, value)| SelectingField { name: HeaderName::from_static(name), value });
    proptest::collection::vec(field, 0..4)
}

fn texts() -> impl Strategy<Value = PurgeTexts> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
    (
        proptest::collection::vec("//[a-z]{1,5}/\\PC{0,9}", 0..4),
        proptest::option::of(bytes()),
        proptest::collection::vec(bytes(), 0..4),
        proptest::collection::vec(("//[a-z]{1,5}/", "\\PC{0,9}"), 0..3),
    )
        .prop_map(|(urls, identity, tags, groups)| {
            let mut texts = PurgeTexts::default();
            (texts.urls, texts.identity, texts.tags, texts.groups) = (urls, identity, tags, groups);
            texts
        })
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0..u64::MAX).prop_map(Duration::from_nanos),
        1 => Just(Duration::ZERO),
        1 => Just(Duration::MAX),
    ]
}

fn as_of() -> impl Strategy<Value = AsOf> {
    any::<[u64; 4]>().prop_map(|[run, millis, number, nonce]| AsOf {
        run,
        id: EntryId { millis, number },
        nonce,
    })
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let message = (
        200_u16..599,
        fields(8),
        proptest::collection::vec(any::<u8>(), 0..200),
        proptest::option::of(fields(3)),
        proptest::option::of(selection()),
        texts(),
    );
    let times = (any::<u64>(), [span(), span(), span(), span(), span(), span()]);
    let rest = (proptest::option::of(span()), any::<[bool; 6]>());
    (message, times, rest).prop_map(|(message, (received_at, spans), (stale_after, flags))| {
        let (status, headers, body, trailers, selection, texts) = message;
        let [initial_age, delay, fresh_for, stale_while_revalidate_for, stale_if_error_for, revalidate_for] =
            spans;
        let [is_configured, forbids_stale, authorization, cookie, token, is_unproven] = flags;
        Snapshot {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.into(),
            trailers,
            selection,
            lifetimes: Lifetimes {
                fresh_for,
                stale_while_revalidate_for,
                stale_if_error_for,
                revalidate_for,
                is_configured,
                forbids_stale,
            },
            audience: Audience { authorization, cookie, token },
            received_at: SystemTime::UNIX_EPOCH + Duration::from_nanos(received_at),
            initial_age,
            delay,
            stale_after,
            is_unproven,
            texts,
        }
    })
}

fn envelopes() -> impl Strategy<Value = Envelope> {
    let key = proptest::collection::vec(any::<u8>(), 0..40);
    (key, snapshots(), proptest::option::of(as_of()))
        .prop_map(|(key, snapshot, as_of)| Envelope::new(CacheKey::new(key), snapshot).with_as_of(as_of))
}

fn parse(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
    Envelope::parse(&Bytes::copy_from_slice(bytes), MAX_BODY)
}

/// One of everything, with nothing that depends on a process.
fn golden() -> Envelope {
    let field = |name, value: &'static str| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let headers = [field("etag", "\"1\""), field("vary", "accept"), field("x-a", "1"), field("x-a", "2")];
    let mut map = HeaderMap::new();
    headers.into_iter().for_each(|(name, value)| _ = map.append(name, value));
    let mut texts = PurgeTexts::default();
    texts.urls.push("http://example.com/page?q=1".into());
    texts.identity = Some(b"page".to_vec());
    texts.tags = vec![b"news".to_vec(), vec![0xff]];
    texts.groups.push(("http://example.com/".into(), "all".into()));
    let value =
        SelectingValue { normal: b"text/html".as_slice().into(), written: b"Text/HTML".as_slice().into() };
    let selecting = |name, value| SelectingField { name: HeaderName::from_static(name), value };
    let snapshot = Snapshot {
        status: StatusCode::NOT_FOUND,
        headers: map,
        body: "not here".into(),
        trailers: Some([field("x-sum", "7")].into_iter().collect()),
        selection: Some(vec![selecting("accept", Some(value)), selecting("cookie", None)]),
        lifetimes: Lifetimes {
            fresh_for: Duration::from_secs(60),
            stale_while_revalidate_for: Duration::from_millis(1),
            stale_if_error_for: Duration::MAX,
            revalidate_for: Duration::from_nanos(1),
            is_configured: true,
            forbids_stale: false,
        },
        audience: Audience { authorization: true, cookie: false, token: true },
        received_at: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789),
        initial_age: Duration::from_secs(3),
        delay: Duration::from_micros(250),
        stale_after: Some(Duration::from_secs(9)),
        is_unproven: true,
        texts,
    };
    let as_of = AsOf { run: 1, id: EntryId { millis: 1_700_000_000_000, number: 2 }, nonce: u64::MAX };
    Envelope::new(CacheKey::new("key"), snapshot).with_as_of(Some(as_of))
}

/// The file was written when the schema was made. If this fails, other processes cannot read what this one
/// writes: then the schema needs a new number, and a file of its own.
#[test]
fn schema_1_is_what_it_was() {
    let file = include_bytes!("../../../tests/golden/envelope-1.bin");
    assert_eq!(golden().to_bytes().unwrap(), &file[..]);
    assert_eq!(parse(file), Ok(golden()));
}

#[test]
fn other_schemas_and_foreign_bytes_are_refused() {
    let written = golden().to_bytes().unwrap().to_vec();
    for schema in [0, SCHEMA + 1, u16::MAX] {
        let mut other = written.clone();
        other[4..6].copy_from_slice(&schema.to_le_bytes());
        seal(&mut other, &[]);
        assert_eq!(parse(&other), Err(EnvelopeError::Schema));
    }
    for foreign in [&b""[..], b"T", b"TRT", b"HTTP/1.1 200 OK\r\n\r\n", &[0; 200]] {
        assert_eq!(parse(foreign), Err(EnvelopeError::Foreign));
    }
    assert_eq!(parse(b"TRTH"), Err(EnvelopeError::Length));
}

/// As a version that knows none of the later flags reads them.
#[test]
fn unknown_flags_are_refused() {
    let written = golden().to_bytes().unwrap().to_vec();
    for bit in 12..16 {
        let mut other = written.clone();
        other[7] |= 1 << (bit - 8);
        seal(&mut other, &[]);
        assert_eq!(parse(&other), Err(EnvelopeError::Invalid), "{bit}");
    }
}

/// The file was written by the first version that compressed.
#[cfg(not(feature = "zstd"))]
#[test]
fn a_compressed_body_is_an_error_of_its_own_without_the_feature() {
    let file = include_bytes!("../../../tests/golden/envelope-1-zstd.bin");
    assert_eq!(parse(file), Err(EnvelopeError::Compressed));
}

#[cfg(feature = "zstd")]
mod compressed {
    use super::*;

    const ALWAYS: Compression = Compression::level(1).unwrap().above_bytes(0);

    fn page(body: &[u8]) -> Envelope {
        let (key, mut snapshot) = golden().into_parts();
        snapshot.body = Bytes::copy_from_slice(body);
        Envelope::new(key, snapshot).with_as_of(golden().as_of())
    }

    fn text(bytes: usize) -> Vec<u8> {
        b"<li>one of many</li>\n".iter().copied().cycle().take(bytes).collect()
    }

    /// The flag of a compressed body.
    fn is_compressed(envelope: &[u8]) -> bool {
        envelope[7] & 1 << 3 != 0
    }

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        seal(&mut bytes, &[]);
        bytes
    }

    /// The place of the length of the body, before the frame.
    fn length_at(bytes: &[u8]) -> usize {
        bytes.len() - u64::from_le_bytes(bytes[24..32].try_into().unwrap()) as usize - 8
    }

    /// No writer compresses what does not get smaller.
    #[test]
    fn a_frame_that_is_no_smaller_than_what_it_unpacks_to_is_refused() {
        let mut bytes = page(&text(4_000)).to_compressed_bytes(ALWAYS).unwrap().to_vec();
        let length_at = length_at(&bytes);
        let frame = zstd::bulk::compress(b"x", 1).unwrap();
        bytes.truncate(length_at);
        bytes.extend_from_slice(&1_u64.to_le_bytes());
        bytes.extend_from_slice(&frame);
        bytes[24..32].copy_from_slice(&(frame.len() as u64).to_le_bytes());
        assert_eq!(parse(&sealed(bytes)), Err(EnvelopeError::Invalid));
    }

    /// What is written may change with the version of zstd, what is read must not.
    #[test]
    fn a_compressed_body_of_schema_1_is_read_as_ever() {
        let file = include_bytes!("../../../tests/golden/envelope-1-zstd.bin");
        assert!(is_compressed(file));
        assert_eq!(parse(file), Ok(page(&text(1000))));
    }

    #[test]
    fn a_body_is_compressed_above_the_size_if_it_gets_smaller_and_has_no_coding() {
        let random = |bytes: usize| (0..bytes).map(|_| fastrand::u8(..)).collect::<Vec<_>>();
        let with_coding = |coding: &[u8]| {
            let (key, mut snapshot) = page(&text(1000)).into_parts();
            snapshot.headers.insert("content-encoding", HeaderValue::from_bytes(coding).unwrap());
            Envelope::new(key, snapshot)
        };
        let above = |bytes| ALWAYS.above_bytes(bytes);
        for (envelope, compression, expected) in [
            (page(&text(1000)), ALWAYS, true),
            (page(&text(1000)), above(999), true),
            (page(&text(1000)), above(1000), false),
            (page(&text(1000)), above(usize::MAX), false),
            (page(&text(4096)), Compression::default(), false),
            (page(&text(4097)), Compression::default(), true),
            (page(&[]), ALWAYS, false),
            (page(b"1"), ALWAYS, false),
            (page(&random(4000)), ALWAYS, false),
            (with_coding(b"gzip"), ALWAYS, false),
            (with_coding(b"identity, br"), ALWAYS, false),
            (with_coding(b"\xa0"), ALWAYS, false),
            (with_coding(b"Identity"), ALWAYS, true),
        ] {
            let bytes = envelope.to_compressed_bytes(compression).unwrap();
            assert_eq!(is_compressed(&bytes), expected, "{:?}", envelope.snapshot().headers);
            let plain = envelope.to_bytes().unwrap();
            assert_eq!((bytes.len() < plain.len(), bytes == plain), (expected, !expected));
            assert_eq!(Envelope::parse(&bytes, 1 << 20), Ok(envelope));
        }
    }

    #[test]
    fn a_level_that_there_is_not_is_refused() {
        assert_eq!(Compression::level(0), None);
        assert_eq!(Compression::level(23), None);
        for level in [1, 3, 22] {
            let compression = Compression::level(level).unwrap();
            let page = page(&text(MAX_BODY + 1));
            let bytes = page.to_compressed_bytes(compression).unwrap();
            assert!(is_compressed(&bytes));
            assert_eq!(Envelope::parse(&bytes, MAX_BODY + 1), Ok(page));
        }
        assert_eq!(Compression::level(1), Some(Compression::default()));
    }

    /// The length of the body is held by the header, by the bound of the reader, and by what comes out.
    #[test]
    fn a_body_of_another_length_than_was_said_is_refused() {
        let written = page(&text(1000)).to_compressed_bytes(ALWAYS).unwrap().to_vec();
        assert!(Envelope::parse(&written.clone().into(), 1000).is_ok());
        assert_eq!(Envelope::parse(&written.clone().into(), 999), Err(EnvelopeError::TooLarge));
        let at = length_at(&written);
        for (length, error) in [
            (0, EnvelopeError::Invalid),
            (999, EnvelopeError::Invalid),
            (1001, EnvelopeError::Invalid),
            (MAX_BODY as u64, EnvelopeError::Invalid),
            (MAX_BODY as u64 + 1, EnvelopeError::TooLarge),
            (u64::MAX, EnvelopeError::TooLarge),
        ] {
            let mut other = written.clone();
            other[at..at + 8].copy_from_slice(&length.to_le_bytes());
            assert_eq!(parse(&sealed(other)), Err(error), "{length}");
        }
    }

    /// A frame that becomes a thousand times as long is not unpacked beyond the bound.
    #[test]
    fn a_frame_that_grows_beyond_its_bound_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 8 << 20], 1).unwrap();
        let written = page(&text(1000)).to_compressed_bytes(ALWAYS).unwrap().to_vec();
        let mut other = written[..length_at(&written)].to_vec();
        other.extend_from_slice(&(MAX_BODY as u64).to_le_bytes());
        other.extend_from_slice(&bomb);
        other[24..32].copy_from_slice(&(bomb.len() as u64).to_le_bytes());
        assert_eq!(parse(&sealed(other)), Err(EnvelopeError::Invalid));
    }

    /// The head has room for the length of the body, or the body stays as it is.
    #[test]
    fn a_head_without_room_for_the_length_is_written_with_its_body_as_it_is() {
        let (key, mut snapshot) = page(&text(1000)).into_parts();
        let room = |snapshot: &Snapshot| {
            let bytes = Envelope::new(key.clone(), snapshot.clone()).to_head(0).unwrap().len();
            MAX_HEAD_BYTES + HEADER_BYTES - bytes
        };
        let rest = room(&snapshot) - (4 + 5 + 4);
        snapshot.headers.insert("x-big", HeaderValue::try_from("a".repeat(rest)).unwrap());
        assert_eq!(room(&snapshot), 0);
        let envelope = Envelope::new(key, snapshot);
        assert_eq!(envelope.to_compressed_bytes(ALWAYS), envelope.to_bytes());
        assert!(envelope.to_bytes().is_ok());
    }

    fn pages() -> impl Strategy<Value = Envelope> {
        let body = prop_oneof![
            (0..MAX_BODY).prop_map(text),
            proptest::collection::vec(0_u8..4, 0..400),
            proptest::collection::vec(any::<u8>(), 0..400),
        ];
        (envelopes(), body).prop_map(|(envelope, body)| {
            let as_of = envelope.as_of();
            let (key, mut snapshot) = envelope.into_parts();
            snapshot.body = body.into();
            Envelope::new(key, snapshot).with_as_of(as_of)
        })
    }

    proptest! {
        #[test]
        fn what_is_compressed_is_read(envelope in pages()) {
            let written = envelope.to_compressed_bytes(ALWAYS).unwrap();
            prop_assert!(written.len() <= envelope.to_bytes().unwrap().len());
            prop_assert_eq!(parse(&written), Ok(envelope));
        }

        #[test]
        fn what_is_compressed_and_was_changed_or_cut_is_refused(
            envelope in pages(),
            (at, bit) in (any::<prop::sample::Index>(), 0..8_u32),
        ) {
            let written = envelope.to_compressed_bytes(ALWAYS).unwrap().to_vec();
            let (at, mut changed) = (at.index(written.len()), written.clone());
            changed[at] ^= 1 << bit;
            prop_assert!(parse(&changed).is_err(), "changed at {at}");
            prop_assert!(parse(&written[..at]).is_err(), "cut at {at}");
        }

        /// Behind a checksum that is right: the frame itself is trusted in nothing.
        #[test]
        fn what_is_compressed_and_was_changed_and_sealed_means_one_thing(
            envelope in pages(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut changed = envelope.to_compressed_bytes(ALWAYS).unwrap().to_vec();
            // Near the end, where the frame is.
            for (at, byte) in changes {
                let from = changed.len().saturating_sub(60);
                let at = from + at.index(changed.len() - from);
                changed[at] = byte;
            }
            if let Ok(read) = parse(&sealed(changed)) {
                prop_assert!(read.snapshot().body.len() <= MAX_BODY);
                prop_assert_eq!(parse(&read.to_compressed_bytes(ALWAYS).unwrap()), Ok(read));
            }
        }
    }
}

#[test]
fn bounds_hold_for_writers_and_readers() {
    let with = |change: &dyn Fn(&mut Snapshot)| {
        let (key, mut snapshot) = golden().into_parts();
        change(&mut snapshot);
        Envelope::new(key, snapshot).to_bytes()
    };
    let many = |count: u32| {
        let field = |n| (HeaderName::try_from(format!("x-{n}")).unwrap(), HeaderValue::from(n));
        (0..count).map(field).collect::<HeaderMap>()
    };
    // One trailer is there already.
    assert!(with(&|snapshot| snapshot.headers = many(511)).is_ok());
    type Change<'a> = &'a dyn Fn(&mut Snapshot);
    let too_large: [(&str, Change<'_>); 5] = [
        ("fields", &|snapshot| snapshot.headers = many(512)),
        ("value", &|snapshot| {
            snapshot.headers.insert("x-a", HeaderValue::try_from("a".repeat(256 << 10)).unwrap());
        }),
        ("head", &|snapshot| {
            for n in 0..9 {
                snapshot.headers.append("x-a", HeaderValue::try_from("a".repeat(30_000 + n)).unwrap());
            }
        }),
        ("tags", &|snapshot| snapshot.texts.tags = vec![vec![]; 1025]),
        ("urls", &|snapshot| snapshot.texts.urls = vec![String::new(); 1025]),
    ];
    for (what, change) in too_large {
        assert_eq!(with(change), Err(EnvelopeError::TooLarge), "{what}");
    }
    let with_connection = with(&|snapshot| {
        snapshot.headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
    });
    assert_eq!(with_connection, Err(EnvelopeError::Invalid));
    let body = golden().to_bytes().unwrap();
    assert!(Envelope::parse(&body, 8).is_ok());
    assert_eq!(Envelope::parse(&body, 7), Err(EnvelopeError::TooLarge));
}

/// A number in the header that asks for more than there is reserves nothing.
#[test]
fn lengths_are_checked_before_anything_else() {
    let written = golden().to_bytes().unwrap().to_vec();
    // Where each length stands, and how wide it is.
    for (at, width) in [(10, 2), (12, 2), (16, 4), (20, 4), (24, 8)] {
        let mut other = written.clone();
        other[at..at + width].fill(0xff);
        seal(&mut other, &[]);
        assert_eq!(parse(&other), Err(EnvelopeError::TooLarge), "{at}");
        let mut longer = written.clone();
        longer[at] += 1;
        seal(&mut longer, &[]);
        assert!(matches!(parse(&longer), Err(EnvelopeError::Length | EnvelopeError::Invalid)), "{at}");
    }
}

/// What no writer here writes means nothing, also behind a checksum that is right.
#[test]
fn what_says_the_same_in_another_way_is_refused() {
    fn with(change: impl FnOnce(&mut Snapshot)) -> Vec<u8> {
        let (key, mut snapshot) = golden().into_parts();
        change(&mut snapshot);
        Envelope::new(key, snapshot).to_bytes().unwrap().to_vec()
    }
    fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    /// Inserts bytes into the head, which becomes longer by them.
    fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
        bytes.splice(at..at, more.iter().copied());
        let head = u32::from_le_bytes(bytes[20..24].try_into().unwrap()) + more.len() as u32;
        bytes[20..24].copy_from_slice(&head.to_le_bytes());
    }
    let field = |name: &'static str| {
        move |snapshot: &mut Snapshot| {
            snapshot.headers.insert(name, HeaderValue::from_static("x"));
        }
    };
    let mut capital = with(|_| {});
    replace(&mut capital, b"etag", b"Etag");
    let mut of_connection = with(field("xpgrade"));
    replace(&mut of_connection, b"xpgrade", b"upgrade");
    let mut longer_head = with(|_| {});
    let behind_head = longer_head.len() - golden().snapshot().body.len();
    insert(&mut longer_head, behind_head, &[0]);
    let mut trailers = with(|snapshot| snapshot.trailers = None);
    trailers[12] = 1;
    let mut padding = with(|_| {});
    padding[14] = 1;
    // The time since it was purged softly, and the position in a log, of one that has neither.
    let mut purged = with(|snapshot| snapshot.stale_after = None);
    purged[88] = 1;
    let mut dated = with(|_| {});
    dated[120] = 1;
    let mut many = with(|snapshot| snapshot.texts.tags = vec![vec![]; 1024]);
    let count = [&[0, 4][..], &[0; 4096]].concat();
    let at = many.windows(count.len()).position(|window| window == count).unwrap();
    many[at..at + 2].copy_from_slice(&1025_u16.to_le_bytes());
    insert(&mut many, at + 2, &[0; 4]);
    for (what, mut bytes, error) in [
        ("a name in capitals", capital, EnvelopeError::Invalid),
        ("a field of a connection", of_connection, EnvelopeError::Invalid),
        ("a head with a rest", longer_head, EnvelopeError::Invalid),
        ("a number of trailers that are not there", trailers, EnvelopeError::Invalid),
        ("padding", padding, EnvelopeError::Invalid),
        ("a time without its flag", purged, EnvelopeError::Invalid),
        ("a position without its flag", dated, EnvelopeError::Invalid),
        ("too many tags", many, EnvelopeError::TooLarge),
    ] {
        seal(&mut bytes, &[]);
        assert_eq!(parse(&bytes), Err(error), "{what}");
    }
}

#[test]
fn the_body_is_not_copied() {
    let written = golden().to_bytes().unwrap();
    let read = Envelope::parse(&written, MAX_BODY).unwrap();
    let body = &read.snapshot().body;
    assert_eq!(body.as_ptr(), written[written.len() - body.len()..].as_ptr());
}

/// What a store charges for a response is all that it keeps alive.
#[test]
fn a_small_response_keeps_nothing_of_what_was_read() {
    let (key, mut snapshot) = golden().into_parts();
    snapshot.body = vec![7; 2000].into();
    let written = Envelope::new(key, snapshot).to_bytes().unwrap();
    let sequence = Arc::new(Sequence::default().keep_texts());
    // The second one does not fit into a template of heads.
    for more in [0, 70_000] {
        let (key, mut snapshot) = Envelope::parse(&written, MAX_BODY).unwrap().into_parts();
        snapshot.headers.insert("x-b", HeaderValue::from_str(&"b".repeat(more)).unwrap());
        let now = Moment { instant: Instant::now(), time: snapshot.received_at };
        let restored = snapshot.restore(&key, &sequence.begin_load(), now).unwrap();
        assert!(restored.trailers().is_some());
        assert!(written.is_unique(), "with {more} bytes more");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(envelope in envelopes()) {
        let written = envelope.to_bytes().unwrap();
        prop_assert_eq!(&parse(&written), &Ok(envelope));
        prop_assert_eq!(parse(&written).unwrap().to_bytes().unwrap(), written);
    }

    #[test]
    fn what_was_changed_or_cut_is_refused(
        envelope in envelopes(),
        (at, bit) in (any::<prop::sample::Index>(), 0..8_u32),
        more in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        let written = envelope.to_bytes().unwrap().to_vec();
        let (at, mut changed) = (at.index(written.len()), written.clone());
        changed[at] ^= 1 << bit;
        prop_assert!(parse(&changed).is_err(), "changed at {at}");
        prop_assert!(parse(&written[..at]).is_err(), "cut at {at}");
        prop_assert_eq!(parse(&[&written[..], &more].concat()), Err(EnvelopeError::Length));
    }

    /// Behind a checksum that is right, as a hostile writer has it.
    #[test]
    fn what_was_changed_and_sealed_is_refused_or_means_one_thing(
        envelope in envelopes(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut changed = envelope.to_bytes().unwrap().to_vec();
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        seal(&mut changed, &[]);
        if let Ok(read) = parse(&changed) {
            prop_assert_eq!(parse(&read.to_bytes().unwrap()), Ok(read));
        }
    }

    #[test]
    fn anything_is_refused_without_a_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        is_sealed in any::<bool>(),
    ) {
        if is_sealed && bytes.len() >= 6 {
            bytes[..4].copy_from_slice(b"TRTH");
            bytes[4..6].copy_from_slice(&SCHEMA.to_le_bytes());
            seal(&mut bytes, &[]);
        }
        prop_assert!(parse(&bytes).is_err());
    }
}
