//! One refresh: ask, verify, compare, fetch, verify again, swap. Every failure names the URL, what was wrong, what to do.

use std::io::Write;

use flate2::write::GzDecoder;
use rackbar_artifacts::images::{ImageError, ImageMeta, Upload};
use rackbar_control::operations::RefreshState;
use rackbar_model::{Digest, Refreshed, Upstream};
use rackbar_proxy::origin::GetError;
use rackbar_trust::sha256;
use rackbar_upstream::{
    Accepted, Keyring, MAX_SIGNATURE, MAX_TEXT, Release, Signed, Sum, Summing, Sums, cleartext, detached,
};

use super::{End, Job, now, seconds};

/// What the publisher's signed list says of the file.
struct Offer {
    /// Where the file is.
    url: String,
    /// As the list names it.
    file: String,
    sum: Sum,
    /// It is packed with gzip, and what is in it is what the catalogue takes.
    packed: bool,
    accepted: Accepted,
    signer: String,
}

/// Where the installer's images lie below a suite, and the one that is taken.
const INSTALLER: &str = "main/installer-amd64/current/images";
const NETBOOT: &str = "netboot/netboot.tar.gz";

impl Job {
    pub(super) async fn run(self) -> Result<End, String> {
        let offer = self.offer().await?;
        let upkeep = self.images.upkeep(&self.old.name);
        let before = upkeep.refreshed;
        let known = before.as_ref().map(|before| Accepted {
            date: before.date,
            text: before.text.to_string(),
        });
        let from = self.upstream.asked();
        let advice = "ask another mirror, or say anew where it is had from if this is right";
        let follows = offer.accepted.follows(known.as_ref());
        follows.map_err(|error| format!("{from}: {error}; {advice}"))?;
        let as_listed =
            before.is_some_and(|before| before.listed == offer.sum.to_string() && before.became == self.old.sha256);
        if as_listed || self.is_here(&offer).await? {
            self.note(&offer, self.old.sha256).await?;
            return Ok(End::Current(format!(
                "{} is what {from} offers: {}",
                self.old.name, offer.file
            )));
        }
        let new = self.take(&offer).await?;
        self.note(&offer, new).await?;
        let name = &self.old.name;
        if new == self.old.sha256 {
            return Ok(End::Current(format!("{name} is what {from} offers: {}", offer.file)));
        }
        Ok(End::Replaced(format!(
            "{name} is {} now, SHA-256 {new}, signed by {}; runs that have begun end with the one before",
            offer.file, offer.signer
        )))
    }

    /// What the publisher offers, proven.
    async fn offer(&self) -> Result<Offer, String> {
        match &self.upstream {
            Upstream::Sums {
                sums, signature, file, ..
            } => {
                let list = self.text(sums, MAX_TEXT).await?;
                let (signed, at) = match signature {
                    Some(at) => {
                        let signature = self.text(at, MAX_SIGNATURE).await?;
                        (self.proven(at, list, Some(signature)).await?, at)
                    }
                    None => (self.proven(sums, list, None).await?, sums),
                };
                let accepted = accepted(signed.time, &signed.text);
                let (file, sum) = find(sums, &signed.text, file)?;
                let folder = sums.rsplit_once('/').map_or(sums.as_str(), |(folder, _)| folder);
                tracing::info!(image = self.old.name, %at, signer = signed.signer, "a list of digests is signed well");
                Ok(Offer {
                    url: format!("{folder}/{file}"),
                    file,
                    sum,
                    packed: false,
                    accepted,
                    signer: signed.signer,
                })
            }
            Upstream::DebianInstaller { archive, suite, .. } => self.installer(archive, suite).await,
        }
    }

    /// From `InRelease` to the list of the installer's images to the archive that boots it.
    async fn installer(&self, archive: &str, suite: &str) -> Result<Offer, String> {
        let suite_at = format!("{}/dists/{suite}", archive.trim_end_matches('/'));
        let at = format!("{suite_at}/InRelease");
        let signed = self.proven(&at, self.text(&at, MAX_TEXT).await?, None).await?;
        let wrong = |error: rackbar_upstream::ReleaseError| format!("{at}: {error}");
        let release = Release::read(&signed.text).map_err(wrong)?;
        release.judge(suite, seconds()).map_err(wrong)?;
        let path = format!("{INSTALLER}/SHA256SUMS");
        let (bytes, sum) = release.file(&path).map_err(wrong)?;
        let list_at = format!("{suite_at}/{path}");
        let list = self.text(&list_at, MAX_TEXT).await?;
        let found = Sum::Sha256(sha256(&list));
        if found != sum || list.len() as u64 != bytes {
            return Err(format!(
                "{list_at}: its SHA-256 is {found}, and {at} says {sum}; the mirror is being changed right now, or is not \
                 whole: try again later, or ask another mirror"
            ));
        }
        let list = String::from_utf8(list).map_err(|_| format!("{list_at}: it is no UTF-8 text"))?;
        let (file, sum) = find(&list_at, &list, NETBOOT)?;
        Ok(Offer {
            url: format!("{suite_at}/{INSTALLER}/{file}"),
            file: format!("{suite}'s installer of {archive}"),
            sum,
            packed: true,
            accepted: accepted(release.date, &signed.text),
            signer: signed.signer,
        })
    }

    /// The signed text, when a trusted key signed it. Signatures take a while to verify, so that is done beside.
    async fn proven(&self, at: &str, text: Vec<u8>, signature: Option<Vec<u8>>) -> Result<Signed, String> {
        let keys = self.upstream.keys().to_owned();
        let judged = blocking(move || {
            let keys = Keyring::read(keys.as_bytes()).map_err(|error| format!("the keys: {error}"))?;
            let judged = match signature {
                Some(signature) => detached(&text, &signature, &keys, seconds()),
                None => cleartext(&text, &keys, seconds()),
            };
            judged.map_err(|error| error.to_string())
        });
        let advice = "if the publisher has a new key, say anew where it is had from, with that key";
        judged.await.map_err(|error| format!("{at}: {error}; {advice}"))
    }

    async fn text(&self, at: &str, most: usize) -> Result<Vec<u8>, String> {
        self.all.note(&self.old.name, |job| job.words = format!("asking {at}"));
        let whole = async { self.origins.get(at).await?.whole(most).await };
        whole.await.map_err(|error| told(at, &error))
    }

    /// Whether the entry is the file that is offered.
    async fn is_here(&self, offer: &Offer) -> Result<bool, String> {
        match offer.sum {
            _ if offer.packed => Ok(false),
            Sum::Sha256(sum) => Ok(Digest(sum) == self.old.sha256),
            Sum::Sha512(_) => {
                let (images, name, offered) = (self.images.clone(), self.old.name.clone(), offer.sum);
                let hashed = blocking(move || {
                    let (_, file, _) = images
                        .source(&name)
                        .map_err(|error| format!("reading {name}: {error}"))?;
                    let mut hash = Hashing(Summing::like(&offered));
                    std::io::copy(&mut &*file, &mut hash).map_err(|error| format!("reading {name}: {error}"))?;
                    Ok(hash.0.finish())
                });
                Ok(hashed.await? == offered)
            }
        }
    }

    /// Fetches the file and puts it in the entry's place; gives the new entry's SHA-256.
    async fn take(&self, offer: &Offer) -> Result<Digest, String> {
        let url = &offer.url;
        let mut coming = self.origins.get(url).await.map_err(|error| told(url, &error))?;
        let total = coming.length;
        self.all.note(&self.old.name, |job| {
            job.state = RefreshState::Fetching;
            job.words = format!("fetching {url}");
            job.total = total;
        });
        let old = &self.old;
        let meta = ImageMeta {
            name: old.name.clone(),
            format: None,
            arch: old.arch.clone(),
            source: old.source.clone(),
            licence: old.licence.clone(),
            user: old.user.clone(),
        };
        let (images, packed, sum) = (self.images.clone(), offer.packed, offer.sum);
        let begun = blocking(move || {
            images
                .begin(meta)
                .map(|upload| Taking::new(upload, packed, sum))
                .map_err(words)
        });
        let mut taking = begun.await?;
        while let Some(piece) = coming.piece().await.map_err(|error| told(url, &error))? {
            let bytes = piece.len() as u64;
            taking = blocking(move || taking.write(&piece).map(|()| taking))
                .await
                .map_err(|error| format!("{url}: {error}"))?;
            self.all
                .note(&old.name, |job| job.bytes = job.bytes.saturating_add(bytes));
        }
        self.all.note(&old.name, |job| {
            job.state = RefreshState::Checking;
            job.words = format!("looking at what {url} gave");
        });
        let (old, used) = (old.clone(), self.all.executor.images_in_use());
        let done = blocking(move || {
            let upload = taking.finish()?;
            upload
                .replace(None, &old, &used)
                .map(|entry| entry.sha256)
                .map_err(words)
        });
        done.await.map_err(|error| format!("{url}: {error}"))
    }

    /// Keeps what was accepted, so that nothing older is after it.
    async fn note(&self, offer: &Offer, became: Digest) -> Result<(), String> {
        let (images, name) = (self.images.clone(), self.old.name.clone());
        let text = offer
            .accepted
            .text
            .parse()
            .map_err(|_| "a digest of ours is none".to_owned())?;
        let refreshed = Refreshed {
            checked: now(),
            signer: offer.signer.clone(),
            date: offer.accepted.date,
            text,
            file: offer.file.clone(),
            listed: offer.sum.to_string(),
            became,
        };
        blocking(move || images.note_refreshed(&name, refreshed).map_err(words)).await
    }
}

/// A file on its way into the catalogue: hashed as it comes, unpacked when it is packed.
struct Taking {
    to: To,
    hash: Summing,
    sum: Sum,
}

enum To {
    Plain(Box<Sink>),
    Packed(Box<GzDecoder<Sink>>),
}

/// The upload as something to write to; the catalogue's own error is kept, which says more than an `io::Error`.
struct Sink {
    upload: Upload,
    error: Option<ImageError>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.upload.write(bytes).map_err(|error| {
            self.error = Some(error);
            std::io::Error::other("the catalogue does not take it")
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Taking {
    fn new(upload: Upload, packed: bool, sum: Sum) -> Self {
        let sink = Sink { upload, error: None };
        Self {
            to: match packed {
                true => To::Packed(Box::new(GzDecoder::new(sink))),
                false => To::Plain(Box::new(sink)),
            },
            hash: Summing::like(&sum),
            sum,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.hash.update(bytes);
        let (written, sink) = match &mut self.to {
            To::Plain(sink) => (sink.write_all(bytes), &mut **sink),
            To::Packed(packed) => (packed.write_all(bytes), packed.get_mut()),
        };
        written.map_err(|error| {
            sink.error
                .take()
                .map_or_else(|| format!("it cannot be unpacked: {error}"), words)
        })
    }

    /// The upload, when the file is the one that was promised.
    fn finish(self) -> Result<Upload, String> {
        let found = self.hash.finish();
        if found != self.sum {
            return Err(format!(
                "its digest is {found}, and the signed list says {}; the mirror is not whole, or somebody changed the file: try \
                 again later, or ask another mirror",
                self.sum
            ));
        }
        match self.to {
            To::Plain(sink) => Ok(sink.upload),
            To::Packed(packed) => {
                let sink = packed
                    .finish()
                    .map_err(|error| format!("it cannot be unpacked: {error}"))?;
                Ok(sink.upload)
            }
        }
    }
}

struct Hashing(Summing);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn find(at: &str, text: &str, file: &str) -> Result<(String, Sum), String> {
    let sums = Sums::read(text).map_err(|error| format!("{at}: {error}"))?;
    let found = sums.find(file).map(|(name, sum)| (name.to_owned(), sum));
    found.map_err(|error| format!("{at}: {error}; look there for the file's name, and say anew where it is had from"))
}

fn accepted(date: u64, text: &str) -> Accepted {
    let text = Digest(sha256(text.as_bytes())).to_string();
    Accepted { date, text }
}

fn told(at: &str, error: &GetError) -> String {
    let advice = match error {
        GetError::Url | GetError::Redirect { .. } | GetError::Large(_) => "say anew where it is had from",
        GetError::Status(_) => "look whether it is still there, and say anew where it is had from if not",
        _ => "look at the uplink and at the name servers, or try again later",
    };
    format!("{at}: {error}; {advice}")
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the end of an error is what `map_err` gives it to"
)]
fn words(error: ImageError) -> String {
    error.to_string()
}

/// Does what waits for a disk or a processor on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
}
