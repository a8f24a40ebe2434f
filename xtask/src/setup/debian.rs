//! Debian packages whose files go on the media: the kernel and iPXE, and GRUB of the nodes' images. They are downloaded, not installed, so this works
//! as an ordinary user. apt checks the archive's signature on its lists, the lists hold each package's SHA-256, and
//! we check that on every use.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Uid;
use rackbar_image::digest::sha256_file;

/// A downloaded package.
#[derive(Debug, Clone)]
pub(crate) struct Deb {
    /// The package's name, with the kernel's version in it for the kernel.
    pub(crate) name: String,
    /// Debian version.
    pub(crate) version: String,
    /// SHA-256, as apt's signed list states it and the file has it.
    pub(crate) sha256: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// What apt's lists say about the candidate version of a package.
struct Listed {
    version: String,
    sha256: String,
    depends: String,
}

/// The package that holds the current generic kernel. `linux-image-amd64` is empty and depends on it.
pub(crate) fn kernel(cache: &Path) -> Result<Deb> {
    let meta = listed("linux-image-amd64", cache)?;
    let name = meta
        .depends
        .split([',', ' '])
        .find(|word| word.starts_with("linux-image-"))
        .with_context(|| {
            format!(
                "linux-image-amd64 {} depends on no kernel but on {:?}",
                meta.version, meta.depends
            )
        })?;
    fetch(name, cache)
}

/// Debian's iPXE.
pub(crate) fn ipxe(cache: &Path) -> Result<Deb> {
    fetch("ipxe", cache)
}

/// Gives the candidate version of a package, from the cache when its digest is right. As root it fetches apt's lists and
/// tries again when the archive does not have that version any more: a point release takes old ones away.
pub(crate) fn fetch(name: &str, cache: &Path) -> Result<Deb> {
    if let Some(deb) = candidate(name, cache)? {
        return Ok(deb);
    }
    if Uid::effective().is_root() {
        println!("setup: apt's lists may be old; refreshing them and trying once more");
        super::apt_update()?;
        if let Some(deb) = candidate(name, cache)? {
            return Ok(deb);
        }
    }
    bail!("apt-get could not download {name}; if its lists are old, run `apt-get update` as root")
}

/// The candidate version; `None` when the archive does not give it.
fn candidate(name: &str, cache: &Path) -> Result<Option<Deb>> {
    let listed = listed(name, cache)?;
    std::fs::create_dir_all(cache).with_context(|| format!("creating {}", cache.display()))?;
    // apt writes the version's colon as %3a, and architectures differ; a name of our own is simpler.
    let path = cache.join(format!("{name}_{}.deb", listed.version.replace([':', '/'], "_")));
    if !matches(&path, &listed.sha256)? {
        if !download(name, &listed.version, cache, &path)? {
            return Ok(None);
        }
        ensure!(
            matches(&path, &listed.sha256)?,
            "{} does not have the SHA-256 that apt's list states ({}); remove it and run `apt-get update`",
            path.display(),
            listed.sha256
        );
    }
    Ok(Some(Deb {
        name: name.to_owned(),
        version: listed.version,
        sha256: listed.sha256,
        path,
    }))
}

/// Whether the file is there with this digest.
fn matches(path: &Path, digest: &str) -> Result<bool> {
    Ok(path.exists() && sha256_file(path)?.0 == digest)
}

/// False when apt-get could not; it has said why.
fn download(name: &str, version: &str, cache: &Path, path: &Path) -> Result<bool> {
    println!("setup: downloading {name} {version}: its files go on the boot media");
    // apt-get names the file itself, so it gets a folder of its own.
    let folder = tempfile::tempdir_in(cache).context("creating a folder to download into")?;
    let status = Command::new("apt-get")
        // Root's apt would drop to a user that cannot write here, and says so at length.
        .args(["-q", "-o", "APT::Sandbox::User=root", "download"])
        .arg(format!("{name}={version}"))
        .current_dir(folder.path())
        .status()
        .context("running apt-get download")?;
    if !status.success() {
        return Ok(false);
    }
    let file = std::fs::read_dir(folder.path())?
        .next()
        .context("apt-get download left no file")??;
    std::fs::rename(file.path(), path).with_context(|| format!("moving {name} to {}", path.display()))?;
    Ok(true)
}

/// Asks apt's lists about the candidate version; as root, fetches the lists when they do not have the package.
fn listed(name: &str, cache: &Path) -> Result<Listed> {
    if let Some(listed) = look_up(name)? {
        return Ok(listed);
    }
    if Uid::effective().is_root() {
        super::apt_update()?;
        if let Some(listed) = look_up(name)? {
            return Ok(listed);
        }
    }
    bail!(
        "apt's lists do not have the package {name}, which goes on the boot media (kept in {}); run:\n  \
         sudo apt-get update",
        cache.display()
    )
}

/// Candidate versions of packages, a line each, as apt's lists have them; as root, fetches the lists when they lack one.
pub(crate) fn versions(names: &[&str]) -> Result<String> {
    if Uid::effective().is_root() && !super::apt_knows(names)? {
        super::apt_update()?;
    }
    let output = Command::new("apt-cache")
        .args(["show", "--no-all-versions"])
        .args(names)
        .output()
        .context("running apt-cache; Rackbar is built on Debian 12 or a system like it")?;
    ensure!(
        output.status.success(),
        "apt's lists do not have all packages ({}); run:\n  sudo apt-get update",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text
        .lines()
        .filter(|line| line.starts_with("Package:") || line.starts_with("Version:"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn look_up(name: &str) -> Result<Option<Listed>> {
    let output = Command::new("apt-cache")
        .args(["show", "--no-all-versions", name])
        .output();
    let output = output.context("running apt-cache; Rackbar is built on Debian 12 or a system like it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let field = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|value| value.trim().to_owned())
    };
    // A package that is installed but no longer in the lists has no digest.
    Ok(match (field("Version:"), field("SHA256:")) {
        (Some(version), Some(sha256)) => Some(Listed {
            version,
            sha256,
            depends: field("Depends:").unwrap_or_default(),
        }),
        _ => None,
    })
}
