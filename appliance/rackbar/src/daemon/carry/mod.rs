//! The state on its way out and in: with the users' programs, images, data packs and what the proxy stored, read and written
//! while it goes over the wire.
//!
//! What comes in is written to a folder of its own beside the state, and nothing is changed before all of it was found
//! right. Then a file in that folder says so, the daemon starts anew, and its first deed is to move things to their places
//! ([`take_over`]): renames alone, which are done again from where they were when the power fails among them.

mod along;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rackbar_artifacts::carry::{self, IMAGES, PROGRAMS};
use rackbar_control::operations::{Body, ExportParts, Refused, count};
use rackbar_model::{EventKind, Severity};
use rackbar_proxy::store::carry as stored;
use rackbar_store::{Attached, Attachments, ExportInfo, LockState, Outgoing, Store, StoreError};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::keep::{IMPORTED, Imported, Keep, now, refused};
use super::packs::FOLDER as PACKS;
use super::setup::STORE;

pub(super) use along::Along;
use stored::CACHE;

/// The folder in which a state file is unpacked.
const STAGED: &str = "import";

/// The file there that says that all has come, and by whom.
const READY: &str = "ready.json";

/// Bytes of a piece that goes over the wire, and how many pieces wait for it at most.
const PIECE: usize = 256 << 10;
const WAITING: usize = 4;

/// So often the disk is made to keep up: a page cache full of one image would stall the journal's commits.
const SYNC_EVERY: u64 = 32 << 20;

/// So long the rest of a file that was refused is heard out, so that its sender is still there to hear why.
const HEARING: Duration = Duration::from_secs(30);

/// Folders of a state file beside the store, in the order in which they are put in their places.
const FOLDERS: [&str; 4] = [PROGRAMS, IMAGES, PACKS, CACHE];

/// Held while a state file comes in, or the lock of the secrets is changed: one at a time.
pub(super) type Importing = Arc<Mutex<()>>;

/// Gives what is written to whoever reads the answer, and waits for them.
struct Wire {
    to: Sender<Result<Bytes, Refused>>,
    gathered: Vec<u8>,
}

impl Wire {
    fn send(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE));
        let sent = self.to.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "whoever asked for it has gone"))
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// The state as one file, made while it is read. What is wrong at the beginning is a refusal; later it breaks the file off.
pub(super) async fn export(keep: Keep, along: Along, passphrase: String, parts: ExportParts) -> Result<Body, Refused> {
    let (to, mut from) = channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let write = || {
            let along::Files { all, held } = along.files(&keep.folder, parts)?;
            let files = all.into_iter().map(|carried| Outgoing {
                file: Attached {
                    name: carried.name,
                    bytes: carried.bytes,
                    sha256: carried.sha256,
                },
                content: carried.content,
            });
            let mut wire = Wire {
                to: to.clone(),
                gathered: Vec::new(),
            };
            let version = env!("CARGO_PKG_VERSION");
            let written = keep
                .store
                .export(&mut wire, &passphrase, version, now(), files.collect());
            drop(held);
            written.map_err(refused)
        };
        if let Err(refused) = write() {
            tracing::error!(%refused, "the state was not saved");
            // Whoever asked may have gone, which is then the reason.
            let _ = to.blocking_send(Err(refused));
        }
    });
    let first = from.recv().await;
    let first = first.unwrap_or_else(|| Err(Refused::Internal("the export ended before it began".into())))?;
    let rest = stream::unfold(from, |mut from| async {
        let piece = from.recv().await?;
        Some((piece.map_err(io::Error::other), from))
    });
    Ok(Box::pin(stream::iter([Ok(first)]).chain(rest)))
}

/// Reads what comes over the wire. One that breaks off is a file that ends too early.
struct Coming {
    from: Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Coming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(into.len());
        let taken = self.piece.split_to(count);
        into.iter_mut().zip(taken.iter()).for_each(|(to, byte)| *to = *byte);
        Ok(count)
    }
}

/// Puts a state file in the place of the state, with what came along, and asks for the new start.
pub(super) async fn import(keep: Keep, mut body: Body, passphrase: String, by: String) -> Result<String, Refused> {
    let (to, from) = channel(WAITING);
    let work = tokio::task::spawn_blocking(move || {
        let mut coming = Coming {
            from,
            piece: Bytes::new(),
        };
        take_in(&keep, &mut coming, &passphrase, &by)
    });
    // What cannot be read any more ends the file here: the reader finds it cut.
    while let Some(Ok(piece)) = body.next().await {
        if to.send(piece).await.is_err() {
            break;
        }
    }
    drop(to);
    let done = work
        .await
        .unwrap_or_else(|error| Err(Refused::Internal(error.to_string())));
    if done.is_err() {
        // The refusal goes out at once, and is lost on a sender whose connection is closed meanwhile.
        let rest = async move { while let Some(Ok(_)) = body.next().await {} };
        tokio::spawn(tokio::time::timeout(HEARING, rest));
    }
    done
}

fn take_in(keep: &Keep, coming: &mut dyn Read, passphrase: &str, by: &str) -> Result<String, Refused> {
    if keep.store.lock_state() == LockState::Memory {
        let words = "this appliance works from memory, so a state that is put in would be lost at once: give it a disk \
                     first (`rackbar storage use`)";
        return Err(Refused::Conflict(words.into()));
    }
    let _alone = hold(keep)?;
    let staged = keep.folder.join(STAGED);
    let mut staging = Staging::begin(&keep.folder).map_err(refused)?;
    let store = keep.folder.join(STORE);
    let info = Store::stage(&store, &staged.join(STORE), coming, passphrase, &mut staging).map_err(refused)?;
    let taken = in_words(&info, &before(&store));
    let word = Imported {
        by: by.to_owned(),
        taken: taken.clone(),
    };
    staging.ready(&word).map_err(refused)?;
    keep.restart.notify_one();
    Ok(taken)
}

/// Has the key file stay what it is while this is held: a state that comes in is sealed with the key in the file beside the
/// store that counts now, and a change of that store's lock makes or removes the file. So neither is begun while the other is
/// under way, nor while a state waits to be moved to its place.
pub(super) fn hold(keep: &Keep) -> Result<MutexGuard<'_, ()>, Refused> {
    let held = match keep.importing.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let words = "a state file is being put in, or the lock of the secrets is being changed; wait for its end, then try \
                         again";
            return Err(Refused::Conflict(words.into()));
        }
        // It guards a folder that is made anew.
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Ok(held) => held,
    };
    if keep.folder.join(STAGED).join(READY).exists() {
        let words = "a state file was put in, and the appliance starts anew with it; try again after that";
        return Err(Refused::Conflict(words.into()));
    }
    Ok(held)
}

fn before(store: &Path) -> PathBuf {
    store.with_extension("before-import")
}

fn in_words(info: &ExportInfo, before: &Path) -> String {
    let of = |ending: &str| info.files.iter().filter(|file| file.name.ends_with(ending)).count();
    format!(
        "the state that Rackbar {} saved at {} is taken, with {}, {}, {} and {} of the proxy, and the appliance starts anew \
         with it; what was there before is kept as {}; programs, images, data packs and stored answers that were here stay \
         where none of the same name came; runs that were open when it was saved are ended and not gone on with: plan again",
        info.appliance,
        info.at,
        count(of(".program"), "program", "programs"),
        count(of(".image"), "image", "images"),
        count(of(".pack"), "data pack", "data packs"),
        count(of(".object"), "stored content", "stored contents"),
        before.display()
    )
}

/// A state file that is being unpacked. Dropping it removes what was written, unless all of it had come.
struct Staging {
    folder: PathBuf,
    /// The file that comes, and its bytes that the disk was not yet asked to keep.
    open: Option<(File, u64)>,
    whole: bool,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |error| match error.kind() {
        io::ErrorKind::StorageFull => StoreError::NoRoom(format!("{path}: the disk is full")),
        _ => StoreError::Failed(format!("{path} could not be written: {error}")),
    }
}

impl Staging {
    fn begin(data: &Path) -> Result<Self, StoreError> {
        let folder = data.join(STAGED);
        clear(&folder)
            .and_then(|()| std::fs::create_dir(&folder))
            .and_then(|()| {
                let mut names = FOLDERS.iter();
                names.try_for_each(|name| std::fs::create_dir(folder.join(name)))
            })
            .map_err(io_error(&folder))?;
        Ok(Self {
            folder,
            open: None,
            whole: false,
        })
    }

    /// The file that comes, made with its first bytes.
    fn opened(&mut self, name: &str) -> Result<&mut (File, u64), StoreError> {
        match &mut self.open {
            Some(open) => Ok(open),
            none => {
                let path = self.folder.join(name);
                let file = File::create_new(&path).map_err(io_error(&path))?;
                Ok(none.insert((file, 0)))
            }
        }
    }

    /// Says that all has come. From here on it counts.
    fn ready(mut self, word: &Imported) -> Result<(), StoreError> {
        let (draft, ready) = (self.folder.join("ready.part"), self.folder.join(READY));
        let write = || -> io::Result<()> {
            // What the proxy stored are tens of thousands of files: one wait for all of them.
            nix::unistd::syncfs(File::open(&self.folder)?)?;
            let mut file = File::create(&draft)?;
            serde_json::to_writer(&mut file, word)?;
            file.sync_all()?;
            std::fs::rename(&draft, &ready)?;
            File::open(&self.folder)?.sync_all()?;
            self.folder.parent().map_or(Ok(()), |data| File::open(data)?.sync_all())
        };
        write().map_err(io_error(&ready))?;
        self.whole = true;
        Ok(())
    }
}

impl Attachments for Staging {
    fn expect(&mut self, files: &[Attached]) -> Result<(), StoreError> {
        if let Some(file) = files.iter().find(|file| !along::is_carried(&file.name, &file.sha256)) {
            let words = format!("it holds a file this program does not know, {:?}", file.name);
            return Err(StoreError::BadExport(words));
        }
        let needed = files.iter().fold(0u64, |sum, file| sum.saturating_add(file.bytes));
        let room = carry::room(&self.folder);
        if needed > room {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(StoreError::NoRoom(format!(
                "what comes along needs {} MiB, and {} MiB can be used here; remove images that are not needed (`rackbar os \
                 remove`), or save it with less (`rackbar export --without-images --without-cache`)",
                mib(needed),
                mib(room)
            )));
        }
        Ok(())
    }

    fn take(&mut self, file: &Attached, piece: &[u8]) -> Result<(), StoreError> {
        let path = self.folder.join(&file.name);
        let (open, unsynced) = self.opened(&file.name)?;
        open.write_all(piece).map_err(io_error(&path))?;
        *unsynced = unsynced.saturating_add(piece.len() as u64);
        if *unsynced >= SYNC_EVERY {
            *unsynced = 0;
            open.sync_data().map_err(io_error(&path))?;
        }
        Ok(())
    }

    fn whole(&mut self, file: &Attached) -> Result<(), StoreError> {
        let path = self.folder.join(&file.name);
        let (open, _) = self.opened(&file.name)?;
        if !file.name.starts_with(CACHE) {
            open.sync_all().map_err(io_error(&path))?;
        }
        self.open = None;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.whole {
            // What is left now goes with the next import or the next start.
            let _ = clear(&self.folder);
        }
    }
}

fn clear(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Moves a state that has come whole to its place, and clears away what has not. To be called before anything of the state
/// is opened; says what went wrong, and tries again at the next start then.
pub(super) fn take_over(data: &Path) -> Option<EventKind> {
    let staged = data.join(STAGED);
    stored::clear(&data.join(CACHE));
    let done = if staged.join(READY).exists() {
        move_all(data, &staged)
    } else {
        clear(&staged)
    };
    let error = done.err()?;
    let text = format!(
        "the state file that was put in lies whole in {} and could not be moved to its place ({error}); it is tried again \
         at the next start",
        staged.display()
    );
    let severity = Severity::Error;
    Some(EventKind::Note { text, severity })
}

/// True when the store that lies in this folder was put in and no executor has opened it since.
pub(super) fn put_in(data: &Path) -> bool {
    let staged = data.join(STAGED);
    // The second: it was moved to its place, and the power or the disk failed before that could be said.
    data.join(IMPORTED).exists() || staged.join(READY).exists() && !staged.join(STORE).exists()
}

fn move_all(data: &Path, staged: &Path) -> io::Result<()> {
    for folder in [PROGRAMS, IMAGES, PACKS] {
        carry::settle(&staged.join(folder), &data.join(folder))?;
    }
    stored::settle(&staged.join(CACHE), &data.join(CACHE))?;
    let (new, store) = (staged.join(STORE), data.join(STORE));
    if new.exists() {
        let before = before(&store);
        match std::fs::remove_file(&before) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A second name for the same file: the rename takes the first one away.
        match std::fs::hard_link(&store, &before) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::rename(&new, &store)?;
    }
    std::fs::rename(staged.join(READY), data.join(IMPORTED))?;
    File::open(data)?.sync_all()?;
    clear(staged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(data: &Path) {
        let staged = data.join(STAGED);
        for folder in FOLDERS {
            std::fs::create_dir_all(staged.join(folder)).unwrap();
        }
        for (name, text) in [
            ("images/a.image", "new"),
            ("images/a.json", "new"),
            ("programs/p.json", "new"),
            ("packs/d.pack", "new"),
            ("cache/pins.list", "http://new/*\n"),
            (STORE, "new"),
            (READY, r#"{"by":"anna","taken":"all"}"#),
        ] {
            std::fs::write(staged.join(name), text).unwrap();
        }
        std::fs::write(data.join(STORE), "old").unwrap();
    }

    fn text(data: &Path, name: &str) -> Option<String> {
        std::fs::read_to_string(data.join(name)).ok()
    }

    const WORDS: &str = "correct horse battery";

    fn keep(folder: &Path) -> Keep {
        let data = folder.join("data");
        std::fs::create_dir(&data).unwrap();
        Keep {
            store: Store::open(data.join(STORE)).unwrap(),
            folder: data.clone(),
            config: folder.join("rackbar.toml"),
            run: folder.to_path_buf(),
            restart: Arc::default(),
            storage: super::super::storage::Storage::new(&data, folder),
            importing: Arc::default(),
        }
    }

    fn conflict<T: std::fmt::Debug>(answer: Result<T, Refused>) -> String {
        match answer {
            Err(Refused::Conflict(words)) => words,
            other => panic!("{other:?}"),
        }
    }

    /// Sets a passphrase while it is read from, as somebody may while a state file comes.
    struct Meddled<'a> {
        keep: &'a Keep,
        content: &'a [u8],
        answers: Vec<Result<rackbar_control::operations::SecretsLock, Refused>>,
    }

    impl Read for Meddled<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.content.is_empty() {
                self.answers.push(self.keep.lock_with(Some(WORDS)));
                self.answers.push(self.keep.lock_with(None));
            }
            self.content.read(into)
        }
    }

    #[test]
    fn the_lock_of_the_secrets_stays_while_a_state_file_is_put_in() {
        let folder = tempfile::tempdir().unwrap();
        let keep = keep(folder.path());
        keep.store.put(rackbar_store::Table::Secrets, b"a", b"secret").unwrap();
        let mut file = Vec::new();
        keep.store.export(&mut file, WORDS, "0", now(), Vec::new()).unwrap();
        let mut coming = Meddled {
            keep: &keep,
            content: &file,
            answers: Vec::new(),
        };
        take_in(&keep, &mut coming, WORDS, "anna").unwrap();
        assert!(!coming.answers.is_empty());
        for answer in coming.answers {
            let words = conflict(answer);
            assert!(words.contains("being put in") && words.contains("try again"), "{words}");
        }
        for passphrase in [Some(WORDS), None] {
            let words = conflict(keep.lock_with(passphrase));
            assert!(words.contains("starts anew") && words.contains("try again"), "{words}");
        }
        keep.store.close();
        assert_eq!(take_over(&keep.folder), None);
        let store = Store::open(keep.folder.join(STORE)).unwrap();
        assert_eq!(store.lock_state(), LockState::KeyFile);
        let secret = store.get(rackbar_store::Table::Secrets, b"a").unwrap();
        assert_eq!(secret.as_deref(), Some(&b"secret"[..]));
        // From here on it may be changed again.
        let keep = Keep { store, ..keep };
        assert_eq!(keep.lock_with(Some(WORDS)).unwrap().lock, "passphrase");
    }

    #[test]
    fn no_state_file_is_taken_while_the_lock_of_the_secrets_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let keep = keep(folder.path());
        let changed = hold(&keep).unwrap();
        let words = conflict(take_in(&keep, &mut &b"no state file"[..], WORDS, "anna"));
        assert!(
            words.contains("lock of the secrets") && words.contains("try again"),
            "{words}"
        );
        drop(changed);
        let refused = take_in(&keep, &mut &b"no state file"[..], WORDS, "anna");
        assert!(matches!(refused, Err(Refused::Invalid(_))), "{refused:?}");
    }

    #[test]
    fn what_was_unpacked_is_put_in_place_from_wherever_the_power_failed() {
        // Each case is a start that got so far; the next one must do the rest.
        type Deed = fn(&Path) -> io::Result<()>;
        let deeds: [Deed; 7] = [
            |data| carry::settle(&data.join(STAGED).join(PROGRAMS), &data.join(PROGRAMS)),
            |data| carry::settle(&data.join(STAGED).join(IMAGES), &data.join(IMAGES)),
            |data| carry::settle(&data.join(STAGED).join(PACKS), &data.join(PACKS)),
            |data| stored::settle(&data.join(STAGED).join(CACHE), &data.join(CACHE)),
            |data| std::fs::hard_link(data.join(STORE), before(&data.join(STORE))),
            |data| std::fs::rename(data.join(STAGED).join(STORE), data.join(STORE)),
            |data| std::fs::rename(data.join(STAGED).join(READY), data.join(IMPORTED)),
        ];
        for cut in 0..=deeds.len() {
            let folder = tempfile::tempdir().unwrap();
            let data = folder.path();
            staged(data);
            deeds.iter().take(cut).for_each(|deed| deed(data).unwrap());
            assert!(put_in(data) || cut < 6, "cut after {cut}");
            assert_eq!(take_over(data), None);
            assert!(put_in(data), "cut after {cut}");
            for name in [
                "images/a.image",
                "images/a.json",
                "programs/p.json",
                "packs/d.pack",
                STORE,
            ] {
                assert_eq!(text(data, name).as_deref(), Some("new"), "{name}, cut after {cut}");
            }
            let pins = text(data, "cache/pins");
            assert_eq!(pins.as_deref(), Some("http://new/*\n"), "cut after {cut}");
            assert_eq!(
                text(data, "rackbar.before-import").as_deref(),
                Some("old"),
                "cut after {cut}"
            );
            assert!(
                text(data, IMPORTED).is_some() && !data.join(STAGED).exists(),
                "cut after {cut}"
            );
        }
    }

    #[test]
    fn what_has_not_come_whole_is_cleared_away_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert_eq!(take_over(&data.join("none")), None);
        staged(data);
        std::fs::remove_file(data.join(STAGED).join(READY)).unwrap();
        assert_eq!(take_over(data), None);
        assert_eq!(text(data, STORE).as_deref(), Some("old"));
        assert!(!data.join(STAGED).exists() && !data.join(IMAGES).exists() && text(data, IMPORTED).is_none());
    }
}
