//! The `proxy` example between a client and an origin whose responses a test writes by hand.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, List, ListEntry, Parameters, Parser};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::program::Proxy;

/// One response of the origin. Its fields are lines of text, in which `{60}` is the date a minute
/// from now and `{-60}` the one a minute ago. `x-answer` has the number of the response, and so does
/// the body if there is no other.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    fields: String,
    body: Option<String>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// With as much of a body as the head says.
    Whole,
    /// Where the connection ends: the head says nothing of a length.
    AtClose,
    /// Before the body has come to its end.
    Cut,
    /// Before the body has begun.
    Nothing,
}

pub(crate) fn ok(fields: &str) -> Reply {
    status(200, fields)
}

pub(crate) fn status(status: u16, fields: &str) -> Reply {
    Reply { status, fields: fields.to_owned(), body: None, ending: Ending::Whole }
}

/// The connection is closed instead.
pub(crate) fn closed() -> Reply {
    Reply { ending: Ending::Nothing, ..ok("") }
}

impl Reply {
    pub(crate) fn body(self, body: &str) -> Self {
        Self { body: Some(body.to_owned()), ..self }
    }

    pub(crate) fn until_close(self) -> Self {
        Self { ending: Ending::AtClose, ..self }
    }

    pub(crate) fn cut(self) -> Self {
        Self { ending: Ending::Cut, ..self }
    }

    fn to_text(&self, method: &str, number: usize) -> String {
        let number = number.to_string();
        let body = self.body.as_deref().unwrap_or(&number);
        let fields = lines(&self.fields);
        let has = |name: &str| fields.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
        let length = body.len() + usize::from(self.ending == Ending::Cut);
        let mut text = format!("HTTP/1.1 {} x\r\n", self.status);
        for (name, value) in &fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("x-answer: {number}\r\n"));
        let has_body = !matches!(self.status, 204 | 304);
        if has_body && self.ending != Ending::AtClose && !has("transfer-encoding") && !has("content-length") {
            text.push_str(&format!("content-length: {length}\r\n"));
        }
        text.push_str("connection: close\r\n\r\n");
        if has_body && method != "HEAD" {
            text.push_str(body);
        }
        text
    }
}

/// A request as the origin saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) headers: HeaderMap,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

#[derive(Debug)]
struct Script {
    replies: Vec<Reply>,
    seen: Vec<Seen>,
}

type Scripts = Arc<Mutex<HashMap<String, Script>>>;

/// Proxy, origin and client.
pub(crate) struct Bench {
    pub(crate) proxy: Proxy,
    client: reqwest::Client,
    scripts: Scripts,
    pages: AtomicU32,
    _origin: JoinSet<()>,
}

impl Bench {
    /// With the defaults of the proxy, except for no retries and for heuristic lifetimes.
    pub(crate) async fn start() -> Self {
        let scripts = Scripts::default();
        let mut origin = JoinSet::new();
        let addr = listen(&mut origin, Arc::clone(&scripts)).await;
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self {
            proxy: Proxy::start(addr, &["--retries", "0", "--heuristic-freshness"]).await,
            client: client.build().unwrap(),
            scripts,
            pages: AtomicU32::new(0),
            _origin: origin,
        }
    }

    /// A new URI, for which the origin gives these responses in turn, and then the last one again.
    pub(crate) fn page(&self, replies: &[Reply]) -> Page<'_> {
        let path = format!("/{}", self.pages.fetch_add(1, Ordering::Relaxed));
        let script = Script { replies: replies.to_vec(), seen: Vec::new() };
        self.scripts.lock().unwrap().insert(path.clone(), script);
        Page { bench: self, path }
    }
}

async fn listen(tasks: &mut JoinSet<()>, scripts: Scripts) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(converse(stream, Arc::clone(&scripts)));
            while connections.try_join_next().is_some() {}
        }
    });
    addr
}

/// One request a connection.
async fn converse(mut stream: TcpStream, scripts: Scripts) {
    let Some((path, seen)) = read_request(&mut stream).await else { return };
    let method = seen.method.clone();
    let (reply, number) = {
        let mut scripts = scripts.lock().unwrap();
        let Some(script) = scripts.get_mut(&path) else { return };
        script.seen.push(seen);
        let number = script.seen.len();
        (script.replies[number.min(script.replies.len()) - 1].clone(), number)
    };
    if reply.ending != Ending::Nothing {
        _ = stream.write_all(reply.to_text(&method, number).as_bytes()).await;
        _ = stream.shutdown().await;
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, Seen)> {
    let mut text = Vec::new();
    let end = loop {
        if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        (stream.read_buf(&mut text).await.ok()? > 0).then_some(())?;
    };
    let head = String::from_utf8(text[..end].to_vec()).ok()?;
    let (first, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
    let mut first = first.split(' ');
    let seen = Seen { method: first.next()?.to_owned(), headers: headers(&lines(fields)) };
    let length = seen.field("content-length").map_or(0, |length| length.parse().unwrap());
    while text.len() < end + 4 + length {
        (stream.read_buf(&mut text).await.ok()? > 0).then_some(())?;
    }
    Some((first.next()?.to_owned(), seen))
}

/// The fields of a text, with its dates filled in.
fn lines(text: &str) -> Vec<(String, String)> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.trim().to_owned(), with_dates(value.trim()))).collect()
}

fn headers(fields: &[(String, String)]) -> HeaderMap {
    let parsed = fields
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()));
    parsed.collect()
}

fn with_dates(value: &str) -> String {
    let seconds = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    seconds.map_or_else(|| value.to_owned(), |seconds| date(seconds.parse().unwrap()))
}

/// The date in so many seconds.
fn date(seconds: i64) -> String {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    httpdate::fmt_http_date(if seconds < 0 { now - distance } else { now + distance })
}

/// A URI that one case has for itself.
pub(crate) struct Page<'a> {
    bench: &'a Bench,
    pub(crate) path: String,
}

impl Page<'_> {
    pub(crate) async fn get(&self, fields: &str) -> Got {
        self.send("GET", fields).await
    }

    pub(crate) async fn send(&self, method: &str, fields: &str) -> Got {
        let method = method.parse::<http::Method>().unwrap();
        let request = self.bench.client.request(method, self.bench.proxy.url(&self.path));
        let Ok(response) = request.headers(headers(&lines(fields))).send().await else {
            return Got { status: 0, headers: HeaderMap::new(), body: None };
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.ok();
        let body = body.map(|body| String::from_utf8(body.to_vec()).unwrap());
        Got { status, headers, body }
    }

    /// The requests that the origin saw.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.bench.scripts.lock().unwrap()[&self.path].seen.clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen().len()
    }
}

/// The response that a client got.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// 0 if the connection was closed before there was one.
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// None if it broke off.
    pub(crate) body: Option<String>,
}

impl Got {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    pub(crate) fn age(&self) -> u64 {
        self.field("age").expect("an age").parse().unwrap()
    }

    /// The number of the response of the origin.
    pub(crate) fn answer(&self) -> Option<&str> {
        self.field("x-answer")
    }

    /// Status and body.
    pub(crate) fn text(&self) -> (u16, &str) {
        (self.status, self.body.as_deref().expect("a whole body"))
    }

    /// The parameters of our member of `Cache-Status`, which is the last one (RFC 9211 §2).
    pub(crate) fn cache_status(&self) -> Parameters {
        let joined = self.fields("cache-status").join(", ");
        let members: List = Parser::new(&joined).parse().expect("a list (RFC 9211 §2)");
        match members.into_iter().next_back() {
            Some(ListEntry::Item(item)) => {
                let name = item.bare_item.as_token().map(|name| name.as_str());
                assert_eq!(name, Some("tower-readthrough"), "{joined}");
                item.params
            }
            other => panic!("no member of ours: {other:?}"),
        }
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.parameter("hit") == Some(BareItem::Boolean(true))
    }

    /// Why it was forwarded.
    pub(crate) fn forwarded(&self) -> Option<String> {
        self.parameter("fwd")?.as_token().map(|why| why.as_str().to_owned())
    }

    fn parameter(&self, name: &str) -> Option<BareItem> {
        self.cache_status().get(name).cloned()
    }
}
