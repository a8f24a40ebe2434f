//! Images that lie in data packs: served from where they lie, and neither written, counted nor removed here.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rackbar_model::ImageEntry;

use super::{Images, Shared, State};

/// An image in a data pack.
#[derive(Clone, Debug)]
pub struct PackedImage {
    /// What is said of it.
    pub entry: Arc<ImageEntry>,
    /// The pack.
    pub file: Arc<File>,
    /// Where the pack lies, for people.
    pub path: PathBuf,
    /// Where in the pack the image begins.
    pub offset: u64,
}

impl State {
    /// The image of this name in a pack, with the pack's name.
    pub(super) fn packed(&self, name: &str) -> Option<(&str, &PackedImage)> {
        let all = self.mounted.iter();
        let mut all = all.flat_map(|(pack, images)| images.iter().map(move |image| (pack.as_str(), image)));
        all.find(|(_, image)| image.entry.name == name)
    }

    /// All images in packs.
    pub(super) fn packs(&self) -> impl Iterator<Item = &PackedImage> {
        self.mounted.values().flatten()
    }
}

impl Shared {
    pub(super) fn serve_packed(&self, image: &PackedImage) -> io::Result<()> {
        self.serve_at(&image.entry, &image.file, &image.path, image.offset)
    }
}

impl Images {
    /// Puts the images of a pack into the catalogue, in place of what a pack of this name had before. An image of our own
    /// with the same name comes before one in a pack.
    ///
    /// # Errors
    /// When the pack cannot be read; nothing of it is in the catalogue then.
    pub fn mount(&self, pack: &str, images: Vec<PackedImage>) -> io::Result<()> {
        self.unmount(pack);
        let mut state = self.shared.state();
        let served = images.iter().try_for_each(|image| {
            // Our own copy of the same content is as good, and its disk the faster one.
            let own = state.entries.values().any(|entry| entry.sha256 == image.entry.sha256);
            if own { Ok(()) } else { self.shared.serve_packed(image) }
        });
        if let Err(error) = served {
            for image in &images {
                self.shared.withdraw(&state, &image.entry);
            }
            return Err(error);
        }
        state.mounted.insert(pack.to_owned(), images);
        Ok(())
    }

    /// Takes the images of a pack out of the catalogue. A transfer under way still finishes.
    pub fn unmount(&self, pack: &str) {
        let mut state = self.shared.state();
        for image in state.mounted.remove(pack).unwrap_or_default() {
            self.shared.withdraw(&state, &image.entry);
        }
    }

    /// The pack that the image of this name lies in; `None` for one of our own.
    pub fn pack_of(&self, name: &str) -> Option<String> {
        let state = self.shared.state();
        let own = state.entries.contains_key(name);
        state.packed(name).filter(|_| !own).map(|(pack, _)| pack.to_owned())
    }

    /// Where the bytes of an image can be read: the file, and where in it they begin.
    ///
    /// # Errors
    /// When there is no such image, or its file cannot be opened.
    pub fn source(&self, name: &str) -> io::Result<(Arc<ImageEntry>, Arc<File>, u64)> {
        let state = self.shared.state();
        if let Some(entry) = state.entries.get(name) {
            let file = File::open(self.shared.data_of(entry))?;
            return Ok((entry.clone(), Arc::new(file), 0));
        }
        let (_, image) = state.packed(name).ok_or(io::ErrorKind::NotFound)?;
        Ok((image.entry.clone(), image.file.clone(), image.offset))
    }
}
