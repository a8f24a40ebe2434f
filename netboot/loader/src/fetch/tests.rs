//! The client against a server that breaks off where it hurts.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;

use proptest::prelude::*;
use rackbar_messages::BootFileRole;

use super::*;

/// Serves `content` under every path and breaks each connection after its number of bytes.
#[derive(Default)]
struct Server {
    content: Vec<u8>,
    /// Bytes each further connection gives before it breaks; when empty, connections hold.
    breaks: VecDeque<usize>,
    ranges: bool,
    answer: VecDeque<u8>,
    budget: Option<usize>,
    connections: usize,
    requests: Vec<String>,
}

impl Transport for Server {
    fn connect(&mut self) -> Result<(), String> {
        self.connections += 1;
        self.answer.clear();
        self.budget = self.breaks.pop_front();
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let request = String::from_utf8_lossy(bytes).to_string();
        let from = request
            .split_once("bytes=")
            .and_then(|(_, rest)| rest.split('-').next()?.parse::<usize>().ok())
            .filter(|_| self.ranges);
        let (status, extra) = match from {
            Some(from) => ("206", format!("Content-Range: bytes {from}-/*\r\n")),
            None => ("200", String::new()),
        };
        let body = &self.content[from.unwrap_or(0)..];
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n{extra}\r\n", body.len());
        self.answer.extend(head.as_bytes().iter().chain(body));
        self.requests.push(request);
        Ok(())
    }

    fn receive(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> Result<bool, String> {
        let mut length = self.answer.len().min(1000);
        if let Some(budget) = self.budget {
            length = length.min(budget);
            if length == 0 {
                return Err("the connection broke".into());
            }
        }
        if length == 0 {
            return Ok(false);
        }
        let chunk: Vec<u8> = self.answer.iter().take(length).copied().collect();
        let taken = take(&chunk);
        self.answer.drain(..taken);
        self.budget = self.budget.map(|budget| budget - taken);
        Ok(true)
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn file(content: &[u8]) -> BootFile {
    BootFile {
        role: BootFileRole::Kernel,
        path: "/boot/v1/files/x/vmlinuz".into(),
        name: "vmlinuz".into(),
        size: content.len() as u64,
        sha256: Digest(rackbar_trust::sha256(content)),
    }
}

fn client(server: Server) -> Client<Server> {
    Client::new(server, "192.0.2.1".into())
}

#[test]
fn several_requests_share_a_connection() {
    let bytes = content(5000);
    let mut client = client(Server {
        content: bytes.clone(),
        ..Server::default()
    });
    assert_eq!(client.get("/manifest", 9000), Ok(bytes.clone()));
    assert_eq!(client.file(&file(&bytes), &mut |_| ()), Ok(bytes));
    assert_eq!(client.post("/report", b"x"), Ok(()));
    assert_eq!(client.transport().connections, 1);
}

#[test]
fn a_broken_download_goes_on_where_it_was() {
    let bytes = content(50_000);
    let mut client = client(Server {
        content: bytes.clone(),
        breaks: [20_000, 9_000, 0].into(),
        ranges: true,
        ..Server::default()
    });
    let mut seen = 0;
    let got = client.file(&file(&bytes), &mut |done| {
        assert!(done >= seen, "goes back from {seen} to {done}");
        seen = done;
    });
    assert_eq!(got, Ok(bytes));
    assert_eq!(seen, 50_000);
    assert_eq!(client.transport().connections, 4);
    assert!(client.transport().requests.last().unwrap().contains("Range: bytes="));
}

#[test]
fn a_server_without_ranges_starts_over_and_the_digest_still_fits() {
    let bytes = content(30_000);
    let mut client = client(Server {
        content: bytes.clone(),
        breaks: [20_000].into(),
        ..Server::default()
    });
    assert_eq!(client.file(&file(&bytes), &mut |_| ()), Ok(bytes));
}

#[test]
fn a_connection_that_never_holds_is_given_up() {
    let bytes = content(30_000);
    let mut client = client(Server {
        content: bytes.clone(),
        breaks: vec![0; 100].into(),
        ..Server::default()
    });
    let error = client.file(&file(&bytes), &mut |_| ()).unwrap_err();
    assert_eq!(error, FetchError::Connection("the connection broke".into()));
    assert!(client.transport().connections < 10);
}

#[test]
fn another_content_is_refused() {
    let bytes = content(3000);
    let mut wanted = file(&bytes);
    let server = || Server {
        content: bytes.clone(),
        ..Server::default()
    };
    wanted.sha256.0[0] ^= 1;
    let digest = client(server()).file(&wanted, &mut |_| ()).unwrap_err();
    assert_eq!(digest, FetchError::Digest { name: "vmlinuz".into() });
    wanted.size += 1;
    let length = client(server()).file(&wanted, &mut |_| ()).unwrap_err();
    assert!(matches!(
        length,
        FetchError::Length {
            expected: 3001,
            found: 3000,
            ..
        }
    ));
    wanted.size = u64::MAX;
    let memory = client(server()).file(&wanted, &mut |_| ()).unwrap_err();
    assert!(matches!(memory, FetchError::Memory { .. }));
    wanted.path = "/a\r\nHost: evil".into();
    assert!(matches!(
        client(server()).file(&wanted, &mut |_| ()),
        Err(FetchError::Path(_))
    ));
}

/// Answers every request with the same bytes.
struct Babbler(Vec<u8>);

impl Transport for Babbler {
    fn connect(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn send(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn receive(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> Result<bool, String> {
        let bytes = core::mem::take(&mut self.0);
        let taken = take(&bytes);
        self.0 = bytes[taken..].to_vec();
        Ok(!bytes.is_empty())
    }
}

proptest! {
    #[test]
    fn wherever_it_breaks_the_content_is_whole(
        length in 1usize..20_000, breaks in prop::collection::vec(0usize..8000, 0..6), ranges: bool,
    ) {
        let bytes = content(length);
        let mut fruitless = breaks.clone();
        fruitless.retain(|b| *b < 200);
        prop_assume!(fruitless.len() < FRUITLESS_TRIES as usize);
        let mut client = client(Server { content: bytes.clone(), breaks: breaks.into(), ranges, ..Server::default() });
        match client.file(&file(&bytes), &mut |_| ()) {
            Ok(got) => prop_assert_eq!(got, bytes),
            // Without ranges each break throws everything away, so that may go on until the tries are used up.
            Err(error) => prop_assert!(!ranges && matches!(error, FetchError::Connection(_)), "{error}"),
        }
    }

    #[test]
    fn hostile_servers_never_panic_us(bytes: Vec<u8>, length: u16) {
        let head = format!("HTTP/1.1 206 x\r\nContent-Length: {length}\r\nContent-Range: bytes 3-\r\n\r\n");
        for answer in [bytes.clone(), [head.as_bytes(), &bytes].concat()] {
            let _ = Client::new(Babbler(answer.clone()), "x".into()).get("/x", 100);
            let _ = Client::new(Babbler(answer), "x".into()).file(&file(&content(50)), &mut |_| ());
        }
    }
}
