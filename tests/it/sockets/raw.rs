//! An origin and a client that speak HTTP/1 byte by byte.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// A request that arrived at the origin.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    /// The number of its connection, from 0 on.
    pub(crate) connection: usize,
    /// Its number on that connection, from 0 on.
    pub(crate) place: usize,
    /// In lower case.
    pub(crate) head: String,
    /// As it was transferred, chunks and trailers included.
    pub(crate) body: String,
}

impl Arrived {
    /// The method and the path, in lower case.
    pub(crate) fn line(&self) -> &str {
        self.head.split(" http/").next().unwrap()
    }

    pub(crate) fn has_field(&self, name: &str) -> bool {
        self.head.contains(&format!("\r\n{name}:"))
    }
}

/// Responds to each request with these bytes, or closes the connection instead.
pub(crate) struct RawOrigin {
    pub(crate) addr: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl RawOrigin {
    pub(crate) async fn start(script: impl Fn(&Arrived) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (arrived, script) = (Arc::<Mutex<Vec<Arrived>>>::default(), Arc::new(script));
        let (log, count) = (Arc::clone(&arrived), AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = count.fetch_add(1, Ordering::SeqCst);
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    for place in 0.. {
                        let Ok((head, body)) = read_message(&mut stream).await else { return };
                        let request = Arrived { connection, place, head, body };
                        log.lock().unwrap().push(request.clone());
                        let Some(response) = script(&request) else { return };
                        stream.write_all(response.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Self { addr, arrived }
    }

    /// One that always sends the same.
    pub(crate) async fn always(response: impl Into<String>) -> Self {
        let response = response.into();
        Self::start(move |_| Some(response.clone())).await
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Arrived {
        self.arrived().pop().unwrap()
    }
}

async fn read_message(stream: &mut BufReader<TcpStream>) -> io::Result<(String, String)> {
    let head = read_until(stream, "\r\n\r\n").await?.to_ascii_lowercase();
    let body = if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        // Of a last chunk that nothing but trailers follows.
        let chunks = read_until(stream, "0\r\n").await?;
        chunks + &read_until(stream, "\r\n").await?
    } else {
        let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await?;
        String::from_utf8(body).unwrap()
    };
    Ok((head, body))
}

async fn read_until(stream: &mut BufReader<TcpStream>, end: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        bytes.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(bytes).unwrap())
}

/// Sends these bytes on a connection of their own and returns everything that comes back.
pub(crate) async fn exchange(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    _ = stream.read_to_end(&mut response).await;
    String::from_utf8(response).unwrap()
}
