//! Certificates: read, made, and read again while connections live on.
//!
//! TLS 1.2 and 1.3 with ring, HTTP/1.1 and nothing else. It must not know what is said inside.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ServerConfig};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(3);
/// The names of a certificate that we made, in the data directory.
const OWN_CERT: &str = "tls-self-signed.pem";
const OWN_KEY: &str = "tls-self-signed-key.pem";

/// The two files of a certificate, both PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// The server's certificate first, then those that lead to its authority.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("cannot use {}: {reason}", .path.display())]
    Bad { path: PathBuf, reason: String },
    #[error("the key in {} does not belong to the certificate in {}", .0.key.display(), .0.cert.display())]
    Mismatch(Files),
    #[error("cannot make a certificate in {}: {reason}", .path.display())]
    Make { path: PathBuf, reason: String },
}

/// The certificate of now.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    /// As they were when first read.
    opened: [Stamp; 2],
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    fingerprint: String,
}

/// What tells a file from its next version.
type Stamp = Option<(SystemTime, u64)>;

impl Tls {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn open(files: Files) -> Result<Arc<Self>, TlsError> {
        // Before they are read: a change in between is then found.
        let opened = stamps(&files);
        let current = Mutex::new(read(&files)?);
        Ok(Arc::new(Self { files, opened, current }))
    }

    /// Takes the certificate that was made in this directory, or makes one for localhost and the addresses
    /// that are listened on.
    ///
    /// # Errors
    /// The directory cannot be written, or holds something else under these names.
    pub fn self_signed(directory: &Path, listen: &[SocketAddr]) -> Result<Arc<Self>, TlsError> {
        let files = Files { cert: directory.join(OWN_CERT), key: directory.join(OWN_KEY) };
        if !files.cert.exists() || !files.key.exists() {
            make(&files, listen).map_err(|reason| TlsError::Make {
                path: directory.to_owned(),
                reason: reason.to_string(),
            })?;
        }
        Self::open(files)
    }

    /// Handshakes with the certificate of now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.lock().unwrap_or_else(PoisonError::into_inner).config.clone())
    }

    /// The SHA-256 of the certificate, as browsers show it.
    pub fn fingerprint(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).fingerprint.clone()
    }

    /// Reads the files again at SIGHUP and when they change, for ever. If they are bad then, the log says
    /// so and the old certificate stays.
    ///
    /// # Errors
    /// The system's, about the signal.
    pub fn watch(self: Arc<Self>) -> io::Result<impl Future<Output = ()>> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut seen = self.opened;
        Ok(async move {
            loop {
                let is_asked = tokio::select! {
                    _ = hangup.recv() => true,
                    () = tokio::time::sleep(LOOK) => false,
                };
                let tls = self.clone();
                // Not on this thread: files can be far away.
                let looked = tokio::task::spawn_blocking(move || {
                    let stamps = stamps(&tls.files);
                    if is_asked || stamps != seen {
                        tls.reload();
                    }
                    stamps
                });
                seen = looked.await.unwrap_or(seen);
            }
        })
    }

    fn reload(&self) {
        match read(&self.files) {
            Ok(new) => {
                tracing::info!(fingerprint = new.fingerprint, "new connections get this certificate");
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = new;
            }
            Err(error) => tracing::error!(%error, "the old certificate stays in use"),
        }
    }
}

fn stamps(files: &Files) -> [Stamp; 2] {
    [&files.cert, &files.key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(files: &Files) -> Result<Current, TlsError> {
    let bytes = |path: &Path| fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error });
    let bad = |path: &Path, reason: String| TlsError::Bad { path: path.to_owned(), reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(&files.cert)?).collect();
    let chain = chain.map_err(|error| bad(&files.cert, error.to_string()))?;
    let Some(first) = chain.first() else {
        return Err(bad(&files.cert, "there is no certificate in it (PEM)".into()));
    };
    let fingerprint = fingerprint(first);
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            bad(&files.key, "there is no private key in it (PEM, no passphrase)".into())
        }
        error => bad(&files.key, error.to_string()),
    })?;
    let provider = Arc::new(ring::default_provider());
    if let Err(error) = provider.key_provider.load_private_key(key.clone_key()) {
        return Err(bad(&files.key, error.to_string()));
    }
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
    let builder = builder.map_err(|error| bad(&files.cert, error.to_string()))?;
    let mut config =
        builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch(files.clone()),
            error => bad(&files.cert, error.to_string()),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Sealed into what the client keeps: no memory here for clients that come back, however many.
    match ring::Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => tracing::warn!(%error, "TLS sessions will not be resumed"),
    }
    Ok(Current { config: Arc::new(config), fingerprint })
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let bytes = Sha256::digest(certificate);
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Makes a certificate for trying out. Wherever it is cut off, a certificate is never without its key.
fn make(files: &Files, listen: &[SocketAddr]) -> Result<(), Box<dyn std::error::Error>> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let ips = listen.iter().map(SocketAddr::ip).filter(|ip: &IpAddr| !ip.is_unspecified());
    for name in ips.map(|ip| ip.to_string()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let made = rcgen::generate_simple_self_signed(names)?;
    remove(&files.cert)?;
    for (path, text) in [(&files.key, made.signing_key.serialize_pem()), (&files.cert, made.cert.pem())] {
        let new = path.with_extension("new");
        remove(&new)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
    }
    Ok(())
}

/// Removes a file if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
