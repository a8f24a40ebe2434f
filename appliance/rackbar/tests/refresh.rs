//! The story of an operator who keeps the catalogue up to date from a publisher: the real daemon, the real command line, a
//! publisher on loopback that signs with the real gpg.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod apart;
#[path = "../../proxy/tests/common/mod.rs"]
mod common;
#[path = "../../upstream/tests/common/mod.rs"]
mod gnupg;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use apart::{Appliance, OURS};
use common::apt::hex;
use common::{Doc, Origin, bytes};
use gnupg::Gpg;
use serde_json::Value;

const DAY: u64 = 86_400;

fn config() -> String {
    format!(
        "version = 1\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\naddress = \"{OURS}/24\"\n\
         dhcp = \"off\"\n"
    )
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A disk that could boot, as far as anybody looks; another for each odd seed.
fn image(seed: u8) -> Vec<u8> {
    let mut disk = bytes(200_000 / 512 * 512, seed.into());
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk
}

fn doc(body: impl Into<Vec<u8>>) -> Doc {
    Doc {
        body: body.into(),
        ..Doc::default()
    }
}

/// The digest of a file by coreutils.
fn sum(program: &str, content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, content).unwrap();
    let said = Command::new(program).arg(&file).output().unwrap().stdout;
    String::from_utf8(said).unwrap().split(' ').next().unwrap().to_owned()
}

/// What the catalogue has under a name.
fn entry(appliance: &Appliance, name: &str) -> Value {
    let all: Value = serde_json::from_str(&appliance.well(&["os", "list", "--json"])).unwrap();
    all.as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == name)
        .unwrap()
        .clone()
}

fn status(sha256: &str, name: &str) -> String {
    let url = format!("http://{OURS}/boot/v1/files/{sha256}/{name}");
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--max-time",
        "30",
        "--noproxy",
        "*",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &url,
    ]);
    String::from_utf8(curl.output().unwrap().stdout).unwrap()
}

/// A publisher with a key that our operator trusts, and another.
struct Publisher {
    gpg: Gpg,
    origin: Origin,
    /// When what it signs is signed.
    at: u64,
}

impl Publisher {
    fn new() -> Self {
        let (gpg, at) = (Gpg::new(), now() - 30 * DAY);
        gpg.key(at - DAY, "publisher", "rsa3072", "sign", "never", &[]);
        gpg.key(at - DAY, "stranger", "ed25519", "sign", "never", &[]);
        let origin = Origin::start();
        Self { gpg, origin, at }
    }

    fn keys(&self) -> String {
        String::from_utf8(self.gpg.export(self.at, "publisher")).unwrap()
    }

    fn put(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.origin.put(path, doc(body));
    }

    /// Publishes these images with a list that is signed in the clear, a day later than before; gives the list.
    fn publish(&mut self, key: &str, images: &[(&str, &[u8])]) -> Vec<u8> {
        self.at += DAY;
        let mut list = "# Images\n".to_owned();
        for (name, content) in images {
            writeln!(list, "SHA256 ({name}) = {}", hex(content)).unwrap();
            self.put(&format!("/os/{name}"), *content);
        }
        let signed = self.gpg.clearsign(self.at, &[key], &[], &list);
        self.put("/os/CHECKSUM", signed.clone());
        signed
    }

    fn upstream(&self) -> String {
        let sums = self.origin.url("/os/CHECKSUM");
        format!(
            "kind = \"sums\"\nsums = \"{sums}\"\nfile = \"d-*.img\"\nkeys = '''\n{}'''\n",
            self.keys()
        )
    }
}

#[test]
fn an_image_is_refreshed_when_its_publisher_signed_a_newer_one_and_never_otherwise() {
    let appliance = Appliance::start(&config(), "");
    let mut publisher = Publisher::new();
    let (one, two) = (image(1), image(3));
    let old_list = publisher.publish("publisher", &[("d-1.img", &one)]);
    let file = appliance.file("d-1.img", &one);
    let upstream = appliance.file("upstream.toml", publisher.upstream());

    appliance.well(&["os", "add", &file, "--name", "d", "--user", "debian"]);
    let nobody = appliance.refused(&["os", "refresh", "d"]);
    assert!(nobody.contains("--upstream FILE.toml"), "{nobody}");
    let same = appliance.well(&["os", "refresh", "d", "--upstream", &upstream]);
    assert!(same.contains("is what") && same.contains("d-1.img"), "{same}");
    assert_eq!(
        publisher.origin.requests("/os/d-1.img"),
        0,
        "what is here is not fetched"
    );

    publisher.publish("publisher", &[("d-2.img", &two)]);
    let replaced = appliance.well(&["os", "refresh", "d"]);
    assert!(
        replaced.contains("d is d-2.img now") && replaced.contains(&hex(&two)),
        "{replaced}"
    );
    let now = entry(&appliance, "d");
    assert!(
        now["sha256"] == hex(&two) && now["user"] == "debian" && now["refreshed"]["file"] == "d-2.img",
        "{now}"
    );
    assert_eq!(
        (status(&hex(&two), "d.img"), status(&hex(&one), "d.img")),
        ("200".into(), "404".into())
    );

    nothing_that_is_not_proven_is_taken(&appliance, &mut publisher, &old_list);
    assert_eq!(entry(&appliance, "d")["sha256"], hex(&two));
    assert_eq!(status(&hex(&two), "d.img"), "200");

    // Pinned: not even the publisher's own newer one.
    let three = image(5);
    publisher.publish("publisher", &[("d-3.img", &three)]);
    appliance.well(&["os", "pin", "d"]);
    let list = appliance.well(&["os", "list"]);
    assert!(list.contains("PINNED") && list.contains("yes"), "{list}");
    let pinned = appliance.refused(&["os", "refresh", "d"]);
    assert!(pinned.contains("os pin d --undo"), "{pinned}");
    appliance.well(&["os", "pin", "d", "--undo"]);
    appliance.well(&["os", "refresh", "d"]);
    assert_eq!(entry(&appliance, "d")["sha256"], hex(&three));
}

/// Each of these must leave the entry alone, and say URL, reason and what to do.
fn nothing_that_is_not_proven_is_taken(appliance: &Appliance, publisher: &mut Publisher, old_list: &[u8]) {
    let refused = |words: &[&str]| {
        let said = appliance.refused(&["os", "refresh", "d"]);
        assert!(
            said.contains("http://127.0.0.1:") && said.contains("is as it was"),
            "{said}"
        );
        for words in words {
            assert!(said.contains(words), "{words}: {said}");
        }
    };
    let bad = image(9);
    publisher.publish("stranger", &[("d-9.img", &bad)]);
    refused(&["/os/CHECKSUM", "not among those that are trusted"]);

    let signed = publisher.publish("publisher", &[("d-9.img", &bad)]);
    let text = String::from_utf8(signed.clone()).unwrap();
    publisher.put("/os/CHECKSUM", text.replace(&hex(&bad), &hex(b"other")));
    refused(&["/os/CHECKSUM", "does not fit the text"]);
    publisher.put("/os/CHECKSUM", [&signed[..], b"SHA256 (x) = 00\n"].concat());
    refused(&["/os/CHECKSUM", "no signature covers it"]);
    publisher.put("/os/CHECKSUM", format!("SHA256 (d-9.img) = {}\n", hex(&bad)));
    refused(&["/os/CHECKSUM", "not signed as it should be"]);

    // The list is right and the file is not: another one, a short one, none.
    publisher.put("/os/CHECKSUM", signed);
    publisher.put("/os/d-9.img", image(11));
    refused(&["/os/d-9.img", "the signed list says", "another mirror"]);
    let short = Doc {
        breaks_at: Some(10_000),
        slow: Some(500_000),
        ..doc(bad.clone())
    };
    publisher.origin.put("/os/d-9.img", short);
    refused(&["/os/d-9.img", "broke off"]);
    publisher.origin.docs.lock().unwrap().remove("/os/d-9.img");
    refused(&["/os/d-9.img", "404"]);

    // What its publisher signed, and is no image.
    publisher.publish("publisher", &[("d-9.img", &[7; 4096])]);
    refused(&["/os/d-9.img", "not usable"]);
    publisher.publish("publisher", &[("e-9.img", &bad)]);
    refused(&["/os/CHECKSUM", "no line of it", "d-*.img"]);
    // An old list with its good signature, as a mirror that is behind or an attacker would give it.
    publisher.put("/os/CHECKSUM", old_list);
    refused(&["/os/CHECKSUM", "an old one is being given out"]);
    publisher.origin.docs.lock().unwrap().remove("/os/CHECKSUM");
    refused(&["/os/CHECKSUM", "404"]);
}

#[test]
fn a_list_of_sha512_with_its_signature_beside_it_and_an_installer_by_its_archive() {
    let appliance = Appliance::start(&config(), "");
    let mut publisher = Publisher::new();
    let (one, two) = (image(1), image(3));
    let file = appliance.file("d.img", &one);
    let (sums, signature) = (
        publisher.origin.url("/s/SHA512SUMS"),
        publisher.origin.url("/s/SHA512SUMS.sign"),
    );
    let keys = publisher.keys();
    let upstream = format!(
        "kind = \"sums\"\nsums = \"{sums}\"\nsignature = \"{signature}\"\nfile = \"d.img\"\nkeys = '''\n{keys}'''\n"
    );
    let broken = appliance.file("broken.toml", upstream.replace("PUBLIC KEY", "KEY"));
    let upstream = appliance.file("upstream.toml", upstream);
    let publish = |publisher: &mut Publisher, content: &[u8]| {
        publisher.at += DAY;
        let list = format!("{}  d.img\n", sum("sha512sum", content));
        let signed = publisher.gpg.detach(publisher.at, "publisher", &[], list.as_bytes());
        publisher.put("/s/SHA512SUMS", list);
        publisher.put("/s/SHA512SUMS.sign", signed);
        publisher.put("/s/d.img", content);
    };
    publish(&mut publisher, &one);
    appliance.well(&["os", "add", &file, "--name", "d", "--upstream", &upstream]);
    let wrong = appliance.refused(&["os", "refresh", "d", "--upstream", &broken]);
    assert!(wrong.contains("keys: these are no OpenPGP keys"), "{wrong}");
    let same = appliance.well(&["os", "refresh", "d"]);
    assert!(
        same.contains("is what") && publisher.origin.requests("/s/d.img") == 0,
        "{same}"
    );
    publish(&mut publisher, &two);
    appliance.well(&["os", "refresh", "d"]);
    assert_eq!(entry(&appliance, "d")["sha256"], hex(&two));

    the_installer_follows_its_archive(&appliance, &mut publisher);
}

fn netboot(kernel: u8) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let kernel = vec![kernel; 70_000];
    let members: [(&str, &[u8]); 3] = [
        (
            "./version.info",
            b"Debian version:  12 (bookworm)\nInstaller build: 20230607\n",
        ),
        ("./debian-installer/amd64/linux", &kernel),
        ("./debian-installer/amd64/initrd.gz", b"initrd"),
    ];
    for (path, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// As the Release writes it.
fn date(at: u64) -> String {
    let mut said = Command::new("date");
    said.args(["-u", "-d", &format!("@{at}"), "+%a, %d %b %Y %H:%M:%S UTC"])
        .env("LC_ALL", "C");
    String::from_utf8(said.output().unwrap().stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

fn the_installer_follows_its_archive(appliance: &Appliance, publisher: &mut Publisher) {
    const IMAGES: &str = "main/installer-amd64/current/images";
    let publish = |publisher: &mut Publisher, tar: &[u8], valid: u64| {
        publisher.at += DAY;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(tar).unwrap();
        let packed = packed.finish().unwrap();
        let list = format!(
            "{}  ./netboot/mini.iso\n{}  ./netboot/netboot.tar.gz\n",
            hex(b"x"),
            hex(&packed)
        );
        let release = format!(
            "Suite: oldstable\nCodename: bookworm\nDate: {}\nValid-Until: {}\nSHA256:\n {} {} {IMAGES}/SHA256SUMS\n",
            date(publisher.at),
            date(valid),
            hex(list.as_bytes()),
            list.len()
        );
        let signed = publisher
            .gpg
            .clearsign(publisher.at, &["stranger", "publisher"], &[], &release);
        publisher.put("/debian/dists/bookworm/InRelease", signed);
        publisher.put(&format!("/debian/dists/bookworm/{IMAGES}/SHA256SUMS"), list);
        publisher.put(
            &format!("/debian/dists/bookworm/{IMAGES}/netboot/netboot.tar.gz"),
            packed,
        );
    };
    let (one, two) = (netboot(1), netboot(2));
    let valid = now() + DAY;
    publish(publisher, &one, valid);
    let file = appliance.file("netboot.tar", &one);
    let (archive, keys) = (publisher.origin.url("/debian/"), publisher.keys());
    let upstream = |suite: &str| {
        format!("kind = \"debian-installer\"\narchive = \"{archive}\"\nsuite = \"{suite}\"\nkeys = '''\n{keys}'''\n")
    };
    let at = appliance.file("installer.toml", upstream("bookworm"));
    appliance.well(&["os", "add", &file, "--name", "installer", "--upstream", &at]);
    let same = appliance.well(&["os", "refresh", "installer"]);
    assert!(same.contains("is what"), "{same}");
    publish(publisher, &two, valid);
    appliance.well(&["os", "refresh", "installer"]);
    let now = entry(appliance, "installer");
    assert_eq!(now["sha256"], hex(&two));
    let kernel = now["installer"]["kernel"]["sha256"].as_str().unwrap().to_owned();
    assert_eq!(kernel, hex(&vec![2; 70_000]));
    assert_eq!(status(&kernel, "linux"), "200");
    let again = appliance.well(&["os", "refresh", "installer"]);
    assert!(again.contains("is what"), "{again}");

    publish(publisher, &netboot(3), publisher.at + 2 * DAY);
    let ended = appliance.refused(&["os", "refresh", "installer"]);
    assert!(
        ended.contains("InRelease: it was valid until") && ended.contains("the clock here says"),
        "{ended}"
    );
    publisher.put(&format!("/debian/dists/bookworm/{IMAGES}/SHA256SUMS"), "other");
    publish(publisher, &netboot(3), valid);
    publisher.put(&format!("/debian/dists/bookworm/{IMAGES}/SHA256SUMS"), "other");
    let apart = appliance.refused(&["os", "refresh", "installer"]);
    assert!(apart.contains("SHA256SUMS: its SHA-256 is"), "{apart}");
    assert_eq!(entry(appliance, "installer")["sha256"], hex(&two));
}
