//! A receiver on the loopback that fails in every way receivers fail in, and a journal on a disk.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rackbar_model::{Event, EventKind, Severity, Timestamp};
use rackbar_store::{Store, Table};
use rackbar_webhooks::{Deliverer, Hook, HookUrl, Secret, Standing, secret_key, sign};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

const PATIENCE: Duration = Duration::from_secs(60);

/// A request as it came.
#[derive(Clone, Debug)]
struct Heard {
    head: String,
    body: String,
}

impl Heard {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What a receiver answers, and what it heard.
#[derive(Default)]
struct Memory {
    heard: Vec<Heard>,
    /// Answers to come, before it says 204 to all.
    answers: Vec<&'static str>,
    /// It reads and says nothing.
    mute: bool,
}

struct Receiver {
    address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    async fn start(at: &str, memory: Arc<Mutex<Memory>>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = memory.clone();
        let task = tokio::spawn(async move {
            // Connections end with the receiver.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (memory, tls) = (kept.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        Some(tls) => {
                            let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await?;
                            serve(stream, &memory).await
                        }
                        None => serve::<TcpStream>(stream, &memory).await,
                    }
                });
            }
        });
        Self { address, memory, task }
    }

    fn heard(&self) -> Vec<Heard> {
        self.memory.lock().unwrap().heard.clone()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, memory: &Mutex<Memory>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let heard = Heard {
            head,
            body: String::new(),
        };
        let length = heard.header("content-length").unwrap().trim().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let answer = {
            let mut memory = memory.lock().unwrap();
            memory.heard.push(Heard {
                body: String::from_utf8(body).unwrap(),
                ..heard
            });
            let next = (!memory.answers.is_empty()).then(|| memory.answers.remove(0));
            (!memory.mute).then(|| next.unwrap_or("204 No Content"))
        };
        match answer {
            Some(answer) => {
                let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(text.as_bytes()).await?;
                stream.flush().await?;
            }
            None => std::future::pending::<()>().await,
        }
    }
}

/// A journal, and one hook that is told of it.
struct Teller {
    store: Store,
    news: Arc<Notify>,
    standing: Arc<Mutex<Standing>>,
    task: JoinHandle<()>,
}

impl Teller {
    async fn start(folder: &Path, hook: Hook) -> Self {
        let path = folder.join("rackbar.redb");
        let store = until("the store of the life before is closed", || Store::open(&path).ok()).await;
        let standing = Arc::new(Mutex::new(Standing::default()));
        let told = standing.clone();
        let report = Arc::new(move |now: &Standing| told.lock().unwrap().clone_from(now));
        let deliverer = Deliverer::new(hook, None, "hall-3", store.clone(), report).unwrap();
        let news = Arc::new(Notify::new());
        let task = tokio::spawn(deliverer.run(news.clone()));
        Self {
            store,
            news,
            standing,
            task,
        }
    }

    fn happens(&self, what: &str) {
        let kind = EventKind::DriftSeen { what: what.into() };
        self.store.append(event(kind));
        self.store.flush().unwrap();
        self.news.notify_waiters();
    }

    fn standing(&self) -> Standing {
        self.standing.lock().unwrap().clone()
    }

    /// Everything ends, as in a power cut: what was only queued for the disk may be lost.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        drop(self.store);
    }
}

fn event(kind: EventKind) -> Event {
    Event {
        seq: 0,
        at: Timestamp(1_700_000_000_000),
        node: None,
        mac: None,
        kind,
    }
}

fn hook(url: &str) -> Hook {
    Hook {
        name: "chat".into(),
        url: HookUrl::parse(url).unwrap(),
        events: vec!["drift_seen".into()],
        severity: Severity::Info,
        roots: Vec::new(),
    }
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_heard(receiver: &Receiver, count: usize) -> Vec<Heard> {
    let enough = || Some(receiver.heard()).filter(|heard| heard.len() >= count);
    until("the receiver has heard it", enough).await
}

fn told(heard: &[Heard]) -> Vec<String> {
    let what = |one: &Heard| {
        one.json()["data"]["kind"]["drift_seen"]["what"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    heard.iter().map(what).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_in_order_signed_and_from_now_on() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start("127.0.0.1:0", Arc::default(), None).await;
    {
        let store = Store::open(folder.path().join("rackbar.redb")).unwrap();
        store.append(event(EventKind::DriftSeen { what: "before".into() }));
        store.flush().unwrap();
        let key = secret_key("chat");
        store.put(Table::Secrets, &key, b"a secret of the receiver").unwrap();
        store.close();
    }
    let url = format!("http://{}/rackbar?key=x", receiver.address);
    let teller = Teller::start(folder.path(), hook(&url)).await;
    for n in 0..200 {
        teller.happens(&n.to_string());
        if n % 7 == 0 {
            let text = "of no interest".into();
            let severity = Severity::Error;
            teller.store.append(event(EventKind::Note { text, severity }));
        }
    }
    let heard = until_heard(&receiver, 200).await;
    let wanted: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(told(&heard), wanted);
    let secret = Secret::parse("a secret of the receiver").unwrap();
    for one in &heard {
        assert!(one.head.starts_with("POST /rackbar?key=x HTTP/1.1\r\n"), "{}", one.head);
        assert_eq!(
            one.header("content-type"),
            Some("application/cloudevents+json; charset=utf-8")
        );
        let id = one.header("webhook-id").unwrap();
        assert_eq!(one.json()["id"], id);
        let seconds = one.header("webhook-timestamp").unwrap().parse().unwrap();
        let signed = sign(&secret, id, seconds, one.body.as_bytes());
        assert_eq!(one.header("webhook-signature"), Some(signed.as_str()));
    }
    until("all is done with", || {
        (teller.standing().after == teller.store.last_seq()).then_some(())
    })
    .await;
    assert!(teller.standing().signed);
    teller.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_fails_and_restarts_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(Mutex::new(Memory {
        answers: vec!["503 Service Unavailable", "500 Internal Server Error"],
        ..Memory::default()
    }));
    let receiver = Receiver::start("127.0.0.1:0", memory.clone(), None).await;
    let at = receiver.address.to_string();
    let url = format!("http://{at}/");
    let teller = Teller::start(folder.path(), hook(&url)).await;
    teller.happens("one");
    let heard = until_heard(&receiver, 3).await;
    assert_eq!(told(&heard), ["one", "one", "one"], "told again until it is taken");
    let ids: Vec<_> = heard.iter().map(|one| one.header("webhook-id").unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "the same event has the same id");

    // It goes away. Nothing waits for it.
    drop(receiver);
    let began = Instant::now();
    ["two", "three"].iter().for_each(|what| teller.happens(what));
    assert!(began.elapsed() < Duration::from_secs(15));
    let trouble = until("the trouble is told", || teller.standing().trouble).await;
    assert!(trouble.contains("refused"), "{trouble}");

    // We go away too, and come back before it does.
    teller.kill().await;
    let teller = Teller::start(folder.path(), hook(&url)).await;
    teller.happens("four");
    memory.lock().unwrap().heard.clear();
    let receiver = Receiver::start(&at, memory, None).await;
    let heard = until_heard(&receiver, 3).await;
    let mut order = told(&heard);
    order.dedup();
    // One that was taken just before a power cut may come once more; none is missing, and they are in order.
    assert!(
        order.ends_with(&["two", "three", "four"].map(String::from)),
        "{order:?}"
    );
    until("no trouble any more", || {
        teller.standing().trouble.is_none().then_some(())
    })
    .await;
    assert_eq!(teller.standing().lost, 0);
    teller.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_next_life_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start("127.0.0.1:0", Arc::default(), None).await;
    let url = format!("http://{}/", receiver.address);
    let mut number = 0;
    for life in 1..=6 {
        let teller = Teller::start(folder.path(), hook(&url)).await;
        for _ in 0..20 {
            number += 1;
            teller.happens(&number.to_string());
        }
        let so_far = receiver.heard().len();
        until_heard(&receiver, so_far.max(life * 7)).await;
        teller.kill().await;
    }
    let teller = Teller::start(folder.path(), hook(&url)).await;
    until("the last one is heard", || {
        let last = number.to_string();
        told(&receiver.heard()).contains(&last).then_some(())
    })
    .await;
    let heard: Vec<u32> = told(&receiver.heard()).iter().map(|one| one.parse().unwrap()).collect();
    let mut highest = 0;
    for one in &heard {
        assert!(*one <= highest + 1, "{one} came before what was before it: {heard:?}");
        highest = highest.max(*one);
    }
    assert_eq!(highest, number);
    teller.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mute_receiver_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(Mutex::new(Memory {
        mute: true,
        ..Memory::default()
    }));
    let receiver = Receiver::start("127.0.0.1:0", memory.clone(), None).await;
    let teller = Teller::start(folder.path(), hook(&format!("http://{}/", receiver.address))).await;
    teller.happens("one");
    until_heard(&receiver, 1).await;
    let began = Instant::now();
    (0..500).for_each(|n| teller.happens(&n.to_string()));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(receiver.heard().len(), 1, "one at a time");
    teller.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_authority_that_the_hook_names_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let receiver = Receiver::start("127.0.0.1:0", Arc::default(), Some(Arc::new(tls))).await;
    let url = format!("https://localhost:{}/", receiver.address.port());
    let teller = Teller::start(folder.path(), hook(&url)).await;
    teller.happens("one");
    let trouble = until("the trouble is told", || teller.standing().trouble).await;
    assert!(trouble.to_lowercase().contains("certificate"), "{trouble}");
    assert_eq!(receiver.heard().len(), 0);
    teller.kill().await;
    let trusting = Hook {
        roots: vec![ca.der().to_vec()],
        ..hook(&url)
    };
    let teller = Teller::start(folder.path(), trusting).await;
    assert_eq!(told(&until_heard(&receiver, 1).await), ["one"]);
    teller.kill().await;
}

/// A request as one line for `receiver.py`.
fn line(heard: &Heard) -> String {
    let headers: serde_json::Map<String, serde_json::Value> = heard
        .head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    serde_json::json!({ "headers": headers, "body": heard.body }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_libraries_of_cloudevents_and_standard_webhooks_take_our_messages() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start("127.0.0.1:0", Arc::default(), None).await;
    let everything = Hook {
        events: Vec::new(),
        ..hook(&format!("http://{}/", receiver.address))
    };
    let teller = Teller::start(folder.path(), everything).await;
    let secret = Secret::text_of(&[9; 32]);
    let key = secret_key("chat");
    teller.store.put(Table::Secrets, &key, secret.as_bytes()).unwrap();
    teller.store.append(Event {
        node: Some(rackbar_model::NodeId([7; 16])),
        ..event(EventKind::NodeEnrolled {
            name: "node-001".into(),
            by: "dhcp".into(),
        })
    });
    teller.happens("a \"quoted\" word,\na line and an \u{e4}");
    let heard = until_heard(&receiver, 2).await;
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/receiver.py");
    let lines: String = heard.iter().map(|one| line(one) + "\n").collect();
    let input = folder.path().join("requests");
    std::fs::write(&input, lines).unwrap();
    let output = std::process::Command::new(python)
        .arg(script)
        .arg(&secret)
        .stdin(std::fs::File::open(&input).unwrap())
        .output()
        .expect("the Python environment that `cargo xtask setup` makes");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let understood = String::from_utf8(output.stdout).unwrap();
    let mut understood = understood
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let first = understood.next().unwrap();
    assert_eq!(first["type"], "dev.rackbar.node_enrolled");
    assert_eq!(first["source"], "/rackbar/hall-3");
    assert_eq!(first["subject"], "07070707-0707-0707-0707-070707070707");
    assert_eq!(first["time"], "2023-11-14T22:13:20+00:00");
    let second = understood.next().unwrap();
    assert_eq!(
        second["data"]["kind"]["drift_seen"]["what"],
        "a \"quoted\" word,\na line and an \u{e4}"
    );
    teller.kill().await;
}
