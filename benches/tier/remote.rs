//! One read of a remote, beside a bare `GET` of the same bytes by the same library.

use std::time::Duration;

use tokio::time::Instant;

use bytes::Bytes;
use tower_readthrough::remote::Remote;

use super::{
    node::{SIZES, page, patient_remote},
    server::Server,
    times::Times,
};

const ROUNDS: usize = 3000;
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) async fn measure(server: &Server) {
    let remote = patient_remote(&server.url(), "bench").await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut bare = client.get_multiplexed_async_connection().await.unwrap();
    for bytes in SIZES {
        remote.write(b"page", page(bytes), HOUR).await.unwrap();
        let [mut gets, mut ones, mut twos] = [const { Times::new() }; 3];
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let got: Bytes = redis::cmd("GET").arg("bench:1:page").query_async(&mut bare).await.unwrap();
            gets.add(began);
            let began = Instant::now();
            let one = remote.read(&[b"page"]).await.unwrap();
            ones.add(began);
            let began = Instant::now();
            let two = remote.read(&[b"index", b"page"]).await.unwrap();
            twos.add(began);
            assert_eq!((one.values[0].as_ref(), two.values[1].as_ref()), (Some(&got), Some(&got)));
        }
        println!(
            "{:>4} KiB: GET p50 {:>7.1} µs p99 {:>8.1}, read p50 {:>7.1} µs p99 {:>8.1} ({:.2} times), of two keys {:>7.1} µs",
            bytes >> 10,
            gets.p50(),
            gets.p99(),
            ones.p50(),
            ones.p99(),
            ones.p50() / gets.p50(),
            twos.p50(),
        );
    }
}
