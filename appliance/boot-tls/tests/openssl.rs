//! OpenSSL as firmware speaks it: TLS 1.2, no elliptic curves, RSA certificates.

#![allow(clippy::unwrap_used, reason = "a test's words may")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rackbar_boot_tls::{Identity, server_config};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Serves one connection that says `hello` after the handshake; gives what the server thought of it.
fn serve_one(config: Arc<rustls::ServerConfig>) -> (u16, std::thread::JoinHandle<Result<String, String>>) {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().map_err(|error| error.to_string())?;
        let mut tls = rustls::ServerConnection::new(config).map_err(|error| error.to_string())?;
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        stream.write_all(b"hello\n").map_err(|error| error.to_string())?;
        let suite = stream
            .conn
            .negotiated_cipher_suite()
            .map(|suite| format!("{:?}", suite.suite()));
        let _ = stream.read(&mut [0; 16]);
        suite.ok_or_else(|| "no suite".to_owned())
    });
    (port, served)
}

/// `openssl s_client` with these options; its whole output.
fn client(port: u16, authority: &std::path::Path, options: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{port}"),
            "-verify_return_error",
            "-ign_eof",
        ])
        .args(["-verify_ip", "127.0.0.1", "-CAfile"])
        .arg(authority)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed by cargo xtask setup");
    // A line ends the dialogue: the server answers it by closing.
    child.stdin.take().unwrap().write_all(b"thanks\n").unwrap();
    let done = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
}

#[test]
fn openssl_without_elliptic_curves_is_served_and_verifies_us() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::generate("Rackbar boot test", &[HERE]).unwrap();
    let authority = folder.path().join("ca.pem");
    let pem = Command::new("openssl")
        .args(["x509", "-inform", "der", "-out"])
        .arg(&authority)
        .stdin(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().unwrap().write_all(identity.authority())?;
            child.wait()
        });
    assert!(pem.unwrap().success());
    let kept = Identity::from_parts(identity.to_parts());
    let config = server_config(&kept).unwrap();
    let old = [
        "-tls1_2",
        "-cipher",
        "DHE-RSA-AES256-GCM-SHA384:AES256-SHA",
        "-sigalgs",
        "RSA+SHA256",
    ];
    let smaller = ["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"];
    for (options, suite) in [
        (&old[..], "CipherSuite(0x9f)"),
        (&smaller, "CipherSuite(0x9e)"),
        (&["-tls1_2"], "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        (&["-tls1_3"], "TLS13_AES_256_GCM_SHA384"),
    ] {
        let (port, served) = serve_one(config.clone());
        let said = client(port, &authority, options);
        assert!(
            said.contains("hello") && said.contains("Verify return code: 0"),
            "{options:?}: {said}"
        );
        assert_eq!(served.join().unwrap().unwrap(), suite, "{options:?}");
    }
    // What the certificate does not name is not us.
    let mut other = Identity::from_parts(identity.to_parts());
    assert!(!other.serve(&[HERE]).unwrap());
    assert!(other.serve(&["192.0.2.9".parse().unwrap()]).unwrap());
    let (port, _served) = serve_one(server_config(&other).unwrap());
    let said = client(port, &authority, &old);
    assert!(!said.contains("hello"), "{said}");
}
