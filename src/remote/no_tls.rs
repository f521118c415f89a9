//! In place of TLS, without the feature `redis-tls`.

use std::{convert::Infallible, io};

use tokio::net::TcpStream;

use super::connection::AddressError;

#[derive(Clone)]
pub(crate) struct TlsFiles;

impl TlsFiles {
    pub(super) const fn new() -> Self {
        Self
    }

    pub(super) const fn none(&self) -> Result<(), AddressError> {
        Ok(())
    }

    pub(super) fn tls_to(&self, _host: &str) -> Result<Tls, AddressError> {
        Err(AddressError::Url("it asks for TLS: add the feature `redis-tls`".to_owned()))
    }
}

#[cfg(test)]
impl TlsFiles {
    pub(super) const fn settings(&self, _names: [&'static str; 2]) -> Vec<crate::defaults::tests::Setting> {
        Vec::new()
    }
}

/// There is none.
pub(super) struct Tls(Infallible);

impl Tls {
    pub(super) async fn over(&self, _socket: TcpStream) -> io::Result<TcpStream> {
        match self.0 {}
    }
}
