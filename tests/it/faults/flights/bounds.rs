//! The bound of fetches under way.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Barrier;
use tower::{Layer, ServiceExt};
use tower_readthrough::{CoalesceLayer, KeyLayer};

use crate::support::{Body, ScriptedOrigin, fixed, get_request, response};

/// However many threads begin fetches at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn fetches_under_way_stay_within_their_bound_when_many_begin_at_once() {
    const LIMIT: usize = 4;
    const CALLERS: usize = 64;
    for _ in 0..200 {
        // The executor gets each fetch that is under way, and no other request.
        let (begun, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, highest) = (Arc::clone(&begun), Arc::clone(&most));
        let layer = CoalesceLayer::new().max_flights(LIMIT).rules(fixed(60_000)).executor(move |task| {
            highest.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            drop(tokio::spawn(task));
        });
        // No response before every caller has sent its request.
        let all = Arc::new(Barrier::new(CALLERS));
        let origin = ScriptedOrigin::with_future({
            let all = Arc::clone(&all);
            move |_, _| {
                let all = Arc::clone(&all);
                async move {
                    all.wait().await;
                    response(&[], "x")
                }
            }
        });
        let service = KeyLayer::default().layer(layer.layer(origin));
        let start = Arc::new(Barrier::new(CALLERS));
        let callers = (0..CALLERS).map(|n| {
            let (service, start) = (service.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                let request = get_request(&format!("http://h/{n}")).map(|_| Body::empty());
                start.wait().await;
                service.oneshot(request).await.unwrap().status()
            })
        });
        let callers: Vec<_> = callers.collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), 200);
        }
        assert_eq!(most.load(Ordering::SeqCst), LIMIT);
    }
}
