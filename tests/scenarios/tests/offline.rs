//! A rack with no uplink at all: the appliance has no interface to the outside, and everything comes from one ISO, which `cargo
//! xtask image --pack` made.

#[path = "../../../appliance/proxy/tests/common/mod.rs"]
pub(crate) mod common;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::apt::{Apt, Repository};
use common::{Origin, settings, under};
use rackbar_image::digest::sha256_file;
use rackbar_image::disk::{self, DiskSpec};
use rackbar_image::iso::{self, IsoSpec};
use rackbar_image::media::DATA_MIB;
use rackbar_image::packs::MediumPack;
use rackbar_model::{Digest, ImageFormat, Timestamp};
use rackbar_packs::{Answer, Content, Draft, DraftAnswer, DraftImage, Key, PackImage};
use rackbar_proxy::{Pick, Picked};
use rackbar_scenarios::api::Api;
use rackbar_scenarios::install::{self, READY, commit_all, is_ready, until_done};
use rackbar_scenarios::{SERVING, Stage, eventually, rack_file};
use rackbar_trust::{Secret, Signer as _, SigningKey};
use rackbar_vrack::rack::Medium;
use serde_json::Value;

use crate::rack_verb;
use crate::reproducible::sums;

/// The packages of a role come from a repository that is nowhere but in the pack; apt asks for it through the proxy that the
/// site tells it of.
const SITE: &str = r#"
version = 1
domain = "stories.test"

[network.rack]
subnet = "10.77.10.0/24"
addresses = "10.77.10.20-10.77.10.60"
proxy = "own"

[role.worker]
os = "debian-12"
packages = ["rackbar-probe"]
root = { pick = "smallest" }
erase = "signatures"

[[role.worker.network]]
name = "mgmt"
network = "rack"
nics = ["boot"]

[[role.worker.file]]
path = "/etc/apt/sources.list"
content = "deb [trusted=yes] UPSTREAM stable main\n"

[[role.worker.step]]
name = "seen"
script = """
#!/bin/sh
set -e
rm -f /etc/apt/sources.list.d/*
dpkg-query -W rackbar-probe
"""
expect_output = "rackbar-probe"

[[rule]]
name = "everything"
when = "true"
role = "worker"
"#;

/// What apt fetched through a recording proxy, from an origin that is gone afterwards; and the origin's folder.
pub(crate) fn recorded(folder: &Path) -> Result<(String, Vec<Picked>)> {
    let origin = Origin::start();
    let repository = Repository::put(&origin, folder);
    let proxy = under(&folder.join("cache"), settings(&[&origin]));
    let mirror = format!("http://{}/mirror/debian", proxy.address);
    let apt = Apt::new(folder.join("apt"), &mirror, None);
    ensure!(apt.update_and_download() == repository.deb, "apt got another package");
    let stored = || proxy.stored("mirror:debian/pool/rackbar-probe_1.0_all.deb");
    common::wait("the package is stored", stored);
    let picked = proxy.handle.proxy().pick(&Pick::default());
    Ok((origin.url("/debian"), picked))
}

/// A pack of the operating system's image and of these answers.
pub(crate) fn pack(image: &install::Image, answers: Vec<Picked>, signer: &SigningKey, to: &Path) -> Result<()> {
    let content = Content {
        sha256: image.sha256,
        bytes: std::fs::metadata(&image.path)?.len(),
    };
    let listed = PackImage {
        name: image.name.clone(),
        content: 0,
        format: ImageFormat::Zstd,
        disk_bytes: None,
        arch: "x86_64".into(),
        source: "cargo xtask os-image".into(),
        licence: String::new(),
        user: "root".into(),
        added: Timestamp(1),
    };
    let objects: HashMap<Digest, _> = answers
        .iter()
        .map(|one| (one.record.digest, one.object.clone()))
        .collect();
    let answer = |Picked { record, .. }: Picked| DraftAnswer {
        content: Content {
            sha256: record.digest,
            bytes: record.size,
        },
        answer: Answer {
            key: record.key,
            selecting: record.selecting,
            status: record.status,
            headers: record.headers,
            request_time: record.request_time,
            response_time: record.response_time,
            content: 0,
        },
    };
    let draft = Draft {
        name: "debian-12".into(),
        made: Timestamp(1),
        by: "a story".into(),
        note: "everything for one rack".into(),
        images: vec![DraftImage { image: listed, content }],
        answers: answers.into_iter().map(answer).collect(),
    };
    let sealed = draft.seal(signer)?;
    let open = |digest: &Digest| -> std::io::Result<Box<dyn std::io::Read>> {
        match objects.get(digest) {
            Some(object) => Ok(Box::new(object.reader().map_err(std::io::Error::other)?)),
            None => Ok(Box::new(File::open(&image.path)?)),
        }
    };
    Ok(sealed.write(&mut File::create(to)?, open)?)
}

/// What `cargo xtask image --pack` makes of a pack, in a folder of its own. Its ISO and its disk hold the pack and nothing that
/// the same writers would not put there again, so that an ISO which differs by a configuration is otherwise the one it made.
fn made_by_the_verb(pack: &Path, folder: &Path) -> Result<()> {
    let mut verb = Command::new(rack_verb::program()?);
    verb.args(["image", "--pack"]).arg(pack).arg("--to").arg(folder);
    // Of this checkout, wherever the test is run.
    let output = verb.current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    ensure!(
        output.status.success(),
        "`cargo xtask image --pack` failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let (efi, sums) = (std::fs::read(folder.join("rackbar.efi"))?, sums(folder)?);
    let (packs, again) = (on_medium(pack), folder.join("again"));
    let is_again = |name: &str| -> Result<()> {
        let same = sums.get(name) == Some(&sha256_file(&again)?.0);
        ensure!(same, "{name} is not what its writer makes of this pack");
        Ok(())
    };
    let spec = IsoSpec {
        efi: &efi,
        config: None,
        packs: &packs,
    };
    iso::write(&spec, &again)?;
    is_again("rackbar.iso")?;
    let spec = DiskSpec {
        efi: &efi,
        config: None,
        packs: &packs,
        data_mib: DATA_MIB,
    };
    disk::write(&spec, &again)?;
    is_again("rackbar.img")?;
    Ok(std::fs::remove_file(again)?)
}

/// The pack under its name, for a medium.
fn on_medium(path: &Path) -> [MediumPack<'_>; 1] {
    [MediumPack {
        name: "debian-12",
        path,
    }]
}

/// The pack is in use, and its maker is trusted by the word of the medium's own command line alone.
async fn is_trusted_by_the_medium(api: &Api, key: &Key) -> Result<()> {
    let found: Value = api.read("/api/v1/packs").await?;
    let list = |name: &str| found[name].as_array().cloned().unwrap_or_default();
    let whys: Vec<Value> = list("trusted")
        .into_iter()
        .filter(|trusted| trusted["key"] == key.to_string())
        .map(|trusted| trusted["why"].clone())
        .collect();
    let in_use = |pack: &Value| pack["name"] == "debian-12" && pack["in_use"] == true;
    ensure!(
        whys == ["named by the boot medium"] && list("packs").iter().any(in_use),
        "{found}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rack_without_an_uplink_gets_ready_out_of_one_iso() -> Result<()> {
    const MACHINE: &str = "n2";
    let folder = tempfile::tempdir()?;
    let at = folder.path().to_owned();
    let (upstream, answers) = tokio::task::spawn_blocking(move || recorded(&at)).await??;
    let signer = SigningKey::from_seed(&Secret::new([9; 32])).context("a key")?;
    let path = folder.path().join("debian-12.pack");
    pack(&install::light_image()?, answers, &signer, &path)?;
    let (from, media) = (path.clone(), folder.path().join("media"));
    let to = media.clone();
    tokio::task::spawn_blocking(move || made_by_the_verb(&from, &to)).await??;

    let mut file = rack_file("demo")?;
    file.nodes.retain(|node| node.name == MACHINE);
    file.appliance.medium = Medium::IsoCd;
    file.appliance.uplink = false;
    // The tables of the file come last, so these may stand behind it. Nothing in it speaks of the pack's key.
    let change = |text: String| {
        format!(
            "{text}\n[proxy]\nmode = \"offline\"\n\n[[proxy.mirror]]\nname = \"debian\"\nupstream = [\"{upstream}\"]\n"
        )
    };
    let stage = Stage::set_with_packs(file, change, &media, &on_medium(&path)).await?;
    stage.start_appliance().await?;
    let key = Key(signer.public_key());
    eventually("the pack is in use", SERVING, || {
        is_trusted_by_the_medium(&stage.api, &key)
    })
    .await?;
    stage.power_on(MACHINE).await?;
    stage.until_discovered(MACHINE).await?;
    stage.until_complete(MACHINE).await?;
    stage.api.set_site(&SITE.replace("UPSTREAM", &upstream)).await?;
    let (_, run) = commit_all(&stage.api).await?;
    let run = until_done(&stage.api, run, READY).await?;
    let node = stage.node(MACHINE).await?.context("known")?;
    is_ready(&node)?;
    println!("ready out of one ISO: run {} did {} actions", run.id, run.actions.len());
    stage.end().await;
    Ok(())
}
