//! Answer files for use elsewhere: of every system, for a node of a role, as an install by us would make it; and nothing is
//! left behind, neither by what was rendered nor by what was refused.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;

use common::life::{Life, Sim, hardware};
use common::{boot, mac};
use rackbar_model::{Disk, DiskBus, FirmwareMode, NodeId, SecretText};
use rackbar_orchestrator::answers::{
    Answers, AnswersError, AnswersRequest, NetBoot, SYSTEMS, TalosOptions, WindowsOptions,
};
use rackbar_orchestrator::executor::PlanRequest;
use rackbar_plan::ActionKind;
use rackbar_store::Table;

const SITE: &str = r##"
version = 1
domain = "rack.example"
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"]
[network.lan]
subnet = "10.10.0.0/24"
addresses = "10.10.0.20-10.10.0.60"
gateway = "10.10.0.1"
dns = ["10.10.0.3"]
ntp = ["10.10.0.4"]
syslog = "10.10.0.5:514"
[role.worker]
os = "not-in-the-catalogue"
root = { pick = "smallest" }
packages = ["tmux"]
file = [{ path = "/etc/role", content = "of the role" }]
step = [{ name = "mark", script = "#!/bin/sh\ntrue\n" }]
[[role.worker.network]]
name = "lan"
network = "lan"
nics = ["boot"]
default_route = true
[role.spare]
memory = "agent"
[handoff.puppet]
server = "puppet.rack.example"
[handoff.role.worker]
enrol = ["puppet"]
"##;

const HASH: &str =
    "$6$rackbarsalt$SVtNWWz7hDRJXz3vEiBB3qKFmHKLjPMfj5AbzmT9MkKaaVYZ2ZUsrAbtqlgoH3YHfOtJTx5eW5HFaYnWXmeFY.";

const SECRETS: &str = include_str!("../../../fuzz/corpus/talos-secrets/cluster");

const BOOT_CFG: &str =
    "title=ESXi\nkernel=/b.b00\nkernelopt=runweasel cdromBoot\nmodules=/jumpstrt.gz --- /useropts.gz\n";

/// An appliance with a machine that has two disks, of which its role wants the smallest.
struct Rack {
    life: Life,
    server: common::Server,
    _agent: common::Agent,
    node: NodeId,
    _folder: tempfile::TempDir,
}

impl Rack {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (life, server, site) = Life::empty(folder.path(), &Arc::new(Sim::default())).await;
        let mut inventory = hardware(1, 20);
        inventory.firmware.mode = Some(FirmwareMode::Uefi);
        inventory.disks[0].serial = Some("ROOTDISK7".into());
        inventory.disks[0].wwn = Some("naa.5000c500a1b2c307".into());
        inventory.disks.push(Disk {
            name: "vdb".into(),
            size_bytes: 40 << 30,
            serial: Some("DATADISK9".into()),
            wwn: Some("naa.5000c500a1b2c309".into()),
            bus: DiskBus::Nvme,
            ..Disk::default()
        });
        let (agent, welcome) = boot(&site, &server, &[mac(1)], inventory).await;
        life.executor.set_site(SITE, "anna").unwrap();
        let node = welcome.node;
        life.executor.bind(node, Some("worker".into()), "anna").unwrap();
        Self {
            life,
            server,
            _agent: agent,
            node,
            _folder: folder,
        }
    }

    fn ask(&self, request: &AnswersRequest) -> Result<Answers, AnswersError> {
        self.life.executor.answers(self.node, request)
    }

    fn refused(&self, request: &AnswersRequest) -> String {
        self.ask(request).unwrap_err().to_string()
    }

    /// What is written down of work, orders and secrets.
    fn written(&self) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
        let store = self.life.rack.store();
        [Table::Work, Table::Tokens, Table::Secrets]
            .map(|table| store.list(table).unwrap())
            .into()
    }

    async fn end(self) {
        self.server.stop().await;
    }
}

/// A request that lacks nothing.
fn request(system: &str) -> AnswersRequest {
    let mut all = AnswersRequest {
        system: system.into(),
        answers_url: "http://10.0.0.5/of/one".into(),
        mirror: Some("http://10.0.0.5/mirror".into()),
        ..AnswersRequest::default()
    };
    let without = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
    match system {
        "fedora-coreos" => all.release = Some("42.20250914.3.0".into()),
        "flatcar" => all.release = Some("4230.2.2".into()),
        "talos" => {
            all.mirror = None;
            all.without = without(&["ssh-keys", "syslog", "files"]);
            all.talos = Some(TalosOptions {
                cluster: "rack".into(),
                endpoint: "https://10.10.0.10:6443".into(),
                control_plane: true,
                installer: "registry.example/siderolabs/installer:v1.11.0".into(),
                names: Vec::new(),
                secrets: SecretText(SECRETS.into()),
            });
        }
        _ if system.starts_with("ubuntu") => all.iso = Some("http://10.0.0.5/live.iso".into()),
        _ if system.starts_with("esxi") => {
            all.esxi_boot_cfg = Some(BOOT_CFG.into());
            all.root_password_hash = Some(SecretText(HASH.into()));
            all.without = without(&["files"]);
        }
        _ if system.starts_with("windows") => {
            all.without = without(&["files", "syslog", "kernel-arguments"]);
            all.windows = Some(WindowsOptions {
                image: "2".into(),
                product_key: Some(SecretText("AAAAA-BBBBB-CCCCC-DDDDD-12345\n".into())),
                language: None,
                wimboot: "http://10.0.0.5/wimboot".into(),
                share: r"\\10.0.0.5\media".into(),
                share_user: "reader".into(),
                share_password: SecretText("Only-Reads.1".into()),
            });
        }
        _ => {}
    }
    all
}

/// Text with all that stands in it in base64, also twice over.
fn unfolded(text: &str) -> String {
    let mut all = text.to_owned();
    let mut layer = text.to_owned();
    for _ in 0..3 {
        // Files that have lines hold base64 in lines of 76.
        let joined = layer.replace("\\n", "\n").replace('\n', "\u{1}");
        let words = joined.split(|c: char| !(c.is_ascii_alphanumeric() || "+/=\u{1}".contains(c)));
        layer = words.filter(|word| word.len() >= 12).flat_map(decoded).collect();
        all.push_str(&layer);
    }
    all
}

fn decoded(word: &str) -> Vec<char> {
    let mut out = Vec::new();
    for text in [
        word.replace('\u{1}', ""),
        word.split('\u{1}').collect::<Vec<_>>().join(" "),
    ] {
        for word in text.split(' ') {
            let (mut bits, mut held) = (0u32, 0);
            for byte in word.trim_end_matches('=').bytes() {
                let value = match byte {
                    b'A'..=b'Z' => byte - b'A',
                    b'a'..=b'z' => byte - b'a' + 26,
                    b'0'..=b'9' => byte - b'0' + 52,
                    b'+' => 62,
                    _ => 63,
                };
                (bits, held) = ((bits << 6) | u32::from(value), held + 6);
                if held >= 8 {
                    held -= 8;
                    out.push(char::from(u8::try_from((bits >> held) & 0xff).unwrap()));
                }
            }
            out.push('\n');
        }
    }
    out
}

fn started(boot: &NetBoot) -> String {
    match boot {
        NetBoot::Linux {
            command_line,
            kernel,
            initrds,
        } => {
            assert!(!kernel.is_empty() && !initrds.is_empty());
            command_line.clone()
        }
        NetBoot::Ipxe { script, files } => {
            assert!(!files.is_empty());
            script.clone()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_system_has_answers_for_a_node_of_a_role_and_nothing_is_recorded() {
    let rack = Rack::new().await;
    let before = rack.written();
    let mut missed = Vec::new();
    for system in SYSTEMS {
        let answers = rack
            .ask(&request(system))
            .unwrap_or_else(|error| panic!("{system}: {error}"));
        assert_eq!(
            (&*answers.node, &*answers.role, &*answers.hostname),
            ("node-001", "worker", "node-001")
        );
        assert_eq!(answers.disks, ["serial ROOTDISK7, WWN naa.5000c500a1b2c307"]);
        let files: String = answers.files.iter().map(|file| unfolded(&file.content.0)).collect();
        let boot = started(&answers.boot);
        let first = format!("http://10.0.0.5/of/one/{}", answers.files[0].name);
        if system != "talos" {
            assert_eq!(answers.asked_at_the_end.as_deref(), Some(&*first), "{system}");
        }
        let folder = boot.contains("http://10.0.0.5/of/one/");
        let key = files.contains("AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f");
        let found = [
            ("host name", files.contains("node-001")),
            ("address", files.contains("10.10.0.20")),
            (
                "disk",
                files.contains("ROOTDISK7") || files.contains("5000c500a1b2c307"),
            ),
            (
                "not the other",
                !files.contains("DATADISK9") && !files.contains("5000c500a1b2c309"),
            ),
            ("key", key == (system != "talos")),
            ("NTP", files.contains("10.10.0.4")),
            ("no private key of ours", !files.contains("OPENSSH PRIVATE KEY")),
            ("folder", folder),
            ("no step is told", !files.contains("/started")),
        ];
        missed.extend(
            found
                .iter()
                .filter(|(_, found)| !found)
                .map(|(what, _)| (system, *what)),
        );
    }
    assert!(missed.is_empty(), "{missed:?}");
    assert_eq!(rack.written(), before);
    rack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_what_an_install_by_us_would_and_what_it_does_besides() {
    let rack = Rack::new().await;
    let site = SITE.replace("not-in-the-catalogue", "debian-12");
    rack.life.executor.set_site(&site, "anna").unwrap();
    let plan = rack.life.executor.plan(&PlanRequest::default()).unwrap();
    let kinds = plan.actions.iter().map(|action| &action.kind);
    let mut setups = kinds.filter_map(|kind| match kind {
        ActionKind::Setup { setup, target, .. } => Some((setup.clone(), target.clone())),
        _ => None,
    });
    let (setup, target) = setups.next().unwrap();
    let answers = rack.ask(&request("rocky-9")).unwrap();
    let kickstart = &answers.files[0].content.0;
    let address = setup.networks[0].addresses[0].split('/').next().unwrap();
    assert!(
        kickstart.contains(address) && kickstart.contains(&setup.hostname),
        "{kickstart}"
    );
    assert_eq!(target.disks()[0].serial.as_deref(), Some("ROOTDISK7"));
    assert!(!kickstart.contains("tmux"), "{kickstart}");
    let notes = answers.notes.join("\n");
    for part in [
        "10.10.0.20/24 would be given now and is not kept",
        "its packages",
        "its step",
        "its enrolment at other tools",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    let more = AnswersRequest {
        packages: true,
        without: vec!["ntp".into(), "ssh-keys".into()],
        done_url: Some("http://10.0.0.5/done".into()),
        ..request("rocky-9")
    };
    let answers = rack.ask(&more).unwrap();
    let kickstart = &answers.files[0].content.0;
    assert!(
        kickstart.contains("tmux") && !kickstart.contains("10.10.0.4"),
        "{kickstart}"
    );
    assert!(kickstart.contains("http://10.0.0.5/done"), "{kickstart}");
    let notes = answers.notes.join("\n");
    assert!(
        notes.contains("left out as asked for: ntp, ssh-keys") && notes.contains("nobody can log in"),
        "{notes}"
    );
    rack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_missing_or_cannot_be_expressed_is_refused_and_leaves_nothing() {
    let rack = Rack::new().await;
    let before = rack.written();
    let with = |system: &str, change: &dyn Fn(&mut AnswersRequest)| {
        let mut request = request(system);
        change(&mut request);
        rack.refused(&request)
    };
    let wanted = [
        (
            with("debian-13", &|all| all.system = "debian-11".into()),
            "\"debian-11\" is none that answers are made for",
        ),
        (
            with("debian-13", &|all| all.mirror = None),
            "debian-13 needs mirror (--mirror URL)",
        ),
        (
            with("debian-13", &|all| all.answers_url.clear()),
            "answers_url (--answers-url URL) is missing",
        ),
        (
            with("debian-13", &|all| all.iso = Some("http://x/y".into())),
            "iso: debian-13 has no use for it",
        ),
        (
            with("debian-13", &|all| all.without = vec!["disk".into()]),
            "\"disk\" is nothing that can be left out",
        ),
        (
            with("rocky-9", &|all| all.mirror = Some("ftp://x".into())),
            "mirror: this is no http",
        ),
        (
            with("rocky-9", &|all| all.repositories = vec!["x".into()]),
            "\"x\" is no NAME=URL",
        ),
        (
            with("rocky-9", &|all| {
                all.root_password_hash = Some(SecretText("secret".into()))
            }),
            "root_password_hash: this is no",
        ),
        (
            with("ubuntu-24.04", &|all| all.iso = None),
            "ubuntu-24.04 needs iso (--iso URL)",
        ),
        (
            with("flatcar", &|all| all.release = None),
            "flatcar needs release (--release R)",
        ),
        (
            with("talos", &|all| all.talos = None),
            "talos needs talos (--talos-secrets FILE)",
        ),
        (
            with("talos", &|all| all.without.clear()),
            "talos: setup.ssh_keys: the installer cannot express SSH keys",
        ),
        (
            with("talos", &|all| all.without.clear()),
            "(`without`, --without ssh-keys)",
        ),
        (
            with("esxi-8", &|all| all.root_password_hash = None),
            "esxi: root_password: ESXi does not install without one",
        ),
        (
            with("esxi-8", &|all| all.esxi_boot_cfg = None),
            "esxi-8 needs esxi_boot_cfg (--esxi-boot-cfg FILE)",
        ),
        (
            with("windows-server-2022", &|all| all.windows = None),
            "needs windows (--share-password-file FILE)",
        ),
        (
            with("windows-server-2022", &|all| all.without.clear()),
            "--without files",
        ),
    ];
    for (said, part) in wanted {
        assert!(said.contains(part), "{part}: {said}");
        assert!(!said.contains("\"secret\""), "{said}");
    }
    let nobody = with("windows-server-2022", &|all| all.without.push("ssh-keys".into()));
    assert!(
        nobody.contains("nobody could log in") && !nobody.contains("--without"),
        "{nobody}"
    );
    let bad = with("talos", &|all| {
        if let Some(talos) = &mut all.talos {
            talos.secrets = SecretText("cluster:\n    id: hidden\n".into());
        }
    });
    assert!(
        bad.contains("it has no cluster.secret") && !bad.contains("hidden"),
        "{bad}"
    );
    assert_eq!(rack.written(), before);
    // The node itself is in the way.
    let life = &rack.life;
    life.executor.bind(rack.node, Some("spare".into()), "anna").unwrap();
    let said = rack.ask(&request("debian-13")).unwrap_err();
    assert!(
        matches!(&said, AnswersError::InTheWay(words) if words.contains("runs in memory")),
        "{said:?}"
    );
    life.executor.bind(rack.node, None, "anna").unwrap();
    let said = rack.ask(&request("debian-13")).unwrap_err();
    assert!(
        matches!(&said, AnswersError::InTheWay(words) if words.contains("node-001 has no role")),
        "{said:?}"
    );
    let nobody = life
        .executor
        .answers(NodeId([9; 16]), &request("debian-13"))
        .unwrap_err();
    assert!(matches!(nobody, AnswersError::NoSuchNode(_)), "{nobody:?}");
    rack.end().await;
}
