use crate::http::request_fields::{Credentials, Keyed};

/// What the layer that gave a request its key has learned about it: in the request's extensions, where its
/// fields alone do not say the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyFacts {
    keyed: Keyed,
    credentials: Credentials,
}

impl KeyFacts {
    pub(crate) fn new(keyed: Keyed, credentials: Credentials) -> Self {
        Self { keyed, credentials }
    }

    /// What of the request its key holds, beside the URI.
    pub(crate) fn keyed(&self) -> &Keyed {
        &self.keyed
    }

    /// The credentials that its key does not hold.
    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials
    }
}
