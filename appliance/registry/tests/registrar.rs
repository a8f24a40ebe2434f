//! The registrar beside a catalogue on the loopback.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod catalogue;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use catalogue::Catalogue;
use rackbar_handoff::consul::Registration;
use rackbar_model::NodeId;
use rackbar_registry::{Place, Registrar, Standing, Wanted, records, token_key};
use rackbar_store::{Options, Store, Table};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

const PATIENCE: Duration = Duration::from_secs(60);

fn place(catalogue: &Catalogue) -> Place {
    Place {
        url: catalogue.url.clone(),
        datacenter: None,
        roots: Vec::new(),
        parent: None,
    }
}

fn id(number: u8) -> NodeId {
    serde_json::from_value(json!(format!("0000000{number}-0000-0000-0000-000000000000"))).unwrap()
}

fn machine(number: u8, name: &str, services: &[&str]) -> (NodeId, Registration) {
    let id = id(number);
    let body = |service: &&str| {
        let service_id = format!("{service}-{id}");
        let body = json!({
            "Node": name, "Address": format!("10.0.0.{number}"), "ID": id, "NodeMeta": { "rackbar-node": id },
            "Service": { "ID": service_id, "Service": service, "Address": format!("10.0.0.{number}"), "Port": 80 },
        });
        (service_id, body)
    };
    let services = services.iter().map(body).collect();
    let node = name.to_owned();
    (id, Registration { node, services })
}

/// A registrar at work.
struct Work {
    store: Store,
    wanted: Arc<Mutex<Option<Wanted>>>,
    standing: Arc<Mutex<Standing>>,
    news: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Work {
    fn start(store: &Store, wanted: Option<Wanted>) -> Self {
        let wanted = Arc::new(Mutex::new(wanted));
        let standing = Arc::<Mutex<Standing>>::default();
        let (source, report) = (wanted.clone(), standing.clone());
        let registrar = Registrar::new(
            store.clone(),
            Arc::new(move || source.lock().unwrap().clone()),
            Arc::new(move |now| report.lock().unwrap().clone_from(now)),
        );
        let news = Arc::new(Notify::new());
        let task = tokio::spawn(registrar.run(news.clone())).abort_handle();
        Self {
            store: store.clone(),
            wanted,
            standing,
            news,
            task,
        }
    }

    fn want(&self, place: Option<Place>, machines: &[(NodeId, Registration)]) {
        let machines = machines.iter().cloned().collect();
        *self.wanted.lock().unwrap() = Some(Wanted { place, machines });
        self.news.notify_waiters();
    }

    fn standing(&self) -> Standing {
        self.standing.lock().unwrap().clone()
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn names(list: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let one = |(name, services): &(&str, &[&str])| {
        let services = services.iter().map(|one| (*one).to_owned()).collect();
        ((*name).to_owned(), services)
    };
    list.iter().map(one).collect()
}

fn store() -> Store {
    Store::in_memory(Options::default()).unwrap()
}

#[tokio::test]
async fn what_is_ready_is_registered_and_goes_again_with_its_machine() {
    let catalogue = Catalogue::start().await;
    let work = Work::start(&store(), None);
    let (one, two) = (
        machine(1, "web-1", &["http", "metrics"]),
        machine(2, "web-2", &["http"]),
    );
    work.want(Some(place(&catalogue)), &[one.clone(), two.clone()]);
    let (http_1, metrics_1, http_2) = (
        format!("http-{}", id(1)),
        format!("metrics-{}", id(1)),
        format!("http-{}", id(2)),
    );
    let both = names(&[("web-1", &[&http_1, &metrics_1]), ("web-2", &[&http_2])]);
    until("both are there", || catalogue.has() == both).await;
    until("it is told", || work.standing().entries.len() == 2).await;
    assert!(
        work.standing()
            .entries
            .iter()
            .all(|one| one.trouble.is_none() && one.wanted)
    );
    // A service less, a machine less.
    work.want(Some(place(&catalogue)), &[machine(1, "web-1", &["http"])]);
    let less = names(&[("web-1", &[&http_1])]);
    until("what is not wanted is gone", || catalogue.has() == less).await;
    // Another name: the old one does not stay.
    work.want(Some(place(&catalogue)), &[machine(1, "www", &["http"])]);
    let renamed = names(&[("www", &[&http_1])]);
    until("it has its new name", || catalogue.has() == renamed).await;
    work.want(None, &[]);
    until("nothing is left", || catalogue.has().is_empty()).await;
    until("nothing is left in the store", || {
        records(&work.store).unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn what_others_made_is_left_alone() {
    let catalogue = Catalogue::start().await;
    let theirs = json!({ "Node": { "ID": id(9), "Meta": {} }, "Services": { "db": {} } });
    catalogue
        .memory
        .lock()
        .unwrap()
        .nodes
        .insert("web-1".into(), theirs.clone());
    let work = Work::start(&store(), None);
    work.want(
        Some(place(&catalogue)),
        &[machine(1, "web-1", &["http"]), machine(2, "web-2", &["http"])],
    );
    let http_2 = format!("http-{}", id(2));
    let both = names(&[("web-1", &["db"]), ("web-2", &[&http_2])]);
    until("the other machine is there", || catalogue.has() == both).await;
    let refused = || {
        work.standing()
            .entries
            .iter()
            .any(|one| one.trouble.as_ref().is_some_and(|t| t.contains("\"web-1\"")))
    };
    until("it is told", refused).await;
    assert_eq!(catalogue.memory.lock().unwrap().nodes["web-1"], theirs);
    // A service that another program put on our node stays, and the node with it.
    catalogue.memory.lock().unwrap().nodes.get_mut("web-2").unwrap()["Services"]["theirs"] = json!({});
    work.want(None, &[]);
    let left = names(&[("web-1", &["db"]), ("web-2", &["theirs"])]);
    until("only ours is gone", || catalogue.has() == left).await;
}

#[tokio::test]
async fn a_registrar_that_is_killed_leaves_nothing_behind() {
    for after in 0..4 {
        let (catalogue, store) = (Catalogue::start().await, store());
        catalogue.memory.lock().unwrap().breaks_after = Some(after);
        let all = [
            machine(1, "web-1", &["http", "metrics"]),
            machine(2, "web-2", &["http"]),
        ];
        let work = Work::start(&store, None);
        work.want(Some(place(&catalogue)), &all);
        if after < 3 {
            until("the catalogue is out of order", || {
                work.standing().trouble.is_some_and(|t| t.contains("503"))
            })
            .await;
        } else {
            until("all are there", || catalogue.has().len() == 2).await;
        }
        drop(work);
        catalogue.memory.lock().unwrap().breaks_after = None;
        // The next life wants no registration any more.
        let work = Work::start(&store, Some(Wanted::default()));
        until("nothing is left", || {
            catalogue.has().is_empty() && records(&work.store).unwrap().is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn a_site_that_is_not_known_changes_nothing() {
    let (catalogue, store) = (Catalogue::start().await, store());
    let work = Work::start(&store, None);
    work.want(Some(place(&catalogue)), &[machine(1, "web-1", &["http"])]);
    until("it is there", || catalogue.has().len() == 1).await;
    until("it is told", || work.standing().url.is_some()).await;
    drop(work);
    let asked = catalogue.memory.lock().unwrap().asked.len();
    let work = Work::start(&store, None);
    until("it is told", || work.standing().entries.len() == 1).await;
    assert_eq!(catalogue.memory.lock().unwrap().asked.len(), asked);
}

#[tokio::test]
async fn a_token_is_asked_for_in_words_and_goes_to_no_other_catalogue() {
    let (first, second, store) = (Catalogue::start().await, Catalogue::start().await, store());
    first.memory.lock().unwrap().token = Some("3f0e");
    let work = Work::start(&store, None);
    let one = machine(1, "web-1", &["http"]);
    work.want(Some(place(&first)), std::slice::from_ref(&one));
    let words = || work.standing().trouble.unwrap_or_default();
    until("it is refused", || words().contains("rackbar registration token")).await;
    store.put(Table::Secrets, &token_key(&first.url), b"3f0e").unwrap();
    work.news.notify_waiters();
    until("it is there", || first.has().len() == 1).await;
    // The second wants none, so that it would answer whatever it were shown.
    second.memory.lock().unwrap().token = None;
    work.want(Some(place(&second)), &[one]);
    until("it has moved", || second.has().len() == 1 && first.has().is_empty()).await;
    second.memory.lock().unwrap().token = Some("3f0e");
    let third = machine(2, "web-2", &["http"]);
    work.want(Some(place(&second)), &[third]);
    until("the first one's token is no good there", || words().contains("403")).await;
}
