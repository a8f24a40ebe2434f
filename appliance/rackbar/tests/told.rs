//! What DHCP tells a client of names, time and logs, as the appliance's configuration and the site file change while it runs.
//! The real daemon and udhcpc, each in a network namespace.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod behind;

use behind::{Appliance, MACHINE, Net, ip};

/// The client is on our own network here: the router of the other tests passes frames on and does nothing else.
fn on_one_wire() -> Net {
    let net = Net::new();
    let router = net.name("router");
    ip(&format!("-n {router} addr flush dev up0"));
    ip(&format!("-n {router} addr flush dev down0"));
    ip(&format!("-n {router} link add wire type bridge"));
    for port in ["up0", "down0"] {
        ip(&format!("-n {router} link set {port} master wire"));
    }
    ip(&format!("-n {router} link set wire up"));
    net
}

fn configuration(services: &str) -> String {
    format!(
        "version = 1\nname = \"told\"\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\n\
         address = \"10.78.0.1/24\"\ndhcp = \"own\"\npool = [\"10.78.0.100-10.78.0.120\"]\n{services}\n\
         [dns]\ndomain = \"rack.example\"\n[ntp]\nlocal_stratum = 10\n"
    )
}

/// Option 7 (RFC 2132 section 3.9), which udhcpc knows by its number alone and tells in hexadecimal.
const LOG_SERVERS: &str = "7";

/// The client's options of one answer, by udhcpc's names for them.
struct Told(String);

impl Told {
    fn ask(net: &Net, appliance: &Appliance<'_>) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let path = |name: &str| appliance.folder.path().join(name);
        let (script, told) = (path("script"), path("told"));
        let text = format!("#!/bin/sh\n[ \"$1\" = bound ] && env > {}\nexit 0\n", told.display());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut arguments = vec!["udhcpc", "-i", "c0", "-n", "-q", "-f", "-t", "8", "-T", "1"];
        for option in ["dns", "domain", "ntpsrv", LOG_SERVERS, "subnet", "lease"] {
            arguments.extend(["-O", option]);
        }
        arguments.extend(["-s", script.to_str().unwrap()]);
        let said = net.run("client", "busybox", &arguments);
        assert!(
            said.status.success(),
            "no lease: {said:#?}; the log:\n{}",
            appliance.log()
        );
        Self(std::fs::read_to_string(told).unwrap())
    }

    fn get(&self, name: &str) -> String {
        let values = self.0.lines().filter_map(|line| line.split_once('='));
        let mut found = values
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned());
        found.next_back().unwrap_or_default()
    }

    /// DNS, time and logs.
    fn services(&self) -> [String; 3] {
        let hex = self.get(&format!("opt{LOG_SERVERS}"));
        let bytes = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
        let bytes: Vec<u8> = bytes.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
        let address = |four: &[u8]| std::net::Ipv4Addr::from(<[u8; 4]>::try_from(four).unwrap()).to_string();
        let logs: Vec<String> = bytes.chunks(4).map(address).collect();
        [self.get("dns"), self.get("ntpsrv"), logs.join(" ")]
    }
}

#[test]
fn dhcp_tells_a_client_of_each_service_as_it_goes_from_own_to_others_to_none() {
    let net = on_one_wire();
    let own = "dns = \"own\"\nntp = \"own\"\nsyslog = \"own\"";
    let appliance = Appliance::start(&net, &configuration(own));
    let told = Told::ask(&net, &appliance);
    assert_eq!(told.services(), ["10.78.0.1"; 3], "{MACHINE}: {}", told.0);
    assert_eq!(
        told.get("domain"),
        "rack.example",
        "names are looked up where we serve them"
    );
    assert_eq!(
        (told.get("mask").as_str(), told.get("lease").is_empty()),
        ("24", false),
        "{}",
        told.0
    );

    let configure = |services: &str| {
        let new = appliance.folder.path().join("new.toml");
        std::fs::write(&new, configuration(services)).unwrap();
        std::fs::rename(new, appliance.folder.path().join("rackbar.toml")).unwrap();
    };
    let until_told = |wanted: [&str; 3]| {
        let mut last = String::new();
        appliance.until(&format!("a client is told {wanted:?}"), || {
            let told = Told::ask(&net, &appliance);
            let now = told.services().join("; ");
            if now != last {
                eprintln!("a client is told {now}");
                last = now;
            }
            told.services() == wanted
        });
    };
    configure("dns = [\"10.78.0.5\", \"10.78.0.6\"]\nntp = \"own\"\nsyslog = [\"10.78.0.9\"]");
    until_told(["10.78.0.5 10.78.0.6", "10.78.0.1", "10.78.0.9"]);
    configure("dns = \"off\"\nntp = [\"10.78.0.7\"]\nsyslog = \"off\"");
    until_told(["", "10.78.0.7", ""]);
    assert_eq!(Told::ask(&net, &appliance).get("domain"), "", "we serve no names");

    // Where the configuration says nothing the site file does, and each of its changes counts.
    configure("");
    until_told([""; 3]);
    let site = |services: &str| {
        let path = appliance.folder.path().join("site.toml.new");
        let text = format!("version = 1\n[network.lan]\nsubnet = \"10.78.0.0/24\"\n{services}\n");
        std::fs::write(&path, text).unwrap();
        appliance.ask(&["site", "set", path.to_str().unwrap()]);
    };
    site("dns = \"own\"\nntp = \"own\"\nsyslog = \"own\"");
    until_told(["10.78.0.1"; 3]);
    site("dns = [\"10.78.0.5\"]\nntp = [\"10.78.0.7\"]\nsyslog = \"own\"");
    until_told(["10.78.0.5", "10.78.0.7", "10.78.0.1"]);
    site("");
    until_told([""; 3]);
    // What the configuration says goes before the site's word.
    site("dns = \"own\"\nntp = \"own\"\nsyslog = \"own\"");
    configure("dns = [\"10.78.0.8\"]\nntp = \"off\"");
    until_told(["10.78.0.8", "", "10.78.0.1"]);
}
