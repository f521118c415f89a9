use std::{fmt, future::Future, pin::Pin, sync::Arc};

use tokio::runtime::Handle;

/// A task that runs on its own.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where fetches and refreshes run that no single client owns.
#[derive(Clone, Default)]
pub(crate) struct Executor(Option<Arc<dyn Fn(Task) + Send + Sync>>);

impl Executor {
    pub(crate) fn new(spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(spawn)))
    }

    /// Timers need a tokio runtime, whoever runs the tasks. That its time is enabled cannot be asked.
    pub(crate) fn is_available() -> bool {
        Handle::try_current().is_ok()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.0 {
            Some(spawn) => spawn(Box::pin(task)),
            None => drop(tokio::spawn(task)),
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Executor(custom)" } else { "Executor(tokio)" })
    }
}
