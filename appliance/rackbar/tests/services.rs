//! DNS, NTP and logs of the real program, switched on and off while it runs, in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const RACKBAR: &str = env!("CARGO_BIN_EXE_rackbar");
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon in a namespace with `rack0` (10.10.0.1/24) and `bmc0` (10.20.0.1/24).
struct Rack {
    daemon: Child,
    folder: tempfile::TempDir,
}

fn configuration(rack: &str) -> String {
    format!(
        "version = 1\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\naddress = \"10.10.0.1/24\"\n\
         dhcp = \"off\"\n{rack}\n[[network.reservation]]\nmac = \"52:54:00:00:00:09\"\naddress = \"10.10.0.20\"\n\
         name = \"web-1\"\n[[network]]\nname = \"bmc\"\nrole = \"bmc\"\ninterface = \"bmc0\"\naddress = \"10.20.0.1/24\"\n\
         dhcp = \"off\"\n[dns]\ndomain = \"rack.example\"\n[[dns.record]]\nname = \"wiki\"\ntype = \"CNAME\"\n\
         value = \"web-1\"\n[[dns.record]]\nname = \"six\"\ntype = \"AAAA\"\nvalue = \"2001:db8:0:6::50\"\n[ntp]\nlocal_stratum = 10\n"
    )
}

impl Rack {
    fn start(rack: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes a network namespace and needs root"
        );
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("rackbar.toml"), configuration(rack)).unwrap();
        let script = format!(
            "ip link set lo up && for name in rack bmc; do ip link add ${{name}}0 type veth peer name ${{name}}1 \
             && ip link set ${{name}}0 up && ip link set ${{name}}1 up || exit 1; done && ip addr add 10.10.0.1/24 dev rack0 && ip addr add 10.20.0.1/24 dev bmc0 \
             && exec {RACKBAR} daemon --no-network-setup --boot-files /nonexistent --config {at}/rackbar.toml \
             --data {at}/data --run {at}/run >{at}/out 2>{at}/log"
        );
        let daemon = Command::new("unshare")
            .args(["-n", "sh", "-c", &script])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let rack = Self { daemon, folder };
        rack.wait("the daemon serves", || {
            std::fs::read_to_string(rack.path("out")).is_ok_and(|text| text.contains("rackbar: serving"))
        });
        rack
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, rack: &str) {
        let new = self.path("new.toml");
        std::fs::write(&new, configuration(rack)).unwrap();
        std::fs::rename(new, self.path("rackbar.toml")).unwrap();
    }

    fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition() {
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(
                Instant::now() < end,
                "not within {PATIENCE:?}: {what}; the log:\n{}",
                log()
            );
            std::thread::yield_now();
        }
    }

    /// Runs a program in the daemon's namespace.
    fn exec(&self, program: &str, args: &[&str]) -> Output {
        let target = self.daemon.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &target, "-n", program]).args(args);
        command.output().unwrap()
    }

    fn dig(&self, args: &[&str]) -> String {
        let all = [&["+short", "+tries=1", "+timeout=2"], args].concat();
        String::from_utf8_lossy(&self.exec("dig", &all).stdout)
            .trim()
            .to_owned()
    }

    fn rackbar(&self, args: &[&str]) -> String {
        let ready = std::fs::read_to_string(self.path("out")).unwrap();
        let fingerprint = ready.trim().rsplit(' ').next().unwrap();
        let token = self.path("run/admin-token");
        let to = [
            "--endpoint",
            "10.10.0.1",
            "--fingerprint",
            fingerprint,
            "--token-file",
            token.to_str().unwrap(),
        ];
        let output = self.exec(RACKBAR, &[&to, args].concat());
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn site(&self, text: &str) {
        let path = self.path("site.toml.new");
        std::fs::write(&path, text).unwrap();
        self.rackbar(&["site", "set", path.to_str().unwrap()]);
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

fn is_closed(rack: &Rack, address: &str) -> bool {
    rack.dig(&[address, "+tcp", "rackbar.rack.example"])
        .contains("connection refused")
}

/// Another DNS server on our address.
fn hold_port(rack: &Rack) -> Child {
    let target = rack.daemon.id().to_string();
    // Several tests do this at a time, and two that write one file at once do not both start.
    let pid = format!("--pid-file={}", rack.path("dnsmasq.pid").display());
    let program = [
        "-t",
        &target,
        "-n",
        "dnsmasq",
        "-k",
        "--conf-file=/dev/null",
        "--no-resolv",
    ];
    let holder = Command::new("nsenter")
        .args(program)
        .args(["--listen-address=10.10.0.1", "--bind-interfaces", &pid])
        .stderr(Stdio::null())
        .spawn();
    holder.unwrap()
}

#[test]
fn services_follow_the_configuration_and_the_site_while_they_run() {
    let rack = Rack::start("dns = \"own\"\nntp = \"own\"\nsyslog = \"own\"");
    rack.wait("our name is there", || {
        rack.dig(&["@10.10.0.1", "rackbar.rack.example"]).contains("10.10.0.1")
    });
    assert_eq!(rack.dig(&["@10.10.0.1", "-x", "10.10.0.20"]), "web-1.rack.example.");
    assert_eq!(
        rack.dig(&["@10.10.0.1", "wiki.rack.example"]),
        "web-1.rack.example.\n10.10.0.20"
    );
    // Until a site file says which IPv6 networks there are, none is ours.
    assert_eq!(
        rack.dig(&["@10.10.0.1", "six.rack.example", "AAAA"]),
        "2001:db8:0:6::50"
    );
    assert_eq!(rack.dig(&["@10.10.0.1", "-x", "2001:db8:0:6::50"]), "");
    // Only where it was said: not on the BMCs' network.
    assert!(is_closed(&rack, "@10.20.0.1"));
    let asked = rack.exec("chronyd", &["-Q", "-t", "20", "server 10.10.0.1 iburst maxsamples 2"]);
    assert!(asked.status.success(), "{asked:?}");
    let listed = rack.rackbar(&["service", "status"]);
    assert!(
        listed.contains("answering for") && listed.contains("serving the time on 10.10.0.1:123"),
        "{listed}"
    );

    let sent = rack.exec(
        "logger",
        &[
            "-n",
            "10.10.0.1",
            "-P",
            "514",
            "-T",
            "-t",
            "app",
            "-p",
            "daemon.err",
            "disk <b>lost</b>",
        ],
    );
    assert!(sent.status.success(), "{sent:?}");
    rack.wait("the message is found", || {
        rack.rackbar(&["log", "--grep", "DISK", "--severity", "err"])
            .contains("disk <b>lost</b>")
    });
    assert_eq!(rack.rackbar(&["log", "--severity", "crit"]), "");

    rack.configure("dns = \"off\"\nntp = \"off\"\nsyslog = \"off\"");
    rack.wait("DNS is off", || is_closed(&rack, "@10.10.0.1"));
    // Not said: the site's word counts, and for its network alone.
    rack.configure("");
    rack.site(
        "version = 1\n[network.bmc]\nsubnet = \"10.20.0.0/24\"\ndns = \"own\"\nntp = \"own\"\n\
         [network.six]\nsubnet = \"2001:db8:0:4::/62\"\naddresses = \"2001:db8:0:6::100-2001:db8:0:6::199\"\n",
    );
    rack.wait("DNS is where the site says", || {
        rack.dig(&["@10.20.0.1", "rackbar.rack.example"]).contains("10.20.0.1")
    });
    assert!(is_closed(&rack, "@10.10.0.1"));
    // The site's IPv6 network has reverse names.
    rack.wait("an IPv6 address has its name", || {
        rack.dig(&["@10.20.0.1", "-x", "2001:db8:0:6::50"]) == "six.rack.example."
    });
}

/// A program in the daemon's namespace that goes on, its output in a file; it ends with its value.
struct Background {
    child: Child,
    out: PathBuf,
}

impl Background {
    fn start(rack: &Rack, name: &str, program: &str, args: &[&str]) -> Self {
        let out = rack.path(name);
        let child = Command::new("nsenter")
            .args(["-t", &rack.daemon.id().to_string(), "-n", program])
            .args(args)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&out).unwrap())
            .spawn()
            .unwrap();
        Self { child, out }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn logs_are_followed_as_they_come_and_a_broken_stream_goes_on_without_a_gap() {
    let rack = Rack::start("syslog = \"own\"");
    let send = |text: &str| {
        let sent = rack.exec("logger", &["-n", "10.10.0.1", "-P", "514", "-T", "-t", "app", text]);
        assert!(sent.status.success(), "{sent:?}");
    };
    let token = std::fs::read_to_string(rack.path("run/admin-token")).unwrap();
    let stream = |name: &str, query: &str, last: Option<&str>| {
        let bearer = format!("Authorization: Bearer {}", token.trim());
        let url = format!("https://10.10.0.1/api/v1/logs/stream{query}");
        let resumed = format!("Last-Event-ID: {}", last.unwrap_or_default());
        Background::start(&rack, name, "curl", &["-skN", "-H", &bearer, "-H", &resumed, &url])
    };
    send("one apple");
    send("two pears");
    rack.wait("both are kept", || rack.rackbar(&["log"]).contains("two pears"));
    let all = stream("all", "?after=0", None);
    let apples = stream("apples", "?after=0&grep=APPLE", None);
    rack.wait("what is there comes", || all.said().contains("two pears"));
    send("three apples");
    rack.wait("what comes is told", || {
        all.said().contains("three apples") && apples.said().contains("three apples")
    });
    assert!(
        apples.said().contains("one apple") && !apples.said().contains("pears"),
        "{}",
        apples.said()
    );
    let said = all.said();
    let last = said
        .lines()
        .filter_map(|line| line.strip_prefix("id:"))
        .next_back()
        .unwrap()
        .trim();
    drop(all);
    send("four plums");
    let resumed = stream("resumed", "", Some(last));
    rack.wait("it goes on behind what was seen", || {
        resumed.said().contains("four plums")
    });
    assert!(!resumed.said().contains("apple"), "{}", resumed.said());

    // The command line: what was there, then what comes.
    let follower = {
        let ready = std::fs::read_to_string(rack.path("out")).unwrap();
        let (fingerprint, token) = (ready.trim().rsplit(' ').next().unwrap(), rack.path("run/admin-token"));
        let to = [
            "--endpoint",
            "10.10.0.1",
            "--fingerprint",
            fingerprint,
            "--token-file",
            token.to_str().unwrap(),
        ];
        let args = ["log", "--follow", "--grep", "apple", "--limit", "1"];
        Background::start(&rack, "follower", RACKBAR, &[&to[..], &args].concat())
    };
    rack.wait("the newest that fits is shown", || {
        follower.said().contains("three apples")
    });
    send("five apples");
    rack.wait("the follower hears of it", || follower.said().contains("five apples"));
    let said = follower.said();
    assert!(!said.contains("one apple") && !said.contains("plums"), "{said}");
    assert_eq!(said.matches("three apples").count(), 1, "{said}");

    // The page names the stream, with what it asked for and where it stands; without a script it is still.
    let (form, jar) = (rack.path("form"), rack.path("jar"));
    std::fs::write(&form, format!("token={}", token.trim())).unwrap();
    let (form, jar) = (format!("@{}", form.display()), jar.display().to_string());
    let page = |path: &str, more: &[&str]| {
        let url = format!("https://10.10.0.1{path}");
        let said = rack.exec(
            "curl",
            &[&["-sSkL", "-b", &jar, "-c", &jar], more, &[url.as_str()]].concat(),
        );
        String::from_utf8(said.stdout).unwrap()
    };
    page("/login", &["-d", &form]);
    let html = page("/logs?node=&severity=debug&grep=five+apples", &[]);
    assert!(html.contains("five apples") && !html.contains("plums"), "{html}");
    let place = html
        .split("data-stream=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    let place = place.replace("&amp;", "&").replace("&#x2f;", "/");
    assert!(place.starts_with("/api/v1/logs/stream?after=5"), "{place}");
    assert!(place.ends_with("&severity=debug&grep=five%20apples"), "{place}");
}

#[test]
fn a_service_that_cannot_listen_says_who_holds_the_port_and_comes_when_it_is_free() {
    let rack = Rack::start("");
    let mut holder = hold_port(&rack);
    rack.wait("the port is held", || !is_closed(&rack, "@10.10.0.1"));
    rack.configure("dns = \"own\"");
    rack.wait("the trouble is told", || {
        rack.rackbar(&["service", "status"])
            .contains(&format!("dnsmasq (process {}) holds port 53", holder.id()))
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    rack.wait("DNS came up", || {
        rack.dig(&["@10.10.0.1", "rackbar.rack.example"]).contains("10.10.0.1")
    });
}

#[test]
fn a_plan_shows_a_service_of_the_site_that_does_not_serve_and_its_run_waits_for_it() {
    let rack = Rack::start("");
    let mut holder = hold_port(&rack);
    rack.wait("the port is held", || !is_closed(&rack, "@10.10.0.1"));
    rack.site("version = 1\n[network.lan]\nsubnet = \"10.10.0.0/24\"\ndns = \"own\"\nntp = \"own\"\n");
    let holds = format!("dnsmasq (process {}) holds port 53", holder.id());
    rack.wait("the plan shows why", || rack.rackbar(&["plan"]).contains(&holds));
    rack.wait("our NTP serves", || !rack.rackbar(&["plan"]).contains("service.ntp"));
    let shown = rack.rackbar(&["plan"]);
    for part in [
        "1 action on 0 machines",
        "services",
        "layer 4",
        "service.dns",
        "own at 10.10.0.1",
        "seen not to serve",
    ] {
        assert!(shown.contains(part), "no {part}: {shown}");
    }
    let plan: serde_json::Value = serde_json::from_str(&rack.rackbar(&["plan", "--json"])).unwrap();
    let action = &plan["actions"][0];
    assert_eq!(action["target"]["service"], "network.lan.dns");
    assert_eq!(action["kind"]["service"]["own"], "10.10.0.1");
    assert_eq!((action["node"].is_null(), action["destroys"].is_null()), (true, true));
    rack.rackbar(&["commit", plan["id"].as_str().unwrap(), "--detach"]);
    rack.wait("the run waits, and says for what", || {
        rack.rackbar(&["run", "show", "1"])
            .contains("waiting for the appliance's own dns")
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    rack.wait("the run is done", || {
        rack.rackbar(&["run", "show", "1"]).contains("run 1, done")
    });
    assert!(rack.rackbar(&["plan"]).contains("There is nothing to do."));
}
