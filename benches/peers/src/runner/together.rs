//! Several threads at once.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tokio::runtime::Runtime;
use tower::Service;

use super::{BATCH, Source, live::exchange};
use crate::clock::thread_cpu_ns;

/// One batch of one thread: wall times in ns, the thread's CPU time, how many requests.
#[derive(Clone, Copy)]
struct Batch {
    start: u64,
    end: u64,
    cpu: u64,
    count: usize,
}

/// Lets all threads begin each batch together.
struct Gate {
    threads: usize,
    arrived: AtomicUsize,
    /// There are more threads than cores, so that they cannot run at the same time.
    crowded: bool,
}

impl Gate {
    fn pass(&self, batch: usize) {
        if self.crowded {
            return;
        }
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0_u32;
        while self.arrived.load(Ordering::Acquire) < batch * self.threads {
            spins += 1;
            if spins.is_multiple_of(4096) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

async fn batches<S, B>(mut service: S, source: Source, from: u64, count: usize, gate: Arc<Gate>) -> Vec<Batch>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Debug,
    B: http_body::Body,
    B::Error: Debug,
{
    let epoch = *EPOCH;
    let mut requests = Vec::with_capacity(BATCH);
    let mut batches = Vec::with_capacity(count.div_ceil(BATCH));
    for first in (0..count).step_by(BATCH) {
        requests.extend((first..count.min(first + BATCH)).map(|at| source(from + at as u64)));
        let count = requests.len();
        gate.pass(batches.len() + 1);
        let (start, cpu) = (epoch.elapsed().as_nanos() as u64, thread_cpu_ns());
        for request in requests.drain(..) {
            exchange(&mut service, request).await;
        }
        let cpu = thread_cpu_ns() - cpu;
        batches.push(Batch { start, end: epoch.elapsed().as_nanos() as u64, cpu, count });
    }
    batches
}

static EPOCH: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

pub(super) fn run<S, B>(
    service: &S,
    runtime: &Runtime,
    sources: &[Source],
    from: u64,
    count: usize,
) -> Option<f64>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Debug + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Debug,
{
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (threads, crowded) = (sources.len(), sources.len() > cores);
    let gate = Arc::new(Gate { threads, arrived: AtomicUsize::new(0), crowded });
    let spawn = |(thread, source): (usize, &Source)| {
        // The threads are not to ask for the same key in the same moment all the time.
        let from = from + thread as u64 * 7919;
        runtime.spawn(batches(service.clone(), Arc::clone(source), from, count, Arc::clone(&gate)))
    };
    let tasks: Vec<_> = sources.iter().enumerate().map(spawn).collect();
    let threads: Vec<Vec<Batch>> =
        tasks.into_iter().map(|task| runtime.block_on(task).expect("no panic")).collect();
    overlapping(&threads, crowded)
}

/// Only batches count during which the threads really ran at the same time. None if those are
/// less than a fifth. Where they cannot, all batches count.
fn overlapping(threads: &[Vec<Batch>], crowded: bool) -> Option<f64> {
    let total = threads[0].len();
    let (mut cpu, mut count, mut kept) = (0, 0, 0);
    for at in 0..total {
        let batch: Vec<Batch> = threads.iter().map(|thread| thread[at]).collect();
        let start = batch.iter().map(|each| each.start).max()?;
        let end = batch.iter().map(|each| each.end).min()?;
        let longest = batch.iter().map(|each| each.end - each.start).max()?;
        if crowded || end.saturating_sub(start) * 10 >= longest * 8 {
            kept += 1;
            cpu += batch.iter().map(|each| each.cpu).sum::<u64>();
            count += batch.iter().map(|each| each.count).sum::<usize>();
        }
    }
    (kept * 5 >= total).then(|| cpu as f64 / count as f64)
}
