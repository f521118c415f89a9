//! What a second tier costs. Nothing is asserted: both sides of each comparison are measured by turns, in one run.
//!
//! ```text
//! cargo bench --bench tier --all-features
//! ```
//!
//! A `redis-server` is started for it, on a free port, and ended with it.

use std::{
    net::TcpListener,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tower_readthrough::remote::{RedisRemote, Remote};

const SIZES: [usize; 3] = [1 << 10, 100 << 10, 600 << 10];
const HOUR: Duration = Duration::from_secs(3600);
const NAMESPACE: &str = "bench";

/// Killed when it is dropped.
struct Server {
    url: String,
    child: Child,
}

impl Server {
    /// `None` if the program is missing.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port, "--save", "", "--appendonly", "no"]).stdout(Stdio::null());
        let child = command.spawn().ok()?;
        Some(Self { url: format!("redis://127.0.0.1:{port}/"), child })
    }

    async fn remote(&self) -> RedisRemote {
        let remote =
            RedisRemote::builder(&self.url).namespace(NAMESPACE).read_timeout(Duration::from_secs(1));
        let remote = remote.open().unwrap();
        while !remote.status().is_connected {
            sleep(Duration::from_millis(5)).await;
        }
        remote
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Text as pages have it: words of few letters, that repeat at no fixed distance.
fn page(bytes: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(7);
    let words: Vec<String> =
        (0..400).map(|_| (0..random.usize(2..9)).map(|_| random.lowercase()).collect()).collect();
    let mut text = Vec::with_capacity(bytes + 80);
    while text.len() < bytes {
        let [tag, word, other] = [(); 3].map(|()| &words[random.usize(..words.len())]);
        text.extend_from_slice(
            format!("<li class=\"{tag}\">{word} {other} {}</li>\n", random.u16(..)).as_bytes(),
        );
    }
    text.truncate(bytes);
    text.into()
}

/// The times of something.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn add(&mut self, began: Instant) {
        self.0.push(began.elapsed());
    }

    fn micros(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        self.0[((self.0.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
    }
}

/// One read of the second tier, beside a bare `GET` of the same bytes by the same library.
async fn reads(server: &Server) {
    const ROUNDS: usize = 3000;
    let remote = server.remote().await;
    let client = redis::Client::open(&*server.url).unwrap();
    let mut bare = client.get_multiplexed_async_connection().await.unwrap();
    for bytes in SIZES {
        remote.write(b"page", page(bytes), HOUR).await.unwrap();
        let [mut gets, mut ones, mut twos] = [const { Times(Vec::new()) }; 3];
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let got: Bytes =
                redis::cmd("GET").arg(format!("{NAMESPACE}:1:page")).query_async(&mut bare).await.unwrap();
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
            "read {:>4} KiB: GET p50 {:>7.1} µs p99 {:>8.1}, read p50 {:>7.1} µs p99 {:>8.1} ({:.2} times), of two keys {:>7.1} µs",
            bytes >> 10,
            gets.micros(0.5),
            gets.micros(0.99),
            ones.micros(0.5),
            ones.micros(0.99),
            ones.micros(0.5) / gets.micros(0.5),
            twos.micros(0.5),
        );
    }
}

/// What it costs to write an envelope and to read it, as it is and compressed.
#[cfg(feature = "zstd")]
fn compression() {
    use tower_readthrough::{
        CacheKey,
        store::{Compression, Envelope, EnvelopeError, Snapshot},
    };
    type Write = dyn Fn(&Envelope) -> Result<Bytes, EnvelopeError>;
    let level =
        |level| move |envelope: &Envelope| envelope.to_compressed_bytes(Compression::level(level).unwrap());
    let forms: [(&str, &Write); 4] = [
        ("as it is", &|envelope| envelope.to_bytes()),
        ("level 1", &level(1)),
        ("level 3", &level(3)),
        ("level 9", &level(9)),
    ];
    for bytes in SIZES {
        let mut snapshot = Snapshot::default();
        snapshot.body = page(bytes);
        let envelope = Envelope::new(CacheKey::new("/page"), snapshot);
        // A body of 1 KiB is below the default size.
        for (name, write) in forms.into_iter().take(if bytes > 4096 { 4 } else { 1 }) {
            let [mut writes, mut reads] = [const { Times(Vec::new()) }; 2];
            let mut written = Bytes::new();
            for _ in 0..100 {
                let began = Instant::now();
                written = write(&envelope).unwrap();
                writes.add(began);
                let began = Instant::now();
                assert!(Envelope::parse(&written, bytes).is_ok());
                reads.add(began);
            }
            println!(
                "envelope {:>4} KiB {name:>8}: written in {:>8.1} µs, read in {:>7.1} µs, {:>6} bytes",
                bytes >> 10,
                writes.micros(0.5),
                reads.micros(0.5),
                written.len(),
            );
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(server) = Server::start() else {
        eprintln!("`redis-server` is missing: apt-get install redis-server");
        return ExitCode::FAILURE;
    };
    reads(&server).await;
    #[cfg(feature = "zstd")]
    compression();
    ExitCode::SUCCESS
}
