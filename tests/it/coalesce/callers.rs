//! Callers that wait for a fetch, and the fetch that succeeds another.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_caller_beyond_max_waiters_gets_503_at_once() {
    let origin = slow(50);
    let service = coalesced(&CoalesceLayer::new().max_waiters(2), &origin);
    let started = Instant::now();
    let answers = join_all((0..4).map(|_| service.clone().oneshot(get_request(URI)))).await;
    assert_eq!(started.elapsed(), ms(50));
    let statuses: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().status().as_u16()).collect();
    assert_eq!(statuses, [200, 200, 200, 503]);
    let refused = answers[3].as_ref().unwrap();
    assert_eq!(refusal(refused), Some(Refused::TooManyWaiters));
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_caller_that_leaves_frees_its_place() {
    let origin = slow(1_000_000);
    let service = coalesced(&CoalesceLayer::new().max_waiters(1).max_flight_age(Duration::MAX), &origin);
    let first = tokio::spawn(service.clone().oneshot(get_request(URI)));
    sleep(ms(1)).await;
    for _ in 0..1000 {
        let waiting = tokio::time::timeout(ms(1), service.clone().oneshot(get_request(URI)));
        assert!(waiting.await.is_err(), "waits, and is not refused");
    }
    first.abort();
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_long_fetches_by_itself_and_gets_the_first_response() {
    let origin = slow(100);
    let service = coalesced(&CoalesceLayer::new().max_wait(ms(30)), &origin);
    let first = tokio::spawn(service.clone().oneshot(get_request(URI)));
    sleep(ms(10)).await;
    let started = Instant::now();
    assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::OK);
    assert_eq!((started.elapsed(), origin.calls()), (ms(90), 2));
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_without_a_response_has_one_successor_and_the_next_starts_afresh() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        if n == 1 {
            std::future::pending::<()>().await;
        }
        response(&[], "hello")
    });
    let layer = CoalesceLayer::new().max_flight_age(ms(100)).max_wait(Duration::from_secs(10));
    let service = coalesced(&layer, &origin);
    let first = tokio::spawn(service.clone().oneshot(get_request(URI)));
    tokio::task::yield_now().await;
    let answers = join_all((0..100).map(|_| call(&service, get_request(URI)))).await;
    assert!(answers.iter().all(|answer| answer.1 == "hello"));
    assert_eq!(origin.calls(), 2);
    assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::OK);
    assert!(!first.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_fetch_has_one_successor_and_a_fetch_that_never_runs_blocks_no_caller_for_ever() {
    let origin = slow(10);
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let layer = CoalesceLayer::new().executor(move |task| {
        counter.fetch_add(1, Ordering::SeqCst);
        drop(task);
    });
    let service = coalesced(&layer, &origin);
    let answers = join_all((0..100).map(|_| service.clone().oneshot(get_request(URI)))).await;
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status(), refusal(&answer)),
            (StatusCode::SERVICE_UNAVAILABLE, Some(Refused::FetchAborted))
        );
    }
    assert_eq!(origin.calls(), 0);

    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeper = Arc::clone(&kept);
    let layer = CoalesceLayer::new().max_flight_age(ms(50)).max_wait(ms(20)).executor(move |task| {
        let mut kept = keeper.lock().unwrap();
        kept.push(task);
        if kept.len() > 1 {
            tokio::spawn(kept.pop().unwrap());
        }
    });
    let service = coalesced(&layer, &origin);
    let stuck = tokio::spawn(service.clone().oneshot(get_request(URI)));
    sleep(ms(10)).await;
    assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::OK, "one that asks beside it");
    sleep(ms(50)).await;
    assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::OK, "an overdue fetch blocks no caller");
    stuck.abort();
}

/// A slot is freed by its identity: a fetch that ends late must not free the slot of a newer one.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_ends_late_does_not_free_the_slot_of_its_successor() {
    let origin = slow(100);
    let kept = Arc::new(Mutex::new(None));
    let keeper = Arc::clone(&kept);
    let layer = CoalesceLayer::new().max_flight_age(ms(200)).executor(move |task| {
        let mut kept = keeper.lock().unwrap();
        match *kept {
            None => *kept = Some(task),
            Some(_) => drop(tokio::spawn(task)),
        }
    });
    let service = coalesced(&layer, &origin);
    let overdue = tokio::spawn(service.clone().oneshot(get_request(URI)));
    sleep(ms(201)).await;
    let second = tokio::spawn(service.clone().oneshot(get_request(URI)));
    sleep(ms(1)).await;
    drop(kept.lock().unwrap().take());
    assert_eq!(overdue.await.unwrap().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(call(&service, get_request(URI)).await.1, "hello");
    assert_eq!(bytes(second.await.unwrap().unwrap()).await, "hello");
    assert_eq!(origin.calls(), 1, "the third caller joined the second");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_may_end_with_its_last_caller() {
    struct Ended(Arc<AtomicUsize>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let ended = Arc::new(AtomicUsize::new(0));
    for (deadline, expected) in [(Duration::from_secs(5), 0), (Duration::ZERO, 1)] {
        ended.store(0, Ordering::SeqCst);
        let counter = Arc::clone(&ended);
        let origin = ScriptedOrigin::with_future(move |_, _| {
            let ended = Ended(Arc::clone(&counter));
            async move {
                sleep(Duration::from_secs(5)).await;
                drop(ended);
                response(&[], "hello")
            }
        });
        let service = coalesced(&CoalesceLayer::new().abandoned_deadline(deadline), &origin);
        let first = tokio::spawn(service.clone().oneshot(get_request(URI)));
        let second = tokio::spawn(service.clone().oneshot(get_request(URI)));
        sleep(ms(10)).await;
        first.abort();
        sleep(ms(10)).await;
        assert_eq!(ended.load(Ordering::SeqCst), 0, "a caller still waits");
        second.abort();
        sleep(ms(10)).await;
        assert_eq!(ended.load(Ordering::SeqCst), expected);
    }
}
