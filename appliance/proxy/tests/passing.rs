//! What passes through: bodies of requests, tunnels, and what is said of a passed answer.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::Receiver;

use common::*;

#[test]
fn bodies_of_requests_pass_through_however_long_they_are() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.put("/form", doc(b"done".to_vec()));
    let under = under(&folder.path().join("cache"), settings(&[&origin]));
    let file = folder.path().join("body");
    for (size, extra) in [
        (5 << 20, "X-Known: 1"),
        (3 << 20, "Transfer-Encoding: chunked"),
        (0, "Transfer-Encoding: chunked"),
    ] {
        let body = bytes(size, 5);
        std::fs::write(&file, &body).unwrap();
        let data = format!("@{}", file.display());
        let arguments = ["-X", "PUT", "-H", extra, "--data-binary", &data];
        let (status, head, got) = under.curl(&arguments, &origin.url("/form"));
        assert_eq!((status, got.as_slice()), (200, b"done".as_slice()), "{extra}: {head}");
        assert!(
            origin.bodies.lock().unwrap().pop().unwrap() == body,
            "{extra}: another body came"
        );
    }
}

/// Whoever stands still here for a minute does so for ever.
fn bounded(stream: &TcpStream) {
    let within = Some(std::time::Duration::from_secs(60));
    stream.set_read_timeout(within).unwrap();
    stream.set_write_timeout(within).unwrap();
}

#[test]
fn a_tunnel_carries_both_ways_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    let mut open = settings(&[]);
    open.mirrors.clear();
    open.rule.connect_ports = vec![at.port()];
    let under = under(folder.path(), open);
    // More than the buffers on the way hold: each end sends all it has, and reads only what the other end needs it to.
    let body = &bytes(32 << 20, 7);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            bounded(&stream);
            stream.write_all(body).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == *body, "the server got {} bytes", got.len());
            // Its way back is still open when the client's is not any more.
            stream.write_all(b"all").unwrap();
        });
        let mut client = TcpStream::connect(under.address).unwrap();
        bounded(&client);
        write!(client, "CONNECT {at} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut one = [0];
            client.read_exact(&mut one).unwrap();
            head.push(one[0]);
        }
        let mut writer = client.try_clone().unwrap();
        scope.spawn(move || {
            writer.write_all(body).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        // Only then is something read: until then the server's bytes stand in the way of nobody's.
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(
            got.len() == body.len() + 3 && got.starts_with(body) && got.ends_with(b"all"),
            "{}",
            got.len()
        );
    });
}

/// An origin of one connection: says when half a body came, answers then when there is something to answer with, and gives all
/// that came when it ends.
fn listening(answer: &'static str) -> (std::net::SocketAddr, Receiver<()>, std::thread::JoinHandle<String>) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    let (says, half) = std::sync::mpsc::channel();
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .unwrap();
        let mut all = Vec::new();
        while !all.windows(4).any(|four| four == b"half") {
            let mut some = [0; 1000];
            let count = stream.read(&mut some).unwrap();
            assert!(count > 0, "the body did not come");
            all.extend_from_slice(&some[..count]);
        }
        says.send(()).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut all);
        String::from_utf8(all).unwrap()
    });
    (at, half, heard)
}

fn leads_to(at: std::net::SocketAddr) -> rackbar_proxy::Settings {
    let mut open = settings(&[]);
    open.mirrors.clear();
    open.rule.ports = vec![at.port()];
    open
}

#[test]
fn a_body_that_breaks_off_is_not_ended_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (at, half, heard) = listening("");
    let under = under(folder.path(), leads_to(at));
    let mut client = TcpStream::connect(under.address).unwrap();
    write!(
        client,
        "PUT http://{at}/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    )
    .unwrap();
    half.recv().unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let heard = heard.join().unwrap();
    assert!(heard.ends_with("half\r\n"), "{heard}");
}

#[test]
fn the_rest_of_a_body_that_nobody_took_is_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let (at, _half, heard) = listening("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let under = under(folder.path(), leads_to(at));
    let mut client = TcpStream::connect(under.address).unwrap();
    client
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    write!(
        client,
        "PUT http://{at}/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nhalf"
    )
    .unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\nno") {
        let mut one = [0];
        client.read_exact(&mut one).unwrap();
        got.push(one[0]);
    }
    // It may have ended the connection by now.
    let _ = client.write_all(b"GET http://127.0.0.1/hidden HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = client.read_to_end(&mut got);
    let got = String::from_utf8(got).unwrap();
    assert!(
        got.starts_with("HTTP/1.1 403") && got.matches("HTTP/1.1").count() == 1,
        "{got}"
    );
    drop(client);
    assert!(!heard.join().unwrap().contains("hidden"));
}
