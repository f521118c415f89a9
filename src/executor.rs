use std::{
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use tokio::runtime::Handle;

/// A task that runs on its own.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where fetches and refreshes run that belong to no single client.
#[derive(Clone, Default)]
pub(crate) struct Executor(Option<Arc<dyn Fn(Task) + Send + Sync>>);

impl Executor {
    pub(crate) fn new(spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(spawn)))
    }

    /// Timers need a tokio runtime, whatever runs the tasks. That its time is enabled cannot be asked.
    pub(crate) fn is_available() -> bool {
        Handle::try_current().is_ok()
    }

    pub(crate) fn spawn(&self, task: Task) {
        match &self.0 {
            Some(spawn) => spawn(task),
            None => drop(tokio::spawn(task)),
        }
    }

    /// Polls the task once in place, and spawns it only if it has to wait. A custom executor gets each task
    /// from its beginning, since it may have to run elsewhere.
    ///
    /// Once begun the task does not depend on its caller: nothing is awaited until it is spawned.
    pub(crate) async fn start(&self, mut task: Task) {
        if self.0.is_none() {
            // A task that panics is gone, and does not take its caller along.
            let first = poll_fn(|cx| Poll::Ready(catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx)))));
            match first.await {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(())) | Err(_) => return,
            }
        }
        self.spawn(task);
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Executor(custom)" } else { "Executor(tokio)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// The ids of the tasks in which a task with one wait runs, before and after it.
    async fn places(executor: Executor) -> [Option<tokio::task::Id>; 2] {
        let (told, tells) = tokio::sync::oneshot::channel();
        let task = async move {
            let before = tokio::task::try_id();
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            _ = told.send([before, tokio::task::try_id()]);
        };
        executor.start(Box::pin(task)).await;
        tells.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_begins_in_place_and_goes_on_by_itself() {
        let (caller, places) =
            tokio::spawn(async { (tokio::task::id(), places(Executor::default()).await) }).await.unwrap();
        assert_eq!(places[0], Some(caller));
        assert!(places[1].is_some() && places[1] != Some(caller));
    }

    #[tokio::test(start_paused = true)]
    async fn an_executor_of_ones_own_gets_all_of_a_task() {
        let spawned = Arc::new(Mutex::new(None));
        let note = Arc::clone(&spawned);
        let places =
            places(Executor::new(move |task| *note.lock().unwrap() = Some(tokio::spawn(task).id()))).await;
        assert_eq!(places, [*spawned.lock().unwrap(); 2]);
    }

    #[tokio::test]
    async fn a_panic_in_place_stays_in_the_task() {
        Executor::default().start(Box::pin(async { panic!("on purpose") })).await;
    }
}
