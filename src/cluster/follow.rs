//! The tasks that read the log and send to it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Shared,
    log::{Entry, Next, Read, Reply},
    redis::{Answered, Registering, Server},
    registry::Survey,
};
use crate::{
    remote::connection::{Backoff, ServerError},
    sequence::Message,
};

/// Purges that are sent in one write.
const MAX_SENT: usize = 128;
/// Between two looks at the registry.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// Follows the log until the cluster is dropped.
pub(super) async fn read_log(cluster: Weak<Shared>) {
    let mut backoff = Backoff::new();
    loop {
        let Some(server) = cluster.upgrade().map(|shared| shared.server.clone()) else { return };
        let Err(error) = follow(&server, &cluster, &mut backoff).await else { return };
        let Some(shared) = cluster.upgrade() else { return };
        shared.log.lock().disconnected();
        shared.standing.failed(&shared.node, &error.to_string());
        drop(shared);
        sleep(backoff.next()).await;
    }
}

/// Follows the log over one connection. Returns when the cluster is dropped.
async fn follow(server: &Server, cluster: &Weak<Shared>, backoff: &mut Backoff) -> Result<(), ServerError> {
    let (mut follower, run) = server.follow().await?;
    let may_evict_log = follower.may_evict_log().await?;
    let connected = |shared: Arc<Shared>| {
        shared.connected(run.as_deref(), may_evict_log);
        (shared.node.clone(), shared.when_cut_off)
    };
    let Some((name, when_cut_off)) = cluster.upgrade().map(connected) else { return Ok(()) };
    // A server that does not say which it is: each connection is to another one.
    let run = run.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
    let mut failures = Backoff::new();
    let mut looked = None::<Instant>;
    loop {
        let next_read = |shared: Arc<Shared>| shared.log.lock().next_read(Instant::now());
        let Some(read) = cluster.upgrade().map(next_read) else { return Ok(()) };
        let registering = Registering { name: &name, run: &run, when_cut_off };
        let is_due = looked.is_none_or(|looked| looked.elapsed() >= LOOK_PAUSE);
        let answered = follower.read(read, registering, is_due).await?;
        let Answered { reply, fields, is_registered, is_readable, refusal } = answered;
        let has_failed = reply.has_failed;
        let Some(shared) = cluster.upgrade() else { return Ok(()) };
        let next = shared.apply(read, reply, is_registered, refusal);
        let forgotten = fields.map(|fields| {
            looked = Some(read.asked_at);
            shared.surveyed(&Survey { run: run.clone(), now_ms: follower.now_ms(), nonce: None, fields })
        });
        drop(shared);
        if let Some(forgotten) = forgotten.filter(|names| !names.is_empty()) {
            follower.forget(&forgotten).await?;
        }
        let may_mark = is_registered && is_readable;
        if next == Next::Mark && may_mark {
            follower.mark(&name).await?;
        }
        if has_failed || next == Next::Mark && !may_mark {
            // What is there may be no log at all, or one that is refused.
            sleep(failures.next()).await;
        } else {
            (failures, *backoff) = (Backoff::new(), Backoff::new());
        }
    }
}

impl Shared {
    fn connected(&self, run: Option<&str>, may_evict_log: bool) {
        self.log.lock().connected(run.map(hash), Instant::now(), &self.purge);
        *self.run.lock() = run.map(str::to_owned);
        self.standing.connected(&self.node, may_evict_log);
    }

    /// Notes what the registry says, and returns what is to be removed from it.
    fn surveyed(&self, survey: &Survey) -> Vec<String> {
        let forgotten = survey.forgotten();
        self.known.lock().note(survey);
        self.standing.surveyed(&self.node, survey, |applied| self.log.lock().behind_of(applied));
        forgotten
    }

    /// Applies the answer to a read, before which the others were told of this node if it `is_registered`, and notes
    /// what of it the server has refused.
    fn apply(
        &self,
        asked: Read,
        reply: Reply<Message>,
        is_registered: bool,
        refusal: Option<String>,
    ) -> Next {
        let Reply { entries, is_full, anchor, deleted, has_failed, extent } = reply;
        // Key rules are code of the application: they run before the log is locked.
        let read = |Entry { position, purge }: Entry<Message>| Entry {
            position,
            purge: purge.map(|message| self.purge.read(&message)),
        };
        let entries: Vec<_> = entries.into_iter().map(read).collect();
        let reply = Reply { entries, is_full, anchor, deleted, has_failed, extent };
        let (next, heard_by) = {
            let mut log = self.log.lock();
            let next = log.replied(asked.from, &reply, &self.purge);
            (next, log.heard_by(asked, &reply))
        };
        if let Some(told_at) = heard_by.filter(|_| is_registered) {
            self.when_cut_off.heard(&self.purge, told_at);
        }
        self.standing.read(&self.node, heard_by.is_some(), refusal);
        reply
            .entries
            .iter()
            .filter_map(|entry| entry.purge.as_ref())
            .for_each(|purge| self.purge.settle(purge));
        self.wake.notify_one();
        next
    }
}

/// Names a run of a server in 64 bits, the same on all nodes.
fn hash(run: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(run.as_bytes())
}

/// Sends own purges until the cluster is dropped.
pub(super) async fn send_purges(cluster: Weak<Shared>) {
    let mut backoff = Backoff::new();
    loop {
        let Some(server) = cluster.upgrade().map(|shared| shared.server.clone()) else { return };
        match send(&server, &cluster, &mut backoff).await {
            Ok(()) => return,
            Err(_) => {
                let Some(shared) = cluster.upgrade() else { return };
                shared.log.lock().send_again();
            }
        }
        sleep(backoff.next()).await;
    }
}

/// Sends over one connection. Returns when the cluster is dropped.
async fn send(server: &Server, cluster: &Weak<Shared>, backoff: &mut Backoff) -> Result<(), ServerError> {
    let mut writer = None;
    loop {
        let Some(shared) = cluster.upgrade() else { return Ok(()) };
        let due: Vec<_> = {
            let (mut log, now) = (shared.log.lock(), Instant::now());
            std::iter::from_fn(|| log.next_to_send(now)).take(MAX_SENT).collect()
        };
        if due.is_empty() {
            wait(&shared).await;
            continue;
        }
        let connected = match &mut writer {
            Some(writer) => writer,
            none => none.insert(server.writer().await?),
        };
        let added = connected.add(&due, &shared.node).await?;
        added.iter().for_each(|position| shared.log.lock().acknowledged(*position));
        if added.len() < due.len() {
            return Err(ServerError::Answer);
        }
        *backoff = Backoff::new();
    }
}

/// Waits until there may be something to send. The task is aborted when the cluster is dropped.
async fn wait(shared: &Shared) {
    let at = shared.log.lock().next_send_at();
    let woken = shared.wake.notified();
    match at {
        Some(at) => {
            tokio::select! {
                () = woken => {}
                () = sleep_until(at) => {}
            }
        }
        None => woken.await,
    }
}

#[cfg(test)]
mod status_tests;
