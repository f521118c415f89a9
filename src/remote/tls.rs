//! TLS to a server, by rustls with ring.
//!
//! The provider is named here, and never that of the process: an application may have installed another one, or
//! none.

use std::{fmt, io, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use super::connection::AddressError;

/// Certificates and a key as PEM.
#[derive(Clone)]
pub(crate) struct TlsFiles {
    roots: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl TlsFiles {
    pub(super) const fn new() -> Self {
        Self { roots: None, client: None }
    }

    pub(crate) fn set_roots(&mut self, pem: impl Into<Vec<u8>>) {
        self.roots = Some(pem.into());
    }

    pub(crate) fn set_client(&mut self, certificates: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) {
        self.client = Some((certificates.into(), key.into()));
    }

    /// For a connection without TLS.
    pub(super) fn none(&self) -> Result<(), AddressError> {
        match self {
            Self { roots: None, client: None } => Ok(()),
            _ => Err(invalid("the URL does not begin with `rediss://`")),
        }
    }

    pub(super) fn tls_to(&self, host: &str) -> Result<Tls, AddressError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| AddressError::Url("its host is no name of a server".to_owned()))?;
        let roots = match &self.roots {
            Some(pem) => own_roots(pem)?,
            None => roots_of_the_system()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(&error.to_string()))?
            .with_root_certificates(roots);
        let config = match &self.client {
            None => config.with_no_client_auth(),
            Some((certificates, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| invalid(&format!("the key of the client: {error}")))?;
                let certificates = certificates_of(certificates)?;
                config
                    .with_client_auth_cert(certificates, key)
                    .map_err(|error| invalid(&format!("the certificate of the client: {error}")))?
            }
        };
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

#[cfg(test)]
impl TlsFiles {
    pub(super) fn settings(
        &self,
        [roots, client]: [&'static str; 2],
    ) -> Vec<crate::defaults::tests::Setting> {
        let some = |is_some, none: &str| if is_some { "some" } else { none }.to_owned();
        vec![
            (roots, some(self.roots.is_some(), "those of the system")),
            (client, some(self.client.is_some(), "none")),
        ]
    }
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles").finish_non_exhaustive()
    }
}

fn invalid(why: &str) -> AddressError {
    AddressError::Certificate(why.to_owned())
}

fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, AddressError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(invalid("there is no certificate in it")),
        Ok(all) => Ok(all),
        Err(error) => Err(invalid(&error.to_string())),
    }
}

fn own_roots(pem: &[u8]) -> Result<RootCertStore, AddressError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of(pem)? {
        roots.add(certificate).map_err(|error| invalid(&error.to_string()))?;
    }
    Ok(roots)
}

/// Those that can be read: a system may have some that nothing can use.
fn roots_of_the_system() -> Result<RootCertStore, AddressError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(invalid("the system has none")) } else { Ok(roots) }
}

/// What a connection to one server needs.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    pub(super) async fn over(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), socket).await
    }
}
