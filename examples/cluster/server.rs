//! A `redis-server` on a free port, which keeps nothing on disk.

use std::{
    io,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

/// Killed when it is dropped.
pub(crate) struct Server {
    port: u16,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Self { port, child: None };
        server.restart()?;
        Ok(server)
    }

    pub(crate) fn restart(&mut self) -> io::Result<()> {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--save", "", "--appendonly", "no"]);
        let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let missing = |error| io::Error::other(format!("`redis-server` cannot be started: {error}"));
        self.child = Some(started.map_err(missing)?);
        Ok(())
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
