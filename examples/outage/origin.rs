//! An origin that can be killed, and started again at its address.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, extract::Path, http::header::CACHE_CONTROL, response::IntoResponse, routing::get};
use tokio::{net::TcpListener, task::JoinSet};

/// How long it takes to make a page.
const PAGE_TIME: Duration = Duration::from_millis(5);

pub(crate) struct Origin {
    address: SocketAddr,
    /// The server and its connections, which end when this is dropped. `None`: killed.
    server: Option<JoinSet<()>>,
}

impl Origin {
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        Ok(Self { address: listener.local_addr()?, server: Some(serve(listener)) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it, or starts it again.
    pub(crate) async fn set_up(&mut self, is_up: bool) -> io::Result<()> {
        match (is_up, &self.server) {
            (false, _) => self.server = None,
            (true, Some(_)) => {}
            (true, None) => self.server = Some(serve(TcpListener::bind(self.address).await?)),
        }
        Ok(())
    }
}

/// Every connection is a task of the set, so that a killed origin answers nothing any more.
fn serve(listener: TcpListener) -> JoinSet<()> {
    let app = Router::new().route("/{page}", get(page));
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(app.clone());
            connections.spawn(async move {
                let stream = hyper_util::rt::TokioIo::new(stream);
                // The client notices what ends a connection.
                _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
            });
        }
    });
    server
}

async fn page(Path(page): Path<String>) -> impl IntoResponse {
    tokio::time::sleep(PAGE_TIME).await;
    ([(CACHE_CONTROL, "max-age=2, stale-if-error=86400")], format!("<h1>Page {page}</h1>\n"))
}
