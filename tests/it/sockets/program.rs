//! The `proxy` example as a program under test.

use std::{net::SocketAddr, path::PathBuf, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// The program under test; killed when dropped.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) child: Child,
}

pub(crate) fn command(origin: SocketAddr, args: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let target: PathBuf = test.ancestors().nth(2).unwrap().into();
    let program = target.join("examples").join(format!("proxy{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "run `cargo build --example proxy` first");
    let mut command = Command::new(program);
    command.args(["--listen", "127.0.0.1:0", "--origin", &format!("http://{origin}")]).args(args);
    command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Proxy {
    pub(crate) async fn start(origin: SocketAddr, args: &[&str]) -> Self {
        let mut child = command(origin, args).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
        let addr = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { addr, child }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(self.url(path)).await.unwrap()
    }
}

pub(crate) fn cache_status(response: &reqwest::Response) -> &str {
    response.headers().get("cache-status").map_or("", |status| status.to_str().unwrap())
}
