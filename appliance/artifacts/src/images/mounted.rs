//! Images that lie in data packs: served from where they lie, and neither written, counted nor removed here.
//!
//! What a pack says of an image says nothing of installers: those are found in their content, as when they were put into the
//! catalogue they came from. Of a disk image every byte is compared when it is written to a disk, but an installer's parts are
//! served one by one. So its content is read through before any of it is, a large one beside everything else.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rackbar_model::{ImageEntry, ImageFormat};

use super::detect::DetectError;
use super::{Images, Shared, State, Window, installer};
use crate::keep;

/// A larger installer is read through beside everything else: whoever waits for the pack does not wait for that.
const LARGE: u64 = if cfg!(test) { 1 << 20 } else { 256 << 20 };

/// Hears what is wrong with an image of a pack, in a sentence.
pub type Complaint = Arc<dyn Fn(String) + Send + Sync>;

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

/// What an image of a pack turned out to be.
enum Looked {
    /// A disk image, as it was said.
    Plain(PackedImage),
    /// An installer, or what looks like a broken one: its content is still to be read through.
    Unproven(PackedImage),
}

impl PackedImage {
    fn window(&self) -> Window<'_> {
        Window::of(&self.file, self.offset, self.entry.bytes)
    }

    /// Looks whether it is an installer.
    fn looked_at(mut self) -> io::Result<Looked> {
        if self.entry.format != ImageFormat::Raw {
            return Ok(Looked::Plain(self));
        }
        let found = match installer::find(&self.window()) {
            Ok(None) => return Ok(Looked::Plain(self)),
            Ok(found) => found,
            Err(DetectError::Read(error)) => return Err(error),
            // What is whole and yet no installer for us was taken as a disk image where it came from.
            Err(_) => None,
        };
        Arc::make_mut(&mut self.entry).installer = found;
        Ok(Looked::Unproven(self))
    }

    /// Whether its content is what the pack says; `None` when asked to stop.
    fn whole(&self, stop: impl Fn() -> bool) -> Option<Result<(), String>> {
        let name = &self.entry.name;
        let wrong = |why: String| {
            let path = self.path.display();
            Err(format!("the installer {name} in {path} is not used: {why}"))
        };
        match keep::digest_of(self.window(), stop) {
            Ok(None) => None,
            Ok(Some(found)) if found == self.entry.sha256 => Some(Ok(())),
            Ok(Some(found)) => Some(wrong(format!(
                "it is damaged, its SHA-256 is {found} and should be {}; copy the pack anew",
                self.entry.sha256
            ))),
            Err(error) => Some(wrong(format!("it cannot be read ({error})"))),
        }
    }
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
    /// with the same name comes before one in a pack. Installers are read through first; one that is damaged is left out, and a
    /// large one follows later, once it was. `complaint` hears of what is left out.
    ///
    /// # Errors
    /// When the pack cannot be read; nothing of it is in the catalogue then.
    pub fn mount(&self, pack: &str, images: Vec<PackedImage>, complaint: &Complaint) -> io::Result<()> {
        self.unmount(pack);
        let (mut ready, mut late) = (Vec::new(), Vec::new());
        for image in images {
            match image.looked_at()? {
                Looked::Plain(image) => ready.push(image),
                Looked::Unproven(image) if image.entry.bytes > LARGE => late.push(image),
                Looked::Unproven(image) => match image.whole(|| false) {
                    Some(Err(why)) => complaint(why),
                    _ => ready.push(image),
                },
            }
        }
        self.mount_now(pack, ready)?;
        self.mount_later(pack, late, complaint)
    }

    fn mount_now(&self, pack: &str, images: Vec<PackedImage>) -> io::Result<()> {
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

    /// Reads large installers through, one after the other, and puts each into the catalogue that is whole and whose pack is
    /// still there.
    fn mount_later(&self, pack: &str, images: Vec<PackedImage>, complaint: &Complaint) -> io::Result<()> {
        let Some(file) = images.first().map(|image| image.file.clone()) else {
            return Ok(());
        };
        self.shared.state().reading.push((pack.to_owned(), file.clone()));
        let (shared, pack, complaint) = (Arc::clone(&self.shared), pack.to_owned(), complaint.clone());
        let read = move || {
            let wanted = |state: &State| {
                let mut reading = state.reading.iter();
                reading.any(|(name, of)| *name == pack && Arc::ptr_eq(of, &file))
            };
            for image in images {
                let stop = || shared.stop.load(Ordering::Relaxed) || !wanted(&shared.state());
                let whole = match image.whole(stop) {
                    None => return,
                    Some(whole) => whole,
                };
                let mut state = shared.state();
                if !wanted(&state) {
                    return;
                }
                let served = whole.and_then(|()| shared.serve_packed(&image).map_err(|error| error.to_string()));
                match served {
                    Ok(()) => state.mounted.entry(pack.clone()).or_default().push(image),
                    Err(why) => complaint(why),
                }
            }
        };
        let started = std::thread::Builder::new().name("pack-check".into()).spawn(read);
        started.map(drop)
    }

    /// Takes the images of a pack out of the catalogue. A transfer under way still finishes.
    pub fn unmount(&self, pack: &str) {
        let mut state = self.shared.state();
        state.reading.retain(|(name, _)| name != pack);
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
