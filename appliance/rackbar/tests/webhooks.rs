//! Webhooks through the daemon: configured in its file, given a secret by command, told also after a restart.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Appliance, CONFIG};
use rackbar_webhooks::{Secret, sign};

const PATIENCE: Duration = Duration::from_secs(60);

/// Head and body of a request.
type Heard = (String, String);

/// A receiver that takes everything, one connection per request.
struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    fn start(at: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, ends) = (Arc::<Mutex<Vec<Heard>>>::default(), Arc::<AtomicBool>::default());
        let (kept, over) = (heard.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut head).unwrap_or(0) == 0 {
                        break;
                    }
                }
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let Some(length) = length.and_then(|text| text.trim().parse().ok()) else {
                    continue;
                };
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                kept.lock().unwrap().push((head, String::from_utf8(body).unwrap()));
                let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.get_mut().write_all(answer).unwrap();
            }
        });
        Self {
            address,
            heard,
            ends,
            thread: Some(thread),
        }
    }

    /// Waits for a message that has this in its body.
    #[track_caller]
    fn until(&self, part: &str) -> Heard {
        let end = Instant::now() + PATIENCE;
        loop {
            let heard = self.heard.lock().unwrap().clone();
            if let Some(found) = heard.iter().find(|(_, body)| body.contains(part)) {
                return found.clone();
            }
            assert!(Instant::now() < end, "{part} was not told: {heard:?}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        drop(std::net::TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

#[test]
fn a_webhook_of_the_file_is_told_signed_and_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(([127, 0, 0, 1], 0).into());
    let at = receiver.address;
    let hook =
        format!("{CONFIG}\n[[webhook]]\nname = \"chat\"\nurl = \"http://{at}/T0/geheim\"\nevents = [\"changed\"]\n");
    std::fs::write(folder.path().join("rackbar.toml"), hook).unwrap();
    let appliance = Appliance::start(folder.path());
    appliance.ask(&["token", "create", "anna", "--role", "viewer"]).well();
    let (head, body) = receiver.until("make token anna");
    assert!(head.starts_with("POST /T0/geheim HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "webhook-signature"), None, "it has no secret yet");
    let message: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(message["specversion"], "1.0");
    assert_eq!(message["type"], "dev.rackbar.changed");
    assert_eq!(message["source"], "/rackbar/loop");

    // A secret is made, shown once, and used from the next message on; only an admin may.
    let viewer = appliance.ask(&["token", "create", "vera", "--role", "operator"]).well();
    let viewer = appliance.file("vera", viewer.trim());
    let refused = appliance.by(viewer.as_ref(), &["webhook", "secret", "chat"], "");
    assert!(refused.failed(4).contains("admin"));
    let secret = appliance.ask(&["webhook", "secret", "chat"]).well();
    let secret = Secret::parse(secret.trim()).unwrap();
    let (head, body) = receiver.until("give webhook chat a new secret");
    let (id, seconds) = (
        header(&head, "webhook-id").unwrap(),
        header(&head, "webhook-timestamp").unwrap(),
    );
    let signed = sign(&secret, id, seconds.parse().unwrap(), body.as_bytes());
    assert_eq!(header(&head, "webhook-signature"), Some(signed.as_str()));
    assert_eq!(
        header(&head, "webhook-id").unwrap(),
        serde_json::from_str::<serde_json::Value>(&body).unwrap()["id"]
    );

    // The receiver is down while something happens, and so are we afterwards.
    drop(receiver);
    appliance.ask(&["token", "create", "bert", "--role", "viewer"]).well();
    let listed = appliance.ask(&["webhook", "list"]).well();
    assert!(listed.contains("chat") && listed.contains("yes"), "{listed}");
    for shown in [listed, appliance.ask(&["service", "status"]).well()] {
        assert!(!shown.contains("geheim"), "{shown}");
    }
    let folder_of = appliance.stop();
    let appliance = Appliance::start(&folder_of);
    let receiver = Receiver::start(at);
    receiver.until("make token bert");
    let again: Vec<_> = receiver
        .heard
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, body)| body.contains("make token anna"))
        .cloned()
        .collect();
    assert!(again.is_empty(), "what was taken long ago is not told again: {again:?}");
    let log = std::fs::read_to_string(folder_of.join("log")).unwrap();
    assert!(!log.contains("geheim"));

    // Taken out of the file, it is told no more.
    appliance.file("rackbar.toml", CONFIG);
    let end = Instant::now() + PATIENCE;
    while !appliance.ask(&["webhook", "list", "--json"]).well().starts_with("[]") {
        assert!(Instant::now() < end, "the webhook is still there");
    }
    appliance.stop();
}

#[test]
fn mistakes_in_a_webhook_are_told_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("rackbar.toml");
    let hook =
        "\n[[webhook]]\nname = \"Chat\"\nurl = \"https://anna:geheim@hooks.example/\"\nevents = [\"Drift Seen\"]\n";
    std::fs::write(&config, format!("{CONFIG}{hook}")).unwrap();
    let path = config.display().to_string();
    let said = common::rackbar(folder.path(), &["daemon", "--check", "--config", &path], "");
    let all = format!("{}{}", said.out, said.err);
    assert_ne!(said.code, 0, "{all}");
    for part in ["webhook.name", "webhook.url", "webhook.events", "line 1"] {
        assert!(all.contains(part), "{part} is missing in {all}");
    }
    assert!(!all.contains("geheim"), "{all}");
}
