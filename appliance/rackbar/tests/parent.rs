//! The story of a site whose only way out is a proxy of others: the real daemon, the real command line, Debian's Squid.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod apart;
#[path = "../../proxy/tests/common/mod.rs"]
mod common;
#[path = "../../upstream/tests/common/mod.rs"]
mod gnupg;
mod publisher;
#[path = "../../proxy/tests/squid/mod.rs"]
mod squid;

use apart::{Appliance, OURS};
use publisher::Publisher;
use squid::{PASSWORD, Squid, USER};

#[test]
fn a_repository_is_locked_through_the_parent_once_the_login_in_its_file_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    std::fs::write(&secret, "not this one\n").unwrap();
    let address = "127.0.0.1:3129".parse().unwrap();
    let config = format!(
        "version = 1\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\naddress = \"{OURS}/24\"\n\
         dhcp = \"off\"\nproxy = \"own\"\n[proxy]\nparent = \"http://{address}\"\n\
         parent_login = {{ username = \"{USER}\", password_file = \"{}\" }}\n",
        secret.display()
    );
    let appliance = Appliance::start(&config, "");
    let squid = Squid::at(address);
    let mut publisher = Publisher::new();
    publisher.publish("publisher", &[("tool", "1.0")]);
    let (url, keys) = (publisher.origin.url("/debian"), publisher.keys());
    let site = format!(
        "version = 1\n[repository.ours]\nurl = \"{url}\"\nsuite = \"stable\"\nkeys = '''\n{keys}'''\n\
         [network.rack]\nsubnet = \"10.10.0.0/24\"\nproxy = \"own\"\n"
    );
    let site = appliance.file("site.toml", site);
    appliance.well(&["site", "set", &site]);
    appliance.until("listening on 10.10.0.1:3128");
    let said = appliance.refused(&["repository", "lock", "ours"]);
    let wanted = "wants a login (407) and does not take the one it is given";
    assert!(said.contains(wanted) && !said.contains("not this one"), "{said}");

    // Another password in the file is another configuration.
    std::fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    appliance.wait("the repository is locked", || {
        appliance.ask(&["repository", "lock", "ours"]).status.success()
    });
    squid.told_of(&format!("GET {url}/dists/stable/InRelease"));
    for (name, text) in [
        ("log", std::fs::read_to_string(appliance.path("log")).unwrap()),
        ("events", appliance.well(&["events", "--json"])),
    ] {
        assert!(
            !text.contains(PASSWORD) && !text.contains("not this one"),
            "the {name} has it"
        );
    }
}
