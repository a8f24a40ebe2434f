//! A rack with no uplink at all: the appliance has no interface to the outside, and everything comes from one ISO.

#[path = "../../../appliance/proxy/tests/common/mod.rs"]
pub(crate) mod common;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use common::apt::{Apt, Repository};
use common::{Origin, settings, under};
use rackbar_image::packs::MediumPack;
use rackbar_model::{Digest, ImageFormat, Timestamp};
use rackbar_packs::{Answer, Content, Draft, DraftAnswer, DraftImage, Key, PackImage};
use rackbar_proxy::{Pick, Picked};
use rackbar_scenarios::install::{self, READY, commit_all, is_ready, until_done};
use rackbar_scenarios::{Stage, rack_file};
use rackbar_trust::{Secret, Signer as _, SigningKey};
use rackbar_vrack::rack::Medium;

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
fn recorded(folder: &Path) -> Result<(String, Vec<Picked>)> {
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
fn pack(image: &install::Image, answers: Vec<Picked>, signer: &SigningKey, to: &Path) -> Result<()> {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_rack_without_an_uplink_gets_ready_out_of_one_iso() -> Result<()> {
    const MACHINE: &str = "n2";
    let folder = tempfile::tempdir()?;
    let at = folder.path().to_owned();
    let (upstream, answers) = tokio::task::spawn_blocking(move || recorded(&at)).await??;
    let signer = SigningKey::from_seed(&Secret::new([9; 32])).context("a key")?;
    let path = folder.path().join("debian-12.pack");
    pack(&install::light_image()?, answers, &signer, &path)?;

    let mut file = rack_file("demo")?;
    file.nodes.retain(|node| node.name == MACHINE);
    file.appliance.medium = Medium::IsoCd;
    file.appliance.uplink = false;
    let packs = [MediumPack {
        name: "debian-12",
        path: &path,
    }];
    let key = Key(signer.public_key());
    // The tables of the file come last, so these may stand behind it.
    let change = |text: String| {
        format!(
            "{text}\n[packs]\ntrust = [\"{key}\"]\n\n[proxy]\nmode = \"offline\"\n\n[[proxy.mirror]]\n\
             name = \"debian\"\nupstream = [\"{upstream}\"]\n"
        )
    };
    let stage = Stage::set_with_packs(file, change, &packs).await?;
    stage.start_appliance().await?;
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
