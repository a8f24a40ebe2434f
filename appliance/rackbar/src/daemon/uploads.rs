//! Images on their way into the catalogue.

use std::sync::Arc;

use futures_util::StreamExt as _;
use rackbar_artifacts::images::{ImageMeta, Images};
use rackbar_control::operations::{CatalogueEntry, ImageStanding, NewImage, Refused, RetiredImage};
use rackbar_model::ImageEntry;

use super::refusals::of_image;

/// What can be installed, and what of it lies in a data pack.
pub(super) fn catalogue(images: &Images) -> Vec<CatalogueEntry> {
    let mut retired = images.retired();
    let entry = |entry: Arc<ImageEntry>| CatalogueEntry {
        retired: retired.remove(&entry.name).map(|retired| RetiredImage {
            since: retired.since,
            instead: retired.instead,
        }),
        pack: images.pack_of(&entry.name),
        image: (*entry).clone(),
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

/// Takes an image in. Pieces wait for the disk one by one, so that a fast sender costs no memory.
pub(super) async fn take_in(images: Arc<Images>, image: NewImage) -> Result<ImageEntry, Refused> {
    let NewImage {
        name,
        facts,
        sha256,
        mut body,
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
    let joined = |error: tokio::task::JoinError| Refused::Internal(error.to_string());
    let begun = tokio::task::spawn_blocking(move || images.begin(meta))
        .await
        .map_err(joined)?;
    let mut upload = begun.map_err(|error| of_image(&error))?;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| Refused::Invalid(format!("the upload broke off: {error}")))?;
        let written = tokio::task::spawn_blocking(move || upload.write(&piece).map(|()| upload));
        upload = written.await.map_err(joined)?.map_err(|error| of_image(&error))?;
    }
    let finished = tokio::task::spawn_blocking(move || upload.finish(sha256))
        .await
        .map_err(joined)?;
    finished.map(|entry| (*entry).clone()).map_err(|error| of_image(&error))
}
