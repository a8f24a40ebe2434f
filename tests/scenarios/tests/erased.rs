//! Disks of an earlier owner, erased before an install: what was on them is gone, and that is shown.

use anyhow::{Result, ensure};
use rackbar_plan::Stand;
use rackbar_scenarios::install::{self, READY, commit_all, until_done};
use rackbar_scenarios::{Stage, rack_file};
use rackbar_vrack::rack::RackFile;

use crate::install::{all_ready, discovered};

/// Erased by its own means: an NVMe disk by Format NVM with secure erase; and by writing over it where it has none.
const ERASED: &str = r#"
version = 1

[network.rack]
subnet = "10.77.10.0/24"
addresses = "dhcp"

[role.own]
os = "debian-12"
root = { bus = "nvme" }
erase = "sanitize"

[[role.own.network]]
name = "rack"
network = "rack"

[role.over]
os = "debian-12"
erase = "overwrite"

[[role.over.network]]
name = "rack"
network = "rack"

[[rule]]
name = "with an NVMe disk"
when = "disks | selectattr('bus', 'equalto', 'nvme') | list | length > 0"
role = "own"

[[rule]]
name = "the others"
when = "true"
role = "over"
"#;

/// Where an earlier owner left something: behind what an image writes.
const LEFT_AT: u64 = 3500 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_erased_by_their_own_means_or_overwritten_and_nothing_is_left() -> Result<()> {
    let names = ["n1", "n2"];
    let small = |file: &mut RackFile| {
        for disk in file.nodes.iter_mut().flat_map(|node| &mut node.disks) {
            disk.size_mib = 4096;
        }
    };
    let mut file = rack_file("demo")?;
    file.nodes.retain(|node| names.contains(&node.name.as_str()));
    small(&mut file);
    let stage = Stage::serving_with(file, |text| text).await?;
    let secret = b"what an earlier owner left here. ".repeat(2048);
    let disks = names.map(|name| stage.rack.directory().join(format!("{name}.disk0")));
    for disk in &disks {
        let file = std::fs::File::options().write(true).open(disk)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &secret, LEFT_AT)?;
    }
    let stage = discovered(stage, &names, ERASED, &install::light_image()?).await?;
    let (_, id) = commit_all(&stage.api).await?;
    let run = until_done(&stage.api, id, READY).await?;
    all_ready(&stage, &names).await?;
    let mut told = Vec::new();
    for (name, stand) in &run.actions {
        if let (true, Stand::Done { outcome, .. }) = (name.0.ends_with("/disk.erase"), stand) {
            told.extend(outcome.details.iter().cloned());
        }
    }
    println!("{}", told.join("\n"));
    let has = |words: &str| told.iter().any(|line| line.contains(words));
    ensure!(has("Format NVM with user data erase accepted and done"), "{told:#?}");
    ensure!(
        has("none holds it still") && has("bytes overwritten with zeros"),
        "{told:#?}"
    );
    for disk in &disks {
        let mut there = vec![0xff; secret.len()];
        std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(disk)?, &mut there, LEFT_AT)?;
        ensure!(
            !there.windows(33).any(|part| secret.starts_with(part)),
            "{} still has it",
            disk.display()
        );
    }
    stage.end().await;
    Ok(())
}
