//! The `client` example as a program: it answers while its API is down, also right after its start.

#[path = "../cluster/port.rs"]
mod port;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::Uri, response::IntoResponse, routing::get};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
    time::sleep,
};
use tower_readthrough::{
    MemoryStore,
    store::{SnapshotFile, SnapshotFileError},
};

use self::port::own_port;

/// An API that counts its requests; gone when it is dropped.
struct Api {
    addr: SocketAddr,
    calls: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Api {
    async fn start(addr: SocketAddr) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let answer = async |State(calls): State<Arc<AtomicUsize>>, uri: Uri| {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            ([("cache-control", "max-age=3600")], format!("{} {call}", uri.path())).into_response()
        };
        let app = Router::new().fallback(get(answer)).with_state(Arc::clone(&calls));
        let listener = TcpListener::bind(addr).await.unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { addr, calls, server }
    }

    async fn stop(self) -> SocketAddr {
        self.server.abort();
        _ = self.server.await;
        self.addr
    }
}

struct Program {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(api: SocketAddr, file: &Path) -> Self {
        let test = std::env::current_exe().unwrap();
        let target: PathBuf = test.ancestors().nth(2).unwrap().into();
        let program = target.join("examples").join("client");
        assert!(program.exists(), "run `cargo build --all-features --example client` first");
        let mut command = Command::new(program);
        command.args(["--api", &format!("http://{api}"), "--snapshot"]).arg(file);
        command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, answers }
    }

    async fn ask(&mut self, path: &str) -> String {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{path}\n").as_bytes()).await.unwrap();
        self.answers.next_line().await.unwrap().expect("an answer")
    }

    async fn signal(mut self, signal: &str) -> ExitStatus {
        self.send(signal).await;
        self.child.wait().await.unwrap()
    }

    async fn send(&self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    }
}

struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("trt-client-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory.join("cache"))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

fn own_addr() -> SocketAddr {
    ([127, 0, 0, 1], own_port()).into()
}

#[tokio::test]
async fn it_answers_right_after_its_start_while_the_api_is_down() {
    let file = File::new("down");
    let api = Api::start(own_addr()).await;
    let mut program = Program::start(api.addr, &file.0);
    assert_eq!(program.ask("/a").await, "200 fwd=uri-miss; stored /a 1");
    assert_eq!(program.ask("/a").await, "200 hit /a 1");
    assert!(program.signal("-TERM").await.success());

    let addr = api.stop().await;
    let mut program = Program::start(addr, &file.0);
    for _ in 0..2 {
        let answer = program.ask("/a").await;
        assert!(answer.starts_with("200 ") && answer.ends_with(" /a 1"), "{answer}");
    }
    assert!(program.ask("/b").await.starts_with("error "), "nothing is made up");

    // When the API is back, its word counts.
    assert!(!program.signal("-KILL").await.success());
    let api = Api::start(addr).await;
    let mut program = Program::start(addr, &file.0);
    assert!(program.ask("/a").await.ends_with(" /a 1"), "asked, and this is its first answer");
    assert_eq!(api.calls.load(Ordering::SeqCst), 1, "what was loaded is not used without its word");
}

/// Whenever it is told: here while the file is opened, which a pipe delays until its other end is opened too.
#[tokio::test]
async fn it_writes_the_file_when_it_is_told_to_end_before_its_first_answer() {
    let file = File::new("early");
    assert!(Command::new("mkfifo").arg(&file.0).status().await.unwrap().success());
    let mut program = Program::start(own_addr(), &file.0);
    while !file.0.with_extension("lock").exists() {
        assert_eq!(program.child.try_wait().unwrap(), None, "it goes on");
        sleep(Duration::from_millis(1)).await;
    }
    program.send("-TERM").await;
    let _other_end = std::fs::OpenOptions::new().read(true).write(true).open(&file.0).unwrap();
    let ended = program.child.wait().await.unwrap();
    assert!(ended.success(), "{ended}");
    assert!(file.0.is_file(), "written in place of the pipe");
}

/// The file of a process that was killed is what the last write made of it.
#[tokio::test]
async fn a_kill_loses_no_more_than_what_came_after_the_last_write() {
    let file = File::new("kill");
    let api = Api::start(own_addr()).await;
    let mut program = Program::start(api.addr, &file.0);
    program.ask("/a").await;
    assert!(program.signal("-TERM").await.success());
    let mut program = Program::start(api.addr, &file.0);
    program.ask("/b").await;
    assert!(!program.signal("-KILL").await.success());

    let addr = api.stop().await;
    let mut program = Program::start(addr, &file.0);
    assert!(program.ask("/a").await.ends_with(" /a 1"), "and the lock of the killed one is no obstacle");
    assert!(program.ask("/b").await.starts_with("error "));
}

/// Neither by a second program nor by one that may begin while the first one ends.
#[tokio::test]
async fn two_living_processes_never_write_one_file() {
    let file = File::new("two");
    let api = Api::start(own_addr()).await;
    let mut program = Program::start(api.addr, &file.0);
    program.ask("/a").await;
    let second = Program::start(api.addr, &file.0).child.wait_with_output().await.unwrap();
    assert_eq!((second.status.code(), second.stdout), (Some(1), Vec::new()));

    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    let namespace = format!("http://{}/", api.addr);
    let next = SnapshotFile::builder(store, &file.0).namespace(namespace).overlapping(true).open().unwrap();
    assert!(matches!(next.write().await, Err(SnapshotFileError::InUse(_))));
    assert!(program.signal("-TERM").await.success());
    assert_eq!(next.write().await.unwrap().responses, 0, "it was opened before the first one has written");
}
