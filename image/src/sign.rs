//! Signing of finished media: `SHA256SUMS` in minisign's format, by a key of whoever publishes them.
//!
//! The secret key's file is minisign's own, without a passphrase: `minisign -S -W` signs with it too, and we sign with one that
//! `minisign -G -W` made. Who wants a passphrase on his key signs with minisign itself: the signature is the same file.
//! Signatures have no time in them, so the same media and key give the same bytes.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest as _};
use rackbar_artifacts::release::{KEY, SIGNATURE, SUMS, differences};
use rackbar_trust::{Secret, Signer as _, SigningKey, random};
use rackbar_upstream::{KeyId, MinisignKey, minisign};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::cache::write_whole;

/// What stands in front of a secret key without a passphrase: Ed25519, no derivation, BLAKE2b; then a salt and two limits that
/// nobody uses.
const HEAD: [u8; 54] = {
    let mut head = [0; 54];
    head[0] = b'E';
    head[1] = b'd';
    head[4] = b'B';
    head[5] = b'2';
    head
};
/// Bytes of a secret key's file, decoded: the head, the identifier, seed and public key, and a checksum that is zero
/// without a passphrase.
const SECRET: usize = 158;

/// A key to sign releases with. `Debug` shows its public half.
#[derive(Debug)]
pub struct ReleaseKey {
    id: [u8; 8],
    key: SigningKey,
}

impl ReleaseKey {
    /// Makes a new key in a file of its own that its owner alone may read.
    ///
    /// # Errors
    /// When there is a file already, or it cannot be written.
    pub fn make(path: &Path) -> Result<Self> {
        let (id, seed) = (random::<8>()?, Secret::<32>::random()?);
        let key = SigningKey::from_seed(&seed)?;
        let bytes = Zeroizing::new([&HEAD[..], &id, seed.expose(), &key.public_key(), &[0; 32]].concat());
        let text = Zeroizing::new(format!(
            "untrusted comment: secret key of Rackbar's releases, without a passphrase\n{}\n",
            *Zeroizing::new(STANDARD.encode(&*bytes))
        ));
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| {
                format!(
                    "making {} (a key that is there already is never replaced)",
                    path.display()
                )
            })?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { id, key })
    }

    /// Reads a key's file.
    ///
    /// # Errors
    /// When others may read the file, it has a passphrase, or is no secret key.
    pub fn read(path: &Path) -> Result<Self> {
        let place = || path.display().to_string();
        let mode = fs::metadata(path).with_context(place)?.permissions().mode();
        ensure!(
            mode & 0o077 == 0,
            "{}: others than its owner may use this key (mode {:04o}); run chmod 600 on it, and make a new key if somebody did",
            path.display(),
            mode & 0o7777
        );
        let text = Zeroizing::new(fs::read_to_string(path).with_context(place)?);
        let line = text.lines().find(|line| !line.starts_with("untrusted comment:"));
        let bytes = Zeroizing::new(STANDARD.decode(line.unwrap_or_default()).unwrap_or_default());
        ensure!(
            bytes.len() == SECRET && bytes.starts_with(b"Ed"),
            "{}: no secret key of minisign's; `cargo xtask sign --make-key --key FILE` makes one",
            path.display()
        );
        ensure!(
            bytes.get(2..4) == Some(&[0, 0]),
            "{}: this key has a passphrase, which is asked for by minisign alone; sign with `minisign -S -s {} -m {SUMS}` in the \
             folder of the media, or use a key without one",
            path.display(),
            path.display()
        );
        let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
        let (id, seed, public) = (part(54, 62), part(62, 94), part(94, 126));
        let key = SigningKey::from_seed(&Secret::new(seed.try_into()?))?;
        ensure!(
            key.public_key() == public,
            "{}: the halves of this key do not belong together; the file is damaged",
            path.display()
        );
        Ok(Self {
            id: id.try_into()?,
            key,
        })
    }

    /// The public half, which checks what this key signed.
    pub fn public(&self) -> MinisignKey {
        MinisignKey {
            id: KeyId(self.id),
            key: self.key.public_key(),
        }
    }

    /// The signature over `file`, with what is `said` of it, which is one line.
    fn sign(&self, file: &[u8], said: &str) -> String {
        let signature = self.key.sign(&Blake2b512::digest(file));
        let first = STANDARD.encode([b"ED", &self.id[..], &signature].concat());
        let second = STANDARD.encode(self.key.sign(&[&signature[..], said.as_bytes()].concat()));
        format!("untrusted comment: signature of Rackbar's release\n{first}\ntrusted comment: {said}\n{second}\n")
    }
}

/// What is read of the bill of materials.
#[derive(Deserialize)]
struct Bill {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    component: Component,
}

#[derive(Deserialize)]
struct Component {
    version: String,
}

/// Signs the media of a folder, once every file of it was found to be what `SHA256SUMS` says, and gives what is said of them.
/// Writes the signature, and the public key beside it.
///
/// # Errors
/// When a file differs, is missing, or is not on the list; nothing is written then.
pub fn folder(folder: &Path, key: &ReleaseKey) -> Result<String> {
    let different = differences(folder)?;
    if !different.is_empty() {
        let lines: Vec<_> = different.iter().map(|one| format!("\n  {one}")).collect();
        bail!(
            "{} is not what its {SUMS} says, and is not signed:{}\nmake the media anew with `cargo xtask image`",
            folder.display(),
            lines.concat()
        );
    }
    let bill = folder.join("rackbar.cdx.json");
    let place = || bill.display().to_string();
    let bill: Bill = serde_json::from_slice(&fs::read(&bill).with_context(place)?).with_context(place)?;
    let version = bill.metadata.component.version;
    ensure!(
        !version.chars().any(char::is_control),
        "the version in rackbar.cdx.json has control characters"
    );
    let said = format!("Rackbar {version}");
    let sums = fs::read(folder.join(SUMS)).with_context(|| format!("reading {SUMS}"))?;
    let (text, public) = (key.sign(&sums, &said), key.public());
    minisign(&sums, &text, &public).context("our own signature")?;
    let file = format!(
        "untrusted comment: public key {} of Rackbar's releases\n{public}\n",
        public.id
    );
    write_whole(&folder.join(KEY), file.as_bytes())?;
    write_whole(&folder.join(SIGNATURE), text.as_bytes())?;
    Ok(said)
}

/// Takes away the signature of media that are about to be others, so that nobody publishes the old one with the new files.
pub(crate) fn withdraw(folder: &Path, sums: &str) -> Result<()> {
    if fs::read_to_string(folder.join(SUMS)).is_ok_and(|before| before == sums) {
        return Ok(());
    }
    for name in [SIGNATURE, KEY] {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {name} of the media that were here before"));
            }
            _ => {}
        }
    }
    Ok(())
}
