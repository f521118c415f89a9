//! How long a store takes to be written to a file and to be loaded from it, and how large the file is.
//!
//! ```text
//! cargo bench --bench snapshot --features snapshot
//! ```
//!
//! 100,000 responses of 100 bytes, and of 10 KiB, with eight header fields, a validator and two tags each. The
//! file is in the directory for temporary files, or in `--directory DIR`.

use std::{convert::Infallible, env, fs, path::PathBuf, process::ExitCode, time::Duration};

use axum::body::Body;
use http::{Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_readthrough::{
    MemoryStore, ReadThroughLayer, Rules,
    store::{LoadEnd, SnapshotFile},
};

const RESPONSES: usize = 100_000;

fn request(n: usize) -> Request<Body> {
    Request::get(format!("http://h/{}/{n}", n % 1000)).body(Body::empty()).unwrap()
}

async fn origin(request: Request<Body>, bytes: usize) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    let response = Response::builder()
        .header("content-type", "text/html; charset=utf-8")
        .header("cache-control", "public, max-age=3600")
        .header("etag", format!("\"{path}\""))
        .header("last-modified", "Sat, 01 Aug 2026 12:00:00 GMT")
        .header("vary", "accept-encoding")
        .header("x-content-type-options", "nosniff")
        .header("surrogate-key", format!("page{path} all"));
    Ok(response.body(Body::from(vec![b'x'; bytes])).unwrap())
}

fn store() -> MemoryStore {
    MemoryStore::builder(4 << 30).snapshots(true).build().unwrap()
}

async fn measure(path: &PathBuf, bytes: usize) {
    let here = store();
    let rules = Rules::new().fixed_ttl(Duration::from_secs(3600));
    let layer = ReadThroughLayer::builder(here.clone()).rules(rules).build().unwrap();
    let mut service = layer.layer(service_fn(move |request| origin(request, bytes)));
    for n in 0..RESPONSES {
        let response = service.ready().await.unwrap().call(request(n)).await.unwrap();
        axum::body::to_bytes(Body::new(response.into_body()), usize::MAX).await.unwrap();
    }
    let file = SnapshotFile::builder(here.clone(), path).open().unwrap();
    file.loaded().await;
    let began = Instant::now();
    let written = file.write().await.unwrap();
    let write = began.elapsed();
    assert_eq!(written.responses, RESPONSES as u64);
    drop(file);

    let there = store();
    let began = Instant::now();
    let report = SnapshotFile::builder(there.clone(), path).open().unwrap().loaded().await;
    let load = began.elapsed();
    assert_eq!((report.loaded, report.end), (RESPONSES as u64, LoadEnd::Complete));
    println!(
        "{RESPONSES} responses of {bytes:>6} bytes: written in {:>6.0} ms, loaded in {:>6.0} ms, {:>7.1} MB",
        write.as_secs_f64() * 1e3,
        load.as_secs_f64() * 1e3,
        written.bytes as f64 / 1e6,
    );
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = env::args().skip_while(|arg| arg != "--directory").skip(1);
    let parent = args.next().map_or_else(env::temp_dir, PathBuf::from);
    let directory = parent.join(format!("trt-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    for bytes in [100, 10 << 10] {
        for _ in 0..3 {
            measure(&directory.join("cache"), bytes).await;
        }
    }
    fs::remove_dir_all(&directory).unwrap();
    ExitCode::SUCCESS
}
