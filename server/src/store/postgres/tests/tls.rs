//! TLS to a server, with a certificate of an authority that was made for the test.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::faults::eventually;
use super::server::{self, Server};
use crate::store::Store;
use crate::store::conformance::wait;
use crate::store::postgres::{OpenError, PostgresStore};

const PATIENCE: Duration = Duration::from_secs(60);

/// The certificates of two authorities, and one of the first for `localhost` with its key; all as PEM.
struct Made {
    authority: String,
    other: String,
    certificate: String,
    key: String,
}

fn make() -> Made {
    let authority = |key: &KeyPair| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.self_signed(key).unwrap().pem(), params)
    };
    let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
    let ((first, params), (other, _)) = (authority(&keys[0]), authority(&keys[1]));
    let issuer = Issuer::new(params, &keys[0]);
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&keys[2], &issuer).unwrap().pem();
    Made { authority: first, other, certificate, key: keys[2].serialize_pem() }
}

/// Gives the server a certificate. It writes the files itself: nobody else's keys will do.
fn begin_tls(server: &Server, made: &Made) {
    for (name, text) in [("server.crt", &made.certificate), ("server.key", &made.key)] {
        let copy = format!(
            "COPY (SELECT regexp_split_to_table('{}', E'\\n')) TO PROGRAM 'umask 077; cat >{name}'",
            text.trim()
        );
        server.sql("postgres", &copy).unwrap();
    }
    server.sql("postgres", "ALTER SYSTEM SET ssl = on").unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    let begin = Instant::now();
    while server.sql("postgres", "SHOW ssl").as_deref() != Some("on") {
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[test]
fn connections_are_encrypted_and_the_server_is_known_as_far_as_one_asks() {
    let Some(programs) = server::programs() else { return };
    let server = Server::start(&programs);
    let address = server.database();
    let name = address.rsplit('/').next().unwrap();
    let open = |host: &str, query: &str| {
        let address = address.replace("127.0.0.1", host);
        PostgresStore::open(&format!("{address}?{query}"))
    };
    // Whether all of a store's connections are encrypted; none of another store is left.
    let encrypted = |store: PostgresStore| {
        eventually(|| wait(store.check()));
        let sql = "SELECT bool_and(ssl), count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
            WHERE application_name = 'magpie' AND datname = current_database()";
        let all = server.sql(name, sql).unwrap();
        drop(store);
        let begin = Instant::now();
        let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'magpie'";
        while server.sql(name, left).as_deref() != Some("0") {
            assert!(begin.elapsed() < PATIENCE);
        }
        all
    };
    let refused = |opened: Result<PostgresStore, OpenError>| {
        let error = opened.err().unwrap();
        assert!(matches!(error, OpenError::Server(_)), "{error}");
        error.to_string()
    };
    assert!(refused(open("127.0.0.1", "sslmode=require")).contains("does not support TLS"));
    assert_eq!(encrypted(open("127.0.0.1", "sslmode=prefer").unwrap()), "f|t");

    let made = make();
    begin_tls(&server, &made);
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let authority = file("authority.pem", &made.authority);
    let other = file("other.pem", &made.other);
    let (authority, other) = (authority.display(), other.display());
    assert_eq!(encrypted(open("127.0.0.1", "sslmode=disable").unwrap()), "f|t");
    assert_eq!(encrypted(open("127.0.0.1", "sslmode=prefer").unwrap()), "t|t");
    assert_eq!(encrypted(open("127.0.0.1", "sslmode=require").unwrap()), "t|t");
    let verified = format!("sslmode=verify-full&sslrootcert={authority}");
    assert_eq!(encrypted(open("localhost", &verified).unwrap()), "t|t");
    // Another name, an authority of somebody else, none that the system knows.
    assert!(refused(open("127.0.0.1", &verified)).contains("certificate"));
    let others = format!("sslmode=require&sslrootcert={other}");
    assert!(refused(open("localhost", &others)).contains("certificate"));
    let unknown = open("localhost", "sslmode=verify-full").err().unwrap().to_string();
    assert!(unknown.contains("certificate"), "{unknown}");
    assert!(matches!(
        open("localhost", &format!("sslrootcert={}", files.path().join("server.key").display())).err(),
        Some(OpenError::Address(_))
    ));
}
