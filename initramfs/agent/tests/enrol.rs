//! The agent's connection against an appliance on this machine: trust, enrolment, coming back.

// The lint allows unwrapping in test functions only, not in what they share.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod support;

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rackbar_agent::facts::Facts;
use rackbar_agent::{Credentials, End, Enrolment, Jobs, Session, client_config};
use rackbar_messages::{Ask, FromAgent, Proof, RefusedReason, ToAgent, Welcome};
use rackbar_model::{Inventory, MacAddr, NodeId};
use support::{Peer, site, site_showing};

const TOKEN: [u8; 32] = [0x11; 32];
const SECRET: [u8; 32] = [0x22; 32];
const BOOT: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

fn welcome() -> ToAgent {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    ToAgent::Welcome(Welcome {
        node: NodeId([7; 16]),
        // The name this machine has: tests may run as root, and must not rename it.
        name: nix::unistd::gethostname().unwrap().into_string().unwrap(),
        session: SECRET,
        heartbeat_millis: 1_000,
        now_millis: now,
    })
}

/// An agent that is asked for no work.
fn no_jobs() -> Jobs {
    Jobs::new(|_, _| panic!("no job was asked for"))
}

/// Runs `appliance` against `agent`, which get the listener and what is needed to connect.
fn run<T: Send>(
    pin: [u8; 32],
    appliance: impl FnOnce(&TcpListener) -> T + Send,
    agent: impl FnOnce(&mut dyn FnMut() -> Result<Session, End>, &Facts),
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let mut credentials = Credentials::new(&Enrolment {
        server,
        pin,
        token: TOKEN,
        boot_mac: Some(BOOT),
    });
    let (config, pinned) = client_config(pin);
    let facts = Facts::default();
    facts.publish(Inventory::default());
    thread::scope(|scope| {
        let end = scope.spawn(|| appliance(&listener));
        agent(
            &mut || Session::open(server, Arc::clone(&config), &mut credentials, &facts, &pinned),
            &facts,
        );
        end.join().unwrap()
    })
}

#[test]
fn an_agent_enrols_with_its_token_and_comes_back_with_its_secret() {
    let site = site(2020, 2050);
    let hellos = run(
        site.pin,
        |listener| {
            let mut hellos = Vec::new();
            for _ in 0..2 {
                let mut peer = Peer::accept(listener, &site);
                let Ok(FromAgent::Hello(hello)) = peer.read() else {
                    panic!("no hello")
                };
                hellos.push(hello);
                peer.send(&welcome());
                assert!(matches!(peer.read(), Ok(FromAgent::Facts(_))), "facts come at once");
                assert!(matches!(peer.read(), Ok(FromAgent::Heartbeat { .. })));
                peer.send(&ToAgent::Ask { id: 5, ask: Ask::Facts });
                let mut seen = Vec::new();
                while seen.len() < 2 {
                    match peer.read().unwrap() {
                        FromAgent::Facts(_) => seen.push("facts"),
                        FromAgent::Done { id: 5, result: Ok(()) } => seen.push("done"),
                        _ => {}
                    }
                }
            }
            hellos
        },
        |open, facts| {
            for _ in 0..2 {
                let end = open().ok().unwrap().serve(facts, &no_jobs());
                assert!(end.was_welcome(), "{end}");
            }
        },
    );
    assert_eq!(hellos[0].proof, Proof::BootToken(TOKEN));
    assert_eq!(hellos[1].proof, Proof::Session(SECRET));
    assert_eq!(hellos[0].boot_mac, BOOT);
}

#[test]
fn an_appliance_of_another_site_gets_no_hello() {
    let (ours, theirs) = (site(2020, 2050), site(2020, 2050));
    let heard = run(
        ours.pin,
        |listener| Peer::accept(listener, &theirs).read(),
        |open, _| {
            let end = open().err().unwrap();
            assert!(end.to_string().contains("not of the site"), "{end}");
        },
    );
    assert!(heard.is_err(), "{heard:?}");
}

#[test]
fn a_forged_chain_with_the_pinned_authority_beside_it_is_refused() {
    // The forger has the public certificate of the site, which every node is sent, but not its key.
    let ours = site(2020, 2050);
    let forger = site_showing(2020, 2050, Some(ours.authority.clone()));
    let heard = run(
        ours.pin,
        |listener| Peer::accept(listener, &forger).read(),
        |open, _| {
            let end = open().err().unwrap();
            assert!(end.to_string().contains("certificate"), "{end}");
        },
    );
    assert!(heard.is_err(), "{heard:?}");
}

#[test]
fn dates_count_only_after_the_first_welcome() {
    let old = site(2001, 2002);
    run(
        old.pin,
        |listener| {
            let mut peer = Peer::accept(listener, &old);
            peer.read().unwrap();
            peer.send(&welcome());
            drop(peer);
            let _ = Peer::accept(listener, &old).read();
        },
        |open, _| {
            assert!(open().is_ok(), "the machine's clock may be wrong");
            let end = open().err().unwrap();
            assert!(end.to_string().contains("not acceptable"), "{end}");
        },
    );
}

#[test]
fn a_certificate_of_the_future_is_the_fault_of_our_clock() {
    let renewed = site(2090, 2099);
    run(
        renewed.pin,
        |listener| {
            for _ in 0..2 {
                let mut peer = Peer::accept(listener, &renewed);
                peer.read().unwrap();
                peer.send(&welcome());
            }
        },
        |open, _| {
            assert!(open().is_ok());
            assert!(open().is_ok(), "also after the appliance has set the clock");
        },
    );
}

#[test]
fn a_refusal_is_told_in_its_own_words() {
    let site = site(2020, 2050);
    run(
        site.pin,
        |listener| {
            let mut peer = Peer::accept(listener, &site);
            peer.read().unwrap();
            peer.send(&ToAgent::Refused(RefusedReason::TokenUsed));
            let _ = peer.read();
        },
        |open, _| {
            let end = open().err().unwrap();
            assert!(end.to_string().contains("used before"), "{end}");
            assert!(!end.was_welcome());
        },
    );
}
