//! Packs made, read back, changed by one bit, cut off.

use std::io::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use rackbar_model::{ImageFormat, Timestamp};
use rackbar_trust::{Secret, Signer as _, SigningKey, sha256};

use super::*;

fn signer() -> SigningKey {
    SigningKey::from_seed(&Secret::new([7; 32])).unwrap()
}

fn trusted() -> Trust {
    Trust::nobody().and(Key(signer().public_key()), "test")
}

fn content(bytes: &[u8]) -> Content {
    Content {
        sha256: Digest(sha256(bytes)),
        bytes: bytes.len() as u64,
    }
}

fn image(name: &str, bytes: &[u8]) -> DraftImage {
    DraftImage {
        image: PackImage {
            name: name.into(),
            content: 0,
            format: ImageFormat::Zstd,
            disk_bytes: Some(1 << 30),
            arch: "x86_64".into(),
            source: "a test".into(),
            licence: "free".into(),
            user: "root".into(),
            added: Timestamp(5),
        },
        content: content(bytes),
    }
}

fn answer(key: &str, bytes: &[u8]) -> DraftAnswer {
    DraftAnswer {
        answer: Answer {
            key: key.into(),
            selecting: vec![("accept".into(), None)],
            status: 200,
            headers: vec![("etag".into(), b"\"a\"".to_vec())],
            request_time: 1,
            response_time: 2,
            content: 0,
        },
        content: content(bytes),
    }
}

fn contents() -> Vec<Vec<u8>> {
    let large: Vec<u8> = (0..20_000u32).map(|n| (n * 7) as u8).collect();
    vec![large, b"small".to_vec(), vec![9; 4096], Vec::new()]
}

fn draft() -> Draft {
    let all = contents();
    Draft {
        name: "a-pack".into(),
        made: Timestamp(1_700_000_000_000),
        by: "site".into(),
        note: "for tests".into(),
        images: vec![image("debian-12", &all[0])],
        // The same content thrice, once as an image.
        answers: vec![
            answer("mirror:debian/b", &all[1]),
            answer("mirror:debian/a", &all[1]),
            answer("http://a.example/image", &all[0]),
            answer("http://a.example/page", &all[2]),
            answer("http://a.example/nothing", &all[3]),
        ],
    }
}

fn written(sealed: &Sealed) -> Vec<u8> {
    let mut out = Vec::new();
    let open = |digest: &Digest| {
        let found = contents().into_iter().find(|bytes| Digest(sha256(bytes)) == *digest);
        found
            .map(std::io::Cursor::new)
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    sealed.write(&mut out, open).unwrap();
    out
}

fn bytes() -> Vec<u8> {
    written(&draft().seal(&signer()).unwrap())
}

fn taken(bytes: &[u8], step: usize) -> Result<Checked, PackError> {
    let mut intake = Intake::new(Some(trusted()));
    bytes.chunks(step.max(1)).try_for_each(|piece| intake.push(piece))?;
    intake.finish()
}

fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pack");
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    (folder, path)
}

#[test]
fn a_pack_is_read_back_in_any_pieces_and_each_content_lies_once_where_it_is_said_to() {
    let sealed = draft().seal(&signer()).unwrap();
    let bytes = written(&sealed);
    assert_eq!(bytes.len() as u64, sealed.total);
    assert_eq!(
        bytes,
        written(&draft().seal(&signer()).unwrap()),
        "the same draft gives the same pack"
    );
    for step in [1, 63, 128, 129, 4095, 4096, 4097, bytes.len()] {
        assert_eq!(taken(&bytes, step).unwrap().index, sealed.index, "in pieces of {step}");
    }
    let (_folder, path) = file(&bytes);
    let pack = Pack::open(&path, &trusted()).unwrap();
    assert_eq!(
        (
            pack.index.contents.len(),
            pack.index.images.len(),
            pack.index.answers.len()
        ),
        (4, 1, 5)
    );
    for content in &pack.index.contents {
        let at = pack.place(content) as usize;
        assert_eq!(at % ALIGN as usize, 0);
        assert_eq!(Digest(sha256(&bytes[at..at + content.bytes as usize])), content.sha256);
    }
    pack.verify(|_| {}).unwrap();
    assert_eq!(Pack::look(&path).unwrap().index, pack.index);
    // Another pack is put in its place: the one that was opened stays what it was.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"other").unwrap();
    pack.verify(|_| {}).unwrap();
}

#[test]
fn no_flipped_bit_is_taken() {
    let bytes = bytes();
    // Every bit of the head, and a bit of some bytes of all that follows.
    for at in (0..HEAD_BYTES).chain((HEAD_BYTES..bytes.len()).step_by(13)) {
        for bit in 0..if at < HEAD_BYTES { 8 } else { 1 } {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1 << bit;
            assert!(taken(&wrong, 4096).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn one_that_is_cut_off_or_longer_is_refused_with_both_sizes() {
    let bytes = bytes();
    for end in (0..bytes.len()).step_by(37) {
        assert!(taken(&bytes[..end], 1000).is_err(), "the first {end} bytes");
    }
    let (_folder, path) = file(&bytes[..bytes.len() - 1]);
    let words = Pack::open(&path, &trusted()).unwrap_err().to_string();
    let sizes = [bytes.len().to_string(), (bytes.len() - 1).to_string()];
    assert!(sizes.iter().all(|size| words.contains(size)), "{words}");
    let longer = [bytes.as_slice(), b"x"].concat();
    assert!(matches!(taken(&longer, 4096), Err(PackError::Size { .. })));
}

#[test]
fn a_stranger_s_pack_is_refused_by_name_before_its_index_is_read() {
    let other = SigningKey::from_seed(&Secret::new([8; 32])).unwrap();
    let bytes = written(&draft().seal(&other).unwrap());
    let mut intake = Intake::new(Some(trusted()));
    let words = intake.push(&bytes[..HEAD_BYTES]).unwrap_err().to_string();
    assert!(words.contains(&Key(other.public_key()).to_string()), "{words}");
    // One that claims a trusted key and is signed by another.
    let mut claimed = bytes;
    claimed[32..64].copy_from_slice(&signer().public_key());
    assert!(matches!(taken(&claimed, 4096), Err(PackError::Signature { .. })));
}

#[test]
fn another_format_and_other_files_are_refused_in_words() {
    let mut bytes = bytes();
    bytes[8] = 2;
    assert!(taken(&bytes, 4096).unwrap_err().to_string().contains("newer"));
    assert!(matches!(
        taken(b"PK\x03\x04 and so on, for more than the size of a head", 10),
        Err(PackError::Head(_) | PackError::NotAPack)
    ));
    assert!(matches!(taken(&[0; 4096], 4096), Err(PackError::NotAPack)));
    let (_folder, path) = file(b"short");
    assert!(matches!(Pack::open(&path, &trusted()), Err(PackError::NotAPack)));
}

#[test]
fn a_draft_that_cannot_be_is_refused() {
    let with = |change: &dyn Fn(&mut Draft)| {
        let mut draft = draft();
        change(&mut draft);
        draft.seal(&signer()).unwrap_err().to_string()
    };
    assert!(with(&|draft| draft.name = "../x".into()).contains("no name"));
    assert!(with(&|draft| draft.images.push(draft.images[0].clone())).contains("two images"));
    assert!(with(&|draft| draft.answers.push(draft.answers[0].clone())).contains("two answers"));
    assert!(with(&|draft| draft.note = "a\nb".into()).contains("note"));
    assert!(with(&|draft| draft.answers[0].answer.headers[0].1 = b"a\r\nb: c".to_vec()).contains("line end"));
    assert!(
        with(&|draft| *draft = Draft {
            name: "x".into(),
            ..Draft::default()
        })
        .contains("nothing")
    );
}

#[test]
fn a_content_that_changed_since_the_draft_makes_no_pack() {
    let sealed = draft().seal(&signer()).unwrap();
    for wrong in [&b"other"[..], b"smal", b"small and more"] {
        let open = |digest: &Digest| {
            let found = contents()
                .into_iter()
                .find(|bytes| Digest(sha256(bytes)) == *digest)
                .unwrap();
            let found = if found == b"small" { wrong.to_vec() } else { found };
            Ok(std::io::Cursor::new(found))
        };
        assert!(
            matches!(sealed.write(&mut Vec::new(), open), Err(WriteError::Changed(_))),
            "{wrong:?}"
        );
    }
}

#[test]
fn damage_in_a_file_is_found_when_it_is_read_through() {
    let mut bytes = bytes();
    let (_folder, path) = file(&bytes);
    let pack = Pack::open(&path, &trusted()).unwrap();
    let at = pack.place(&content(&contents()[0])) as usize;
    bytes[at + 100] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(pack.verify(|_| {}), Err(PackError::Damaged { .. })));
    assert!(matches!(
        Pack::verify_any(&path, |_| {}),
        Err(PackError::Damaged { .. })
    ));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..300) {
        let _ = taken(&bytes, step);
        let _ = Index::from_bytes(&bytes);
        let _ = Head::parse(&[MAGIC.as_slice(), &1u32.to_le_bytes(), &bytes].concat());
    }

    #[test]
    fn a_well_signed_index_of_any_bytes_does_not_panic(index in prop::collection::vec(any::<u8>(), 1..300), total in any::<u64>()) {
        let head = Head::seal(&index, total, &signer()).unwrap();
        let _ = taken(&[head.as_slice(), &index, &[0; 5000]].concat(), 512);
    }
}

#[test]
fn the_seeds_of_the_fuzzer_are_a_pack_and_its_index() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/pack");
    let small = Draft {
        images: Vec::new(),
        answers: vec![answer("mirror:debian/a", b"small")],
        ..draft()
    };
    let sealed = small.seal(&signer()).unwrap();
    let seeds = [("whole", written(&sealed)), ("index", sealed.index.to_bytes())];
    for (name, bytes) in seeds {
        let path = folder.join(name);
        if std::env::var_os("RACKBAR_BLESS").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        // Packs are kept for years: bytes of format 1 stay what they were.
        assert!(
            std::fs::read(&path).unwrap() == bytes,
            "{} is not format 1 any more",
            path.display()
        );
    }
}
