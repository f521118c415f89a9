use std::{error::Error as StdError, fmt, sync::Arc};

use crate::body::BoxError;

/// A cloneable wrapper of any error, so that all callers of a shared fetch can get it.
///
/// [`Coalesce`](crate::Coalesce) clones the error of the inner service. A service with an error that
/// cannot be cloned, such as hyper's client, needs one `map_err`:
///
/// ```
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_readthrough::SharedError;
///
/// let client = service_fn(async |_: http::Request<()>| {
///     Err::<http::Response<()>, _>(std::io::Error::other("no route"))
/// });
/// let service = client.map_err(SharedError::new);
/// # let _ = ServiceBuilder::new().service(service);
/// ```
#[derive(Clone)]
pub struct SharedError(Arc<dyn StdError + Send + Sync>);

impl SharedError {
    /// Wraps an error.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(Arc::from(error.into()))
    }

    /// The wrapped error, for example to downcast it.
    pub fn get_ref(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for SharedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}
