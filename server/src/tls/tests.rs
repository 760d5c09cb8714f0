//! Certificates as operators have them, good and bad.

use super::*;

fn made(directory: &Path, name: &str) -> Files {
    let files =
        Files { cert: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}-key.pem")) };
    make(&files, &[]).unwrap();
    files
}

#[track_caller]
fn refuses(files: Files, part: &str) {
    let error = Tls::open(files).unwrap_err().to_string();
    assert!(error.contains(part), "{error:?} does not say {part:?}");
}

#[test]
fn bad_files_say_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (made(directory.path(), "one"), made(directory.path(), "two"));
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let cut = directory.path().join("cut.pem");
    fs::write(&cut, &fs::read_to_string(&one.cert).unwrap()[..200]).unwrap();
    let files = |cert: &Path, key: &Path| Files { cert: cert.to_owned(), key: key.to_owned() };
    Tls::open(one.clone()).unwrap();
    refuses(files(&directory.path().join("none.pem"), &one.key), "none.pem: No such file");
    refuses(files(&empty, &one.key), "empty.pem: there is no certificate");
    refuses(files(&one.key, &one.key), "one-key.pem: there is no certificate");
    refuses(files(&one.cert, &one.cert), "one.pem: there is no private key");
    refuses(files(&cut, &one.key), "cut.pem: ");
    refuses(files(&one.cert, &two.key), "two-key.pem does not belong to");
    let nonsense = directory.path().join("nonsense.pem");
    let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
    fs::write(&nonsense, pem("CERTIFICATE")).unwrap();
    refuses(files(&nonsense, &one.key), "nonsense.pem: ");
    fs::write(&nonsense, pem("PRIVATE KEY")).unwrap();
    refuses(files(&one.cert, &nonsense), "nonsense.pem: ");
}

#[test]
fn an_own_certificate_stays_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let listen = ["192.0.2.7:0".parse().unwrap(), "0.0.0.0:8080".parse().unwrap()];
    let first = Tls::self_signed(directory.path(), &listen).unwrap().fingerprint();
    assert_eq!(first.len(), 32 * 3 - 1);
    assert_eq!(Tls::self_signed(directory.path(), &[]).unwrap().fingerprint(), first);
    #[cfg(unix)]
    {
        let mode = fs::metadata(directory.path().join(OWN_KEY)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    // A start that was cut off in between is made good.
    fs::remove_file(directory.path().join(OWN_CERT)).unwrap();
    assert_ne!(Tls::self_signed(directory.path(), &[]).unwrap().fingerprint(), first);
}

#[test]
fn a_bad_new_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let files = made(directory.path(), "one");
    let tls = Tls::open(files.clone()).unwrap();
    let first = tls.fingerprint();
    fs::write(&files.cert, "half a file").unwrap();
    assert_ne!(stamps(&files), tls.opened);
    tls.reload();
    assert_eq!(tls.fingerprint(), first);
    made(directory.path(), "one");
    tls.reload();
    assert_ne!(tls.fingerprint(), first);
}
