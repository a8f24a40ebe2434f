//! `cargo xtask pack NAME`: a data pack of an operating system's image and of what apt fetches for packages on top of it,
//! recorded by the appliance's own caching proxy.
//!
//! apt asks as a machine does that has that image: with its sources, and its packages as installed. What the proxy stored
//! is the pack. It is signed with a key of this checkout, made once, that `cargo xtask image --pack` has the media trust.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rackbar_image::os::recipe::{self, Recipe};
use rackbar_model::{Digest, Timestamp};
use rackbar_packs::{Answer, Content, Draft, DraftAnswer, DraftImage, Key, PackImage};
use rackbar_proxy::store::Object;
use rackbar_proxy::{Pick, Picked, Settings};
use rackbar_trust::{Secret, Signer as _, SigningKey};
use serde::Deserialize;

use crate::os_image::{self, OsImage, sources};
use crate::project::Project;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which image
    #[arg(value_parser = ["debian-12"], default_value = "debian-12")]
    name: String,
    /// Packages to take along with all that they need; may be given more than once
    #[arg(long, value_name = "NAME")]
    package: Vec<String>,
}

/// Makes the pack and says where it is.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let path = make(&arguments.name, &arguments.package)?;
    println!("{}", path.display());
    Ok(())
}

/// The pack of this name in `target/packs`; one that is there already stays as it is.
pub(crate) fn ensure_made(name: &str) -> Result<PathBuf> {
    let path = Project::find()?.target.join("packs").join(format!("{name}.pack"));
    if path.exists() {
        println!(
            "pack: taking {}; `cargo xtask pack {name}` makes it anew",
            path.display()
        );
        return Ok(path);
    }
    make(name, &[])
}

fn make(name: &str, packages: &[String]) -> Result<PathBuf> {
    let project = Project::find()?;
    let folder = project.target.join("packs");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let image = os_image::ensure_built(&project, &os_image::Arguments::default())?;
    let suite = Recipe::parse(recipe::DEBIAN_12)?.suite;
    println!(
        "pack: recording what apt fetches for {suite} and {} packages",
        packages.len()
    );
    let recording = tempfile::tempdir_in(&folder).context("making a folder to record in")?;
    let answers = record(recording.path(), &suite, &image, packages)?;
    let signer = key(&folder.join("key"))?;
    let path = folder.join(format!("{name}.pack"));
    write(name, packages, &image, answers, &signer, &path)?;
    println!("pack: {} is signed by {}", path.display(), Key(signer.public_key()));
    Ok(path)
}

/// What apt fetched through the proxy.
fn record(folder: &Path, suite: &str, image: &OsImage, packages: &[String]) -> Result<Vec<Picked>> {
    let settings = Settings {
        listen: vec![([127, 0, 0, 1], 0).into()],
        ..Settings::default()
    };
    let tell = Arc::new(|_, text| eprintln!("pack: {text}"));
    let handle = rackbar_proxy::start(&folder.join("cache"), settings, tell).context("starting the proxy")?;
    if let Some(trouble) = handle.proxy().trouble() {
        bail!("{trouble}");
    }
    let address = handle
        .addresses()
        .first()
        .copied()
        .context("the proxy does not listen")?;
    let lines = sources::lines(suite)?;
    ensure!(
        !lines.contains("https://"),
        "this machine's apt uses mirrors over https, and what passes through a tunnel cannot be recorded; give it http mirrors \
         of {suite} (apt checks signatures either way)"
    );
    let apt = Apt::new(folder.join("apt"), &lines, &format!("http://{address}"), image)?;
    apt.run(&["update"])?;
    if !packages.is_empty() {
        let mut install = vec!["install", "--download-only", "-y", "--no-install-recommends"];
        install.extend(packages.iter().map(String::as_str));
        apt.run(&install)?;
    }
    // What came last is stored when its flight has landed: a second run finds it, or fetches it again.
    apt.run(&["update"])?;
    let picked = handle.proxy().pick(&Pick::default());
    ensure!(!picked.is_empty(), "the proxy stored nothing of what apt fetched");
    Ok(picked)
}

/// apt as it is on a machine that has the image, in a folder.
struct Apt {
    folder: PathBuf,
    options: Vec<String>,
}

/// The bill of materials beside an image.
#[derive(Deserialize)]
struct Bill {
    components: Vec<Installed>,
}

#[derive(Deserialize)]
struct Installed {
    name: String,
    version: String,
}

impl Apt {
    fn new(folder: PathBuf, lines: &str, proxy: &str, image: &OsImage) -> Result<Self> {
        for name in ["state/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(folder.join(name)).context("making a folder for apt")?;
        }
        let bill = image.path.with_file_name(format!("{}.cdx.json", image.entry.name));
        let text = std::fs::read_to_string(&bill).with_context(|| format!("reading {}", bill.display()))?;
        let bill: Bill = serde_json::from_str(&text).with_context(|| format!("in {}", bill.display()))?;
        let status: String = bill.components.iter().map(installed).collect();
        std::fs::write(folder.join("status"), status).context("writing what is installed")?;
        std::fs::write(folder.join("sources.list"), lines).context("writing the sources")?;
        let at = |name: &str| folder.join(name).display().to_string();
        let mut options = vec![
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=-".into(),
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            "APT::Architecture=amd64".into(),
            "APT::Sandbox::User=root".into(),
            format!("Acquire::http::Proxy={proxy}"),
        ];
        // Where a company's proxy stands before the mirrors, ours cannot get at them.
        let theirs = sources::proxies()?;
        if let Some(line) = theirs
            .iter()
            .find(|line| line.to_ascii_lowercase().contains("http::proxy"))
        {
            bail!("this machine's apt goes through a proxy ({line}), and recording needs the mirrors themselves");
        }
        options.sort();
        Ok(Self { folder, options })
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let mut apt = Command::new("apt-get");
        apt.arg("-q").current_dir(&self.folder);
        for option in &self.options {
            apt.args(["-o", option]);
        }
        let output = apt.args(arguments).output().context("running apt-get")?;
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        ensure!(
            output.status.success(),
            "apt-get {} failed:\n{text}",
            arguments.join(" ")
        );
        Ok(())
    }
}

/// A package as dpkg's status file has it. What it depends on is there as well, so nothing is said of that.
fn installed(package: &Installed) -> String {
    let Installed { name, version } = package;
    format!(
        "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\nMaintainer: none\n\n"
    )
}

/// The key of this checkout, made when there is none.
fn key(path: &Path) -> Result<SigningKey> {
    if !path.exists() {
        let seed = rackbar_trust::random::<32>()
            .ok()
            .context("the system gives no random numbers")?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        std::io::Write::write_all(&mut file, &seed)?;
    }
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let seed: [u8; 32] = bytes
        .try_into()
        .ok()
        .with_context(|| format!("{} is no key of 32 bytes", path.display()))?;
    SigningKey::from_seed(&Secret::new(seed))
        .ok()
        .with_context(|| format!("{} is no key", path.display()))
}

fn write(
    name: &str,
    packages: &[String],
    image: &OsImage,
    answers: Vec<Picked>,
    signer: &SigningKey,
    path: &Path,
) -> Result<()> {
    let objects: HashMap<Digest, Arc<Object>> = answers
        .iter()
        .map(|one| (one.record.digest, one.object.clone()))
        .collect();
    let made = answers.iter().map(|one| one.record.response_time).max().unwrap_or(0);
    let draft = Draft {
        name: name.into(),
        made: Timestamp(made.saturating_mul(1000)),
        by: "cargo xtask pack".into(),
        note: format!("{}; packages: {}", image.entry.name, packages.join(" ")),
        images: vec![draft_image(image)],
        answers: answers.into_iter().map(draft_answer).collect(),
    };
    let sealed = draft.seal(signer)?;
    let part = path.with_extension("part");
    let out = File::create(&part).with_context(|| format!("writing {}", part.display()))?;
    let open = |digest: &Digest| -> std::io::Result<Box<dyn Read>> {
        match objects.get(digest) {
            Some(object) => Ok(Box::new(object.reader().map_err(std::io::Error::other)?)),
            None => Ok(Box::new(File::open(&image.path)?)),
        }
    };
    sealed.write(&mut BufWriter::with_capacity(1 << 20, out), open)?;
    std::fs::rename(&part, path).with_context(|| format!("writing {}", path.display()))
}

fn draft_image(image: &OsImage) -> DraftImage {
    let entry = image.entry.clone();
    let content = Content {
        sha256: entry.sha256,
        bytes: entry.bytes,
    };
    let image = PackImage {
        name: entry.name,
        content: 0,
        format: entry.format,
        disk_bytes: entry.disk_bytes,
        arch: entry.arch,
        source: entry.source,
        licence: entry.licence,
        user: entry.user,
        added: entry.added,
    };
    DraftImage { image, content }
}

fn draft_answer(Picked { record, .. }: Picked) -> DraftAnswer {
    DraftAnswer {
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
    }
}
