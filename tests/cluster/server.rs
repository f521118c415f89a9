//! A `redis-server` of its own for a test, on a free port and with a directory of its own.

#[path = "port.rs"]
pub(crate) mod port;
#[path = "signal.rs"]
pub(crate) mod signal;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::sleep;

use self::port::own_port;

/// Killed when it is dropped.
pub(crate) struct Server {
    port: u16,
    directory: PathBuf,
    options: Vec<String>,
    child: Option<Child>,
}

/// A server, or a line that says why the test is skipped. `READTHROUGH_REQUIRE_TOOLS=1` makes that a failure.
pub(crate) async fn server() -> Option<Server> {
    server_with(&[]).await
}

/// The same, with further options.
pub(crate) async fn server_with(options: &[&str]) -> Option<Server> {
    let is_there = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    if is_there {
        let mut server = Server::absent();
        server.options = options.iter().map(|option| (*option).to_owned()).collect();
        server.start().await;
        return Some(server);
    }
    let is_required = std::env::var("READTHROUGH_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
    assert!(!is_required, "`redis-server` is missing: apt-get install redis-server");
    eprintln!("skipped: `redis-server` is missing (apt-get install redis-server)");
    None
}

impl Server {
    /// One that is not started yet.
    pub(crate) fn absent() -> Self {
        let port = own_port();
        let directory = std::env::temp_dir().join(format!("trt-redis-{}-{port}", std::process::id()));
        Self { port, directory, options: Vec::new(), child: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// With what it has saved, if anything.
    pub(crate) async fn start(&mut self) {
        fs::create_dir_all(&self.directory).unwrap();
        let (port, directory) = (self.port.to_string(), self.directory.to_str().unwrap());
        let args =
            ["--port", &port, "--dir", directory, "--save", "", "--appendonly", "no", "--daemonize", "no"];
        let mut command = Command::new("redis-server");
        command.args(args).args(&self.options);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        while self.command(&["PING"]).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// As SIGSTOP: it takes connections, and answers nothing.
    pub(crate) fn signal(&self, signal: &str) {
        signal::send(signal, self.child.as_ref().unwrap().id());
    }

    pub(crate) async fn command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut link = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| _ = command.arg(*word));
        command.query_async(&mut link).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        _ = fs::remove_dir_all(&self.directory);
    }
}
