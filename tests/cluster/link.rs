//! A link to the server that can be cut, or lead nowhere, for one node alone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::sleep,
};

/// What becomes of what is sent over the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Connections are closed, and so is each new one.
    Cut,
    /// Nothing arrives, and nothing is closed.
    Hole,
    /// Half of each answer arrives, and then the end.
    Half,
    /// Each answer arrives so much later.
    Slow(Duration),
    /// What arrives is no answer.
    Garbage,
    /// Each read of the log waits until it is [let through](Link::let_read).
    Held,
}

pub(crate) struct Link {
    addr: SocketAddr,
    fault: Arc<watch::Sender<Fault>>,
    reads: Arc<Semaphore>,
    accepting: JoinHandle<()>,
}

impl Link {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, fault) = (listener.local_addr().unwrap(), Arc::new(watch::Sender::new(Fault::None)));
        let reads = Arc::new(Semaphore::new(0));
        let (known, let_through) = (Arc::clone(&fault), Arc::clone(&reads));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let ((mut from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                let (up, down) = (known.subscribe(), known.subscribe());
                let reads = Arc::clone(&let_through);
                tokio::spawn(async move { pump(&mut from_client, to_server, up, Some(&reads)).await });
                tokio::spawn(async move {
                    let mut from_server = from_server;
                    pump(&mut from_server, to_client, down, None).await;
                });
            }
        });
        Self { addr, fault, reads, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}/", self.addr)
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Lets one read of the log through.
    pub(crate) fn let_read(&self) {
        self.reads.add_permits(1);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Forwards until one end is closed or the link is cut. Dropping `to` closes it. `reads`: of requests, by what reads of
/// the log are let through.
async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    mut to: impl AsyncWriteExt + Unpin,
    mut fault: watch::Receiver<Fault>,
    reads: Option<&Semaphore>,
) {
    let is_answer = reads.is_none();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let now = *fault.borrow_and_update();
        if now == Fault::Cut {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = fault.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok(length @ 1..) = read else { return };
        let now = *fault.borrow();
        let sent = match now {
            Fault::None => &buffer[..length],
            Fault::Cut => return,
            Fault::Hole => continue,
            Fault::Half if is_answer => {
                _ = to.write_all(&buffer[..length / 2]).await;
                return;
            }
            Fault::Garbage if is_answer => b"\xff what is this? \r\n".as_slice(),
            Fault::Slow(by) => {
                sleep(if is_answer { by } else { Duration::ZERO }).await;
                &buffer[..length]
            }
            Fault::Held if is_read(&buffer[..length]) => {
                if let Some(reads) = reads {
                    tokio::select! {
                        permit = reads.acquire() => permit.unwrap().forget(),
                        _ = fault.changed() => {}
                    }
                }
                &buffer[..length]
            }
            Fault::Half | Fault::Garbage | Fault::Held => &buffer[..length],
        };
        if to.write_all(sent).await.is_err() {
            return;
        }
    }
}

/// Whether a read of the log is among these commands.
fn is_read(commands: &[u8]) -> bool {
    commands.windows(5).any(|word| word == b"XREAD")
}
