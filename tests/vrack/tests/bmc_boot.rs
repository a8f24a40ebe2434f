//! What a BMC is told over Redfish becomes a boot of the very machine: an image that it fetched, a URL that it was given.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use rackbar_vrack::host::{Ipv4, Relay};
use rackbar_vrack::rack::{BMC_PASSWORD, BMC_USERNAME, Rack, RackFile, RackOptions};
use rackbar_vrack::site::{DhcpServer, DhcpSettings, Files, WebServer};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Firmware on an emulator that shares its cores with other builds.
const DEADLINE: Duration = Duration::from_secs(120);
const ON_RACK: Ipv4Addr = Ipv4Addr::new(10, 77, 10, 9);
const ON_BMC: Ipv4Addr = Ipv4Addr::new(10, 77, 20, 9);
const CD: &str = "/redfish/v1/Managers/1/VirtualMedia/Cd";
const SYSTEM: &str = "/redfish/v1/Systems/1";
const WORDS: &[u8] = b"this is the disc\r\n\0";

/// A rack of one machine on a site that gives addresses and knows nothing of booting.
struct Stand {
    rack: Rack,
    web: WebServer,
    relay: Relay,
    _dhcp: Vec<DhcpServer>,
    _images: WebServer,
}

async fn stand(firmware: &str, files: Files) -> Stand {
    let text =
        format!("name = \"one\"\ndescription = \"one machine\"\n[[node]]\nname = \"n1\"\nfirmware = \"{firmware}\"\n");
    let file = RackFile::parse(&text, "one.toml").unwrap();
    let options = RackOptions {
        bmc: Some(Arc::new(rackbar_vrack::bmc::start)),
        ..RackOptions::default()
    };
    let rack = Rack::build(file, options).await.unwrap();
    let station = |vlan: &str, address: Ipv4Addr| {
        let host = rack.host(vlan, Ipv4::fixed(address, 24));
        let [a, b, c, _] = address.octets();
        let settings = DhcpSettings {
            first: Ipv4Addr::new(a, b, c, 100),
            count: 50,
            prefix: 24,
            router: None,
            lease_seconds: 600,
            boot: Vec::new(),
            next_server: None,
        };
        let dhcp = DhcpServer::start(&host, settings).unwrap();
        (dhcp, WebServer::start(&host, 80, files.clone()).unwrap())
    };
    let (dhcp, web) = station("rack", ON_RACK);
    let (bmc_dhcp, images) = station("bmc", ON_BMC);
    let bmc = rack.node("n1").unwrap().bmc.clone().unwrap();
    let address = timeout(DEADLINE, bmc.address()).await.unwrap().address;
    let person = Ipv4::fixed(Ipv4Addr::new(10, 77, 20, 250), 24);
    let relay = rack
        .relay("bmc", person, SocketAddrV4::new(address, 443))
        .await
        .unwrap();
    Stand {
        rack,
        web,
        relay,
        _dhcp: vec![dhcp, bmc_dhcp],
        _images: images,
    }
}

impl Stand {
    /// A request of curl's: status, and what came with it.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-sk", "--max-time", "60", "-w", "\n%{http_code}", "-X", method]);
        curl.args(["-u", &format!("{BMC_USERNAME}:{BMC_PASSWORD}")]);
        if let Some(body) = body {
            curl.args(["-H", "content-type: application/json", "-d", &body.to_string()]);
        }
        curl.arg(format!("https://{}{path}", self.relay.address()));
        let output = curl.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }

    async fn done(&self, method: &str, path: &str, body: Value) {
        let (status, said) = self.ask(method, path, Some(body)).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {said}");
    }

    async fn reset(&self, kind: &str) {
        let path = format!("{SYSTEM}/Actions/ComputerSystem.Reset");
        self.done("POST", &path, json!({ "ResetType": kind })).await;
    }

    fn printed(&self) -> String {
        let log = self.rack.node("n1").unwrap().machine.console().log_path().to_path_buf();
        String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
    }
}

/// A disc whose boot program says [`WORDS`] on the serial port: ISO 9660 as far as El Torito 1.0 needs it.
fn disc() -> Vec<u8> {
    const SECTOR: usize = 2048;
    let mut disc = vec![0; 64 * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| disc[at..at + bytes.len()].copy_from_slice(bytes);
    put(16 * SECTOR, b"\x01CD001\x01");
    put(17 * SECTOR, b"\0CD001\x01EL TORITO SPECIFICATION");
    put(17 * SECTOR + 71, &19u32.to_le_bytes());
    put(18 * SECTOR, b"\xffCD001\x01");
    // The validation entry's 16-bit words add up to zero.
    put(19 * SECTOR, &[1]);
    put(19 * SECTOR + 28, &[0xaa, 0x55, 0x55, 0xaa]);
    // Bootable, no emulation, four sectors of 512, at sector 20.
    put(19 * SECTOR + 32, &[0x88, 0, 0, 0, 0, 0, 4, 0, 20]);
    let program = [
        0xfa, // cli: SeaBIOS sends what is left of its screen to the same port from its timer's interrupt
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x16, 0x7c, // mov si, 0x7c16: what follows the program
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz end
        0xee, // out dx, al
        0xeb, 0xf8, // jmp next
        0xf4, // end: hlt
        0xeb, 0xfd, // jmp end
    ];
    put(20 * SECTOR, &program);
    put(20 * SECTOR + program.len(), WORDS);
    disc
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_the_bmc_fetched_is_booted_once_and_taken_out() {
    let files = Files::new();
    files.put("disc.iso", disc());
    let stand = stand("bios-ipxe", files).await;
    let insert = format!("{CD}/Actions/VirtualMedia.InsertMedia");
    let (status, said) = stand
        .ask(
            "POST",
            &insert,
            Some(json!({"Image": format!("http://{ON_BMC}/none.iso")})),
        )
        .await;
    assert!(status >= 400 && said.to_string().contains("404"), "{status} {said}");
    let image = format!("http://{ON_BMC}/disc.iso");
    stand.done("POST", &insert, json!({ "Image": image })).await;
    let (_, drive) = stand.ask("GET", CD, None).await;
    assert_eq!((&drive["Image"], &drive["Inserted"]), (&json!(image), &json!(true)));
    let (status, _) = stand.ask("POST", &insert, Some(json!({ "Image": image }))).await;
    assert_eq!(status, 409, "a second image while one is in");
    let boot = json!({"Boot": {"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once"}});
    stand.done("PATCH", SYSTEM, boot).await;
    stand.reset("On").await;
    let console = stand.rack.node("n1").unwrap().machine.console().clone();
    let said = timeout(DEADLINE, console.wait_for("this is the disc")).await;
    assert!(said.is_ok(), "the disc was not booted:\n{}", stand.printed());
    stand
        .done("POST", &format!("{CD}/Actions/VirtualMedia.EjectMedia"), json!({}))
        .await;
    let (_, drive) = stand.ask("GET", CD, None).await;
    assert_eq!((&drive["Image"], &drive["Inserted"]), (&Value::Null, &json!(false)));
    stand.rack.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_the_bmc_was_given_is_fetched_by_the_firmware_once() {
    let files = Files::new();
    files.put(
        "known-to-the-bmc.efi",
        std::fs::read("/usr/lib/ipxe/snponly.efi").unwrap(),
    );
    let stand = stand("uefi-pxe", files).await;
    stand.reset("On").await;
    let url = format!("http://{ON_RACK}/known-to-the-bmc.efi");
    let boot = json!({"Boot": {"BootSourceOverrideTarget": "UefiHttp", "BootSourceOverrideEnabled": "Once",
        "HttpBootUri": url}});
    stand.done("PATCH", SYSTEM, boot).await;
    stand.reset("ForceRestart").await;
    let fetched = timeout(DEADLINE, stand.web.requested("GET /known-to-the-bmc.efi")).await;
    assert!(
        fetched.is_ok(),
        "not fetched: {:?}\n{}",
        stand.web.requests(),
        stand.printed()
    );
    let (_, system) = stand.ask("GET", SYSTEM, None).await;
    assert_eq!(
        system["Boot"]["BootSourceOverrideEnabled"],
        json!("Disabled"),
        "once means once"
    );
    stand.rack.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firmware_without_http_boot_takes_no_url() {
    let stand = stand("bios-ipxe", Files::new()).await;
    let boot = json!({"Boot": {"BootSourceOverrideTarget": "UefiHttp", "BootSourceOverrideEnabled": "Once",
        "HttpBootUri": format!("http://{ON_RACK}/x.efi")}});
    let (status, said) = stand.ask("PATCH", SYSTEM, Some(boot)).await;
    assert!(
        status >= 400 && said.to_string().contains("knows no HTTP boot"),
        "{status} {said}"
    );
}
