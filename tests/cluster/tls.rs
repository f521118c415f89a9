//! TLS to a real server: what a cluster and a second tier do over it, and whom they refuse.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tower::Layer;
use tower_readthrough::{
    MemoryStore, ReadThroughLayer, Rules,
    cluster::{Cluster, ClusterError},
    remote::{RedisRemote, RedisRemoteError, Remote},
};

use super::{
    node::{PAGE, until},
    server::{port::own_port, server},
    support::{ScriptedOrigin, get, ok, secs},
};

/// An authority of its own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

fn params(hosts: Vec<String>, name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = params(Vec::new(), name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a host, and its key.
    fn certify(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params(vec![host.to_owned()], host).signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// Takes nothing but TLS. Killed when it is dropped.
struct TlsServer {
    port: u16,
    child: Child,
    directory: PathBuf,
}

impl TlsServer {
    /// `asks`: whether it takes only clients with a certificate.
    fn start(authority: &Authority, host: &str, asks: bool) -> Self {
        let port = own_port();
        let directory = std::env::temp_dir().join(format!("trt-tls-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (certificate, key) = authority.certify(host);
        for (name, text) in [("ca.pem", &authority.pem()), ("cert.pem", &certificate), ("key.pem", &key)] {
            std::fs::write(directory.join(name), text).unwrap();
        }
        let mut command = Command::new("redis-server");
        command.current_dir(&directory).args(["--port", "0", "--tls-port", &port.to_string()]);
        command.args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"]);
        command.args(["--tls-ca-cert-file", "ca.pem", "--tls-auth-clients", if asks { "yes" } else { "no" }]);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { port, child, directory }
    }

    fn url(&self, host: &str) -> String {
        format!("rediss://{host}:{}/", self.port)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn cache() -> ReadThroughLayer<MemoryStore> {
    let rules = Rules::new().fixed_ttl(secs(3600));
    ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(16 << 20)).rules(rules).build().unwrap()
}

/// No provider was chosen for the process, and none is.
#[tokio::test]
async fn purges_and_values_go_over_tls() {
    if server().await.is_none() {
        return;
    }
    let authority = Authority::new("one");
    for host in ["127.0.0.1", "localhost"] {
        let server = TlsServer::start(&authority, host, false);
        let node = |name: &str| {
            let layer = cache();
            let cluster = Cluster::builder(server.url(host), layer.purge()).node(name);
            (layer, cluster.root_certificates(authority.pem()).open().unwrap())
        };
        let [(here, first), (there, second)] = [node("n1"), node("n2")];
        until("caught up", || first.status().is_caught_up && second.status().is_caught_up).await;
        let origin = ScriptedOrigin::new(|call, _| ok(call.to_string()).header("surrogate-key", "red"));
        let service = there.layer(origin);
        assert_eq!(get(&service, PAGE).await.body, "1");
        here.purge().tag("red");
        super::remote::eventually("purged", || async { get(&service, PAGE).await.body != "1" }).await;

        let remote = RedisRemote::builder(server.url(host)).read_timeout(secs(10)).write_timeout(secs(10));
        let remote = remote.root_certificates(authority.pem()).open().unwrap();
        until("connected", || remote.status().is_connected).await;
        for length in [0, 1 << 10, 4 << 20] {
            let value = bytes::Bytes::from(vec![7; length]);
            remote.write(b"k", value.clone(), secs(60)).await.unwrap();
            assert_eq!(remote.read(&[b"k"]).await.unwrap().values, [Some(value)]);
        }
    }
}

#[tokio::test]
async fn a_server_without_a_valid_certificate_is_refused() {
    if server().await.is_none() {
        return;
    }
    let [authority, other] = ["one", "other"].map(Authority::new);
    let server = TlsServer::start(&authority, "localhost", false);
    for (roots, host, told) in [
        (Some(other.pem()), "localhost", "UnknownIssuer"),
        (Some(authority.pem()), "127.0.0.1", "not valid for name"),
        // None of the system's has signed it.
        (None, "localhost", "UnknownIssuer"),
    ] {
        let mut remote = RedisRemote::builder(server.url(host));
        let layer = cache();
        let mut cluster = Cluster::builder(server.url(host), layer.purge());
        if let Some(roots) = roots {
            (remote, cluster) = (remote.root_certificates(roots.clone()), cluster.root_certificates(roots));
        }
        let (remote, cluster) = match (remote.open(), cluster.open()) {
            (Ok(remote), Ok(cluster)) => (remote, cluster),
            // A system without any root.
            (remote, cluster) => {
                assert_eq!(
                    remote.err(),
                    Some(RedisRemoteError::Certificate("the system has none".to_owned()))
                );
                assert_eq!(cluster.err(), Some(ClusterError::Certificate("the system has none".to_owned())));
                continue;
            }
        };
        let is_told = |error: Option<String>| error.is_some_and(|error| error.contains(told));
        until(told, || is_told(remote.status().last_error)).await;
        until(told, || is_told(cluster.status().last_error)).await;
        assert_eq!((remote.status().connections, cluster.status().is_connected), (0, false));
    }
    // Nor is it spoken to without TLS.
    let plain = RedisRemote::builder(server.url("127.0.0.1").replace("rediss", "redis")).open().unwrap();
    until("an error", || plain.status().last_error.is_some()).await;
    assert_eq!(plain.status().connections, 0);
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_it() {
    if server().await.is_none() {
        return;
    }
    let authority = Authority::new("one");
    let server = TlsServer::start(&authority, "localhost", true);
    let builder = || RedisRemote::builder(server.url("localhost")).root_certificates(authority.pem());
    let without = builder().open().unwrap();
    until("refused", || without.status().last_error.is_some_and(|error| error.contains("Certificate"))).await;
    assert_eq!(without.status().connections, 0);
    let (certificate, key) = authority.certify("client");
    let with = builder().client_certificate(certificate.clone(), key.clone()).open().unwrap();
    until("connected", || with.status().is_connected).await;
    let cluster = Cluster::builder(server.url("localhost"), cache().purge());
    let cluster =
        cluster.root_certificates(authority.pem()).client_certificate(certificate, key).open().unwrap();
    until("caught up", || cluster.status().is_caught_up).await;
}

/// Each in one line.
#[tokio::test]
async fn certificates_that_cannot_work_are_refused() {
    let builder = |url: &str| RedisRemote::builder(url);
    let authority = Authority::new("one");
    let (certificate, key) = authority.certify("client");
    let tls = || builder("rediss://localhost/").root_certificates(authority.pem());
    for (what, refused) in [
        ("nothing", builder("rediss://localhost/").root_certificates("").open()),
        ("no PEM", builder("rediss://localhost/").root_certificates("certainly").open()),
        ("a key", builder("rediss://localhost/").root_certificates(key.clone()).open()),
        ("no key", tls().client_certificate(certificate.clone(), "").open()),
        ("no certificate", tls().client_certificate("", key).open()),
        ("the key of another", tls().client_certificate(certificate, authority.certify("x").1).open()),
        ("without TLS", builder("redis://localhost/").root_certificates(authority.pem()).open()),
    ] {
        let error = refused.map(drop).unwrap_err();
        assert!(matches!(error, RedisRemoteError::Certificate(_)), "{what}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let refused = Cluster::builder("redis://localhost/", cache().purge()).root_certificates(authority.pem());
    let error = refused.open().map(drop).unwrap_err().to_string();
    assert_eq!(error, "invalid certificates: the URL does not begin with `rediss://`");
}

/// What an application has chosen for itself is left as it is, whatever that can do.
#[tokio::test]
async fn the_provider_of_the_process_is_neither_used_nor_changed() {
    use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
    if server().await.is_none() {
        return;
    }
    assert!(CryptoProvider::get_default().is_none(), "in a process of its own");
    let none = CryptoProvider { cipher_suites: Vec::new(), ..ring::default_provider() };
    none.install_default().unwrap();
    let authority = Authority::new("one");
    let server = TlsServer::start(&authority, "localhost", false);
    let remote =
        RedisRemote::builder(server.url("localhost")).root_certificates(authority.pem()).open().unwrap();
    until("connected", || remote.status().is_connected).await;
    assert!(CryptoProvider::get_default().unwrap().cipher_suites.is_empty());
}
