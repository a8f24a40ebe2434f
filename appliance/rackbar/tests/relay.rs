//! A network behind a DHCP relay: the real daemon, Debian's relay on a router, and udhcpc behind it.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod behind;

use std::path::Path;

use behind::{Appliance, MACHINE, Net, Running, ip, text};

const NEAR: &str = r#"version = 1
name = "relay"
[[network]]
name = "near"
role = "rack"
interface = "rack0"
address = "10.78.0.1/24"
dhcp = "off"
"#;

const FAR: &str = r#"
[[network]]
name = "far"
role = "rack"
subnet = "10.79.0.0/24"
through = "near"
next_hop = "10.78.0.254"
gateway = "10.79.0.254"
dns = "own"
pool = ["10.79.0.100-10.79.0.120"]
"#;

/// Takes the address and the router, and leaves what it was told in `told`.
fn write_script(path: &Path, told: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = renew ] && touch {0}.renewed\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/24 dev c0\nip route add default via $router\nenv > {0}.new && mv {0}.new {0}\n",
        told.display()
    );
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_machine_behind_a_real_relay_boots_and_gives_its_address_back() {
    let net = Net::new();
    let _relay = net.relay();
    let appliance = Appliance::start(&net, &format!("{NEAR}{FAR}"));
    let path = |name: &str| appliance.folder.path().join(name);
    let (script, told) = (path("script"), path("told"));
    write_script(&script, &told);
    let client = Running(appliance.udhcpc("20", &script).spawn().unwrap());
    appliance.until("the machine has a lease", || told.exists());
    let told = std::fs::read_to_string(told).unwrap();
    for line in [
        "router=10.79.0.254",
        "serverid=10.78.0.1",
        "siaddr=10.78.0.1",
        "dns=10.78.0.1",
        "mask=24",
    ] {
        assert!(told.lines().any(|one| one == line), "{line}: {told}");
    }
    let address = told.lines().find_map(|line| line.strip_prefix("ip=10.79.0.")).unwrap();
    assert!((100..=120).contains(&address.parse::<u8>().unwrap()), "{told}");
    assert!(told.contains("undionly.kpxe"), "{told}");

    // What it boots from is reached through the router, and knows it.
    let curl = |url: &str| text(&net.run("client", "curl", &["-s", "-m", "10", url]));
    assert_eq!(curl("tftp://10.78.0.1/undionly.kpxe"), "what stands for undionly.kpxe");
    let url = format!("http://10.78.0.1/boot/v1/script.ipxe?mac={}", MACHINE.replace(':', "-"));
    let ipxe = curl(&url);
    assert!(ipxe.contains("rackbar.token=") && ipxe.contains("10.78.0.1"), "{ipxe}");
    assert!(appliance.ask(&["node", "list"]).contains(MACHINE));
    let events = appliance.ask(&["events"]);
    assert!(
        events.contains("discover on far") && events.contains("through relay 10.79.0.254 port down0"),
        "{events}"
    );
    // Past the relay it renews, and gives back what it had.
    let pid = nix::unistd::Pid::from_raw(client.0.id().cast_signed());
    let told_of = |word: &str| {
        let events = appliance.ask(&["events"]);
        events
            .lines()
            .filter(|line| line.contains(word) && line.contains("10.79.0."))
            .count()
    };
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    appliance.until("the lease is renewed", || path("told.renewed").exists());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    appliance.until("the lease is released", || told_of("released") == 1);
}

#[test]
fn a_relay_of_a_network_nobody_configured_is_told_in_words() {
    let net = Net::new();
    let _relay = net.relay();
    let near = NEAR.replace("dhcp = \"off\"", "pool = [\"10.78.0.100-10.78.0.120\"]\ndhcp = \"own\"");
    let appliance = Appliance::start(&net, &near);
    let script = appliance.folder.path().join("script");
    write_script(&script, &appliance.folder.path().join("told"));
    appliance.until("the relay is told of", || {
        let asked = appliance.udhcpc("1", &script).output().unwrap();
        assert!(!asked.status.success(), "nobody serves it");
        appliance
            .ask(&["events"])
            .contains("the DHCP relay 10.79.0.254 passes on requests")
    });
    let events = appliance.ask(&["events"]);
    assert!(events.contains("through = \"near\""), "{events}");
    assert_eq!(events.matches("passes on requests").count(), 1, "once");
}

#[test]
fn the_appliance_sets_the_way_to_a_network_behind_a_relay_and_takes_it_away() {
    // The daemon writes one where there is none.
    assert!(
        Path::new("/etc/resolv.conf").exists(),
        "this machine is to keep its resolvers"
    );
    let net = Net::bare();
    let _relay = net.relay();
    let server = net.name("server");
    let appliance = Appliance::start_with(&net, &format!("{NEAR}{FAR}"), &[]);
    let path = |name: &str| appliance.folder.path().join(name);
    let ours = "10.79.0.0/24 via 10.78.0.254 dev rack0";
    let is_set = |subnet: &str, way: &str| {
        let routes = net.routes(subnet);
        routes.len() == 1 && routes[0].starts_with(way) && routes[0].contains("metric 1024")
    };
    appliance.until("the way is set", || is_set("10.79.0.0/24", ours));
    // Answers to the relay and to the machine itself leave by it: there is no other way out of our namespace.
    let (script, told) = (path("script"), path("told"));
    write_script(&script, &told);
    let client = Running(appliance.udhcpc("20", &script).spawn().unwrap());
    appliance.until("the machine has a lease", || told.exists());
    let file = net.run("client", "curl", &["-s", "-m", "10", "tftp://10.78.0.1/undionly.kpxe"]);
    assert_eq!(text(&file), "what stands for undionly.kpxe");
    drop(client);

    // One that somebody took away comes back.
    ip(&format!("-n {server} route del 10.79.0.0/24 via 10.78.0.254"));
    appliance.until("it is set again", || is_set("10.79.0.0/24", ours));

    // It follows the configuration; a person's own way to the same network is not ours to touch.
    ip(&format!("-n {server} route add 10.79.0.0/24 via 10.78.0.253 metric 50"));
    let moved = FAR
        .replace("10.79.0.", "10.80.0.")
        .replace("10.78.0.254", "10.78.0.252");
    std::fs::write(path("rackbar.toml"), format!("{NEAR}{moved}")).unwrap();
    let new = "10.80.0.0/24 via 10.78.0.252 dev rack0";
    appliance.until("the new way is set", || is_set("10.80.0.0/24", new));
    assert_eq!(
        net.routes("10.79.0.0/24"),
        ["10.79.0.0/24 via 10.78.0.253 dev rack0 metric 50"]
    );
    std::fs::write(path("rackbar.toml"), NEAR).unwrap();
    appliance.until("the way is taken away", || net.routes("10.80.0.0/24").is_empty());
    assert_eq!(net.routes("10.79.0.0/24").len(), 1);
}
