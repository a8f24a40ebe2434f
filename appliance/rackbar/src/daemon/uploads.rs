//! Images and programs on their way in.

use std::sync::Arc;

use std::time::Duration;

use futures_util::StreamExt as _;
use rackbar_artifacts::Programs;
use rackbar_artifacts::images::{ImageMeta, Images, Upkeep};
use rackbar_artifacts::programs::LARGEST;
use rackbar_control::operations::{
    Body, CatalogueEntry, ImageStanding, NewImage, NewProgram, PutProgram, Refused, RetiredImage,
};
use rackbar_model::{Digest, ImageEntry};
use rackbar_orchestrator::executor::Executor;

use super::offline::Archives;
use super::refusals::{of_image, of_program};

/// Bytes that are read on behind a refusal: what somebody may have taken for a program. A connection that is closed on a
/// sender loses the words of the refusal, and one who sends on for ever does not listen for them.
const HEARD_OUT: u64 = 2 * LARGEST;

/// Time for that.
const HEARING: Duration = Duration::from_secs(20);

/// What can be installed, what of it lies in a data pack, and what needs the uplink as far as that is known.
pub(super) fn catalogue(images: &Images, archives: &Archives) -> Vec<CatalogueEntry> {
    let mut retired = images.retired();
    let entry = |entry: Arc<ImageEntry>| {
        // What is kept of an entry of ours is not said of one in a pack with its name.
        let pack = images.pack_of(&entry.name);
        let upkeep = match pack {
            None => images.upkeep(&entry.name),
            Some(_) => Upkeep::default(),
        };
        let (offline, offline_lacks) = archives.judge(&entry);
        CatalogueEntry {
            offline,
            offline_lacks,
            retired: retired.remove(&entry.name).map(|retired| RetiredImage {
                since: retired.since,
                instead: retired.instead,
            }),
            pack,
            upstream: upkeep.upstream,
            refreshed: upkeep.refreshed,
            pinned: upkeep.pinned,
            image: (*entry).clone(),
        }
    };
    images.list().into_iter().map(entry).collect()
}

/// Retires an image or takes that back; gives what was done, in words.
pub(super) fn stand(images: &Images, name: &str, standing: &ImageStanding) -> Result<String, Refused> {
    let refused = |error| of_image(&error);
    match (standing.retired, standing.instead.as_deref()) {
        (true, instead) => {
            images.retire(name, instead).map_err(refused)?;
            let place = instead.map_or_else(String::new, |instead| format!(", and {instead} takes its place"));
            Ok(format!(
                "{name} is retired: no new plan takes it{place}; runs that have begun go on, and machines that have it keep it"
            ))
        }
        (false, Some(_)) => {
            let words = "an image that is not retired needs none in its place: leave out `instead`";
            Err(Refused::Invalid(words.to_owned()))
        }
        (false, None) => {
            images.reinstate(name).map_err(refused)?;
            Ok(format!("{name} is taken by new plans again"))
        }
    }
}

/// What arrives piece by piece: an image or a program.
trait Upload: Send + Sized + 'static {
    /// What it is when it is whole.
    type Whole: Send + 'static;
    fn write(&mut self, piece: &[u8]) -> Result<(), Refused>;
    fn finish(self, sha256: Option<Digest>) -> Result<Self::Whole, Refused>;
}

impl Upload for rackbar_artifacts::images::Upload {
    type Whole = ImageEntry;

    fn write(&mut self, piece: &[u8]) -> Result<(), Refused> {
        Self::write(self, piece).map_err(|error| of_image(&error))
    }

    fn finish(self, sha256: Option<Digest>) -> Result<ImageEntry, Refused> {
        let entry = Self::finish(self, sha256).map_err(|error| of_image(&error))?;
        Ok((*entry).clone())
    }
}

impl Upload for rackbar_artifacts::programs::Upload {
    type Whole = PutProgram;

    fn write(&mut self, piece: &[u8]) -> Result<(), Refused> {
        Self::write(self, piece).map_err(|error| of_program(&error))
    }

    fn finish(self, sha256: Option<Digest>) -> Result<PutProgram, Refused> {
        let placed = Self::finish(self, sha256).map_err(|error| of_program(&error))?;
        Ok(PutProgram {
            entry: (*placed.entry).clone(),
            before: placed.before.map(|before| (*before).clone()),
        })
    }
}

/// Does what may wait for the disk.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refused> + Send + 'static) -> Result<T, Refused> {
    let joined = |error: tokio::task::JoinError| Refused::Internal(error.to_string());
    tokio::task::spawn_blocking(work).await.map_err(joined)?
}

/// Takes an upload in. Pieces wait for the disk one by one, so that a fast sender costs no memory. After a refusal the
/// sender is heard out, within bounds.
async fn receive<U: Upload>(
    begin: impl FnOnce() -> Result<U, Refused> + Send + 'static,
    sha256: Option<Digest>,
    mut body: Body,
) -> Result<U::Whole, Refused> {
    let arrived = pieces(begin, &mut body).await;
    match arrived {
        Ok(upload) => apart(move || upload.finish(sha256)).await,
        Err(refused) => {
            let rest = async {
                let mut bytes = 0u64;
                while let Some(Ok(piece)) = body.next().await
                    && bytes <= HEARD_OUT
                {
                    bytes = bytes.saturating_add(piece.len() as u64);
                }
            };
            // Whoever is slower than this hears what the connection's end lets through.
            let _ = tokio::time::timeout(HEARING, rest).await;
            Err(refused)
        }
    }
}

async fn pieces<U: Upload>(
    begin: impl FnOnce() -> Result<U, Refused> + Send + 'static,
    body: &mut Body,
) -> Result<U, Refused> {
    let mut upload = apart(begin).await?;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| Refused::Invalid(format!("the upload broke off: {error}")))?;
        upload = apart(move || upload.write(&piece).map(|()| upload)).await?;
    }
    Ok(upload)
}

/// Takes an image into the catalogue.
pub(super) async fn take_in(images: Arc<Images>, image: NewImage) -> Result<ImageEntry, Refused> {
    let NewImage {
        name,
        facts,
        sha256,
        body,
        ..
    } = image;
    let meta = ImageMeta {
        name,
        format: facts.format,
        arch: facts.arch.unwrap_or_default(),
        source: facts.source.unwrap_or_default(),
        licence: facts.licence.unwrap_or_default(),
        user: facts.user.unwrap_or_default(),
    };
    let begin = move || images.begin(meta).map_err(|error| of_image(&error));
    receive(begin, sha256, body).await
}

/// Takes a program in. What had its name before goes, unless a run that has not ended is to run it.
pub(super) async fn take_in_program(
    programs: Programs,
    executor: Executor,
    program: NewProgram,
) -> Result<PutProgram, Refused> {
    let NewProgram { name, sha256, body } = program;
    let store = programs.clone();
    let begin = move || store.begin(&name).map_err(|error| of_program(&error));
    let placed = receive(begin, sha256, body).await?;
    apart(move || {
        programs.sweep(&executor.programs_in_use());
        Ok(placed)
    })
    .await
}
