//! The boot HTTP server over loopback: raw sockets for what iPXE does to a connection, and curl.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{DEADLINE, Desk, Sink, run, wait_until};
use rackbar_artifacts::{Artifact, Artifacts};
use rackbar_messages::BootReport;
use rackbar_model::{BootStage, EventKind, MacAddr};
use rackbar_services::http::{HttpConfig, HttpHandle, HttpLimits, HttpTimeouts, start};

/// Twice what Linux keeps of one connection by itself (`tcp_wmem`, 4 MiB), for answers that nobody takes must not be gone.
const LARGE: usize = 8 << 20;

struct Server {
    handle: HttpHandle,
    config: HttpConfig,
    sink: Arc<Sink>,
    common: rackbar_services::Common,
    desk: Arc<Desk>,
    address: SocketAddr,
    file: Arc<Artifact>,
    content: Vec<u8>,
    folder: tempfile::TempDir,
}

fn free_port() -> SocketAddr {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    probe.local_addr().unwrap()
}

fn server(limits: HttpLimits) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..LARGE as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(folder.path().join("base"), &content).unwrap();
    let artifacts = Artifacts::new();
    let file = artifacts
        .add_file("base.cpio.zst", &folder.path().join("base"))
        .unwrap();
    artifacts.add_bytes("loader.efi", &b"MZ loader"[..]).unwrap();
    artifacts.add_bytes("snponly.efi", &b"MZ ipxe"[..]).unwrap();
    let (sink, common) = Sink::new();
    let desk = Arc::new(Desk::default());
    let address = free_port();
    let config = HttpConfig {
        listen: vec![address],
        artifacts: Arc::new(artifacts),
        desk: Arc::clone(&desk) as _,
        limits,
    };
    let handle = start(config.clone(), common.clone()).unwrap();
    Server {
        handle,
        config,
        sink,
        common,
        desk,
        address,
        file,
        content,
        folder,
    }
}

impl Server {
    fn path(&self) -> String {
        format!("/boot/v1/files/{}/base.cpio.zst", self.file.digest())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Reads one answer: status, head, body.
fn answer(stream: &mut TcpStream) -> (u16, String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("Content-Length: "))
        .map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (status, head, body)
}

#[test]
fn pipelined_requests_are_answered_in_order_and_none_is_lost() {
    let server = server(HttpLimits::default());
    let mut stream = server.connect();
    let file = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", server.path());
    let script = |n: u8| format!("GET /boot/v1/script.ipxe?mac=52-54-00-00-00-{n:02x} HTTP/1.1\r\nHost: x\r\n\r\n");
    // All at once, cut in the middle of a request, while the first answer of 5 MiB is far from sent.
    let all = format!("{file}{}{file}{}", script(1), script(2));
    let (first, second) = all.split_at(file.len() + 20);
    stream.write_all(first.as_bytes()).unwrap();
    stream.write_all(second.as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).2, server.content);
    assert_eq!(answer(&mut stream).2, b"#!ipxe\necho 52:54:00:00:00:01 127.0.0.1\n");
    assert_eq!(answer(&mut stream).2, server.content);
    assert_eq!(answer(&mut stream).2, b"#!ipxe\necho 52:54:00:00:00:02 127.0.0.1\n");
    let mac = server.sink.wait_for("the script", |mac, kind| match kind {
        EventKind::HttpSent { what, .. } if what == "script" => mac,
        _ => None,
    });
    assert_eq!(mac.to_string(), "52:54:00:00:00:01");
    server.handle.stop();
}

#[test]
fn a_request_sent_while_the_last_answer_ends_is_not_reset() {
    let server = server(HttpLimits::default());
    let mut stream = server.connect();
    let request = format!("GET {} HTTP/1.1\r\nConnection: close\r\n\r\n", server.path());
    // More input than the answer to "close" wants: unread, it would turn the close into a reset.
    stream.write_all(format!("{request}{request}").as_bytes()).unwrap();
    let (status, head, body) = answer(&mut stream);
    assert_eq!((status, body.len()), (200, LARGE));
    assert!(head.contains("Connection: close\r\n"));
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap(), 0);
}

#[test]
fn head_sends_no_body_and_reports_arrive() {
    let server = server(HttpLimits::default());
    let mut stream = server.connect();
    write!(stream, "HEAD {} HTTP/1.1\r\nHost: x\r\n\r\n", server.path()).unwrap();
    let mut head = vec![0; 2048];
    let count = stream.read(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head[..count]).into_owned();
    assert!(
        head.contains(&format!("Content-Length: {LARGE}\r\n")) && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let report = BootReport {
        version: 1,
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        attempt: 1,
        stage: BootStage::StartingKernel,
    };
    let body = postcard::to_allocvec(&report).unwrap();
    write!(
        stream,
        "POST /boot/v1/report HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    assert_eq!(answer(&mut stream).0, 100);
    stream.write_all(&body).unwrap();
    let (status, head, _) = answer(&mut stream);
    assert_eq!(status, 204);
    assert!(!head.contains("Content-Length"), "{head}");
    assert_eq!(*server.desk.reports.lock().unwrap(), [report]);
}

#[test]
fn curl_gets_files_ranges_and_nothing_when_unchanged() {
    let server = server(HttpLimits::default());
    let out = server.folder.path().join("out");
    let out_text = out.to_str().unwrap();
    let url = server.url(&server.path());
    run("curl", &["-sSf", "-o", out_text, &url]);
    assert_eq!(std::fs::read(&out).unwrap(), server.content);
    let part = run("curl", &["-sSf", "-r", "1048570-1048585", &url]);
    assert_eq!(part.stdout, server.content[1_048_570..=1_048_585]);
    // Resuming a broken download.
    std::fs::write(&out, &server.content[..1000]).unwrap();
    run("curl", &["-sSf", "-C", "-", "-o", out_text, &url]);
    assert_eq!(std::fs::read(&out).unwrap(), server.content);
    let etag = format!("If-None-Match: {}", server.file.etag());
    let code = run(
        "curl",
        &[
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{size_download}",
            "-H",
            &etag,
            &url,
        ],
    );
    assert_eq!(code.stdout, b"304 0");
    // Three requests over one connection.
    let loader = server.url("/boot/v1/loader.efi");
    let args = ["-sS", "-w", "%{num_connects}", &loader, &loader, &loader];
    assert_eq!(run("curl", &args).stdout, b"MZ loader1MZ loader0MZ loader0");
    let ipxe = server.url("/boot/v1/snponly.efi");
    assert_eq!(
        run("curl", &["-sS", "-w", "%{content_type}", &ipxe]).stdout,
        b"MZ ipxeapplication/efi"
    );
    let moved = run(
        "curl",
        &[
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{redirect_url}",
            &server.url("/nodes"),
        ],
    );
    assert_eq!(moved.stdout, b"308 https://127.0.0.1/nodes");
}

#[test]
fn slow_and_greedy_clients_are_cut_off_and_others_served() {
    let timeouts = HttpTimeouts {
        request: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        stalled: Duration::from_millis(300),
    };
    let limits = HttpLimits {
        connections_per_client: 3,
        timeouts,
        ..HttpLimits::default()
    };
    let server = server(limits);
    let mut slow = server.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nX").unwrap();
    let _idle = server.connect();
    let mut unread = server.connect();
    write!(unread, "GET {} HTTP/1.1\r\n\r\n", server.path()).unwrap();
    wait_until("three connections", || server.common.metrics.http_accepted.get() == 3);
    // The fourth is closed without a word.
    let mut fourth = server.connect();
    assert!(matches!(fourth.read(&mut [0]), Ok(0) | Err(_)));
    let began = Instant::now();
    assert!(matches!(slow.read(&mut [0]), Ok(0) | Err(_)));
    // By the time-outs above: the usual one of a request is 10 s.
    assert!(began.elapsed() < Duration::from_secs(9));
    wait_until("all cut off", || server.common.metrics.http_connections.get() == 0);
    let mut good = server.connect();
    good.write_all(b"GET /boot/v1/loader.efi HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(answer(&mut good).2, b"MZ loader");
}

#[test]
fn machines_beyond_the_limit_wait_and_all_get_through() {
    let limits = HttpLimits {
        connections: 4,
        ..HttpLimits::default()
    };
    let server = server(limits);
    // Four take all places, and do not take their answers.
    let mut first: Vec<TcpStream> = (0..4).map(|_| server.connect()).collect();
    for stream in &mut first {
        // Else the kernel may make room for all of an answer, which is then given, and its place free.
        let small = socket2::SockRef::from(&*stream).set_recv_buffer_size(16 << 10);
        small.unwrap();
        write!(stream, "GET {} HTTP/1.1\r\n\r\n", server.path()).unwrap();
    }
    // Not by the places taken: a thread takes one also while it looks whether a newcomer is there.
    wait_until("all places are taken", || {
        server.common.metrics.http_accepted.get() == 4
    });
    // Sixty more ask meanwhile.
    let waiting: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /boot/v1/loader.efi HTTP/1.1\r\n\r\n").unwrap();
            stream
        })
        .collect();
    wait_until("newcomers wait", || server.common.metrics.http_full.get() > 0);
    for stream in &waiting {
        stream.set_nonblocking(true).unwrap();
        let got = (&*stream).read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(
            got,
            Err(std::io::ErrorKind::WouldBlock),
            "one that waits was answered or closed"
        );
        stream.set_nonblocking(false).unwrap();
    }
    assert_eq!(server.common.metrics.http_accepted.get(), 4);
    assert_eq!(server.common.metrics.http_places.get(), 4);
    let waits = || server.common.busy.http_waiting();
    wait_until("all sixty are seen to wait", || {
        waits().0 == 60 && waits().1.len() == 60
    });
    let who = waits().1;
    for stream in &waiting {
        let own = stream.local_addr().unwrap();
        assert!(who.contains(&own), "{own} waits and is not named: {who:?}");
    }
    assert_eq!(server.common.metrics.http_requests.get(), 0);
    let content = &server.content;
    std::thread::scope(|scope| {
        for mut stream in first {
            scope.spawn(move || assert!(answer(&mut stream).2 == *content));
        }
        for mut stream in waiting {
            scope.spawn(move || assert_eq!(answer(&mut stream).2, b"MZ loader"));
        }
    });
    assert_eq!(server.common.metrics.http_accepted.get(), 64);
    assert_eq!(server.common.metrics.http_refused.get(), 0);
}

#[test]
fn a_place_that_is_only_kept_goes_to_one_who_waits() {
    // The kernel chooses the server's thread for each connection: in some of the tries it is one thread's place that
    // another thread's newcomer waits for.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let limits = HttpLimits {
                    connections: 1,
                    ..HttpLimits::default()
                };
                let server = server(limits);
                let mut kept = server.connect();
                // Twice: its silence then begins later than its thread took it in and found all places taken.
                for _ in 0..2 {
                    kept.write_all(b"GET /boot/v1/loader.efi HTTP/1.1\r\n\r\n").unwrap();
                    assert_eq!(answer(&mut kept).2, b"MZ loader");
                }
                // Long before the minute is over that an idle connection has else: reading here gives up earlier.
                let mut next = server.connect();
                next.write_all(b"GET /boot/v1/loader.efi HTTP/1.1\r\n\r\n").unwrap();
                assert_eq!(answer(&mut next).2, b"MZ loader");
                assert_eq!(kept.read(&mut [0]).unwrap(), 0);
            });
        }
    });
}

#[test]
fn garbage_gets_an_answer_and_the_connection_ends() {
    let server = server(HttpLimits::default());
    for garbage in [
        &b"\x16\x03\x01\0\xa5\x01\0\0\xa1\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/3.0\r\n\r\n",
    ] {
        let mut stream = server.connect();
        stream.write_all(garbage).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        assert!(text.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn addresses_change_while_a_download_goes_on() {
    let server = server(HttpLimits::default());
    let mut stream = server.connect();
    write!(stream, "GET {} HTTP/1.1\r\n\r\n", server.path()).unwrap();
    let other = free_port();
    server
        .handle
        .reconfigure(HttpConfig {
            listen: vec![other],
            ..server.config.clone()
        })
        .unwrap();
    assert!(server.handle.status().state.contains(&other.to_string()));
    assert_eq!(answer(&mut stream).2, server.content);
    wait_until("the old port is closed", || TcpStream::connect(server.address).is_err());
    let mut new = TcpStream::connect(other).unwrap();
    new.write_all(b"GET /boot/v1/loader.efi HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(answer(&mut new).2, b"MZ loader");
}

#[test]
fn at_an_address_on_an_uplink_people_are_led_to_the_page_and_machines_are_refused() {
    let server = server(HttpLimits::default());
    let mut stream = server.connect();
    let mut status = |path: &str| {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: rackbar\r\n\r\n").unwrap();
        answer(&mut stream).0
    };
    let script = "/boot/v1/script.ipxe?mac=52-54-00-00-00-01";
    let file = server.path();
    let documents = ["/boot/v1/loader.efi", script, file.as_str()];
    assert_eq!(documents.map(&mut status), [200; 3]);
    server.common.outside.set(vec![server.address.ip()]);
    assert_eq!(documents.map(&mut status), [403; 3]);
    assert_eq!(status("/boot/v1/report"), 403);
    assert_eq!(status("/nodes"), 308);
    // A BMC may be there; there is none in this test.
    assert_eq!(status("/boot/v1/loader.iso"), 404);
    server.common.outside.set(vec!["127.0.0.2".parse().unwrap()]);
    assert_eq!(documents.map(&mut status), [200; 3]);
}

#[test]
fn a_taken_port_is_explained() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (_, common) = Sink::new();
    let config = HttpConfig {
        listen: vec![holder.local_addr().unwrap()],
        artifacts: Arc::default(),
        desk: Arc::new(Desk::default()),
        limits: HttpLimits::default(),
    };
    let error = start(config, common).err().unwrap().to_string();
    assert!(
        error.contains("boot HTTP: cannot listen on 127.0.0.1:") && error.contains("(process "),
        "{error}"
    );
}
