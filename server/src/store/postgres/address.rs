//! What the address of a PostgreSQL database says: on which servers it may be, and how to be sure of them.
//!
//! Of several servers one that takes writes is used: after a failover it is another one. It must not know
//! what is said to a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::session::Fault;

/// How long one server's machine may take to answer at all.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long sent bytes may stay without an answer of the other machine.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(4);
/// After how long a silent connection is asked whether it is alive, and how often.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("it cannot be read: {0}")]
    Malformed(tokio_postgres::Error),
    #[error("it names no host")]
    NoHost,
    #[error("its sslmode is {0:?}; disable, prefer, require and verify-full are known")]
    Mode(String),
    #[error("it wants no TLS (sslmode=disable) and a certificate looked at (sslrootcert)")]
    Contradiction,
    #[error("cannot read the certificates in {}: {reason}", .path.display())]
    Roots { path: PathBuf, reason: String },
    #[error("this system names no certificate authorities: name a file with sslrootcert")]
    NoRoots,
    #[error("TLS cannot be used: {0}")]
    Tls(Error),
}

/// The servers of an address.
#[derive(Clone)]
pub(super) struct Servers {
    /// Each with one host.
    configs: Vec<Config>,
    tls: MakeRustlsConnect,
    /// The place of the one that was used last, by any connection.
    last: Arc<AtomicUsize>,
}

impl Servers {
    /// Reads an address such as `postgres://user:password@host:5432/database?sslmode=verify-full`. Beside what
    /// the client library knows there are the mode `verify-full` and `sslrootcert`, a file of certificates.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub(super) fn parse(address: &str) -> Result<Self, AddressError> {
        let Parts { rest, is_verified, roots } = take_apart(address)?;
        let configs = configs(&rest, is_verified || roots.is_some())?;
        let tls = MakeRustlsConnect::new(client_config(is_verified, roots.as_deref())?);
        Ok(Self { configs, tls, last: Arc::default() })
    }

    /// Connects to a server that can be reached and takes writes: the last one, or the next of the others. The connection runs as a task of the
    /// runtime.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Client, Fault> {
        let mut fault = Fault::Late;
        let first = self.last.load(Ordering::Relaxed);
        for turn in 0..self.configs.len() {
            let place = (first + turn) % self.configs.len();
            // Whoever does not answer leaves the others their share of the time.
            let now = Instant::now();
            let others = u32::try_from(self.configs.len() - turn).unwrap_or(u32::MAX);
            let until = now + deadline.saturating_duration_since(now) / others;
            let connect = self.configs[place].connect(self.tls.clone());
            match tokio::time::timeout_at(until.into(), connect).await {
                Ok(Ok((client, connection))) => {
                    tokio::spawn(connection);
                    self.last.store(place, Ordering::Relaxed);
                    return Ok(client);
                }
                Ok(Err(error)) => fault = error.into(),
                Err(_) => fault = Fault::Late,
            }
        }
        Err(fault)
    }
}

/// How to reach each of the servers. `is_verified`: their certificates are looked at.
fn configs(address: &str, is_verified: bool) -> Result<Vec<Config>, AddressError> {
    let mut configs = Vec::new();
    for address in one_by_one(address) {
        let mut config: Config = address.parse().map_err(AddressError::Malformed)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(AddressError::NoHost);
        }
        if config.get_application_name().is_none() {
            config.application_name("magpie");
        }
        // Whoever names authorities wants them asked.
        if is_verified {
            if config.get_ssl_mode() == SslMode::Disable {
                return Err(AddressError::Contradiction);
            }
            config.ssl_mode(SslMode::Require);
        }
        config
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(CONNECT_MAX)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        configs.push(config);
    }
    Ok(configs)
}

/// An address without what the client library does not know.
struct Parts {
    rest: String,
    is_verified: bool,
    roots: Option<PathBuf>,
}

fn take_apart(address: &str) -> Result<Parts, AddressError> {
    let mut parts = Parts { rest: address.to_owned(), is_verified: false, roots: None };
    let Some((base, query)) = address.split_once('?') else { return Ok(parts) };
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let decoded: Vec<(String, String)> = serde_urlencoded::from_str(pair).unwrap_or_default();
        match decoded.first().map(|(name, value)| (name.as_str(), value.as_str())) {
            Some(("sslmode", "verify-full")) => parts.is_verified = true,
            Some(("sslmode", mode)) if !["disable", "prefer", "require"].contains(&mode) => {
                return Err(AddressError::Mode(mode.to_owned()));
            }
            Some(("sslrootcert", path)) => parts.roots = Some(path.into()),
            _ => rest.push(pair),
        }
    }
    parts.rest = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok(parts)
}

/// The same address for each of its hosts alone, so that one that hangs does not take the time of the others.
fn one_by_one(address: &str) -> Vec<String> {
    let Some((scheme, rest)) = address.split_once("://") else { return vec![address.to_owned()] };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}")).collect()
}

fn client_config(is_verified: bool, roots: Option<&Path>) -> Result<ClientConfig, AddressError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(AddressError::Tls)?;
    if !is_verified && roots.is_none() {
        let verifier = Arc::new(AnyServer(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            let failed = |reason: String| AddressError::Roots { path: path.to_owned(), reason };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                store.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
            if store.is_empty() {
                return Err(failed("there is none".into()));
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(AddressError::NoRoots);
            }
        }
    }
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

/// Believes every certificate, as `prefer` and `require` do everywhere: what is said cannot be overheard, but it
/// may be said to somebody else.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_tried_one_by_one() {
        for (address, expected) in [
            ("postgres://h", vec!["postgres://h"]),
            (
                "postgres://u:p%40@a:1,[::1]:2/d?x=y",
                vec!["postgres://u:p%40@a:1/d?x=y", "postgres://u:p%40@[::1]:2/d?x=y"],
            ),
            ("postgresql://u@/d?host=/run,x", vec!["postgresql://u@/d?host=/run,x"]),
            ("host=a,b dbname=d", vec!["host=a,b dbname=d"]),
        ] {
            assert_eq!(one_by_one(address), expected);
        }
        assert_eq!(Servers::parse("postgres://u@a,b,c/d").unwrap().configs.len(), 3);
    }

    #[test]
    fn a_mode_that_is_not_known_is_refused_and_ours_are_kept_from_the_library() {
        let refused = |address: &str| Servers::parse(address).err().unwrap().to_string();
        assert!(refused("postgres://h/d?sslmode=verify-ca").contains("verify-full"));
        assert!(refused("postgres://h/d?sslrootcert=/none").contains("/none"));
        assert!(refused("postgres://h:none/d").contains("cannot be read"));
        assert!(refused("postgres:///d").contains("no host"));
        let mode = |address: &str| Servers::parse(address).unwrap().configs[0].get_ssl_mode();
        assert_eq!(mode("postgres://h/d"), SslMode::Prefer);
        assert_eq!(mode("postgres://h/d?sslmode=disable&connect_timeout=5"), SslMode::Disable);
        assert_eq!(mode("postgres://h/d?connect_timeout=5&sslmode=verify-full"), SslMode::Require);
        // A file of authorities is no use without TLS.
        let parse = |query: &str| {
            let Parts { rest, is_verified, roots } = take_apart(&format!("postgres://h/d?{query}")).unwrap();
            configs(&rest, is_verified || roots.is_some()).map(|configs| configs[0].get_ssl_mode())
        };
        assert!(matches!(parse("sslrootcert=/a"), Ok(SslMode::Require)));
        assert!(matches!(parse("sslmode=prefer&sslrootcert=/a"), Ok(SslMode::Require)));
        assert!(matches!(parse("sslmode=disable&sslrootcert=/a"), Err(AddressError::Contradiction)));
        let parts = take_apart("postgres://h/d?a=1&sslrootcert=%2Fa%20b&sslmode=verify-full&c=2").unwrap();
        assert_eq!((parts.rest.as_str(), parts.is_verified), ("postgres://h/d?a=1&c=2", true));
        assert_eq!(parts.roots, Some("/a b".into()));
    }
}
