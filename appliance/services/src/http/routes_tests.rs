//! The routes of the boot service: what is answered to whom.

use super::*;
use crate::http::request::{Parsed, parse};
use rackbar_model::BootStage;
use std::sync::Mutex;

#[derive(Default)]
struct Desk(Mutex<Vec<BootReport>>, Mutex<Vec<(String, u16)>>);

impl BootDesk for Desk {
    fn script(&self, mac: MacAddr, _: IpAddr) -> BootReply {
        BootReply::Bytes {
            content_type: "text/plain",
            body: format!("#!ipxe\n# {mac}\n").into(),
        }
    }
    fn manifest(&self, _: MacAddr, nonce: [u8; 16], _: IpAddr) -> BootReply {
        BootReply::Refused {
            status: 503,
            text: format!("no kernel, nonce {}", nonce[0]),
        }
    }
    fn installer(&self, token: &str, what: &str, _: IpAddr) -> (BootReply, Option<MacAddr>) {
        let body = format!("{token} {what}").into();
        let content_type = "text/plain";
        (
            BootReply::Bytes { content_type, body },
            Some(MacAddr([2, 0, 0, 0, 0, 1])),
        )
    }
    fn disc_answered(&self, _: IpAddr, path: &str, status: u16) {
        self.1.lock().unwrap().push((path.to_owned(), status));
    }
    fn report(&self, report: BootReport, _: IpAddr) {
        self.0.lock().unwrap().push(report);
    }
}

struct Bench {
    site: Site,
    desk: Arc<Desk>,
    file: Arc<Artifact>,
}

fn bench() -> Bench {
    let artifacts = Artifacts::new();
    let file = artifacts.add_bytes("vmlinuz", vec![7; 1000]).unwrap();
    let desk = Arc::new(Desk::default());
    let site = Site {
        artifacts: Arc::new(artifacts),
        desk: Arc::clone(&desk) as Arc<dyn BootDesk>,
    };
    Bench { site, desk, file }
}

fn ask(bench: &Bench, head: &str, body: &[u8]) -> Response {
    let text = [
        format!("{head}\r\nHost: rack:80\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        body,
    ]
    .concat();
    let Parsed::Whole(request, _) = parse(&text) else {
        panic!("{head}")
    };
    respond(&bench.site, &request, [10, 0, 0, 9].into(), None)
}

fn path(bench: &Bench) -> String {
    format!("/boot/v1/files/{}/vmlinuz", bench.file.digest())
}

#[test]
fn files_are_found_by_digest_only() {
    let bench = bench();
    let answer = ask(&bench, &format!("GET {} HTTP/1.1", path(&bench)), b"");
    assert_eq!((answer.status, answer.body.len()), (200, 1000));
    assert_eq!(answer.what.as_deref(), Some("vmlinuz"));
    for bad in [
        "/boot/v1/files/vmlinuz",
        "/boot/v1/files/../../etc/passwd",
        "/boot/v1/files/",
        "/boot/v2/x",
    ] {
        assert_eq!(ask(&bench, &format!("GET {bad} HTTP/1.1"), b"").status, 404, "{bad}");
    }
}

#[test]
fn loader_its_disc_and_ipxe_are_there_or_say_why_not() {
    let bench = bench();
    for name in ["loader.efi", "loader.iso", "snponly.efi"] {
        let get = || ask(&bench, &format!("GET /boot/v1/{name} HTTP/1.1"), b"");
        assert_eq!((get().status, get().what.as_deref()), (404, Some(name)));
        bench.site.artifacts.add_bytes(name, vec![1; 10]).unwrap();
        assert_eq!((get().status, get().body.len()), (200, 10));
    }
    let post = ask(&bench, "POST /boot/v1/loader.iso HTTP/1.1", b"");
    assert_eq!(post.status, 405);
}

#[test]
fn files_of_the_site_are_found_by_the_names_they_were_given_only() {
    let bench = bench();
    let files =
        [("ipxe-arm64.efi", &b"MZ"[..]), ("grub/grub.cfg", b"set")].map(|(name, content)| (name, content.into()));
    bench.site.artifacts.set_site_files(files).unwrap();
    let get = |name: &str| ask(&bench, &format!("GET /boot/v1/site/{name} HTTP/1.1"), b"");
    let program = get("ipxe-arm64.efi");
    assert_eq!((program.status, program.what.as_deref()), (200, Some("ipxe-arm64.efi")));
    assert!(program.headers.contains("application/efi"), "{}", program.headers);
    assert_eq!(get("grub/grub.cfg").body.len(), 3);
    for name in [
        "",
        "vmlinuz",
        "grub",
        "grub/../ipxe-arm64.efi",
        "../../../etc/passwd",
        "%2e%2e/x",
    ] {
        assert_eq!(get(name).status, 404, "{name}");
    }
}

#[test]
fn ranges_and_conditions() {
    let bench = bench();
    let get = |header: &str| ask(&bench, &format!("GET {} HTTP/1.1\r\n{header}", path(&bench)), b"");
    let part = get("Range: bytes=990-");
    assert_eq!((part.status, part.body.len()), (206, 10));
    assert!(
        part.headers.contains("Content-Range: bytes 990-999/1000\r\n"),
        "{}",
        part.headers
    );
    let beyond = get("Range: bytes=1000-");
    assert_eq!(beyond.status, 416);
    assert!(beyond.headers.contains("bytes */1000"));
    let etag = bench.file.etag();
    assert_eq!(get(&format!("If-None-Match: \"x\", {etag}")).status, 304);
    assert_eq!(get("If-None-Match: \"x\"").status, 200);
    let date = http_date(bench.file.modified());
    assert_eq!(get(&format!("If-Modified-Since: {date}")).status, 304);
    assert_eq!(get(&format!("Range: bytes=0-9\r\nIf-Range: {etag}")).status, 206);
    assert_eq!(get("Range: bytes=0-9\r\nIf-Range: \"other\"").status, 200);
}

#[test]
fn documents_come_from_the_desk() {
    let bench = bench();
    let script = ask(&bench, "GET /boot/v1/script.ipxe?mac=52-54-00-00-00-01 HTTP/1.1", b"");
    assert_eq!(
        (script.status, script.mac),
        (200, Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])))
    );
    assert!(script.headers.contains("no-store"));
    assert_eq!(ask(&bench, "GET /boot/v1/script.ipxe HTTP/1.1", b"").status, 400);
    let nonce = "07".repeat(16);
    let manifest = format!("GET /boot/v1/manifest?mac=52-54-00-00-00-01&nonce={nonce} HTTP/1.1");
    assert_eq!(ask(&bench, &manifest, b"").status, 503);
    assert_eq!(ask(&bench, &manifest.replace("0707", "+7+7"), b"").status, 400);
}

#[test]
fn reports_reach_the_desk() {
    let bench = bench();
    let report = BootReport {
        version: 1,
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        attempt: 3,
        stage: BootStage::StartingKernel,
    };
    let body = postcard::to_allocvec(&report).unwrap();
    assert_eq!(ask(&bench, "POST /boot/v1/report HTTP/1.1", &body).status, 204);
    assert_eq!(ask(&bench, "POST /boot/v1/report HTTP/1.1", &[0xff; 9]).status, 400);
    assert_eq!(ask(&bench, "GET /boot/v1/report HTTP/1.1", b"").status, 405);
    assert_eq!(*bench.desk.0.lock().unwrap(), [report]);
}

#[test]
fn everything_else_goes_to_https() {
    let bench = bench();
    let answer = ask(&bench, "GET /nodes?a=b HTTP/1.1", b"");
    assert_eq!(answer.status, 308);
    assert!(
        answer.headers.contains("Location: https://rack/nodes?a=b\r\n"),
        "{}",
        answer.headers
    );
    assert_eq!(host_without_port("[fe80::1]:80"), "[fe80::1]");
    assert!(!host_is_plain("a b"));
}

#[test]
fn a_file_of_no_disc_is_refused_and_its_desk_hears_of_it() {
    let bench = bench();
    let disc = "0".repeat(64);
    let request = format!("HEAD /boot/v1/tree/{disc}//Base%4fS/libstdc%2B%2B.rpm HTTP/1.1");
    let answer = ask(&bench, &request, b"");
    assert_eq!((answer.status, answer.what), (404, None));
    let told = bench.desk.1.lock().unwrap().clone();
    assert_eq!(told, [("BaseOS/libstdc++.rpm".to_owned(), 404)]);
    for odd in ["x", "", "../../etc/passwd", "%2e%2e/%", "%ff"] {
        let answer = ask(&bench, &format!("GET /boot/v1/tree/{odd} HTTP/1.1"), b"");
        assert_eq!(answer.status, 404, "{odd}");
    }
    let answer = ask(&bench, &format!("POST /boot/v1/tree/{disc}/x HTTP/1.1"), b"");
    assert_eq!(answer.status, 405);
}

#[test]
fn what_an_installer_asks_for_is_told_without_its_token() {
    let bench = bench();
    let answer = ask(&bench, "GET /boot/v1/installer/0123abcd/preseed.cfg HTTP/1.1", b"");
    assert_eq!((answer.status, answer.body.len()), (200, 20));
    assert_eq!(answer.what.as_deref(), Some("installer preseed.cfg"));
    assert!(answer.mac.is_some() && answer.headers.contains("no-store"));
    for other in ["HEAD", "POST"] {
        let answer = ask(
            &bench,
            &format!("{other} /boot/v1/installer/0123abcd/preseed.cfg HTTP/1.1"),
            b"",
        );
        assert_eq!((answer.status, answer.what), (405, None));
    }
}
