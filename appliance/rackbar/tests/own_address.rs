//! Addresses that other DHCP servers give the appliance itself: on its uplink, and on a rack network that nobody
//! described. The servers are Debian's dnsmasq and BusyBox's udhcpd.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod behind;

use std::path::Path;
use std::process::Stdio;

use behind::{Appliance, Net, Running, ip, text};

/// As an appliance does that was told nothing, on the one interface of its namespace.
const TOLD_NOTHING: &str = r#"version = 1
name = "rackbar"
[[network]]
name = "rack"
role = "rack"
interface = "rack0"
address = "dhcp, else 10.10.0.1/24"
dhcp = "auto"
pool = ["10.10.0.100-10.10.0.199"]
"#;

const UPLINK: &str = r#"version = 1
name = "rackbar"
[[network]]
name = "house"
role = "uplink"
interface = "rack0"
address = "dhcp"
[[network]]
name = "rack"
role = "rack"
interface = "rack1"
address = "10.10.0.1/24"
dhcp = "off"
dns = "own"
"#;

/// Debian's dnsmasq on the router.
fn dnsmasq(net: &Net, more: &[&str]) -> Running {
    let mut command = net.command("router", "dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
    ]);
    command.args([
        "--leasefile-ro",
        "--interface=up0",
        "--except-interface=lo",
        "--bind-interfaces",
    ]);
    command
        .args(["--no-resolv", "--no-hosts"])
        .args(more)
        .stdin(Stdio::null());
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    Running(quiet.spawn().unwrap())
}

const ADDRESSES: [&str; 3] = [
    "--port=0",
    "--dhcp-authoritative",
    "--dhcp-range=10.78.0.100,10.78.0.150,2m",
];

/// Our addresses on an interface, as the kernel has them.
fn addresses(net: &Net, interface: &str) -> Vec<String> {
    let said = net.run("server", "ip", &["-4", "-o", "addr", "show", "dev", interface]);
    let address = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    text(&said).lines().filter_map(address).collect()
}

fn leased(net: &Net) -> bool {
    let found = addresses(net, "rack0");
    found.len() == 1 && found[0].starts_with("10.78.0.1") && found[0].ends_with("/24")
}

/// What the page of services says of DHCP.
fn dhcp(appliance: &Appliance<'_>) -> String {
    let said = appliance.ask(&["service", "status"]);
    let line = said.lines().find(|line| line.contains("dhcp"));
    line.unwrap_or_default().to_owned()
}

#[test]
fn beside_a_dhcp_server_an_appliance_told_nothing_takes_an_address_and_only_adds_boot_information() {
    let net = Net::bare();
    let _server = dnsmasq(&net, &ADDRESSES);
    let appliance = Appliance::start_with(&net, TOLD_NOTHING, &[]);
    assert!(
        appliance.log().contains("rackbar: serving rack 10.78.0.1"),
        "{}",
        appliance.log()
    );
    assert!(leased(&net), "{:?}", addresses(&net, "rack0"));
    appliance.until("it stands beside the server", || {
        dhcp(&appliance).contains("adding boot information on rack")
    });
}

#[test]
fn an_interface_that_is_there_later_is_served_and_one_that_comes_back_as_well() {
    let net = Net::bare();
    let (server, router) = (net.name("server"), net.name("router"));
    ip(&format!("-n {server} link del rack0"));
    let config = TOLD_NOTHING
        .replace("dhcp, else 10.10.0.1/24", "10.10.0.1/24")
        .replace("\"auto\"", "\"own\"");
    let appliance = Appliance::start_with(&net, &config, &[]);
    let serves = || dhcp(&appliance).contains("as the DHCP server");
    assert!(!serves());
    for _ in 0..2 {
        ip(&format!(
            "-n {server} link add rack0 type veth peer name up0 netns {router}"
        ));
        ip(&format!("-n {router} link set up0 up"));
        appliance.until("it serves there", || {
            serves() && addresses(&net, "rack0") == ["10.10.0.1/24"]
        });
        ip(&format!("-n {server} link del rack0"));
        appliance.until("it serves no more", || !serves());
    }
}

/// Spanning tree holds a port for half a minute, or the server starts after us: silence was taken for a network without
/// one.
#[test]
fn a_dhcp_server_that_is_heard_late_gives_the_appliance_its_address_after_all() {
    let net = Net::bare();
    let appliance = Appliance::start_with(&net, TOLD_NOTHING, &[]);
    assert_eq!(addresses(&net, "rack0"), ["10.10.0.1/24"]);
    appliance.until("it serves as nobody else does", || {
        dhcp(&appliance).contains("as the DHCP server")
    });
    let _server = dnsmasq(&net, &ADDRESSES);
    appliance.until("it has an address of the server's network and no other", || {
        leased(&net)
    });
    appliance.until("it stands beside the server", || {
        dhcp(&appliance).contains("adding boot information on rack")
    });
    // Who boots is sent to where we are now.
    let ours = addresses(&net, "rack0")[0].trim_end_matches("/24").to_owned();
    let file = net.run(
        "router",
        "curl",
        &["-s", "-m", "10", &format!("tftp://{ours}/undionly.kpxe")],
    );
    assert_eq!(text(&file), "what stands for undionly.kpxe");
}

#[test]
fn an_uplink_takes_address_route_and_resolver_from_a_dhcp_server_and_gives_them_up_with_the_lease() {
    let net = Net::bare();
    let ours = net.name("server");
    ip(&format!("-n {ours} link add rack1 type veth peer name nobody"));
    ip(&format!("-n {ours} link set nobody up"));
    let _names = dnsmasq(&net, &["--address=/up.test/192.0.2.7"]);
    let folder = tempfile::tempdir().unwrap();
    let server = udhcpd(&net, folder.path());
    let appliance = Appliance::start_with(&net, UPLINK, &[]);
    appliance.until("the uplink has an address", || {
        addresses(&net, "rack0") == ["10.78.0.77/24"]
    });
    let way = || net.routes("default");
    let is_set = |routes: &[String]| routes.len() == 1 && routes[0].starts_with("default via 10.78.0.254 dev rack0");
    appliance.until("the way out is set", || is_set(&way()));
    assert!(way()[0].contains("metric 1024"), "{:?}", way());
    // A name that only the server's resolver knows.
    let asked = ["+short", "+time=1", "+tries=1", "@10.10.0.1", "up.test"];
    appliance.until("names are asked of the uplink's resolver", || {
        text(&net.run("server", "dig", &asked)).trim() == "192.0.2.7"
    });

    drop(server);
    appliance.until("the lease is over", || {
        addresses(&net, "rack0").is_empty() && way().is_empty()
    });
    assert_eq!(
        addresses(&net, "rack1"),
        ["10.10.0.1/24"],
        "the rack's own address is not its server's to take"
    );
    let _server = udhcpd(&net, folder.path());
    appliance.until("it is asked again", || {
        addresses(&net, "rack0") == ["10.78.0.77/24"] && is_set(&way())
    });
}

/// A port that spanning tree holds for half a minute, and a server that goes away.
#[test]
fn an_uplink_has_its_own_address_while_no_dhcp_server_gives_it_one() {
    let net = Net::bare();
    let ours = net.name("server");
    ip(&format!("-n {ours} link add rack1 type veth peer name nobody"));
    ip(&format!("-n {ours} link set nobody up"));
    let told = fixed("10.78.0.253").replace("\"10.78.0.1/24\"", "\"dhcp, else 10.78.0.1/24\"");
    let appliance = Appliance::start_with(&net, &told, &[]);
    let is = |address: &str, way: &str, metric: &str| {
        let (way, metric) = (format!("default via {way} dev rack0"), format!("metric {metric}"));
        let found = net.routes("default");
        let is_set = found.len() == 1 && found[0].starts_with(&way) && found[0].contains(&metric);
        addresses(&net, "rack0") == [address] && is_set
    };
    let own = || is("10.78.0.1/24", "10.78.0.253", "512");
    appliance.until("it has its own address", own);
    let folder = tempfile::tempdir().unwrap();
    let server = udhcpd(&net, folder.path());
    appliance.until("it takes the one it is given", || {
        is("10.78.0.77/24", "10.78.0.254", "1024")
    });
    drop(server);
    appliance.until("it has its own address again", own);
}

/// Behind the router, so that it is reached by the gateway alone.
const BEYOND: &str = "10.79.0.9";

/// As [`UPLINK`], but nobody gives addresses there.
fn fixed(gateway: &str) -> String {
    UPLINK.replace(
        "address = \"dhcp\"",
        &format!("address = \"10.78.0.1/24\"\ngateway = \"{gateway}\""),
    )
}

#[test]
fn an_uplink_with_a_fixed_address_leads_out_by_its_gateway_and_a_rack_network_never() {
    let net = Net::bare();
    let ours = net.name("server");
    ip(&format!("-n {ours} link add rack1 type veth peer name nobody"));
    ip(&format!("-n {ours} link set nobody up"));
    let client = net.name("client");
    ip(&format!("-n {client} addr add {BEYOND}/24 dev c0"));
    ip(&format!("-n {client} route add default via 10.79.0.254"));
    // What a rack's gateway is told for is its clients.
    let told = fixed("10.78.0.254") + "gateway = \"10.10.0.254\"\n";
    let appliance = Appliance::start_with(&net, &told, &[]);
    let is_set = |way: &str| {
        let found = net.routes("default");
        found.len() == 1 && found[0] == format!("default via {way}")
    };
    let out = "10.78.0.254 dev rack0 proto static metric 512";
    appliance.until("the way out is set", || is_set(out));
    let reached = net.run("server", "busybox", &["ping", "-c", "1", "-W", "10", BEYOND]);
    assert!(reached.status.success(), "{reached:#?}");

    // One that somebody took away comes back, and a person's own stays.
    ip(&format!("-n {ours} route del default"));
    appliance.until("it is set again", || is_set(out));
    ip(&format!("-n {ours} route add default via 10.78.0.253 metric 50"));
    let file = appliance.folder.path().join("rackbar.toml");
    std::fs::write(&file, fixed("10.78.0.252")).unwrap();
    let both = |metric: &str| {
        let found = net.routes("default");
        found.len() == 2 && found.iter().any(|one| one.ends_with(metric)) && found[1].contains("10.78.0.252")
    };
    appliance.until("another gateway is used", || both("metric 50"));
    std::fs::write(&file, fixed("10.78.0.252").replace("gateway", "# gateway")).unwrap();
    appliance.until("without a gateway there is no way out of ours", || {
        net.routes("default") == ["default via 10.78.0.253 dev rack0 metric 50"]
    });
}

#[test]
fn on_an_uplink_people_are_led_to_the_page_and_no_machine_boots() {
    let net = Net::bare();
    let (ours, router) = (net.name("server"), net.name("router"));
    ip(&format!("-n {ours} link add rack1 type veth peer name nobody"));
    ip(&format!("-n {ours} link set nobody up"));
    let _appliance = Appliance::start_with(&net, &fixed("10.78.0.254"), &[]);
    // A network of the rack beyond a router has its machines come in by the uplink, to our address in the rack.
    ip(&format!("-n {router} route add 10.10.0.0/24 via 10.78.0.1"));
    let curl = |more: &[&str], url: &str| {
        let mut arguments = vec!["-s", "-m", "10"];
        arguments.extend(more);
        arguments.push(url);
        net.run("router", "curl", &arguments)
    };
    let status = |path: &str, at: &str| {
        let out = ["-o", "/dev/null", "-w", "%{http_code}"];
        text(&curl(&out, &format!("http://{at}{path}")))
    };
    let (uplink, rack) = ("10.78.0.1", "10.10.0.1");
    assert_eq!(status("/boot/v1/snponly.efi", rack), "200");
    assert_eq!(status("/boot/v1/snponly.efi", uplink), "403");
    assert_eq!(status("/nodes", uplink), "308");
    let tftp = |at: &str, patience: &str| curl(&["-m", patience], &format!("tftp://{at}/undionly.kpxe"));
    assert_eq!(text(&tftp(rack, "10")), "what stands for undionly.kpxe");
    assert_eq!(text(&tftp(uplink, "2")), "");
    // At the port of the agents there is no HTTP; whether there is TLS tells whether an agent is listened to.
    const NO_TLS: Option<i32> = Some(35);
    let agents = |at: &str| curl(&["-k"], &format!("https://{at}:4917/")).status.code();
    assert_eq!(agents(uplink), NO_TLS);
    assert_ne!(agents(rack), NO_TLS);
}

#[test]
fn of_two_uplinks_with_gateways_the_first_one_is_used_and_the_other_when_it_is_gone() {
    let net = Net::bare();
    let ours = net.name("server");
    for link in ["rack1", "rack2"] {
        ip(&format!("-n {ours} link add {link} type veth peer name no-{link}"));
        ip(&format!("-n {ours} link set no-{link} up"));
    }
    let both = fixed("10.78.0.254")
        + "[[network]]\nname = \"other\"\nrole = \"uplink\"\ninterface = \"rack2\"\naddress = \"10.11.0.1/24\"\n\
           gateway = \"10.11.0.254\"\n";
    let appliance = Appliance::start_with(&net, &both, &[]);
    let way = || text(&net.run("server", "ip", &["-4", "route", "get", "198.51.100.1"]));
    appliance.until("both ways out are there", || net.routes("default").len() == 2);
    assert!(way().contains("via 10.78.0.254 dev rack0"), "{}", way());
    let (head, first) = both.split_once("[[network]]").unwrap();
    let (_, rest) = first.split_once("[[network]]").unwrap();
    let second = format!("{head}[[network]]{rest}");
    std::fs::write(appliance.folder.path().join("rackbar.toml"), second).unwrap();
    let only = ["default via 10.11.0.254 dev rack2 proto static metric 512"];
    appliance.until("the first one is gone", || net.routes("default") == only);
}

/// BusyBox's server on the router: its leases last seconds.
fn udhcpd(net: &Net, folder: &Path) -> Running {
    let at = |name: &str| folder.join(name).display().to_string();
    let settings = format!(
        "start 10.78.0.77\nend 10.78.0.77\ninterface up0\nmin_lease 4\nlease_file {}\npidfile {}\noption subnet \
         255.255.255.0\noption router 10.78.0.254\noption dns 10.78.0.254\noption lease 6\n",
        at("leases"),
        at("pid")
    );
    std::fs::write(at("conf"), settings).unwrap();
    std::fs::write(at("leases"), "").unwrap();
    let mut command = net.command("router", "busybox");
    command.args(["udhcpd", "-f"]).arg(at("conf")).stdin(Stdio::null());
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    Running(quiet.spawn().unwrap())
}
