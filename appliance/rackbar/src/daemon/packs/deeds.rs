//! What is done with data packs on request: made, taken in, read through, given out, removed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use nix::sys::statvfs::statvfs;
use rackbar_control::operations::{Body, NewPack, PackEntry, PackFile, PackOrder, PackPick, PackState, Refused};
use rackbar_model::Digest;
use rackbar_packs::{Answer, Content, Draft, DraftAnswer, DraftImage, Intake, Pack, PackError, PackImage, check_name};
use rackbar_proxy::store::{Object, Place};
use rackbar_proxy::{Pick, Picked};

use super::{Known, Packs, Shared};
use crate::daemon::keep::now;

/// Left free beside a pack, so that the journal never meets a full disk because of one.
const MARGIN: u64 = 64 << 20;

/// For so long the rest of a pack that was refused is heard out.
const HEAR_OUT: Duration = Duration::from_secs(10);

/// Bytes given out at once.
const PIECE: u64 = 256 << 10;

/// Removes what a broken upload or a power cut left.
pub(super) fn clear(own: &Path) {
    for entry in std::fs::read_dir(own).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "part") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn invalid(error: PackError) -> Refused {
    Refused::Invalid(error.to_string())
}

/// A pack on its way to its place. Dropped before that, nothing is left of it.
struct Part {
    file: File,
    path: PathBuf,
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Part {
    /// Makes it durable and gives it its name.
    fn place(self, at: &Path) -> std::io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, at)?;
        at.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

impl Shared {
    fn begin(&self, name: &str) -> Result<Part, Refused> {
        let internal = |error: std::io::Error| Refused::Internal(format!("{}: {error}", self.own.display()));
        std::fs::create_dir_all(&self.own).map_err(internal)?;
        let number = {
            let mut state = self.state();
            state.serial += 1;
            state.serial
        };
        let path = self.own.join(format!("{name}.{number}.part"));
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(internal)?;
        Ok(Part { file, path })
    }

    /// Refuses a pack of so many bytes when there is no room for it.
    fn room(&self, bytes: u64) -> Result<(), Refused> {
        let free = statvfs(&self.own).map_or(u64::MAX, |fs| fs.blocks_available().saturating_mul(fs.fragment_size()));
        if bytes.saturating_add(MARGIN) <= free {
            return Ok(());
        }
        Err(Refused::Conflict(format!(
            "a data pack of {} MB does not fit: {} MB are free at {}, and some of that must stay free; remove a pack or an \
             image, or leave the pack on a stick of its own",
            bytes.div_ceil(1_000_000),
            free / 1_000_000,
            self.own.display()
        )))
    }

    fn find(&self, name: &str) -> Result<(Arc<Pack>, bool), Refused> {
        let state = self.state();
        let named = |known: &&Known| known.pack.as_ref().is_ok_and(|pack| pack.index.name == name);
        // The one in use before others of this name.
        let best = state
            .known
            .iter()
            .filter(named)
            .max_by_key(|known| known.hidden.is_none());
        let own = |pack: &Arc<Pack>| pack.path.parent() == Some(self.own.as_path());
        let pack = best.and_then(|known| known.pack.clone().ok());
        let missing = || Refused::NotFound(format!("there is no data pack {name:?}; `rackbar pack list` shows all"));
        pack.map(|pack| (pack.clone(), own(&pack))).ok_or_else(missing)
    }

    /// Refuses to take a pack away from under a run.
    fn free(&self, pack: &Pack) -> Result<(), Refused> {
        let used: HashSet<Digest> = self.executor.images_in_use();
        let digest = |image: &PackImage| pack.index.content(image.content).map(|content| content.sha256);
        let busy = pack
            .index
            .images
            .iter()
            .find(|image| digest(image).is_some_and(|one| used.contains(&one)));
        busy.map_or(Ok(()), |image| {
            let words = format!(
                "a run that has not ended installs {} from it; wait for its end, or cancel it",
                image.name
            );
            Err(Refused::Conflict(words))
        })
    }

    fn entry_at(&self, path: &Path) -> Result<PackEntry, Refused> {
        let mut state = self.state();
        self.look(&mut state, true);
        let known = state.known.iter().find(|known| known.place == path);
        let lost = || Refused::Internal(format!("{} is not there", path.display()));
        known.map(|known| known.entry(&self.own)).ok_or_else(lost)
    }

    fn create(&self, name: &str, note: String, images: &[String], cached: Option<PackPick>) -> Result<String, Refused> {
        check_name(name).map_err(invalid)?;
        if let Ok((pack, _)) = self.find(name) {
            let at = pack.path.display();
            return Err(Refused::Conflict(format!(
                "there is a data pack {name} at {at}; choose another name"
            )));
        }
        let mut contents: HashMap<Digest, Arc<Object>> = HashMap::new();
        let draft = Draft {
            name: name.to_owned(),
            made: now(),
            by: self.site.clone(),
            note,
            images: self.draft_images(images, &mut contents)?,
            answers: cached.map_or(Ok(Vec::new()), |pick| self.draft_answers(pick, &mut contents))?,
        };
        let sealed = draft.seal(&*self.signer).map_err(invalid)?;
        let part = self.begin(name)?;
        self.room(sealed.total)?;
        let open = |digest: &Digest| {
            let object = contents.get(digest).ok_or(std::io::ErrorKind::NotFound)?;
            object.reader().map_err(std::io::Error::other)
        };
        let mut out = BufWriter::with_capacity(1 << 20, &part.file);
        sealed
            .write(&mut out, open)
            .map_err(|error| Refused::Internal(error.to_string()))?;
        drop(out);
        let at = self.own.join(format!("{name}.pack"));
        part.place(&at)
            .map_err(|error| Refused::Internal(format!("{}: {error}", at.display())))?;
        let entry = self.entry_at(&at)?;
        Ok(format!(
            "data pack {name} is made: {}, {} MB",
            super::holds(entry.images.len(), usize::try_from(entry.answers).unwrap_or(usize::MAX)),
            entry.bytes.div_ceil(1_000_000)
        ))
    }

    fn draft_images(
        &self,
        names: &[String],
        contents: &mut HashMap<Digest, Arc<Object>>,
    ) -> Result<Vec<DraftImage>, Refused> {
        let mut out = Vec::new();
        for name in names {
            let unknown = || Refused::NotFound(format!("no image is named {name:?}; `rackbar os list` shows all"));
            let images = self.images.as_ref().ok_or_else(unknown)?;
            let (entry, file, offset) = images.source(name).map_err(|_| unknown())?;
            let content = Content {
                sha256: entry.sha256,
                bytes: entry.bytes,
            };
            let place = Place::Pack { file, offset };
            contents.insert(entry.sha256, Arc::new(Object::new(entry.sha256, entry.bytes, place)));
            let image = PackImage {
                name: entry.name.clone(),
                content: 0,
                format: entry.format,
                disk_bytes: entry.disk_bytes,
                arch: entry.arch.clone(),
                source: entry.source.clone(),
                licence: entry.licence.clone(),
                user: entry.user.clone(),
                added: entry.added,
            };
            out.push(DraftImage { image, content });
        }
        Ok(out)
    }

    fn draft_answers(
        &self,
        pick: PackPick,
        contents: &mut HashMap<Digest, Arc<Object>>,
    ) -> Result<Vec<DraftAnswer>, Refused> {
        let none = "the proxy does not run, so nothing that it stored can go into a pack";
        let (proxy, _) = self.cache.open().ok_or_else(|| Refused::Unavailable(none.into()))?;
        let picked = proxy.pick(&Pick {
            only: pick.only,
            pinned: pick.pinned,
            used_since: pick.used_since.map_or(0, |since| since.0),
        });
        if picked.is_empty() {
            let words = "nothing that the proxy has stored fits; `rackbar cache list` shows what there is";
            return Err(Refused::Invalid(words.into()));
        }
        let draft = |Picked { record, object }: Picked| {
            let content = Content {
                sha256: record.digest,
                bytes: record.size,
            };
            contents.entry(record.digest).or_insert(object);
            let answer = Answer {
                key: record.key,
                selecting: record.selecting,
                status: record.status,
                headers: record.headers,
                request_time: record.request_time,
                response_time: record.response_time,
                content: 0,
            };
            DraftAnswer { answer, content }
        };
        Ok(picked.into_iter().map(draft).collect())
    }

    fn verify(&self, name: &str) -> Result<String, Refused> {
        let (pack, _) = self.find(name)?;
        pack.verify(|_| {})
            .map_err(|error| Refused::Conflict(format!("data pack {name}: {error}")))?;
        let (bytes, contents) = (pack.total, pack.index.contents.len());
        Ok(format!(
            "data pack {name} is whole: {contents} contents, {bytes} bytes, signed by {}",
            pack.key
        ))
    }

    fn remove(&self, name: &str) -> Result<(), Refused> {
        let (pack, own) = self.find(name)?;
        if !own {
            let words = format!(
                "data pack {name} lies at {}, which is not this appliance's to change; take it out there",
                pack.path.display()
            );
            return Err(Refused::Conflict(words));
        }
        self.free(&pack)?;
        let failed = |error| Refused::Internal(format!("{}: {error}", pack.path.display()));
        std::fs::remove_file(&pack.path).map_err(failed)?;
        self.look(&mut self.state(), true);
        Ok(())
    }

    /// Ends taking in: the pack is whole, and gets its place.
    fn taken(&self, name: &str, intake: Intake, part: Part) -> Result<PackEntry, Refused> {
        let checked = intake.finish().map_err(invalid)?;
        if checked.index.name != name {
            let words = format!(
                "this data pack is named {:?}, and was sent as {name:?}",
                checked.index.name
            );
            return Err(Refused::Invalid(words));
        }
        if let Ok((old, true)) = self.find(name) {
            self.free(&old)?;
        }
        let at = self.own.join(format!("{name}.pack"));
        part.place(&at)
            .map_err(|error| Refused::Internal(format!("{}: {error}", at.display())))?;
        self.entry_at(&at)
    }
}

/// Takes the next piece in: checked first, then written.
fn piece(shared: &Shared, intake: &mut Intake, part: &Part, at: u64, bytes: &[u8]) -> Result<(), Refused> {
    let known = intake.total().is_some();
    intake.push(bytes).map_err(invalid)?;
    if let Some(total) = intake.total().filter(|_| !known) {
        shared.room(total)?;
    }
    let written = part.file.write_all_at(bytes, at);
    written.map_err(|error| Refused::Internal(format!("{}: {error}", part.path.display())))
}

async fn waiting<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refused> + Send + 'static) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Refused::Internal(error.to_string())))
}

impl Packs {
    /// All packs, and whose are taken.
    ///
    /// # Errors
    /// None that is known.
    pub(in crate::daemon) async fn all(self) -> Result<PackState, Refused> {
        waiting(move || Ok(self.list())).await
    }

    /// Does what is asked; what was done, in words.
    ///
    /// # Errors
    /// Why it was not.
    pub(in crate::daemon) async fn order(self, order: PackOrder) -> Result<String, Refused> {
        waiting(move || match order {
            PackOrder::Create {
                name,
                note,
                images,
                cached,
            } => self.0.create(&name, note, &images, cached),
            PackOrder::Verify { name } => self.0.verify(&name),
        })
        .await
    }

    /// Removes one that was put in or made here.
    ///
    /// # Errors
    /// When there is none of this name, it lies elsewhere, or a run needs it.
    pub(in crate::daemon) async fn remove(self, name: String) -> Result<(), Refused> {
        waiting(move || self.0.remove(&name)).await
    }

    /// Takes one in, checking it while it comes.
    ///
    /// # Errors
    /// When it is not whole, not of somebody who is trusted, does not fit, or is another one than its name says.
    pub(in crate::daemon) async fn take_in(self, pack: NewPack) -> Result<PackEntry, Refused> {
        let NewPack { name, mut body } = pack;
        check_name(&name).map_err(invalid)?;
        let taken = self.receive(&name, &mut body).await;
        if taken.is_err() {
            // A sender that is cut off in the middle would not read why.
            let rest = async { while let Some(Ok(_)) = body.next().await {} };
            let _ = tokio::time::timeout(HEAR_OUT, rest).await;
        }
        let (intake, part) = taken?;
        waiting(move || self.0.taken(&name, intake, part)).await
    }

    async fn receive(&self, name: &str, body: &mut Body) -> Result<(Intake, Part), Refused> {
        let (shared, begun) = (self.0.clone(), name.to_owned());
        let begin = move || Ok::<_, Refused>((shared.begin(&begun)?, shared.state().trust.clone()));
        let (mut part, trust) = waiting(begin).await?;
        let mut intake = Intake::new(Some(trust));
        let mut at = 0u64;
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| Refused::Invalid(format!("the upload broke off: {error}")))?;
            let shared = self.0.clone();
            let length = bytes.len() as u64;
            (intake, part) = waiting(move || {
                piece(&shared, &mut intake, &part, at, &bytes)?;
                Ok((intake, part))
            })
            .await?;
            at = at.saturating_add(length);
        }
        Ok((intake, part))
    }

    /// Gives one out.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(in crate::daemon) async fn give(self, name: String) -> Result<PackFile, Refused> {
        let (pack, _) = waiting(move || self.0.find(&name)).await?;
        let (bytes, file) = (pack.total, pack.file.clone());
        let pieces = futures_util::stream::unfold(0u64, move |at| {
            let file = file.clone();
            async move {
                let want = bytes.saturating_sub(at).min(PIECE);
                if want == 0 {
                    return None;
                }
                let read = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; usize::try_from(want).unwrap_or(0)];
                    file.read_exact_at(&mut piece, at).map(|()| piece)
                });
                let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                Some((read.map(Into::into), at.saturating_add(want)))
            }
        });
        Ok(PackFile {
            bytes,
            body: Box::pin(pieces),
        })
    }
}
