//! A server that introduces itself, takes what it is given, and answers questions as it is told to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

/// What it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saying {
    pub(crate) version: &'static str,
    pub(crate) time: &'static [u8],
    /// To all but greetings and writes.
    pub(crate) other: &'static [u8],
    /// Before each.
    pub(crate) delay: Duration,
    /// Behind `other`.
    pub(crate) closes: bool,
}

pub(crate) const TIME: &[u8] = b"*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n";

/// A minute after [`TIME`].
pub(crate) const LATER: &[u8] = b"*2\r\n$10\r\n1700000060\r\n$6\r\n123456\r\n";

impl Saying {
    pub(crate) const GOOD: Self =
        Self { version: "7.0.15", time: TIME, other: b"$2\r\nok\r\n", delay: Duration::ZERO, closes: false };
}

/// What it was given by `HSET`, behind the name of the key, with the number of the connection.
type Told = Arc<Mutex<Vec<(usize, Vec<String>)>>>;

pub(crate) struct Fake {
    addr: SocketAddr,
    saying: Arc<Mutex<Saying>>,
    told: Told,
    accepting: JoinHandle<()>,
}

impl Fake {
    pub(crate) async fn start(saying: Saying) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, saying) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(saying)));
        let told = Told::default();
        let (known, noted) = (Arc::clone(&saying), Arc::clone(&told));
        let accepting = tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((socket, _)) = listener.accept().await {
                connection += 1;
                tokio::spawn(serve(socket, connection, Arc::clone(&known), Arc::clone(&noted)));
            }
        });
        Self { addr, saying, told, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}/", self.addr)
    }

    pub(crate) fn say(&self, saying: Saying) {
        *self.saying.lock() = saying;
    }

    pub(crate) fn told(&self) -> Vec<(usize, Vec<String>)> {
        self.told.lock().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(socket: TcpStream, connection: usize, saying: Arc<Mutex<Saying>>, told: Told) {
    let (from, mut to) = socket.into_split();
    let mut from = BufReader::new(from);
    while let Some(words) = command(&mut from).await {
        let name = words.first().map(|name| name.to_uppercase()).unwrap_or_default();
        if name == "HSET" {
            told.lock().push((connection, words[2..].to_vec()));
        }
        let saying = *saying.lock();
        let info = format!("redis_version:{}\r\nrun_id:fake\r\n", saying.version);
        let (answer, ends): (Vec<u8>, bool) = match &*name {
            "CLIENT" => (b"+OK\r\n".to_vec(), false),
            "INFO" => (format!("${}\r\n{info}\r\n", info.len()).into_bytes(), false),
            "TIME" => (saying.time.to_vec(), false),
            "SET" => (b"+OK\r\n".to_vec(), false),
            _ => (saying.other.to_vec(), saying.closes),
        };
        if !matches!(&*name, "CLIENT" | "INFO") {
            sleep(saying.delay).await;
        }
        if to.write_all(&answer).await.is_err() || ends {
            return;
        }
    }
}

/// The words of the next command.
async fn command(from: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Vec<String>> {
    let mut words = Vec::new();
    for _ in 0..number(from, "*").await? {
        let mut word = vec![0; number(from, "$").await? + 2];
        from.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Some(words)
}

async fn number(from: &mut (impl AsyncBufReadExt + Unpin), sign: &str) -> Option<usize> {
    let mut line = String::new();
    from.read_line(&mut line).await.ok()?;
    line.strip_prefix(sign)?.trim_end().parse().ok()
}
