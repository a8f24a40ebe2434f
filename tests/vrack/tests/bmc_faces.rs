//! The Redfish and KCS faces of the simulated BMC: curl and raw bytes against it, over the loopback.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rackbar_ipmi::command::lan::{AddressSource, LanParameter, parameter};
use rackbar_ipmi::command::{device::DeviceId, user};
use rackbar_ipmi::{Completion, Request, Response};
use rackbar_model::MacAddr;
use rackbar_vrack::bmc::{Loopback, LoopbackConfig, Pretend};
use rackbar_vrack::console::Console;
use rackbar_vrack::host::{Host, HostConfig, Ipv4};
use rackbar_vrack::seat::{BmcSeat, BootDevice, BootOverride, Identity, MachinePower, PowerState};
use rackbar_vrack::switch::{PortConfig, Switch, SwitchConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 1, 1]);

struct Stand {
    bmc: Loopback,
    machine: Arc<Pretend>,
    kcs: PathBuf,
    _dir: tempfile::TempDir,
}

async fn stand(state: PowerState) -> Stand {
    let dir = tempfile::tempdir().unwrap();
    let machine = Arc::new(Pretend::new(state));
    let identity = Identity {
        manufacturer: "Virtual".into(),
        product: "Node".into(),
        serial: "SN-1".into(),
        uuid: "4c4c4544-0042-4410-8056-b4c04f363132".into(),
        board_serial: "B-1".into(),
        asset_tag: "A-1".into(),
        firmware_version: "1".into(),
    };
    let kcs = dir.path().join("kcs");
    let bmc = Loopback::start(LoopbackConfig {
        power: Arc::clone(&machine) as Arc<dyn MachinePower>,
        console: Console::new(&dir.path().join("serial.log")).unwrap(),
        identity,
        nics: vec![MacAddr([0x52, 0x54, 0, 0, 0, 1])],
        mac: MAC,
        username: "admin".into(),
        password: "secret".into(),
        kcs_socket: Some(kcs.clone()),
    })
    .await
    .unwrap();
    Stand {
        bmc,
        machine,
        kcs,
        _dir: dir,
    }
}

/// What curl got: status, headers, body.
struct Got {
    status: u16,
    headers: String,
    body: Value,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        let line = self
            .headers
            .lines()
            .find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|line| line.split_once(':'))
            .map_or("", |(_, value)| value.trim())
    }

    fn message(&self) -> &str {
        self.body["error"]["@Message.ExtendedInfo"][0]["MessageId"]
            .as_str()
            .unwrap_or_default()
    }
}

impl Stand {
    async fn curl(&self, method: &str, path: &str, body: Option<Value>, more: &[&str]) -> Got {
        let url = format!("https://{}{path}", self.bmc.https());
        let mut command = Command::new("curl");
        command
            .args(["-k", "-s", "-i", "--max-time", "20", "-X", method, &url])
            .args(more)
            .kill_on_drop(true);
        if let Some(body) = body {
            command.args(["-H", "content-type: application/json", "-d", &body.to_string()]);
        }
        let output = command
            .output()
            .await
            .expect("curl is installed by `cargo xtask setup`");
        let text = String::from_utf8(output.stdout).unwrap();
        let (headers, body) = text.split_once("\r\n\r\n").unwrap();
        Got {
            status: headers.split(' ').nth(1).unwrap().parse().unwrap(),
            headers: headers.to_owned(),
            body: serde_json::from_str(body).unwrap_or_default(),
        }
    }

    async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Got {
        self.curl(method, path, body, &["-u", "admin:secret"]).await
    }

    /// A message over KCS as QEMU's device sends it; the answer.
    async fn kcs(&self, stream: &mut UnixStream, request: &Request) -> Response {
        let mut message = vec![0x33];
        message.extend(request.to_kcs());
        let sum = message.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        message.push(sum.wrapping_neg());
        let mut sent = Vec::new();
        for byte in message {
            if matches!(byte, 0xa0 | 0xa1 | 0xaa) {
                sent.extend([0xaa, byte | 0x10]);
            } else {
                sent.push(byte);
            }
        }
        sent.push(0xa0);
        stream.write_all(&sent).await.unwrap();
        let mut got = Vec::new();
        loop {
            match timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap() {
                // The version that the BMC announces first.
                0xa1 => got.clear(),
                0xa0 => break,
                0xaa => got.push(stream.read_u8().await.unwrap() & !0x10),
                byte => got.push(byte),
            }
        }
        assert_eq!(got.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0, "checksum");
        assert_eq!(got[0], 0x33, "sequence number");
        Response::from_kcs(&got[1..got.len() - 1]).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_leads_somewhere() {
    let stand = stand(PowerState::On).await;
    let mut queue = vec!["/redfish/v1".to_owned()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(path) = queue.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let got = stand.admin("GET", &path, None).await;
        assert_eq!(got.status, 200, "{path}");
        assert_eq!(got.body["@odata.id"], path.as_str());
        assert_eq!(got.body["@odata.etag"].as_str().unwrap(), got.header("etag"), "{path}");
        links(&got.body, &mut queue);
    }
    assert!(seen.len() > 25, "{seen:?}");
    for needed in [
        "Systems/1/Bios/Settings",
        "Managers/1/VirtualMedia/Cd",
        "AccountService/Accounts/2",
    ] {
        assert!(seen.contains(&format!("/redfish/v1/{needed}")), "{needed}");
    }
}

fn links(value: &Value, queue: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            queue.extend(map.get("@odata.id").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| links(value, queue));
        }
        Value::Array(values) => values.iter().for_each(|value| links(value, queue)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_right_status_and_words() {
    let stand = stand(PowerState::Off).await;
    let system = "/redfish/v1/Systems/1";
    assert_eq!(stand.curl("GET", "/redfish/v1/", None, &[]).await.status, 200);
    let strangers = stand.curl("GET", system, None, &[]).await;
    assert_eq!(
        (strangers.status, strangers.message()),
        (401, "Base.1.18.NoValidSession")
    );
    assert_eq!(
        stand.curl("GET", system, None, &["-u", "admin:guess"]).await.status,
        401
    );
    assert_eq!(stand.admin("GET", "/redfish/v1/Systems/2", None).await.status, 404);
    let deleted = stand.admin("DELETE", system, None).await;
    assert_eq!((deleted.status, deleted.header("allow")), (405, "PATCH"));
    let reset = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
    assert_eq!(stand.admin("GET", reset, None).await.status, 405);
    let strange = stand.admin("POST", reset, Some(json!({"ResetType": "Explode"}))).await;
    assert_eq!(
        (strange.status, strange.message()),
        (400, "Base.1.18.ActionParameterNotSupported")
    );
    assert_eq!(
        stand
            .admin("POST", reset, Some(json!({"ResetType": "ForceRestart"})))
            .await
            .status,
        409
    );
    let broken = stand
        .curl("POST", reset, None, &["-u", "admin:secret", "-d", "{"])
        .await;
    assert_eq!((broken.status, broken.message()), (400, "Base.1.18.MalformedJSON"));
    let boot = json!({"Boot": {"BootSourceOverrideTarget": "Floppy"}});
    assert_eq!(
        stand.admin("PATCH", system, Some(boot)).await.message(),
        "Base.1.18.PropertyValueNotInList"
    );
    assert_eq!(stand.machine.acts(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_entity_tag_is_refused() {
    let stand = stand(PowerState::Off).await;
    let system = "/redfish/v1/Systems/1";
    let tag = stand.admin("GET", system, None).await.header("etag").to_owned();
    let with_tag = [
        "-u".to_owned(),
        "admin:secret".to_owned(),
        "-H".to_owned(),
        format!("if-match: {tag}"),
    ];
    let with_tag: Vec<&str> = with_tag.iter().map(String::as_str).collect();
    let named = |name: &str| Some(json!({"AssetTag": name}));
    assert_eq!(stand.curl("PATCH", system, named("first"), &with_tag).await.status, 200);
    let stale = stand.curl("PATCH", system, named("second"), &with_tag).await;
    assert_eq!((stale.status, stale.message()), (412, "Base.1.18.PreconditionFailed"));
    assert_eq!(stand.admin("GET", system, None).await.body["AssetTag"], "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_open_and_close() {
    let stand = stand(PowerState::Off).await;
    let sessions = "/redfish/v1/SessionService/Sessions";
    let login = |password: &str| Some(json!({"UserName": "admin", "Password": password}));
    assert_eq!(stand.curl("POST", sessions, login("guess"), &[]).await.status, 401);
    let opened = stand.curl("POST", sessions, login("secret"), &[]).await;
    assert_eq!(opened.status, 201);
    let token = format!("x-auth-token: {}", opened.header("x-auth-token"));
    let by_token = ["-H", token.as_str()];
    assert_eq!(
        stand.curl("GET", "/redfish/v1/Systems", None, &by_token).await.status,
        200
    );
    assert_eq!(
        stand
            .curl("DELETE", opened.header("location"), None, &by_token)
            .await
            .status,
        204
    );
    assert_eq!(
        stand.curl("GET", "/redfish/v1/Systems", None, &by_token).await.status,
        401
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_bios_settings_count_from_the_next_start() {
    let stand = stand(PowerState::Off).await;
    let settings = "/redfish/v1/Systems/1/Bios/Settings";
    let wanted = |name: &str| Some(json!({"Attributes": {name: "Enabled"}}));
    assert_eq!(stand.admin("PATCH", settings, wanted("NoSuchThing")).await.status, 400);
    assert_eq!(
        stand.admin("PATCH", settings, wanted("SriovGlobalEnable")).await.status,
        204
    );
    assert_eq!(stand.bmc.state().bios("SriovGlobalEnable").unwrap(), "Disabled");
    let on = Some(json!({"ResetType": "On"}));
    assert_eq!(
        stand
            .admin("POST", "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", on)
            .await
            .status,
        204
    );
    assert_eq!(stand.bmc.state().bios("SriovGlobalEnable").unwrap(), "Enabled");
    assert_eq!(stand.admin("GET", settings, None).await.body["Attributes"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_limit_what_an_account_may() {
    let stand = stand(PowerState::On).await;
    let accounts = "/redfish/v1/AccountService/Accounts";
    let account = |role: &str| Some(json!({"UserName": "op", "Password": "operate", "RoleId": role}));
    assert_eq!(stand.admin("POST", accounts, account("King")).await.status, 400);
    let made = stand.admin("POST", accounts, account("Operator")).await;
    assert_eq!(
        (made.status, made.header("location")),
        (201, "/redfish/v1/AccountService/Accounts/3")
    );
    let op = ["-u", "op:operate"];
    let boot = Some(json!({"Boot": {"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once"}}));
    assert_eq!(
        stand.curl("PATCH", "/redfish/v1/Systems/1", boot, &op).await.status,
        200
    );
    assert_eq!(
        stand.machine.boot_override(),
        Some(BootOverride {
            device: BootDevice::Network,
            once: true
        })
    );
    let forbidden = stand
        .curl("DELETE", "/redfish/v1/AccountService/Accounts/2", None, &op)
        .await;
    assert_eq!(
        (forbidden.status, forbidden.message()),
        (403, "Base.1.18.InsufficientPrivilege")
    );
    assert_eq!(
        stand
            .admin("DELETE", "/redfish/v1/AccountService/Accounts/3", None)
            .await
            .status,
        204
    );
    assert_eq!(stand.curl("GET", "/redfish/v1/Systems/1", None, &op).await.status, 401);
}

/// A BMC on a switch, which goes where it is told to over KCS.
#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_is_at_the_address_it_was_given_over_kcs() {
    let stand = stand(PowerState::On).await;
    let switch = Switch::new(SwitchConfig::default());
    let station = |last: u8, ipv4| {
        let port = switch.port(PortConfig::access(format!("Ethernet1/{last}"), "station", 20));
        Host::new(port, HostConfig::new(MacAddr([2, 0, 0, 0, 0, last]), ipv4))
    };
    let kcs = stand._dir.path().join("seat.kcs");
    let host = station(1, Ipv4::dhcp("bmc-n1"));
    let seat = BmcSeat {
        name: "n1".into(),
        host: host.clone(),
        power: Arc::clone(&stand.machine) as Arc<dyn MachinePower>,
        console: Console::new(&stand._dir.path().join("seat.log")).unwrap(),
        identity: stand.bmc.state().identity.clone(),
        nics: Vec::new(),
        kcs_socket: kcs.clone(),
        media: stand._dir.path().join("seat.media"),
        username: "admin".into(),
        password: "secret".into(),
        redfish: true,
    };
    let _bmc = rackbar_vrack::bmc::start_on(seat).unwrap();
    let mut stream = UnixStream::connect(&kcs).await.unwrap();
    for order in [
        LanParameter::Source(AddressSource::Static),
        LanParameter::Address([10, 9, 0, 5].into()),
        LanParameter::Mask([255, 255, 255, 0].into()),
    ] {
        assert_eq!(stand.kcs(&mut stream, &order.set(1)).await.completion, Completion::OK);
    }
    let other = station(2, Ipv4::fixed([10, 9, 0, 6].into(), 24));
    let there = SocketAddrV4::new([10, 9, 0, 5].into(), 443);
    timeout(PATIENCE, other.connect(there)).await.unwrap().unwrap();
    let order = LanParameter::Source(AddressSource::Dhcp);
    assert_eq!(stand.kcs(&mut stream, &order.set(1)).await.completion, Completion::OK);
    let gone = async { host.watch_address().wait_for(Option::is_none).await.map(drop) };
    timeout(PATIENCE, gone)
        .await
        .expect("nobody gives it an address")
        .unwrap();
    assert!(
        stand
            .kcs(&mut stream, &LanParameter::get(1, parameter::ADDRESS))
            .await
            .data
            .ends_with(&[0; 4])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kcs_sees_and_changes_the_same_state() {
    let stand = stand(PowerState::On).await;
    let mut stream = UnixStream::connect(&stand.kcs).await.unwrap();
    let id = stand.kcs(&mut stream, &DeviceId::request()).await;
    assert_eq!(DeviceId::decode(&id.data).unwrap().ipmi, (2, 0));
    let mac = stand.kcs(&mut stream, &LanParameter::get(1, parameter::MAC)).await;
    assert_eq!(
        LanParameter::decode_answer(parameter::MAC, &mac.data),
        Ok(LanParameter::Mac(MAC.0))
    );
    assert_eq!(
        stand.kcs(&mut stream, &user::set_name(4, "inband")).await.completion,
        Completion::OK
    );
    let shown = stand.admin("GET", "/redfish/v1/AccountService/Accounts/4", None).await;
    assert_eq!(shown.body["UserName"], "inband");
    let address = LanParameter::Address([192, 0, 2, 160].into());
    assert_eq!(stand.kcs(&mut stream, &address.set(1)).await.completion, Completion::OK);
    let shown = stand
        .admin("GET", "/redfish/v1/Managers/1/EthernetInterfaces/1", None)
        .await;
    assert_eq!(shown.body["IPv4Addresses"][0]["Address"], "192.0.2.160");
    // 160 is A0h, the end marker: it comes back escaped.
    let again = stand.kcs(&mut stream, &LanParameter::get(1, parameter::ADDRESS)).await;
    assert_eq!(
        LanParameter::decode_answer(parameter::ADDRESS, &again.data),
        Ok(address)
    );
    drop(stream);
    let mut redialled = UnixStream::connect(&stand.kcs).await.unwrap();
    assert_eq!(
        stand.kcs(&mut redialled, &DeviceId::request()).await.completion,
        Completion::OK
    );
}
