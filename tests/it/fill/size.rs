//! Responses too large for the store.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_response_too_large_for_the_store_passes_through_and_is_counted() {
    let chunk = "x".repeat(1_000);
    let large = {
        let chunk = chunk.clone();
        move || (0..80).fold(ok("").max_age(60), |answer, _| answer.chunk(chunk.clone()))
    };
    let declared = {
        let large = large.clone();
        move || large().header("content-length", "80000")
    };
    let hinted = {
        let large = large.clone();
        move || large().declares(80_000)
    };
    let answers: [Box<dyn Fn() -> ScriptedResponse + Send + Sync>; 3] =
        [Box::new(large), Box::new(declared), Box::new(hinted)];
    for (unknown_length, answer) in [true, false, false].into_iter().zip(answers) {
        let store = MemoryStore::with_capacity_bytes(1 << 20); // 64 KiB for one
        let origin =
            ScriptedOrigin::new(move |call, _| if call < 3 { answer() } else { ok("small").max_age(60) });
        let service = cached_in(&store, Rules::new(), &origin);
        let reply = get(&service, "/").await;
        assert_eq!((reply.body.len(), reply.is_cut), (80_000, false));
        assert_eq!(store.stats().refused, 1);
        let status = get(&service, "/").await.cache();
        let expected = if unknown_length { "fwd=bypass" } else { "fwd=bypass; detail=too-large" };
        assert_eq!(status, expected);
        assert_eq!(store.stats().refused, 2);
        // A response that fits is stored again.
        get(&service, "/").await;
        assert_eq!(get(&service, "/").await.cache(), "hit");
    }
}

#[tokio::test(start_paused = true)]
async fn buffers_of_the_origin_are_not_held_while_a_body_streams() {
    use http_body_util::BodyExt;
    struct Alive(Arc<AtomicUsize>);
    impl AsRef<[u8]> for Alive {
        fn as_ref(&self) -> &[u8] {
            &[b'x'; 1_000]
        }
    }
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    const CHUNKS: usize = 200;
    let alive = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&alive);
    let origin = ScriptedOrigin::always(move || {
        counter.fetch_add(CHUNKS, Ordering::SeqCst);
        let chunk = || bytes::Bytes::from_owner(Alive(Arc::clone(&counter)));
        (0..CHUNKS).fold(ok("").max_age(60), |answer, _| answer.chunk(chunk()))
    });
    let store = MemoryStore::with_capacity_bytes(1 << 20); // 64 KiB for one
    let service = cached_in(&store, Rules::new(), &origin);
    let mut body = service.clone().oneshot(request("GET", "/", &[])).await.unwrap().into_body();
    let mut held = Vec::new();
    for read in 1..=CHUNKS {
        drop(body.frame().await.unwrap().unwrap());
        held.push(alive.load(Ordering::SeqCst) + read - CHUNKS);
    }
    assert_eq!(held, [0; CHUNKS], "what is kept is copied, so that no read buffer lives on");
}
