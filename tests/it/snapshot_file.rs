//! A store that outlives its process in a file.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use proptest::{prelude::*, sample::Index};
use tower::Layer;
use tower_readthrough::{
    MemoryStore, ReadThrough, ReadThroughLayer, Rules, Store,
    store::{EnvelopeError, LoadEnd, LoadReport, SnapshotFile, SnapshotFileBuilder, SnapshotFileError},
};

use crate::support::{
    ScriptedOrigin, ScriptedResponse, get, get_with, hangs, ms, ok, request, secs, send, settle, status,
};

/// A directory that is gone after the test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("trt-{process}-{next}"));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("cache")
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

type Service = ReadThrough<ScriptedOrigin, MemoryStore>;

/// What ends with a process.
struct Process {
    store: MemoryStore,
    layer: ReadThroughLayer<MemoryStore>,
    file: SnapshotFile,
}

impl Process {
    /// Starts, and has loaded what there is.
    async fn start(path: &Path) -> (Self, LoadReport) {
        Self::start_with(path, |file| file).await
    }

    async fn start_with(
        path: &Path,
        change: impl FnOnce(SnapshotFileBuilder) -> SnapshotFileBuilder,
    ) -> (Self, LoadReport) {
        let store = MemoryStore::builder(64 << 20).snapshots(true).build().unwrap();
        let rules = Rules::new().stale_while_revalidate_for(secs(30)).stale_if_error_for(secs(60));
        let layer = ReadThroughLayer::builder(store.clone()).rules(rules).build().unwrap();
        let file = change(SnapshotFile::builder(store.clone(), path)).open().unwrap();
        let report = file.loaded().await;
        (Self { store, layer, file }, report)
    }

    fn over(&self, origin: &ScriptedOrigin) -> Service {
        self.layer.layer(origin.clone())
    }
}

/// A file whose runtime has ended before anything of it was loaded.
pub(crate) fn never_loaded(store: &MemoryStore, path: &Path) -> SnapshotFile {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ended = runtime.handle().clone();
    runtime.shutdown_background();
    let _inside = ended.enter();
    SnapshotFile::builder(store.clone(), path).open().unwrap()
}

/// Pages that are fresh for 100 s, each with a tag of its own and one for all; a 304 where nothing changed.
fn site() -> ScriptedOrigin {
    ScriptedOrigin::new(|_, head| {
        let page = head.uri.path().trim_matches('/').to_owned();
        let tag = format!("\"{page}\"");
        match head.headers.get("if-none-match").is_some_and(|known| *known == *tag) {
            true => status(304).header("etag", &tag).max_age(100),
            false => ok(body_of(&page))
                .header("etag", &tag)
                .header("surrogate-key", format!("all {page}"))
                .max_age(100),
        }
    })
}

fn body_of(page: &str) -> String {
    format!("page {page} {}", page.repeat(40))
}

async fn fill(process: &Process, pages: u32) {
    let service = process.over(&site());
    for page in 0..pages {
        get(&service, &format!("/{page}")).await;
    }
}

/// Writes a file with this many pages.
async fn written(path: &Path, pages: u32) {
    let (process, _) = Process::start(path).await;
    fill(&process, pages).await;
    assert_eq!(process.file.write().await.unwrap().responses, u64::from(pages));
}

#[tokio::test]
async fn what_is_loaded_is_confirmed_before_it_is_used() {
    let directory = Directory::new();
    let (process, report) = Process::start(&directory.file()).await;
    assert_eq!(report.end, LoadEnd::Missing);
    fill(&process, 3).await;
    let written = process.file.write().await.unwrap();
    assert_eq!((written.responses, written.skipped), (3, 0));
    assert_eq!(written.bytes, fs::metadata(directory.file()).unwrap().len());
    drop(process);

    let (process, report) = Process::start(&directory.file()).await;
    assert_eq!((report.loaded, report.unneeded, report.skipped, report.end), (3, 0, 0, LoadEnd::Complete));
    let origin = site();
    let service = process.over(&origin);
    for page in ["0", "1", "2"] {
        let reply = get(&service, &format!("/{page}")).await;
        assert!(reply.cache().contains("fwd=stale"), "{}", reply.cache());
        assert_eq!(
            (&*reply.body, reply.header("etag")),
            (body_of(page).as_bytes(), Some(&*format!("\"{page}\"")))
        );
        assert!(origin.last_request().headers.contains_key("if-none-match"), "304 instead of the whole");
        assert!(get(&service, &format!("/{page}")).await.is_hit());
    }
    assert_eq!(origin.calls(), 3);
}

/// It is within its lifetime and its window, but may have been purged.
#[tokio::test(start_paused = true)]
async fn what_is_loaded_is_never_served_while_it_is_revalidated() {
    let directory = Directory::new();
    written(&directory.file(), 1).await;
    let (process, _) = Process::start(&directory.file()).await;
    let service = process.over(&ScriptedOrigin::always(|| ok("new").max_age(9).after(ms(500))));
    assert_eq!(get(&service, "/0").await.body, "new");
}

#[tokio::test]
async fn what_is_loaded_covers_for_an_origin_that_is_down() {
    let directory = Directory::new();
    written(&directory.file(), 2).await;
    let (process, _) = Process::start(&directory.file()).await;
    let service = process.over(&ScriptedOrigin::always(|| status(503)));
    for page in ["0", "1"] {
        assert_eq!(get(&service, &format!("/{page}")).await.body, body_of(page));
    }
    assert_eq!(get(&service, "/2").await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn trusted_freshness_lasts_as_long_as_it_would_have() {
    let directory = Directory::new();
    let (process, _) = Process::start(&directory.file()).await;
    fill(&process, 1).await;
    tokio::time::advance(secs(40)).await;
    process.file.write().await.unwrap();
    drop(process);
    let (process, report) = Process::start_with(&directory.file(), |file| file.trust_freshness()).await;
    assert_eq!(report.loaded, 1);
    let service = process.over(&ScriptedOrigin::always(hangs));
    let reply = get(&service, "/0").await;
    assert!(reply.is_hit() && reply.age().is_some_and(|age| (40..45).contains(&age)), "{:?}", reply.age());
    tokio::time::advance(secs(70)).await;
    let service = process.over(&ScriptedOrigin::always(|| ok("new").max_age(9)));
    assert!(!get(&service, "/0").await.cache().starts_with("hit;ttl"), "its lifetime is over");
}

/// Not even a process that trusts freshness trusts what was unproven before.
#[tokio::test]
async fn what_was_unproven_when_it_was_written_is_so_when_it_is_loaded() {
    let directory = Directory::new();
    written(&directory.file(), 1).await;
    let (process, _) = Process::start(&directory.file()).await;
    process.file.write().await.unwrap();
    drop(process);
    let (process, _) = Process::start_with(&directory.file(), |file| file.trust_freshness()).await;
    let origin = site();
    get(&process.over(&origin), "/0").await;
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn what_was_purged_is_not_written_and_purges_reach_what_is_loaded() {
    let directory = Directory::new();
    let (process, _) = Process::start(&directory.file()).await;
    fill(&process, 3).await;
    process.layer.purge().tag("1");
    assert_eq!(process.file.write().await.unwrap().responses, 2);
    drop(process);
    let down = ScriptedOrigin::always(|| status(503));
    for purge in ["tag", "url", "unsafe"] {
        let (process, report) = Process::start_with(&directory.file(), |file| file.trust_freshness()).await;
        assert_eq!(report.loaded, 2);
        match purge {
            "tag" => _ = process.layer.purge().tag("0"),
            "url" => _ = process.layer.purge().url("http://example.com/0").unwrap(),
            _ => {
                let put = request("PUT", "/0", &[]);
                send(&process.over(&ScriptedOrigin::always(|| ok(""))), put).await;
            }
        }
        assert_eq!(get(&process.over(&down), "/0").await.status, 503, "{purge}");
        assert_eq!(get(&process.over(&down), "/2").await.status, 200, "{purge}");
    }
}

/// A process that is killed after a purge has not written that down.
#[tokio::test]
async fn a_purge_that_came_after_the_last_write_is_made_up_for() {
    let directory = Directory::new();
    let (process, _) = Process::start(&directory.file()).await;
    fill(&process, 3).await;
    process.file.write().await.unwrap();
    process.layer.purge().tag("all");
    drop(process);
    let (process, report) = Process::start(&directory.file()).await;
    assert_eq!(report.loaded, 3);
    let origin = ScriptedOrigin::always(|| ok("new").max_age(100));
    for page in 0..3 {
        assert_eq!(get(&process.over(&origin), &format!("/{page}")).await.body, "new");
    }
    assert_eq!(origin.calls(), 3);
}

/// Also if a purge of something else makes the load look later.
#[tokio::test]
async fn what_is_loaded_replaces_nothing_newer() {
    let directory = Directory::new();
    written(&directory.file(), 2).await;
    let store = MemoryStore::builder(64 << 20).snapshots(true).build().unwrap();
    let layer = ReadThroughLayer::builder(store.clone()).build().unwrap();
    let service = layer.layer(ScriptedOrigin::always(|| ok("new").max_age(100)));
    get(&service, "/0").await;
    layer.purge().tag("other");
    let file = SnapshotFile::builder(store, directory.file()).trust_freshness().open().unwrap();
    let report = file.loaded().await;
    assert_eq!((report.loaded, report.unneeded), (1, 1));
    assert_eq!(get(&service, "/0").await.body, "new");
    assert_eq!(get(&service, "/1").await.body, body_of("1"));
}

#[tokio::test]
async fn variants_trailers_and_statuses_come_back() {
    let directory = Directory::new();
    let answer = |head: &http::request::Parts| -> ScriptedResponse {
        let language = head.headers.get("accept-language").map_or("none", |value| value.to_str().unwrap());
        let answer = if head.uri.path() == "/gone" { status(410) } else { ok(language.to_owned()) };
        answer.header("vary", "accept-language").trailer("x-sum", "1").max_age(100)
    };
    let (process, _) = Process::start(&directory.file()).await;
    let service = process.over(&ScriptedOrigin::new(move |_, head| answer(head)));
    for path in ["/", "/gone"] {
        for language in ["de", "en"] {
            get_with(&service, path, &[("accept-language", language)]).await;
        }
    }
    assert_eq!(process.file.write().await.unwrap().responses, 4);
    drop(process);
    let (process, report) = Process::start_with(&directory.file(), |file| file.trust_freshness()).await;
    assert_eq!(report.loaded, 4);
    let service = process.over(&ScriptedOrigin::always(hangs));
    for language in ["de", "en"] {
        let fields = [("accept-language", language)];
        let reply = get_with(&service, "/", &fields).await;
        assert_eq!(
            (&*reply.body, reply.trailers.unwrap()["x-sum"].as_bytes()),
            (language.as_bytes(), &b"1"[..])
        );
        assert_eq!(get_with(&service, "/gone", &fields).await.status, 410);
    }
}

/// What a cut or damaged file still has is right, and the rest is not there.
async fn is_partly_right(path: &Path, pages: u32) -> LoadReport {
    let (process, report) = Process::start_with(path, |file| file.trust_freshness()).await;
    let service = process.over(&ScriptedOrigin::always(|| status(503)));
    let mut found = 0;
    for page in (0..pages).map(|page| page.to_string()) {
        let reply = get(&service, &format!("/{page}")).await;
        match reply.status.as_u16() {
            200 => assert_eq!(reply.body, body_of(&page)),
            status => assert_eq!(status, 503),
        }
        found += u64::from(reply.status == 200);
    }
    assert_eq!(found, report.loaded);
    report
}

#[tokio::test]
async fn a_file_that_was_cut_anywhere_is_loaded_up_to_there() {
    const PAGES: u32 = 60;
    let directory = Directory::new();
    written(&directory.file(), PAGES).await;
    let whole = fs::read(directory.file()).unwrap();
    let ends = (0..whole.len()).step_by(1024).chain(whole.len() - 40..whole.len());
    let mut last = 0;
    for end in ends {
        fs::write(directory.file(), &whole[..end]).unwrap();
        let report = is_partly_right(&directory.file(), PAGES).await;
        assert!(matches!(report.end, LoadEnd::Bad(_)), "cut at {end}: {report:?}");
        assert!(report.loaded >= last, "cut at {end}");
        last = report.loaded;
    }
    assert_eq!(last, u64::from(PAGES), "only the mark at the end is missing");
}

#[tokio::test]
async fn a_damaged_record_ends_the_load() {
    const PAGES: u32 = 20;
    let directory = Directory::new();
    written(&directory.file(), PAGES).await;
    let whole = fs::read(directory.file()).unwrap();
    for at in (0..whole.len()).step_by(211) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(directory.file(), &damaged).unwrap();
        let report = is_partly_right(&directory.file(), PAGES).await;
        assert!(matches!(report.end, LoadEnd::Bad(_)), "changed at {at}: {report:?}");
    }
    // Two files in one.
    fs::write(directory.file(), whole.repeat(2)).unwrap();
    let report = is_partly_right(&directory.file(), PAGES).await;
    assert_eq!((report.loaded, report.end), (u64::from(PAGES), LoadEnd::Bad(EnvelopeError::Foreign)));
    fs::write(directory.file(), "something else, and long enough to be one").unwrap();
    assert_eq!(is_partly_right(&directory.file(), 1).await.end, LoadEnd::Bad(EnvelopeError::Foreign));
}

#[tokio::test]
async fn a_file_of_another_namespace_is_not_loaded() {
    let directory = Directory::new();
    written(&directory.file(), 1).await;
    let (process, report) = Process::start_with(&directory.file(), |file| file.namespace("shop 2")).await;
    assert_eq!((report.loaded, report.end), (0, LoadEnd::OtherNamespace));
    process.file.write().await.unwrap();
    drop(process);
    let (_, report) = Process::start_with(&directory.file(), |file| file.namespace("shop 2")).await;
    assert_eq!(report.end, LoadEnd::Complete);
}

#[tokio::test]
async fn a_file_of_schema_1_is_loaded_as_ever() {
    let directory = Directory::new();
    fs::write(directory.file(), include_bytes!("../golden/snapshot-file-1.bin")).unwrap();
    let (process, report) = Process::start_with(&directory.file(), |file| file.namespace("shop")).await;
    let written_at = std::time::UNIX_EPOCH + secs(1_700_000_060);
    assert_eq!((report.loaded, report.written_at, report.end), (1, Some(written_at), LoadEnd::Complete));
    let stored: Vec<_> = process.store.entries().collect();
    let [(key, entry)] = &stored[..] else { panic!("{stored:?}") };
    let [response] = entry.variants() else { panic!("{entry:?}") };
    assert_eq!(
        (key.as_bytes(), response.status().as_u16(), &**response.body()),
        (&b"key"[..], 404, &b"not here"[..])
    );
    assert!(response.is_unproven());
}

#[tokio::test]
async fn one_process_writes_a_file() {
    let directory = Directory::new();
    let (first, _) = Process::start(&directory.file()).await;
    fill(&first, 1).await;
    first.file.write().await.unwrap();
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    let refused = SnapshotFile::builder(store, directory.file()).open().unwrap_err();
    assert!(matches!(refused, SnapshotFileError::InUse(_)), "{refused}");

    let (second, report) = Process::start_with(&directory.file(), |file| file.overlapping(true)).await;
    assert_eq!(report.loaded, 1, "to read it needs no lock");
    let refused = second.file.write().await.unwrap_err();
    assert!(matches!(refused, SnapshotFileError::InUse(_)), "{refused}");
    let clone = first.file.clone();
    drop(first);
    assert!(second.file.write().await.is_err(), "another handle still has it");
    drop(clone);
    second.file.write().await.unwrap();
    assert_eq!((second.file.stats().writes, second.file.stats().last_error), (1, None));
}

/// Each deployment of a service that overlaps with itself has such writes: they are no failures.
#[tokio::test]
async fn a_write_that_waits_for_another_process_has_not_failed() {
    let directory = Directory::new();
    let (first, _) = Process::start(&directory.file()).await;
    let (second, _) = Process::start_with(&directory.file(), |file| file.overlapping(true)).await;
    let said = |process: &Process| {
        let stats = process.file.stats();
        (stats.waits_for_lock, stats.writes, stats.failed_writes, stats.last_error)
    };
    assert_eq!(said(&first), (false, 0, 0, None));
    assert_eq!(said(&second), (true, 0, 0, None), "before it is written");
    for _ in 0..2 {
        assert!(matches!(second.file.write().await, Err(SnapshotFileError::InUse(_))));
        assert_eq!(said(&second), (true, 0, 0, None));
    }
    drop(first);
    second.file.write().await.unwrap();
    assert_eq!(said(&second), (false, 1, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_file_is_written_at_an_interval_until_its_handle_is_dropped() {
    let directory = Directory::new();
    let (process, _) = Process::start_with(&directory.file(), |file| file.every(secs(60))).await;
    fill(&process, 2).await;
    tokio::time::advance(secs(59)).await;
    settle().await;
    assert_eq!(directory.names(), ["cache.lock"]);
    tokio::time::advance(secs(1)).await;
    settle().await;
    // Behind the one that the interval has begun.
    process.file.write().await.unwrap();
    let stats = process.file.stats();
    assert_eq!((stats.writes, stats.last_write.map(|report| report.responses)), (2, Some(2)));
    assert_eq!(directory.names(), ["cache", "cache.lock"], "nothing temporary is left");
    drop(process);
    // The lock is free at once.
    fs::remove_file(directory.file()).unwrap();
    tokio::time::advance(secs(600)).await;
    settle().await;
    assert_eq!(directory.names(), ["cache.lock"]);
    assert_eq!(Process::start(&directory.file()).await.1.end, LoadEnd::Missing);
}

#[tokio::test]
async fn a_write_that_fails_leaves_the_file_as_it_was() {
    let directory = Directory::new();
    let (process, _) = Process::start(&directory.file()).await;
    fill(&process, 2).await;
    process.file.write().await.unwrap();
    let before = fs::read(directory.file()).unwrap();
    // A directory where the temporary file is to be.
    fs::create_dir(directory.0.join("cache.tmp")).unwrap();
    let error = process.file.write().await.unwrap_err();
    assert!(matches!(error, SnapshotFileError::Io { .. }), "{error}");
    assert_eq!(fs::read(directory.file()).unwrap(), before);
    let stats = process.file.stats();
    assert_eq!((stats.writes, stats.failed_writes, stats.last_error), (1, 1, Some(error.to_string())));
}

/// A temporary file of a process that was killed is no obstacle.
#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new();
    fs::write(directory.0.join("cache.tmp"), "rest").unwrap();
    written(&directory.file(), 1).await;
    let mode = fs::metadata(directory.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(start_paused = true)]
async fn what_was_served_last_is_loaded_first_and_the_load_ends_where_the_store_is_full() {
    const PAGES: u32 = 400;
    let directory = Directory::new();
    let (process, _) = Process::start(&directory.file()).await;
    fill(&process, PAGES).await;
    tokio::time::advance(secs(5)).await;
    let service = process.over(&ScriptedOrigin::always(hangs));
    let hot: Vec<_> = (0..PAGES).filter(|page| page % 40 == 7).collect();
    for page in &hot {
        assert!(get(&service, &format!("/{page}")).await.is_hit());
    }
    process.file.write().await.unwrap();
    drop((process, service));

    let small = MemoryStore::builder(256 << 10).snapshots(true).build().unwrap();
    let file = SnapshotFile::builder(small.clone(), directory.file()).open().unwrap();
    let report = file.loaded().await;
    assert_eq!(report.end, LoadEnd::Full);
    // The put that met a full part of the store displaced two where the first was smaller by a digit.
    assert!(report.loaded > 50 && small.stats().evictions <= 2, "{report:?} {:?}", small.stats());
    let keys: Vec<_> =
        small.entries().map(|(key, _)| String::from_utf8_lossy(key.as_bytes()).into_owned()).collect();
    for page in hot {
        assert!(keys.iter().any(|key| key.ends_with(&format!("/{page}"))), "{page} of {keys:?}");
    }
}

#[tokio::test]
async fn what_is_too_large_for_the_store_is_left_out() {
    let directory = Directory::new();
    let (process, _) = Process::start(&directory.file()).await;
    let large = process.over(&ScriptedOrigin::always(|| ok(vec![b'x'; 200_000]).max_age(100)));
    get(&large, "/large").await;
    fill(&process, 3).await;
    process.file.write().await.unwrap();
    drop(process);
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    let file = SnapshotFile::builder(store, directory.file()).open().unwrap();
    let report = file.loaded().await;
    assert_eq!((report.loaded, report.skipped, report.end), (3, 1, LoadEnd::Complete));
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let directory = Directory::new();
    let without_texts = MemoryStore::with_capacity_bytes(1 << 20);
    let refused = SnapshotFile::builder(without_texts, directory.file()).open().unwrap_err();
    assert!(matches!(refused, SnapshotFileError::NoTexts), "{refused}");
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    let of = |path: PathBuf| SnapshotFile::builder(store.clone(), path);
    for (builder, expected) in [
        (of(directory.file()).every(secs(0)), "every"),
        (of(directory.file()).namespace("x".repeat(1025)), "namespace"),
        (of("..".into()), "path"),
    ] {
        let refused = builder.open().unwrap_err();
        let is_it = matches!(refused, SnapshotFileError::Setting { setting, .. } if setting == expected);
        assert!(is_it, "{refused}");
    }
    let refused = of(directory.0.join("missing").join("cache")).open().unwrap_err();
    assert!(matches!(refused, SnapshotFileError::Io { .. }), "{refused}");
    let outside = std::thread::spawn(move || of_outside(store)).join().unwrap();
    assert!(matches!(outside, SnapshotFileError::NoRuntime), "{outside}");
}

fn of_outside(store: MemoryStore) -> SnapshotFileError {
    SnapshotFile::builder(store, "cache").open().unwrap_err()
}

/// The store of a process that has no time left to load what there is does not replace it.
#[tokio::test]
async fn a_write_waits_for_the_load() {
    let directory = Directory::new();
    written(&directory.file(), 50).await;
    let store = MemoryStore::builder(64 << 20).snapshots(true).build().unwrap();
    let file = SnapshotFile::builder(store.clone(), directory.file()).open().unwrap();
    assert_eq!(file.write().await.unwrap().responses, 50);
    assert_eq!(store.sequence().records(), (0, 0));
}

/// Also if something else was purged since that fetch began.
#[tokio::test]
async fn what_is_fetched_while_a_file_is_loaded_stays() {
    let directory = Directory::new();
    written(&directory.file(), 1).await;
    let store = MemoryStore::builder(64 << 20).snapshots(true).build().unwrap();
    let layer = ReadThroughLayer::builder(store.clone()).build().unwrap();
    let origin = ScriptedOrigin::always(|| ok("new").max_age(100));
    let (gate, service) = (origin.hold(), layer.layer(origin.clone()));
    let fetched = tokio::spawn({
        let service = service.clone();
        async move { get(&service, "/0").await.body }
    });
    gate.waiting(1).await;
    layer.purge().tag("another");
    let file = SnapshotFile::builder(store, directory.file()).trust_freshness().open().unwrap();
    assert_eq!(file.loaded().await.loaded, 1);
    gate.open();
    assert_eq!(fetched.await.unwrap(), "new");
    assert_eq!((get(&service, "/0").await.body, origin.calls()), ("new".into(), 1));
}

/// Also of a store that is wrapped by the layers, and for as long as the file is open.
#[tokio::test(start_paused = true)]
async fn the_numbers_of_the_cache_say_what_its_file_does() {
    let directory = Directory::new();
    written(&directory.file(), 3).await;
    let (process, _) = Process::start(&directory.file()).await;
    let stats = process.layer.stats();
    let before = stats.snapshot();
    let seen = before.snapshot_file.clone().unwrap();
    assert_eq!(
        (seen.load.map(|load| (load.loaded, load.end)), seen.writes),
        (Some((3, LoadEnd::Complete)), 0)
    );
    assert_eq!((seen.last_write, seen.written_ago), (None, None));
    let report = process.file.write().await.unwrap();
    tokio::time::advance(secs(7)).await;
    // A directory where the second file is to be.
    let temporary = directory.file().with_file_name("cache.tmp");
    fs::create_dir(&temporary).unwrap();
    assert!(process.file.write().await.is_err());
    let since = stats.snapshot().since(&before).snapshot_file.unwrap();
    assert_eq!((since.writes, since.failed_writes, since.last_write), (1, 1, Some(report)));
    assert_eq!(since.written_ago, Some(secs(7)));
    assert!(since.open_for >= secs(7) && since.last_error.is_some(), "{since:?}");
    fs::remove_dir(&temporary).unwrap();
    process.file.write().await.unwrap();
    assert_eq!((process.file.stats().writes, process.file.stats().last_error), (2, None));
    // The one that was opened last.
    let store = MemoryStore::builder(64 << 20).snapshots(true).build().unwrap();
    let layer = ReadThroughLayer::builder(store.clone()).build().unwrap();
    assert_eq!(layer.stats().snapshot().snapshot_file, None);
    let file = SnapshotFile::builder(store, directory.0.join("another")).open().unwrap();
    file.loaded().await;
    let seen = layer.stats().snapshot().snapshot_file.unwrap();
    assert_eq!(seen.load.map(|load| load.end), Some(LoadEnd::Missing));
    drop(file);
    assert_eq!(layer.stats().snapshot().snapshot_file, None);
}

/// As where a process ends while it starts. The numbers must not say for ever that it is being loaded.
#[tokio::test]
async fn a_load_that_cannot_begin_is_aborted() {
    let directory = Directory::new();
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    let layer = ReadThroughLayer::builder(store.clone()).build().unwrap();
    let file = never_loaded(&store, &directory.file());
    assert_eq!(file.loaded().await.end, LoadEnd::Aborted);
    for stats in [file.stats(), layer.stats().snapshot().snapshot_file.unwrap()] {
        assert_eq!(stats.load.map(|load| load.end), Some(LoadEnd::Aborted));
    }
}

#[tokio::test]
async fn a_file_of_another_schema_is_not_loaded() {
    let directory = Directory::new();
    written(&directory.file(), 3).await;
    let whole = fs::read(directory.file()).unwrap();
    for schema in [0_u16, 2, u16::MAX] {
        let mut other = whole.clone();
        other[4..6].copy_from_slice(&schema.to_le_bytes());
        fs::write(directory.file(), other).unwrap();
        let (process, report) = Process::start(&directory.file()).await;
        assert_eq!((report.loaded, report.end), (0, LoadEnd::Bad(EnvelopeError::Schema)), "{schema}");
        assert_eq!(report.end.as_str(), "other-schema");
        drop(process);
    }
    // Of an envelope in it as well: what comes before counts.
    let mut other = whole.clone();
    let last = whole.windows(4).rposition(|four| four == b"TRTH").unwrap();
    other[last + 4] += 1;
    fs::write(directory.file(), other).unwrap();
    let report = is_partly_right(&directory.file(), 3).await;
    assert_eq!((report.loaded, report.end), (2, LoadEnd::Bad(EnvelopeError::Schema)));
}

#[cfg(any(feature = "serde", feature = "dashboard"))]
#[tokio::test]
async fn the_numbers_of_a_file_are_serialised_by_name() {
    let directory = Directory::new();
    fs::write(directory.file(), b"something else").unwrap();
    let (process, _) = Process::start(&directory.file()).await;
    let said = serde_json::to_value(process.layer.stats().snapshot()).unwrap();
    let file = &said["snapshot_file"];
    assert_eq!((&file["load"]["end"], &file["load"]["loaded"]), (&"wrong-length".into(), &0.into()));
    assert!(file["load"]["written_at_seconds"].is_null() && file["written_seconds_ago"].is_null(), "{file}");
    assert!(file["open_seconds"].is_number(), "{file}");
}

/// What may have become of a file.
#[derive(Clone, Debug)]
enum Damage {
    Cut(Index),
    Flip(Index, u8),
    /// A piece of it is copied to another place, over what is there or between.
    Splice {
        from: Index,
        length: Index,
        to: Index,
        is_over: bool,
    },
    Insert(Index, Vec<u8>),
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>) {
        let place = |index: &Index, file: &[u8]| index.index(file.len() + 1);
        match self {
            Self::Cut(at) => file.truncate(place(at, file)),
            Self::Flip(at, bit) if !file.is_empty() => {
                let at = at.index(file.len());
                file[at] ^= 1 << (bit % 8);
            }
            Self::Flip(..) => {}
            Self::Splice { from, length, to, is_over } => {
                let (from, to) = (place(from, file), place(to, file));
                let piece = file[from..from + length.index(file.len() - from + 1)].to_vec();
                let end = if *is_over { (to + piece.len()).min(file.len()) } else { to };
                file.splice(to..end, piece);
            }
            Self::Insert(at, bytes) => {
                let at = place(at, file);
                file.splice(at..at, bytes.iter().copied());
            }
        }
    }
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let at = any::<Index>;
    let damage = prop_oneof![
        at().prop_map(Damage::Cut),
        (at(), any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), at(), at(), any::<bool>()).prop_map(|(from, length, to, is_over)| Damage::Splice {
            from,
            length,
            to,
            is_over
        }),
        (at(), proptest::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ];
    proptest::collection::vec(damage, 1..4)
}

/// Whatever has become of a file: all that is loaded is what was stored.
#[test]
fn no_damage_to_a_file_is_a_panic_or_a_wrong_response() {
    let directory = Directory::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(written(&directory.file(), 4));
    let whole = fs::read(directory.file()).unwrap();
    proptest!(|(damages in damages())| {
        let mut file = whole.clone();
        damages.iter().for_each(|damage| damage.apply(&mut file));
        fs::write(directory.file(), &file).unwrap();
        let (report, stored) = runtime.block_on(load(&directory.file()));
        prop_assert_ne!(report.end, LoadEnd::Aborted, "a panic ends the load without a word");
        // A record may be there twice.
        prop_assert!(stored.len() as u64 <= report.loaded && (file != whole || stored.len() == 4), "{:?}", report);
        for (page, etag, body) in stored {
            prop_assert_eq!(body, body_of(&page));
            prop_assert_eq!(etag, format!("\"{page}\""));
        }
    });
}

/// What is loaded: pages with their entity tags and bodies.
async fn load(path: &Path) -> (LoadReport, Vec<(String, String, String)>) {
    let store = MemoryStore::builder(64 << 20).snapshots(true).build().unwrap();
    let file = SnapshotFile::builder(store.clone(), path).open().unwrap();
    let report = file.loaded().await;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pages = store.entries().flat_map(|(key, entry)| {
        let page = text(key.as_bytes()).rsplit('/').next().unwrap_or_default().to_owned();
        let variants = entry.variants().to_vec();
        variants.into_iter().map(move |stored| {
            let etag = stored.headers()["etag"].to_str().unwrap().to_owned();
            (page.clone(), etag, text(stored.body()))
        })
    });
    (report, pages.collect())
}
