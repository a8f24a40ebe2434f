//! Hardware profiles: the shipped ones and over them the site's own, each judged by the signature beside it.
//!
//! A profile `x.toml` may have a signature in `x.toml.sig`: one line with the word `rackbar-profile-1`, the key, and the Ed25519
//! signature in hexadecimal. One without is the owner's own word: it is in force and shown as signed by nobody, unless the
//! configuration wants signed ones only. One whose signature is not good, or by somebody who is not trusted, is not in force:
//! somebody meant it to be as it was signed. Each is judged alone, so one that is refused takes no other along.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rackbar_control::operations::{HardwareProfile, ProfileSignature, Refused};
use rackbar_devices::{Profiles, look_at_profile};
use rackbar_model::{Digest, EventKind, Severity};
use rackbar_packs::{Key, Trust};
use rackbar_trust::{SIGNATURE_LENGTH, Signer as _, SigningKey, sha256, verify};

/// Name of the folders with a site's own hardware profiles.
const FOLDER: &str = "hw-profiles";

/// First word of a signature.
const WORD: &str = "rackbar-profile-1";

/// What a signature is over begins with this, so that nothing else that is signed can be taken for a profile.
const DOMAIN: &[u8] = b"rackbar hardware profile, format 1\0";

/// Bytes that a profile or a signature may have.
const LARGEST: u64 = 256 << 10;

/// Where profiles of a site are: beside the configuration, then beside the store.
pub(super) fn folders(config: &Path, data: &Path) -> [PathBuf; 2] {
    [config.with_file_name(FOLDER), data.join(FOLDER)]
}

/// Whose word counts.
pub(super) struct Judge {
    trust: Trust,
    signed_only: bool,
}

/// Who signed a profile, and why that counts.
type Signed = Option<(Key, String)>;

impl Judge {
    /// Trusts these keys; with `signed_only` nobody else's word counts.
    pub(super) fn new(keys: &[(Key, &str)], signed_only: bool) -> Self {
        let trust = keys
            .iter()
            .fold(Trust::nobody(), |trust, (key, why)| trust.and(*key, *why));
        Self { trust, signed_only }
    }

    /// Who signed this text; `file` is the profile's, for the words of a refusal.
    fn judge(&self, file: &Path, text: &str, signature: Option<&str>) -> Result<Signed, String> {
        let beside = signature_of(file);
        let beside = beside.display();
        let Some(signature) = signature else {
            return match self.signed_only {
                false => Ok(None),
                true => Err(format!(
                    "nobody signed it, and [profiles] in rackbar.toml says signed_only: sign it (`rackbar profile sign \
                     {}`), or take that word away",
                    file.display()
                )),
            };
        };
        let (key, signature) = parse(signature)
            .ok_or_else(|| format!("{beside} is no signature of a profile; sign it again (`rackbar profile sign`)"))?;
        verify(&key.0, &message(text), &signature).map_err(|_| {
            format!(
                "its signature is not good: the profile was changed or damaged after {key} signed it; sign it again \
                 (`rackbar profile sign`), or remove {beside} to use it as your own"
            )
        })?;
        match self.trust.why(&key) {
            Some(why) => Ok(Some((key, why.to_owned()))),
            None => Err(format!(
                "it is signed by {key}, whom this appliance does not trust; when that is the key its maker shows \
                 (`rackbar pack list`), write trust = [\"{key}\"] into the section [packs] of rackbar.toml"
            )),
        }
    }
}

fn message(text: &str) -> Vec<u8> {
    [DOMAIN, &sha256(text.as_bytes())].concat()
}

fn parse(text: &str) -> Option<(Key, [u8; SIGNATURE_LENGTH])> {
    let mut words = text.split_ascii_whitespace();
    let (word, key, signature, end) = (words.next()?, words.next()?, words.next()?, words.next());
    if word != WORD || end.is_some() {
        return None;
    }
    let (first, second) = signature.split_at_checked(64)?;
    // A signature is written as two digests are.
    let halves = [first.parse::<Digest>().ok()?.0, second.parse::<Digest>().ok()?.0];
    Some((key.parse().ok()?, halves.concat().try_into().ok()?))
}

fn signature_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

/// What was read.
pub(super) struct Loaded {
    /// The profiles in force.
    pub(super) profiles: Profiles,
    /// All of them, for people.
    pub(super) list: Vec<HardwareProfile>,
    /// What is to be told.
    pub(super) told: Vec<EventKind>,
}

/// Reads the shipped profiles and those in the folders.
///
/// # Errors
/// Never in a build whose tests passed.
pub(super) fn load(folders: &[PathBuf], judge: &Judge) -> Result<Loaded> {
    let profiles = Profiles::shipped().context("the hardware profiles cannot be read")?;
    let shipped = profiles.list().into_iter().map(|profile| HardwareProfile {
        name: profile.name,
        source: profile.source,
        place: "shipped".into(),
        in_use: true,
        ..HardwareProfile::default()
    });
    let mut loaded = Loaded {
        list: shipped.collect(),
        profiles,
        told: Vec::new(),
    };
    for folder in folders {
        match files(folder) {
            Ok(files) => files.iter().for_each(|file| loaded.take(file, judge)),
            Err(error) => loaded.tell(folder, &format!("the profiles in it are not in force: {error}")),
        }
    }
    Ok(loaded)
}

/// The profiles of a folder, by name; one that is not there has none.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<PathBuf>>>()?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    Ok(files)
}

fn text_of(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let most = LARGEST.saturating_add(1);
    std::fs::File::open(file)?.take(most).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(std::io::Error::other(format!("it has more than {} KiB", LARGEST >> 10)));
    }
    Ok(text)
}

impl Loaded {
    /// Puts a profile in force, or says why not.
    fn take(&mut self, file: &Path, judge: &Judge) {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let mut entry = HardwareProfile {
            name: stem.into_owned(),
            place: file.display().to_string(),
            ..HardwareProfile::default()
        };
        match self.judged(file, judge, &mut entry) {
            Ok(signed) => {
                entry.in_use = true;
                (entry.key, entry.signer) = signed.map(|(key, why)| (key.to_string(), why)).unzip();
            }
            Err(why) => {
                self.tell(file, &format!("this profile is not in force, the others are: {why}"));
                entry.why_not = Some(why);
            }
        }
        self.list.push(entry);
    }

    fn judged(&mut self, file: &Path, judge: &Judge, entry: &mut HardwareProfile) -> Result<Signed, String> {
        let text = text_of(file).map_err(|error| format!("it cannot be read ({error})"))?;
        let signature = match text_of(&signature_of(file)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            // One that is there and cannot be read must not make the profile one that nobody signed.
            read => Some(read.map_err(|error| format!("its signature cannot be read ({error})"))?),
        };
        let place = file.display().to_string();
        if let Ok(known) = look_at_profile(&place, &text) {
            (entry.name, entry.source) = (known.name, known.source);
        }
        let signed = judge.judge(file, &text, signature.as_deref())?;
        let added = self.profiles.add(&place, &text);
        added.map(|_| signed).map_err(|error| error.to_string())
    }

    fn tell(&mut self, place: &Path, outcome: &str) {
        self.told.push(EventKind::Config {
            source: place.display().to_string(),
            outcome: outcome.to_owned(),
            severity: Severity::Error,
        });
    }
}

/// What people may ask of profiles.
#[derive(Clone)]
pub(super) struct ProfileDoor {
    list: Arc<Vec<HardwareProfile>>,
    signer: Arc<SigningKey>,
}

impl ProfileDoor {
    pub(super) fn new(list: Vec<HardwareProfile>, signer: Arc<SigningKey>) -> Self {
        Self {
            list: Arc::new(list),
            signer,
        }
    }

    pub(super) fn list(&self) -> Vec<HardwareProfile> {
        self.list.to_vec()
    }

    /// Signs a profile's text, which must read as one.
    pub(super) fn sign(&self, text: &str) -> Result<ProfileSignature, Refused> {
        if text.len() as u64 > LARGEST {
            let words = format!("a hardware profile has at most {} KiB", LARGEST >> 10);
            return Err(Refused::Invalid(words));
        }
        let known = look_at_profile("(to be signed)", text).map_err(|error| Refused::Invalid(error.to_string()))?;
        let key = Key(self.signer.public_key());
        let signature: String = self
            .signer
            .sign(&message(text))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(ProfileSignature {
            name: known.name,
            key: key.to_string(),
            signature: format!("{WORD} {key} {signature}\n"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackbar_trust::Secret;

    const TEXT: &str = "name = \"ours\"\nsource = \"x\"\n[match]\nmodel = \"m\"\n[quirks]\nipmi_suite = 3\n";

    fn door() -> ProfileDoor {
        ProfileDoor::new(
            Vec::new(),
            Arc::new(SigningKey::from_seed(&Secret::new([7; 32])).unwrap()),
        )
    }

    fn judge(keys: &[Key], signed_only: bool) -> Judge {
        let keys: Vec<_> = keys.iter().map(|key| (*key, "a test")).collect();
        Judge::new(&keys, signed_only)
    }

    fn ours() -> Key {
        Key(door().signer.public_key())
    }

    #[test]
    fn a_signature_counts_for_one_text_by_one_trusted_key_alone() {
        let signature = door().sign(TEXT).unwrap().signature;
        let file = Path::new("ours.toml");
        let trusting = judge(&[ours()], true);
        let said = trusting.judge(file, TEXT, Some(&signature));
        assert_eq!(said, Ok(Some((ours(), "a test".to_owned()))));
        for at in 0..TEXT.len() {
            let mut bytes = TEXT.as_bytes().to_vec();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            let refused = trusting.judge(file, &changed, Some(&signature)).unwrap_err();
            assert!(
                refused.contains("not good") && refused.contains("ours.toml.sig"),
                "{refused}"
            );
        }
        let line = signature.trim_end();
        for at in 0..line.len() {
            for flip in [1, 2] {
                let mut bytes = line.as_bytes().to_vec();
                bytes[at] ^= flip;
                let Ok(changed) = String::from_utf8(bytes) else {
                    continue;
                };
                // Digits in capitals are the same digits.
                if changed.eq_ignore_ascii_case(line) {
                    continue;
                }
                assert!(trusting.judge(file, TEXT, Some(&changed)).is_err(), "{at}");
            }
        }
        let stranger = judge(&[Key([9; 32])], false)
            .judge(file, TEXT, Some(&signature))
            .unwrap_err();
        assert!(
            stranger.contains(&ours().to_string()) && stranger.contains("[packs]"),
            "{stranger}"
        );
        // One that nobody signed is its owner's, unless signed ones alone count.
        assert_eq!(judge(&[], false).judge(file, TEXT, None), Ok(None));
        let wanted = trusting.judge(file, TEXT, None).unwrap_err();
        assert!(
            wanted.contains("signed_only") && wanted.contains("rackbar profile sign"),
            "{wanted}"
        );
    }

    #[test]
    fn a_sites_folder_is_read_and_may_be_absent() {
        let folder = tempfile::tempdir().unwrap();
        let judge = judge(&[ours()], false);
        let at = |name: &str| folder.path().join("hw-profiles").join(name);
        let read = || {
            load(
                &folders(&folder.path().join("rackbar.toml"), Path::new("/nonexistent")),
                &judge,
            )
            .unwrap()
        };
        let shipped = read();
        assert!(shipped.told.is_empty() && shipped.list.iter().all(|one| one.in_use && one.place == "shipped"));
        std::fs::create_dir(at("")).unwrap();
        let other = TEXT.replace("ours", "signed");
        let named = |name: &str| TEXT.replace("ours", name);
        for (name, text) in [
            ("a.toml", TEXT.to_owned()),
            ("b.toml", "name = 'b'\n".to_owned()),
            ("c.toml", other.clone()),
            ("c.toml.sig", door().sign(&other).unwrap().signature),
            ("d.toml", named("changed") + "# since\n"),
            ("d.toml.sig", door().sign(&named("changed")).unwrap().signature),
            ("e.toml", named("last")),
            ("notes.txt", "not a profile".to_owned()),
        ] {
            std::fs::write(at(name), text).unwrap();
        }
        let read = read();
        let site = &read.list[shipped.list.len()..];
        let seen: Vec<_> = site
            .iter()
            .map(|one| (one.name.as_str(), one.in_use, one.signer.as_deref()))
            .collect();
        let expected = [
            ("ours", true, None),
            ("b", false, None),
            ("signed", true, Some("a test")),
            ("changed", false, None),
            ("last", true, None),
        ];
        assert_eq!(seen, expected);
        assert_eq!(read.told.len(), 2, "{:?}", read.told);
        let names: Vec<_> = read.profiles.list().into_iter().map(|profile| profile.name).collect();
        assert!(
            names.ends_with(&["ours".into(), "signed".into(), "last".into()]),
            "{names:?}"
        );
    }

    #[test]
    fn only_what_reads_as_a_profile_is_signed() {
        let refused = door().sign("name = 'x'\n").unwrap_err().to_string();
        assert!(refused.contains("source"), "{refused}");
        assert!(door().sign(&format!("{TEXT}#{}", "x".repeat(256 << 10))).is_err());
    }
}
