//! Files that travel with an export: they come whole and proven, or nothing comes; and exports of the version without them.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

use std::io::Read;
use std::path::Path;

use rackbar_model::{Digest, Timestamp};
use rackbar_store::{Attached, Attachments, Options, Outgoing, Store, StoreError, Table, look_at_export};
use rackbar_trust::seal::{SealKey, Stretch};
use rackbar_trust::sha256;

const WORDS: &str = "an export's passphrase";

fn outgoing(name: &str, content: &[u8]) -> Outgoing {
    Outgoing {
        file: Attached {
            name: name.into(),
            bytes: content.len() as u64,
            sha256: Digest(sha256(content)),
        },
        content: Box::new(std::io::Cursor::new(content.to_vec())),
    }
}

fn store() -> Store {
    let store = Store::in_memory(Options::default()).unwrap();
    store.put(Table::Secrets, b"ca", b"the site's own key").unwrap();
    store.put(Table::Config, b"c", b"config").unwrap();
    store
}

fn export(files: Vec<Outgoing>) -> (Vec<u8>, Result<(), StoreError>) {
    let mut file = Vec::new();
    let done = store().export(&mut file, WORDS, "0.1.0", Timestamp(7), files);
    (file, done.map(drop))
}

/// Keeps what comes in memory, and what it was told.
#[derive(Default)]
struct Kept {
    room: Option<u64>,
    expected: Option<usize>,
    arriving: Vec<u8>,
    whole: Vec<(String, Vec<u8>)>,
}

impl Attachments for Kept {
    fn expect(&mut self, files: &[Attached]) -> Result<(), StoreError> {
        self.expected = Some(files.len());
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        match self.room {
            Some(room) if room < bytes => Err(StoreError::NoRoom(format!("{bytes} bytes into {room}"))),
            _ => Ok(()),
        }
    }

    fn take(&mut self, _: &Attached, piece: &[u8]) -> Result<(), StoreError> {
        assert!(piece.len() <= 256 << 10, "memory is bounded whatever the file's size");
        self.arriving.extend_from_slice(piece);
        Ok(())
    }

    fn whole(&mut self, file: &Attached) -> Result<(), StoreError> {
        self.whole.push((file.name.clone(), std::mem::take(&mut self.arriving)));
        Ok(())
    }
}

fn stage(folder: &Path, mut file: &[u8], words: &str, kept: &mut Kept) -> Result<(), StoreError> {
    let input: &mut dyn Read = &mut file;
    Store::stage(&folder.join("store.redb"), &folder.join("draft"), input, words, kept).map(drop)
}

#[test]
fn files_travel_with_a_state_and_come_in_their_order() {
    let large: Vec<u8> = (0..700_000u32).flat_map(u32::to_le_bytes).collect();
    let (file, done) = export(vec![outgoing("a", b"first"), outgoing("b", &large), outgoing("c", b"")]);
    done.unwrap();
    let seen = look_at_export(&mut &file[..]).unwrap();
    let sizes: Vec<_> = seen.files.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
    assert_eq!(sizes, [("a", 5), ("b", large.len() as u64), ("c", 0)]);

    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::default();
    stage(folder.path(), &file, WORDS, &mut kept).unwrap();
    let came: Vec<_> = kept
        .whole
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    assert_eq!(came, [("a", &b"first"[..]), ("b", &large[..]), ("c", &b""[..])]);
    assert!(
        !folder.path().join("store.redb").exists(),
        "it is the caller's to put it in its place"
    );
    std::fs::rename(folder.path().join("draft"), folder.path().join("store.redb")).unwrap();
    let store = Store::open(folder.path().join("store.redb")).unwrap();
    assert_eq!(
        store.get(Table::Secrets, b"ca").unwrap().unwrap(),
        b"the site's own key"
    );
}

#[test]
fn what_is_damaged_cut_or_does_not_fit_is_refused_and_leaves_no_draft() {
    let (file, done) = export(vec![outgoing("a", b"first of them"), outgoing("b", &[7; 5000])]);
    done.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let refused = |file: &[u8], words: &str, kept: &mut Kept| {
        let error = stage(folder.path(), file, words, kept).unwrap_err();
        assert!(!folder.path().join("draft").exists(), "{error}");
        error
    };
    // Nothing is believed of the header before the passphrase has opened its seal.
    let mut kept = Kept::default();
    assert_eq!(
        refused(&file, "another passphrase", &mut kept),
        StoreError::WrongPassphrase
    );
    let digit = file.windows(6).position(|part| part == b":5000,").unwrap() + 1;
    let mut forged = file.clone();
    forged[digit] = b'4';
    assert!(matches!(refused(&forged, WORDS, &mut kept), StoreError::BadExport(_)));
    assert_eq!(kept.expected, None);

    for (back, name) in [(1, "b"), (4999, "b"), (5001, "a"), (5013, "a")] {
        let mut damaged = file.clone();
        let at = damaged.len() - back;
        damaged[at] ^= 1;
        let mut kept = Kept::default();
        let words = refused(&damaged, WORDS, &mut kept).to_string();
        assert!(words.contains(&format!("{name} in it is damaged")), "{back}: {words}");
        assert!(kept.whole.iter().all(|(whole, _)| whole != name), "{back}");
    }
    for back in [1, 2500, 5000, 5007] {
        let words = refused(&file[..file.len() - back], WORDS, &mut Kept::default()).to_string();
        assert!(words.contains("ends too early"), "{back}: {words}");
    }
    let longer = [file.as_slice(), b"x"].concat();
    assert!(
        refused(&longer, WORDS, &mut Kept::default())
            .to_string()
            .contains("follows its end")
    );

    let mut full = Kept {
        room: Some(5012),
        ..Kept::default()
    };
    assert!(matches!(refused(&file, WORDS, &mut full), StoreError::NoRoom(_)));
    assert!(full.whole.is_empty() && full.arriving.is_empty());
    // Where there is no place for files at all, none is left out silently.
    let alone = Store::import(folder.path().join("new.redb"), &mut &file[..], WORDS, false).unwrap_err();
    assert!(alone.to_string().contains("no place here"), "{alone}");
    assert!(!folder.path().join("new.redb").exists());
}

#[test]
fn a_file_that_is_not_what_it_was_ends_the_export() {
    for content in [&b"firsT"[..], b"firs", b""] {
        let mut wrong = outgoing("images/x.image", b"first");
        wrong.content = Box::new(std::io::Cursor::new(content.to_vec()));
        let words = export(vec![wrong]).1.unwrap_err().to_string();
        assert!(words.contains("images/x.image is not what it was"), "{words}");
    }
}

#[test]
fn an_export_of_the_version_without_files_is_still_taken() {
    let stretch = Stretch::new().unwrap();
    let key = SealKey::from_passphrase(WORDS, &stretch).unwrap();
    let header = format!(
        r#"{{"at":"1970-01-01T00:00:00.007Z","appliance":"0.0.9","schema":1,"salt":{:?},"iterations":{}}}"#,
        stretch.salt, stretch.iterations
    );
    let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes().to_vec();
    let mut file = b"RACKBAR-EXPORT\n\x01\0\0\0".to_vec();
    file.extend(length(header.as_bytes()));
    file.extend(header.as_bytes());
    let (name, value) = (b"c", b"config");
    // The number of the configuration's table.
    let table = 4u8;
    file.extend([&[table][..], &length(name), &length(value), name, value, &[0xff]].concat());
    let seal = key.seal(&[b"export digest"], &sha256(&file)).unwrap();
    file.extend(length(&seal));
    file.extend(&seal);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let info = Store::import(&path, &mut &file[..], WORDS, false).unwrap();
    assert_eq!((info.appliance.as_str(), info.files.len()), ("0.0.9", 0));
    assert_eq!(
        Store::open(&path).unwrap().get(Table::Config, b"c").unwrap().unwrap(),
        b"config"
    );
    let last = file.len() - 1;
    file[last] ^= 1;
    assert!(Store::import(folder.path().join("other.redb"), &mut &file[..], WORDS, false).is_err());
}
