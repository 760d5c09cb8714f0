//! Sockets over loopback against rustls as a client.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::client::TlsStream as ClientStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

type Client = ClientStream<TcpStream>;

/// A server's socket after its handshake, and the client's end.
async fn pair(version: &'static SupportedProtocolVersion) -> (Socket, Client) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connect = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(client)).connect(name, tcp).await.unwrap()
    };
    let accept = async {
        let (tcp, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(server)).accept(tcp).await.unwrap().into_inner()
    };
    let (client, (tcp, session)) = tokio::join!(connect, accept);
    let socket = Socket::tls(tcp, session).unwrap();
    socket.limit_unsent(16 * 1024);
    (socket, client)
}

fn is_blocked<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Bytes that show where one is missing.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

async fn write_all(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() || socket.owes() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            blocked if is_blocked(&blocked) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads once something is there.
async fn read(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        let read = socket.try_read(buffer);
        if !is_blocked(&read) {
            return read;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn much_goes_both_ways() {
    for version in [&TLS12, &TLS13] {
        let (socket, client) = pair(version).await;
        let sent = pattern(3_000_000);
        let (mut from_server, mut to_server) = tokio::io::split(client);
        let write = async {
            write_all(&socket, &sent).await.unwrap();
            socket.shutdown_write();
        };
        let read = async {
            let (mut all, mut buffer) = (Vec::new(), vec![0; 8 * 1024]);
            while all.len() < sent.len() {
                let count = read(&socket, &mut buffer).await.unwrap();
                assert_ne!(count, 0);
                all.extend_from_slice(&buffer[..count]);
            }
            all
        };
        let client_write = async { to_server.write_all(&sent).await.unwrap() };
        let client_read = async {
            let mut all = Vec::new();
            // An end without close_notify would be an error here.
            from_server.read_to_end(&mut all).await.unwrap();
            all
        };
        let ((), got, (), client_got) = tokio::join!(write, read, client_write, client_read);
        assert!(got == sent && client_got == sent, "{version:?}");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_blocks_and_loses_nothing() {
    let (socket, mut client) = pair(&TLS13).await;
    let all = pattern(64 * 1024 * 1024);
    let mut taken = 0;
    // The kernel takes its time to say how much it takes.
    loop {
        let (front, back) = all[taken..taken + 200_000].split_at(70_000);
        let write = if taken % 2 == 0 {
            socket.try_write(front)
        } else {
            socket.try_write_vectored(&[IoSlice::new(front), IoSlice::new(back)])
        };
        match write {
            Ok(count) => taken += count,
            blocked if is_blocked(&blocked) => {
                if tokio::time::timeout(Duration::from_millis(300), socket.writable()).await.is_err() {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(socket.owes() && !socket.flush().unwrap(), "what was taken and not sent is still owed");
    assert!(is_blocked(&socket.try_write(b"x")) && is_blocked(&socket.try_write(b"")));
    let flush = async {
        while !socket.flush().unwrap() {
            socket.writable().await.unwrap();
        }
        assert!(!socket.owes());
        socket.shutdown_write();
    };
    let mut got = Vec::new();
    let ((), read) = tokio::join!(flush, client.read_to_end(&mut got));
    read.unwrap();
    assert!(got == all[..taken], "{} of {taken} bytes", got.len());
}

#[tokio::test]
async fn what_is_left_of_a_record_is_readable_at_once() {
    let (socket, mut client) = pair(&TLS13).await;
    let sent = pattern(10_000);
    client.write_all(&sent).await.unwrap();
    client.flush().await.unwrap();
    let (mut got, mut buffer) = (Vec::new(), [0; 1_000]);
    while got.len() < sent.len() {
        let count = read(&socket, &mut buffer).await.unwrap();
        got.extend_from_slice(&buffer[..count]);
        // The whole record was taken from the kernel, which knows of nothing more.
        assert!(is_blocked(&socket.tcp.try_read(&mut [0])));
        if got.len() < sent.len() {
            assert!(socket.readable().now_or_never().is_some(), "after {} bytes", got.len());
        }
    }
    assert!(got == sent);
    while !is_blocked(&socket.try_read(&mut buffer)) {}
    assert!(socket.readable().now_or_never().is_none(), "nothing is left");

    // The last words and the end in one go.
    client.write_all(b"bye").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read(&socket, &mut buffer).await.unwrap(), 3);
    assert_eq!(read(&socket, &mut buffer).await.unwrap(), 0);
    assert!(socket.readable().now_or_never().is_some());
    // A peer that ended can still be told something.
    write_all(&socket, b"bye to you").await.unwrap();
    socket.shutdown_write();
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.unwrap();
    assert_eq!(told, b"bye to you");
}

#[tokio::test]
async fn an_end_without_a_word_and_garbage_are_errors() {
    let mut buffer = [0; 100];
    let (socket, client) = pair(&TLS13).await;
    let (mut tcp, _) = client.into_inner();
    tcp.shutdown().await.unwrap();
    let end = read(&socket, &mut buffer).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);

    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        let (socket, client) = pair(&TLS13).await;
        let (mut tcp, _) = client.into_inner();
        tcp.write_all(garbage).await.unwrap();
        let error = read(&socket, &mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        socket.shutdown_write();
        drop(socket);
        // It had its alert.
        assert_ne!(tcp.read(&mut buffer).await.unwrap(), 0);
    }
}
