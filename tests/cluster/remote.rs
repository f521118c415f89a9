//! What a second tier keeps, on a real server.

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::{join, join_all};
use tokio::time::{Instant, timeout};
use tower_readthrough::{
    MemoryStore, ReadThroughLayer,
    cluster::Cluster,
    remote::{RedisRemote, RedisRemoteError, Remote, RemoteError},
};

use super::{
    fake::{self, Fake, Saying},
    link::{Fault, Link},
    node::{LIMIT, until},
    server::{Server, server},
    support::secs,
};

const HOUR: Duration = secs(3600);

/// With time enough where time is not what is tested.
fn open(url: &str) -> RedisRemote {
    RedisRemote::builder(url).namespace("test").read_timeout(secs(10)).write_timeout(secs(10)).open().unwrap()
}

/// That does not wait for long.
fn open_brief(url: &str) -> RedisRemote {
    let brief = Duration::from_millis(50);
    RedisRemote::builder(url).namespace("test").read_timeout(brief).write_timeout(brief).open().unwrap()
}

async fn connected(remote: &RedisRemote) {
    until("connected", || remote.status().is_connected).await;
}

async fn read(remote: &RedisRemote, key: &str) -> Option<Bytes> {
    remote.read(&[key.as_bytes()]).await.unwrap().values.into_iter().next().unwrap()
}

async fn write(remote: &RedisRemote, key: &str, value: impl Into<Bytes>) {
    remote.write(key.as_bytes(), value.into(), HOUR).await.unwrap();
}

/// Until a value that is written is read.
async fn works(remote: &RedisRemote) {
    let attempt = || async {
        let written = remote.write(b"works", "yes".into(), HOUR).await;
        written.is_ok() && remote.read(&[b"works"]).await.is_ok_and(|read| read.values[0].is_some())
    };
    eventually("it works again", attempt).await;
}

pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

/// How each call fails.
async fn failures(remote: &RedisRemote) -> [RemoteError; 5] {
    [
        remote.read(&[b"k"]).await.unwrap_err(),
        remote.write(b"k", "v".into(), HOUR).await.unwrap_err(),
        remote.forget(b"k").await.unwrap_err(),
        remote.lease(b"k", 1, HOUR).await.unwrap_err(),
        remote.release(b"k", 1).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn what_was_written_is_read_at_any_size() {
    let Some(server) = server().await else { return };
    let remote = open(&server.url());
    connected(&remote).await;
    for length in [0, 1, 1 << 10, 600 << 10, 4 << 20] {
        let value: Bytes = (0..length).map(|at: usize| (at % 251) as u8).collect();
        remote.write(b"k", value.clone(), HOUR).await.unwrap();
        let read = remote.read(&[b"none", b"k", b"none"]).await.unwrap();
        assert_eq!(read.values, [None, Some(value), None], "{length}");
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        assert!(here.abs_diff(u128::from(read.now_ms)) < 30_000, "{here} {}", read.now_ms);
    }
    // Keys may be any bytes.
    let key = [0, 0xff, b'\r', b'\n', b'{', b'}'];
    remote.write(&key, "odd".into(), HOUR).await.unwrap();
    assert_eq!(remote.read(&[&key]).await.unwrap().values, [Some("odd".into())]);
    assert!(remote.read(&[]).await.unwrap().values.is_empty());
    assert_eq!(remote.status().connections, 1);
}

#[tokio::test]
async fn a_value_ends_with_its_lifetime_or_when_it_is_forgotten() {
    let Some(server) = server().await else { return };
    let remote = open(&server.url());
    connected(&remote).await;
    for (lifetime, at_most) in [(secs(60), 60_000), (Duration::MAX, 315_360_000_000)] {
        remote.write(b"k", "v".into(), lifetime).await.unwrap();
        let redis::Value::Int(left) = server.command(&["PTTL", "test:1:k"]).await.unwrap() else { panic!() };
        assert!((at_most - 30_000..=at_most).contains(&left), "{left}");
    }
    remote.write(b"short", "v".into(), Duration::ZERO).await.unwrap();
    eventually("it ends", || async { read(&remote, "short").await.is_none() }).await;
    assert_eq!(read(&remote, "k").await.unwrap(), "v");
    remote.forget(b"k").await.unwrap();
    remote.forget(b"never there").await.unwrap();
    assert_eq!(read(&remote, "k").await, None);
}

#[tokio::test]
async fn a_lease_is_for_one_and_only_its_token_releases_it() {
    let Some(server) = server().await else { return };
    let [one, other] = [open(&server.url()), open(&server.url())];
    connected(&one).await;
    connected(&other).await;
    assert!(one.lease(b"l", u64::MAX, HOUR).await.unwrap());
    assert!(!other.lease(b"l", 2, HOUR).await.unwrap());
    other.release(b"l", 2).await.unwrap();
    assert!(!other.lease(b"l", 2, HOUR).await.unwrap(), "it was not the lease of the other");
    one.release(b"l", u64::MAX).await.unwrap();
    assert!(other.lease(b"l", 2, Duration::ZERO).await.unwrap());
    eventually("it lapses", || async { one.lease(b"l", 1, HOUR).await.unwrap() }).await;
    // Late, and without harm.
    other.release(b"l", 2).await.unwrap();
    assert!(!other.lease(b"l", 2, HOUR).await.unwrap());
}

#[tokio::test]
async fn namespaces_share_nothing_and_keys_no_hash_tag() {
    let Some(server) = server().await else { return };
    let [one, other] = ["one", "other"].map(|name| {
        RedisRemote::builder(server.url()).namespace(name).read_timeout(secs(10)).open().unwrap()
    });
    connected(&one).await;
    connected(&other).await;
    write(&one, "k", "v").await;
    assert_eq!(read(&other, "k").await, None);
    other.forget(b"k").await.unwrap();
    assert!(other.lease(b"k", 1, HOUR).await.unwrap());
    assert_eq!(read(&one, "k").await.unwrap(), "v");
    let redis::Value::Array(keys) = server.command(&["KEYS", "*"]).await.unwrap() else { panic!() };
    let mut keys: Vec<String> = keys.into_iter().map(|key| redis::from_redis_value(key).unwrap()).collect();
    keys.sort();
    assert_eq!(keys, ["one:1:k", "other:1:k"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_is_reached_over_a_local_socket() {
    let Some(server) = server().await else { return };
    let path = std::env::temp_dir().join(format!("trt-remote-{}.sock", std::process::id()));
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let port = server.port();
    let proxy = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    });
    let remote = open(&format!("redis+unix://{}", path.display()));
    connected(&remote).await;
    write(&remote, "k", "v").await;
    assert_eq!(read(&remote, "k").await.unwrap(), "v");
    proxy.abort();
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn many_calls_at_once_are_all_answered() {
    let Some(server) = server().await else { return };
    let remote = open(&server.url());
    connected(&remote).await;
    let calls = (0..500).map(|n| {
        let remote = remote.clone();
        async move {
            let key = format!("k{n}");
            write(&remote, &key, key.clone()).await;
            assert_eq!(read(&remote, &key).await.unwrap(), key);
        }
    });
    join_all(calls).await;
    assert_eq!(remote.status().connections, 1);
}

/// Nothing tells of it but timeouts.
#[tokio::test]
async fn a_server_that_stops_fails_calls_in_their_time_and_heals() {
    let Some(server) = server().await else { return };
    let remote = open_brief(&server.url());
    works(&remote).await;
    for _ in 0..2 {
        let connections = remote.status().connections;
        server.signal("-STOP");
        let mut timeouts = 0;
        while remote.status().is_connected {
            let error = remote.read(&[b"k"]).await.unwrap_err();
            assert!(matches!(error, RemoteError::Timeout(limit) if limit.as_millis() == 50), "{error}");
            timeouts += 1;
        }
        assert_eq!(timeouts, 3);
        for error in failures(&remote).await {
            assert_eq!(error.to_string(), "no connection: 3 timeouts in a row");
        }
        server.signal("-CONT");
        works(&remote).await;
        assert!(remote.status().connections > connections);
    }
}

#[tokio::test]
async fn a_server_that_is_killed_is_noticed_without_a_call_and_used_again_when_it_is_back() {
    let Some(mut server) = server().await else { return };
    let remote = open(&server.url());
    connected(&remote).await;
    write(&remote, "k", "v").await;
    for _ in 0..2 {
        server.kill();
        until("noticed", || !remote.status().is_connected).await;
        for error in failures(&remote).await {
            assert!(matches!(&error, RemoteError::Failed(_)), "{error}");
        }
        until("refused", || remote.status().last_error.is_some_and(|error| error.contains("refused"))).await;
        server.start().await;
        connected(&remote).await;
        assert_eq!((read(&remote, "k").await, remote.status().last_error), (None, None));
        write(&remote, "k", "v").await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for_in_the_background() {
    if server().await.is_none() {
        return;
    }
    let mut server = Server::absent();
    let remote = open(&server.url());
    for error in failures(&remote).await {
        assert!(error.to_string().starts_with("no connection: "), "{error}");
    }
    server.start().await;
    connected(&remote).await;
    write(&remote, "k", "v").await;
}

#[tokio::test]
async fn a_network_that_fails_in_any_way_fails_calls_and_heals() {
    let Some(server) = server().await else { return };
    let link = Link::to(server.port()).await;
    let remote = open_brief(&link.url());
    for fault in [Fault::Cut, Fault::Hole, Fault::Half, Fault::Garbage] {
        works(&remote).await;
        let connections = remote.status().connections;
        link.set(fault);
        for _ in 0..3 {
            failures(&remote).await;
        }
        until("lost", || !remote.status().is_connected).await;
        link.set(Fault::None);
        works(&remote).await;
        assert!(remote.status().connections > connections, "{fault:?}");
    }
}

/// Each call has its own time, and what comes late answers no other call.
#[tokio::test]
async fn slow_answers_fail_calls_in_their_time_and_are_not_mixed_up() {
    let slow = Saying { delay: Duration::from_millis(200), ..Saying::GOOD };
    let fake = Fake::start(Saying::GOOD).await;
    let remote = RedisRemote::builder(fake.url()).write_timeout(secs(10)).open().unwrap();
    connected(&remote).await;
    fake.say(slow);
    let error = remote.read(&[b"k"]).await.unwrap_err();
    assert!(matches!(error, RemoteError::Timeout(limit) if limit.as_millis() == 50), "{error}");
    // On the same connection, behind what is still to come.
    remote.write(b"k", "v".into(), HOUR).await.unwrap();
    assert_eq!(remote.status().connections, 1);
    fake.say(Saying::GOOD);
    eventually("it reads again", || async { remote.read(&[b"k"]).await.is_ok() }).await;
}

/// From there on answers may reach the wrong calls.
#[tokio::test]
async fn all_calls_fail_with_an_answer_that_is_none() {
    let fake = Fake::start(Saying::GOOD).await;
    let remote = open(&fake.url());
    connected(&remote).await;
    let other = b"*2\r\n$1\r\na\r\n$1\r\nb\r\n";
    fake.say(Saying { other, delay: Duration::from_millis(100), ..Saying::GOOD });
    let (read, written) = join(remote.read(&[b"k"]), remote.write(b"k", "v".into(), HOUR)).await;
    for error in [read.unwrap_err(), written.unwrap_err()] {
        assert!(matches!(error, RemoteError::Failed(_)), "{error}");
    }
    fake.say(Saying::GOOD);
    eventually("it reads again", || async { remote.read(&[b"k"]).await.is_ok() }).await;
    assert_eq!(remote.status().connections, 2);
}

/// Three reads take the connection for dead, behind a large value that is still on its way.
#[tokio::test]
async fn a_write_has_its_time_on_a_connection_that_reads_have_left() {
    let fake = Fake::start(Saying::GOOD).await;
    let remote = RedisRemote::builder(fake.url()).write_timeout(HOUR).open().unwrap();
    connected(&remote).await;
    fake.say(Saying { delay: Duration::from_secs(1), ..Saying::GOOD });
    let writing = remote.clone();
    let written = tokio::spawn(async move { writing.write(b"k", "v".into(), HOUR).await });
    for _ in 0..3 {
        remote.read(&[b"k"]).await.unwrap_err();
    }
    // What it says to those that come now.
    fake.say(Saying::GOOD);
    until("connected anew", || remote.status().connections == 2).await;
    timeout(LIMIT, written).await.unwrap().unwrap().unwrap();
}

/// It takes connections, introduces itself, and answers nothing.
#[tokio::test]
async fn a_server_that_never_answers_is_asked_less_and_less() {
    let fake = Fake::start(Saying { other: b"", closes: true, ..Saying::GOOD }).await;
    let remote = open(&fake.url());
    let began = Instant::now();
    for _ in 0..5 {
        connected(&remote).await;
        remote.read(&[b"k"]).await.unwrap_err();
        until("noticed", || !remote.status().is_connected).await;
    }
    connected(&remote).await;
    // At least half of each pause. Five times the first one would be half a second at most.
    assert!(began.elapsed() >= Duration::from_millis(50 + 100 + 200 + 400 + 800), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_that_is_none_fails_the_call_and_is_survived() {
    let fake = Fake::start(Saying::GOOD).await;
    let remote = open_brief(&fake.url());
    let good = || async { remote.read(&[b"k", b"l"]).await.is_ok() };
    let half = b"$100\r\nhalf of".as_slice();
    let one = b"$1\r\na\r\n".as_slice();
    // And whether the connection is kept, where it does not depend on what the library makes of it.
    for (other, time, closes, is_kept) in [
        (half, fake::TIME, true, None),
        (half, fake::TIME, false, None),
        (b"", fake::TIME, true, None),
        (b"\xff\xfe", fake::TIME, false, None),
        (b"$99999999999999\r\nx", fake::TIME, false, None),
        (b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", fake::TIME, false, Some(false)),
        (b"%1\r\n+a\r\n+b\r\n", fake::TIME, false, Some(false)),
        (b"-LOADING it is\r\n", fake::TIME, false, Some(true)),
        (b"-MOVED 1 127.0.0.1:1\r\n", fake::TIME, false, Some(true)),
        (b"-NOPERM no\r\n", fake::TIME, false, Some(true)),
        (one, b"$-1\r\n", false, Some(false)),
        (one, b"*1\r\n:1\r\n", false, Some(false)),
        (one, b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n", false, Some(false)),
        (one, b"-ERR no time\r\n", false, Some(true)),
    ] {
        fake.say(Saying::GOOD);
        eventually("it works", good).await;
        let connections = remote.status().connections;
        fake.say(Saying { other, time, closes, ..Saying::GOOD });
        let (answered, said) = (remote.read(&[b"k", b"l"]).await, String::from_utf8_lossy(other));
        assert!(answered.is_err(), "{said:?} {answered:?}");
        let Some(is_kept) = is_kept else { continue };
        fake.say(Saying::GOOD);
        eventually("it works", good).await;
        assert_eq!(remote.status().connections == connections, is_kept, "{said:?} {answered:?}");
    }
    fake.say(Saying::GOOD);
    eventually("it works", good).await;
    assert_eq!(remote.read(&[b"k"]).await.unwrap().now_ms, 1_700_000_000_123);
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_in_one_line() {
    let fake = Fake::start(Saying { version: "6.2.14", ..Saying::GOOD }).await;
    let remote = open(&fake.url());
    let refused = "Redis 6.2.14 is too old: Redis 7.0 or Valkey 7.2 is needed";
    until("refused", || remote.status().last_error.is_some_and(|error| error == refused)).await;
    for error in failures(&remote).await {
        assert_eq!(error.to_string(), format!("no connection: {refused}"));
    }
    assert_eq!(remote.status().connections, 0);
    // It was replaced.
    fake.say(Saying::GOOD);
    connected(&remote).await;
}

#[tokio::test]
async fn what_is_gone_or_of_another_type_is_not_there() {
    let Some(server) = server().await else { return };
    let remote = open(&server.url());
    connected(&remote).await;
    write(&remote, "k", "v").await;
    server.command(&["FLUSHALL"]).await.unwrap();
    assert_eq!(read(&remote, "k").await, None);
    write(&remote, "k", "v").await;
    server.command(&["LPUSH", "test:1:list", "x"]).await.unwrap();
    let values = remote.read(&[b"list", b"k"]).await.unwrap().values;
    assert_eq!(values, [None, Some("v".into())]);
    assert!(!remote.lease(b"list", 1, HOUR).await.unwrap());
    assert!(remote.release(b"list", 1).await.is_err());
    write(&remote, "list", "no more").await;
    assert_eq!(read(&remote, "list").await.unwrap(), "no more");
    assert_eq!(remote.status().connections, 1, "none of it ends the connection");
}

#[tokio::test]
async fn a_server_whose_memory_is_full_refuses_values_and_gives_what_it_has() {
    let Some(server) = server().await else { return };
    let remote = open(&server.url());
    connected(&remote).await;
    write(&remote, "k", "v").await;
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    let error = remote.write(b"l", "v".into(), HOUR).await.unwrap_err();
    assert!(error.to_string().starts_with("OOM "), "{error}");
    assert!(remote.lease(b"m", 1, HOUR).await.is_err());
    assert_eq!(read(&remote, "k").await.unwrap(), "v");
    remote.forget(b"k").await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    write(&remote, "l", "v").await;
    assert_eq!(remote.status().connections, 1, "none of it ends the connection");
}

#[tokio::test]
async fn a_server_that_asks_for_a_password_is_used_with_the_right_one() {
    let Some(server) = server().await else { return };
    server.command(&["CONFIG", "SET", "requirepass", "secret"]).await.unwrap();
    for (user, error) in [("", "NOAUTH"), (":wrong@", "authentication"), ("nobody:secret@", "authentication")]
    {
        let remote = open(&format!("redis://{user}127.0.0.1:{}/", server.port()));
        until("told", || remote.status().last_error.is_some()).await;
        let told = remote.status().last_error.unwrap();
        assert!(told.contains(error), "{user}: {told}");
        assert!(!told.contains("secret"), "{told}");
        assert!(!remote.status().is_connected);
    }
    let remote = open(&format!("redis://:secret@127.0.0.1:{}/3?protocol=resp3", server.port()));
    connected(&remote).await;
    write(&remote, "k", "v").await;
    assert_eq!(remote.read(&[b"k", b"none"]).await.unwrap().values, [Some("v".into()), None]);
    assert!(!remote.lease(b"k", 1, HOUR).await.unwrap());
}

/// The commands that the documentation names between these words.
fn documented(from: &str, to: &str) -> Vec<String> {
    let text = include_str!("../../src/several_nodes.rs");
    let (_, text) = text.split_once(from).unwrap();
    let (text, _) = text.split_once(to).unwrap();
    let words = text.split('`').skip(1).step_by(2).filter(|word| word.chars().all(char::is_uppercase));
    words.map(|command| format!("+{}", command.to_lowercase())).collect()
}

/// The account of a second tier, and that of a node.
#[tokio::test]
async fn accounts_need_no_more_than_the_documentation_names() {
    let Some(server) = server().await else { return };
    for (name, keys, commands) in [
        ("tier", "~test:1:*", documented("The account of a second tier", "names a database")),
        ("node", "~{test}:*", documented("What the account needs:", "With `CONFIG GET`")),
    ] {
        assert!(commands.len() > 5, "{commands:?}");
        let mut words = vec!["ACL", "SETUSER", name, "on", ">secret", "-@all", keys];
        words.extend(commands.iter().map(String::as_str));
        server.command(&words).await.unwrap();
    }
    let url = |name: &str| format!("redis://{name}:secret@127.0.0.1:{}/", server.port());
    let remote = open(&format!("{}3", url("tier")));
    connected(&remote).await;
    write(&remote, "k", "v").await;
    assert_eq!(read(&remote, "k").await.unwrap(), "v");
    remote.forget(b"k").await.unwrap();
    assert!(remote.lease(b"l", 7, HOUR).await.unwrap());
    remote.release(b"l", 7).await.unwrap();
    assert!(remote.lease(b"l", 8, HOUR).await.unwrap(), "it was given back");

    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).build().unwrap();
    let join =
        |name| Cluster::builder(url("node"), cache.purge()).namespace("test").node(name).open().unwrap();
    let cluster = join("n1");
    until("caught up", || cluster.status().is_caught_up).await;
    cache.purge().tag("red").applied_everywhere(LIMIT).await.unwrap();
    assert_eq!(cluster.status().last_error, None);
    cluster.leave().await;
    let said = server.command(&["HGET", "{test}:1:nodes", "n1"]).await.unwrap();
    let said: String = redis::from_redis_value(said).unwrap();
    assert!(said.starts_with("left "), "{said}");
}

#[tokio::test]
async fn the_connection_ends_with_the_last_handle() {
    let Some(server) = server().await else { return };
    let remote = open(&server.url());
    connected(&remote).await;
    let others = || async {
        let redis::Value::BulkString(list) = server.command(&["CLIENT", "LIST"]).await.unwrap() else {
            panic!()
        };
        // One asks.
        String::from_utf8(list).unwrap().lines().count() - 1
    };
    assert_eq!(others().await, 1);
    let clone = remote.clone();
    drop(remote);
    write(&clone, "k", "v").await;
    drop(clone);
    eventually("closed", || async { others().await == 0 }).await;
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let open = |url: &str| RedisRemote::builder(url).open().map(drop);
    assert!(matches!(open("http://127.0.0.1/"), Err(RedisRemoteError::Url(_))));
    for name in ["", "a b", "{a}", "a:1", &"x".repeat(65)] {
        let refused = RedisRemote::builder("redis://127.0.0.1:1/").namespace(name).open().map(drop);
        assert_eq!(refused, Err(RedisRemoteError::Namespace(name.to_owned())));
    }
    let builder = || RedisRemote::builder("redis://127.0.0.1:1/");
    let short = Duration::from_micros(999);
    let refused = |setting| Err(RedisRemoteError::Timeout { setting });
    assert_eq!(builder().read_timeout(short).open().map(drop), refused("read_timeout"));
    assert_eq!(builder().write_timeout(short).open().map(drop), refused("write_timeout"));
    let outside = std::thread::spawn(move || builder().open().map(drop));
    assert_eq!(outside.join().unwrap(), Err(RedisRemoteError::NoRuntime));
}
