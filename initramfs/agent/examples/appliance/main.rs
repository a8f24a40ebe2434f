//! An appliance that accepts every agent and prints what it says, for trying the agent in a virtual machine:
//! `cargo run --example appliance -- 0.0.0.0:4917 [reboot|poweroff]`, then boot with the arguments it prints.
//!
//! `... -- 0.0.0.0:4917 install debian-12.img.zst SERIAL[,SERIAL] 10.0.2.2:4918 [burn-in] [kexec] [key=FILE]` makes the
//! machine install that image on the disk (or the mirror of two) with these serial numbers, and restarts it into the
//! result, with `kexec` without its firmware. The address is the one under which the machine reaches this one for the
//! image; who holds the SSH key of FILE may log in as root.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../../tests/support/mod.rs"]
mod support;

use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_messages::{Ask, FromAgent, ToAgent, Welcome};
use rackbar_model::NodeId;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let listener = TcpListener::bind(words.first().map_or("0.0.0.0:4917", String::as_str)).unwrap();
    let site = support::site(2020, 2050);
    let hex: String = site.pin.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("rackbar.pin={hex} rackbar.token={}", "11".repeat(32));
    loop {
        let mut peer = support::Peer::accept(&listener, &site);
        match serve(&mut peer, words.get(1).map(String::as_str)) {
            Ok(()) => return,
            Err(error) => println!("connection ended: {error}"),
        }
    }
}

mod install;

fn serve(peer: &mut support::Peer, end: Option<&str>) -> Result<(), String> {
    println!("{:?}", peer.read()?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    peer.send(&ToAgent::Welcome(Welcome {
        node: NodeId([7; 16]),
        name: "node-001".to_owned(),
        session: [9; 32],
        heartbeat_millis: 5_000,
        now_millis: now,
    }));
    if end == Some("install") {
        return install::run(peer);
    }
    let mut beats = 0;
    loop {
        match peer.read()? {
            FromAgent::Facts(inventory) => println!("{}", serde_json::to_string_pretty(&inventory).unwrap()),
            FromAgent::Heartbeat { uptime_millis } => {
                println!("heartbeat at {uptime_millis} ms");
                beats += 1;
                match end {
                    Some("reboot") if beats == 3 => peer.send(&ToAgent::Ask {
                        id: 1,
                        ask: Ask::Reboot,
                    }),
                    Some("poweroff") if beats == 3 => peer.send(&ToAgent::Ask {
                        id: 1,
                        ask: Ask::PowerOff,
                    }),
                    _ => {}
                }
            }
            FromAgent::Done { id, result } => {
                println!("ask {id}: {result:?}");
                return Ok(());
            }
            other => println!("{other:?}"),
        }
    }
}
