//! Stories of serial consoles, over the simulated BMC on the loopback.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::time::Duration;

use common::bmcs::*;
use rackbar_orchestrator::{Consoles, Watcher};
use rackbar_store::{Options, Store};
use rackbar_vrack::seat;

/// Everything until `text` is there.
async fn shown(watcher: &mut Watcher, text: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&all).contains(text) {
            all.extend(watcher.next().await.expect("the console ended"));
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(read.is_ok(), "no {text:?} in {all:?}");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn one_serial_console_is_shared_by_all_who_look_on_and_recorded() {
    let (bmc, _, dir) = simulated(seat::PowerState::On).await;
    let serial = bmc.state().console.clone();
    let (typed, mut keyboard) = tokio::sync::mpsc::unbounded_channel();
    serial.set_input(Some(typed));
    let watch = Watch::start(Store::in_memory(Options::default()).unwrap(), &bmc, "secret", TIMING);
    watch.lease();
    let node = watch.found().await;
    let folder = dir.path().join("console");
    let consoles = Consoles::new(watch.rack.clone(), folder.clone());
    assert!(!consoles.type_in(node.id, b"lost".to_vec()).await, "nobody looks on");

    let mut first = consoles.watch(node.id).await.unwrap();
    serial.printed(b"GRUB loading\r\n");
    shown(&mut first, "GRUB loading").await;
    let mut second = consoles.watch(node.id).await.unwrap();
    assert_eq!(
        shown(&mut second, "loading").await,
        "GRUB loading\r\n",
        "a newcomer sees what was before"
    );
    serial.printed(b"login: ");
    shown(&mut first, "login: ").await;
    shown(&mut second, "login: ").await;

    assert!(consoles.type_in(node.id, b"root\n".to_vec()).await);
    let mut got = Vec::new();
    while got.len() < 5 {
        got.extend(keyboard.recv().await.unwrap());
    }
    assert_eq!(got, b"root\n");

    // What is printed is recorded before it is shown.
    let record = std::fs::read(folder.join(format!("{}.log", node.name))).unwrap();
    assert_eq!(record, b"GRUB loading\r\nlogin: ");
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn record_of_a_console_stays_within_its_bounds() {
    let (bmc, _, dir) = simulated(seat::PowerState::On).await;
    let serial = bmc.state().console.clone();
    let watch = Watch::start(Store::in_memory(Options::default()).unwrap(), &bmc, "secret", TIMING);
    watch.lease();
    let node = watch.found().await;
    let folder = dir.path().join("console");
    std::fs::create_dir_all(&folder).unwrap();
    let (record, before) = (format!("{}.log", node.name), format!("{}.log.1", node.name));
    std::fs::write(folder.join(&record), vec![b'.'; (1 << 20) - 4]).unwrap();
    let consoles = Consoles::new(watch.rack.clone(), folder.clone());
    let mut watcher = consoles.watch(node.id).await.unwrap();
    serial.printed(b"over the edge");
    shown(&mut watcher, "over the edge").await;
    serial.printed(b"and on");
    shown(&mut watcher, "and on").await;
    assert!(std::fs::read(folder.join(&before)).unwrap().len() >= 1 << 20);
    assert!(std::fs::read(folder.join(&record)).unwrap().len() < 100);
    watch.stop().await;
}
