//! Jobs over connections that come and go, against an appliance on this machine.

// The lint allows unwrapping in test functions only, not in what they share.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod support;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_agent::facts::Facts;
use rackbar_agent::{Credentials, Enrolment, Jobs, Session, client_config};
use rackbar_messages::{Ask, FromAgent, JobId, JobReport, ToAgent, Welcome, Work};
use rackbar_model::{Inventory, MacAddr, NodeId};
use support::{Peer, site};

const JOB: JobId = JobId([5; 16]);
const OTHER: JobId = JobId([6; 16]);

fn begin(id: u32, job: JobId) -> ToAgent {
    let work = Box::new(Work::Layout);
    ToAgent::Ask {
        id,
        ask: Ask::Begin { job, work },
    }
}

fn welcome(peer: &mut Peer) {
    assert!(matches!(peer.read(), Ok(FromAgent::Hello(_))));
    // The time it is: tests may run as root, and must not set this machine's clock.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    peer.send(&ToAgent::Welcome(Welcome {
        node: NodeId([7; 16]),
        name: nix::unistd::gethostname().unwrap().into_string().unwrap(),
        session: [2; 32],
        heartbeat_millis: 60_000,
        now_millis: now.as_millis() as u64,
    }));
}

/// The next message that `wanted` takes.
fn wait<T>(peer: &mut Peer, wanted: impl Fn(&FromAgent) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(&peer.read().unwrap()) {
            return found;
        }
    }
}

fn done(peer: &mut Peer, number: u32) -> Result<(), String> {
    wait(peer, |message| match message {
        FromAgent::Done { id, result } if *id == number => Some(result.clone()),
        _ => None,
    })
}

fn ended(message: &FromAgent) -> Option<JobId> {
    match message {
        FromAgent::Ended { job, result: Ok(_) } => Some(*job),
        _ => None,
    }
}

#[test]
fn a_job_outlives_its_connection_and_its_end_is_said_until_it_is_noted() {
    let site = site(2020, 2050);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let (go, wait_for_go) = channel::<()>();
    let runs = Arc::new(AtomicU32::new(0));
    let (counter, gate) = (Arc::clone(&runs), Mutex::new(wait_for_go));
    let jobs = Jobs::new(move |_, control| {
        counter.fetch_add(1, Ordering::Relaxed);
        control.begin("working", 100);
        control.at(42);
        gate.lock().unwrap().recv().unwrap();
        Ok(JobReport::Layout(Vec::new()))
    });
    let mut credentials = Credentials::new(&Enrolment {
        server,
        pin: site.pin,
        token: [1; 32],
        boot_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
    });
    let (config, pinned) = client_config(site.pin);
    let facts = Facts::default();
    facts.publish(Inventory::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..4 {
                let session = Session::open(server, Arc::clone(&config), &mut credentials, &facts, &pinned);
                session.ok().unwrap().serve(&facts, &jobs);
            }
        });
        let connect = || {
            let mut peer = Peer::accept(&listener, &site);
            welcome(&mut peer);
            peer
        };
        // First connection: the job begins, is told of, and another one is refused.
        let mut peer = connect();
        peer.send(&begin(1, JOB));
        done(&mut peer, 1).unwrap();
        wait(&mut peer, |message| match message {
            FromAgent::Progress {
                job: JOB,
                doing,
                done: 42,
                total: 100,
            } if doing == "working" => Some(()),
            _ => None,
        });
        peer.send(&begin(2, OTHER));
        assert!(done(&mut peer, 2).unwrap_err().contains("another job"));
        drop(peer);
        // Second: asked for again, it is the same one; it ends, and the connection is lost before that is noted.
        let mut peer = connect();
        peer.send(&begin(3, JOB));
        done(&mut peer, 3).unwrap();
        go.send(()).unwrap();
        assert_eq!(wait(&mut peer, ended), JOB);
        drop(peer);
        // Third: the end is said again by itself.
        let mut peer = connect();
        assert_eq!(wait(&mut peer, ended), JOB);
        peer.send(&ToAgent::Noted(JOB));
        peer.send(&begin(4, OTHER));
        done(&mut peer, 4).unwrap();
        go.send(()).unwrap();
        assert_eq!(wait(&mut peer, ended), OTHER);
        peer.send(&ToAgent::Noted(OTHER));
        drop(peer);
        // Fourth: nothing is left to say, until it is asked for; and it did not run again.
        let mut peer = connect();
        peer.send(&begin(5, JOB));
        assert_eq!(wait(&mut peer, ended), JOB);
    });
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}
