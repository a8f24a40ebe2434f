//! Every rack file that ships is loaded and built; nothing is switched on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rackbar_vrack::rack::control::{Control, Request, ask};
use rackbar_vrack::rack::{Rack, RackFile, RackOptions};
use rackbar_vrack::seat::{MachinePower, PowerAction, PowerState};
use rackbar_vrack::switch::PortMode;
use tokio::sync::Notify;

fn racks() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../racks")
}

#[tokio::test]
async fn every_rack_file_loads_and_builds() {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(racks()).unwrap() {
        let path = entry.unwrap().path();
        // Beside the racks lie the folders of their sites.
        if path.is_dir() {
            continue;
        }
        let file = RackFile::load(&path).unwrap();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert_eq!(file.name, stem, "a rack is called as its file");
        let nodes = file.nodes.len();
        let rack = Rack::build(file, RackOptions::default()).await.unwrap();
        assert_eq!(rack.nodes().len(), nodes);
        assert!(rack.nodes().iter().all(|node| node.machine.state() == PowerState::Off));
        seen.push(stem);
    }
    seen.sort();
    assert_eq!(seen, ["big", "demo", "mixed", "proxy", "stp", "trunk"]);
}

#[tokio::test]
async fn the_demo_rack_holds_the_trap_of_the_shared_uuid() {
    let rack = Rack::build(
        RackFile::load(&racks().join("demo.toml")).unwrap(),
        RackOptions::default(),
    )
    .await
    .unwrap();
    let identity = |name: &str| rack.node(name).unwrap().machine.config().identity.clone();
    assert_eq!(identity("n3").uuid, identity("n4").uuid);
    assert_ne!(identity("n3").serial, identity("n4").serial);
    assert_eq!(rack.node("n4").unwrap().macs.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_terminal_rules_the_rack_and_nothing_is_left() {
    let file = RackFile::load(&racks().join("demo.toml")).unwrap();
    let options = RackOptions {
        nodes: Some(1),
        ..RackOptions::default()
    };
    let rack = Arc::new(Rack::build(file, options).await.unwrap());
    let down = Arc::new(Notify::new());
    let control = Control::start(&rack, Arc::clone(&down)).unwrap();
    let socket = control.socket().to_path_buf();
    let directory = rack.directory().to_path_buf();
    let list = || async { ask(&socket, &Request::List).await.unwrap().0.machines };
    assert!(!list().await[0].on);
    ask(
        &socket,
        &Request::Power {
            node: "n1".into(),
            on: true,
        },
    )
    .await
    .unwrap();
    assert!(list().await[0].on);
    let (_, mut console) = ask(&socket, &Request::Console { node: "n1".into() }).await.unwrap();
    let mut text = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&text).contains("SeaBIOS") {
            tokio::io::AsyncReadExt::read_buf(&mut console, &mut text)
                .await
                .unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .expect("no SeaBIOS on the console");
    let path = directory.join("n1.pcapng");
    let capture = ask(
        &socket,
        &Request::Capture {
            node: Some("n1".into()),
            path: path.clone(),
        },
    )
    .await
    .unwrap();
    assert!(path.exists());
    drop(capture);
    ask(
        &socket,
        &Request::Cut {
            node: "n1".into(),
            cut: true,
        },
    )
    .await
    .unwrap();
    assert!(!rack.switch().is_up(rack.nodes()[0].ports[0]));
    ask(&socket, &Request::ForgetSwitch).await.unwrap();
    let port = rack.nodes()[0].ports[0];
    let vlan = || rack.switch().config(port).map(|config| config.mode);
    assert_eq!(vlan(), Some(PortMode::Access { vlan: 1 }));
    ask(&socket, &Request::RestoreSwitch).await.unwrap();
    assert_eq!(vlan(), Some(PortMode::Access { vlan: 10 }));
    let error = ask(
        &socket,
        &Request::Cut {
            node: "n9".into(),
            cut: true,
        },
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("n9"), "{error}");
    let pid = rack.nodes()[0].machine.pid().await.unwrap();
    ask(&socket, &Request::Down).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), down.notified())
        .await
        .expect("nobody was told");
    rack.shut_down().await;
    drop(console);
    drop(control);
    // Connections that are being closed hold the rack for another moment.
    let mut rack = Some(rack);
    tokio::time::timeout(Duration::from_secs(10), async {
        while Arc::strong_count(rack.as_ref().unwrap()) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("somebody still holds the rack");
    rack.take();
    assert!(!directory.exists(), "the run directory is still there");
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists(), "QEMU is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_taken_out_of_the_rack_and_put_in_again() {
    let file = RackFile::load(&racks().join("demo.toml")).unwrap();
    let options = RackOptions {
        nodes: Some(1),
        bmc: Some(Arc::new(rackbar_vrack::bmc::start)),
        ..RackOptions::default()
    };
    let rack = Rack::build(file, options).await.unwrap();
    let node = rack.node("n1").unwrap();
    let cables = || [node.ports[0], node.bmc.as_ref().unwrap().port()].map(|port| rack.switch().is_up(port));
    // The NIC's cable ends at a machine that is off; the BMC is up as soon as there is power.
    assert!(cables()[1]);
    rack.power("n1", PowerAction::On).await.unwrap();
    rack.pull_out("n1").await.unwrap();
    assert_eq!(cables(), [false, false]);
    assert_eq!(node.machine.state(), PowerState::Off);
    rack.put_in("n1").await.unwrap();
    assert!(cables()[1]);
    assert_eq!(node.machine.state(), PowerState::Off, "nobody pressed its button");
    assert!(rack.pull_out("n9").await.is_err());
}
