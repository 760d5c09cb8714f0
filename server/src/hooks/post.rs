//! Posts one message to one address: looks the name up, judges what it stands for, and connects to just that.
//!
//! A small HTTP client that follows nothing, believes nothing and waits for nobody long. It must not know
//! rooms or hooks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use warp::http::{Request, StatusCode};

use super::target::{Target, is_public};

/// Longest time for a delivery, from the look-up of the name to the answer.
const DELIVERY_WAIT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read; nobody looks at them.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 3;

/// Why a message was not delivered, in words for those who keep the room. Nothing that the other side said is
/// among them but a number.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    #[error("the address leads to a private network")]
    Private,
    #[error("the address cannot be used")]
    BadAddress,
    #[error("the name is not known")]
    NoName,
    #[error("nobody answers there")]
    NoConnection,
    #[error("the certificate is not good")]
    NoTls,
    #[error("no HTTP came back")]
    NoHttp,
    #[error("no answer within {} s", DELIVERY_WAIT.as_secs())]
    TooSlow,
    #[error("the answer was {0}")]
    Refused(u16),
}

impl Undelivered {
    /// Whether another attempt could go better.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Undelivered::Private | Undelivered::BadAddress)
    }
}

/// Posts messages. Lives on one thread.
#[derive(Debug, Default)]
pub struct Poster {
    /// Whether private addresses are posted to.
    allow_private: bool,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Poster {
    pub fn new(allow_private: bool) -> Self {
        Self { allow_private, tls: OnceCell::new() }
    }

    /// Posts JSON to an address, with these headers, and gives the status if it is one of success. Runs inside
    /// a `LocalSet`.
    ///
    /// # Errors
    /// Why it is not delivered, or not known to be.
    pub async fn post(&self, url: &str, headers: &[(&str, String)], body: Bytes) -> Result<u16, Undelivered> {
        let target = Target::parse(url).ok_or(Undelivered::BadAddress)?;
        let mut request = Request::post(&target.path)
            .header("host", &target.authority)
            .header("content-type", "application/json")
            .header("user-agent", concat!("Magpie/", env!("CARGO_PKG_VERSION")))
            .header("connection", "close");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(|_| Undelivered::BadAddress)?;
        let status = timeout(DELIVERY_WAIT, self.send(&target, request)).await;
        let status = status.map_err(|_| Undelivered::TooSlow)??;
        if status.is_success() { Ok(status.as_u16()) } else { Err(Undelivered::Refused(status.as_u16())) }
    }

    async fn send(&self, target: &Target, request: Request<Full<Bytes>>) -> Result<StatusCode, Undelivered> {
        let socket = self.connect(target).await?;
        if !target.is_tls {
            return exchange(socket, request).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| Undelivered::BadAddress)?;
        let connector = TlsConnector::from(self.tls().await?);
        let stream = connector.connect(name, socket).await.map_err(|_| Undelivered::NoTls)?;
        exchange(stream, request).await
    }

    /// Connects to an address that was judged, not to a name that may stand for another by then.
    async fn connect(&self, target: &Target) -> Result<TcpStream, Undelivered> {
        let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
        let found: Vec<SocketAddr> = found.map_err(|_| Undelivered::NoName)?.collect();
        let is_allowed = |address: IpAddr| self.allow_private || is_public(address);
        let allowed: Vec<_> = found.iter().filter(|address| is_allowed(address.ip())).collect();
        match (found.is_empty(), allowed.is_empty()) {
            (true, _) => return Err(Undelivered::NoName),
            (false, true) => return Err(Undelivered::Private),
            _ => {}
        }
        for address in allowed.into_iter().take(ADDRESSES_MAX) {
            if let Ok(socket) = TcpStream::connect(address).await {
                return Ok(socket);
            }
        }
        Err(Undelivered::NoConnection)
    }

    /// Whom to believe: the system's authorities, read at the first need.
    async fn tls(&self) -> Result<Arc<ClientConfig>, Undelivered> {
        let make = async || {
            let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(loaded.map_err(|_| Undelivered::NoTls)?.certs);
            if roots.is_empty() {
                tracing::warn!("this system names no certificate authorities: no webhook of https works");
            }
            let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
            let builder = builder.with_safe_default_protocol_versions().map_err(|_| Undelivered::NoTls)?;
            let mut config = builder.with_root_certificates(roots).with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(Arc::new(config))
        };
        self.tls.get_or_try_init(make).await.cloned()
    }
}

/// One request and its answer over a connection of its own.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, Undelivered>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut http = hyper::client::conn::http1::Builder::new();
    http.max_buf_size(HEAD_BYTES_MAX);
    let shaken = http.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|_| Undelivered::NoHttp)?;
    let connection = spawn_local(connection);
    let _ends = Ends(connection.abort_handle());
    let response = sender.send_request(request).await.map_err(|_| Undelivered::NoHttp)?;
    let status = response.status();
    // Some are unhappy if nobody takes their answer.
    let mut body = response.into_body();
    let drain = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(Duration::from_secs(1), drain).await;
    Ok(status)
}

/// Ends a task when dropped.
struct Ends(tokio::task::AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn private_addresses_are_not_even_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let poster = Poster::new(false);
        for host in [
            "127.0.0.1",
            "localhost",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0.0.0.0",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            let posted = poster.post(&format!("http://{host}:{port}/"), &[], Bytes::new()).await;
            assert!(matches!(posted, Err(Undelivered::Private | Undelivered::NoName)), "{host}: {posted:?}");
        }
        let waits = futures_util::poll!(std::pin::pin!(listener.accept()));
        assert!(waits.is_pending(), "somebody connected");
    }

    #[tokio::test]
    async fn what_is_no_web_address_is_not_posted_to() {
        for url in ["", "ftp://1.1.1.1/", "http://a@1.1.1.1/"] {
            let posted = Poster::new(true).post(url, &[], Bytes::new()).await;
            assert!(matches!(posted, Err(Undelivered::BadAddress)), "{url}: {posted:?}");
        }
    }
}
