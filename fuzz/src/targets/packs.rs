//! What operators put in: data packs (heads, indexes that somebody signed, and whole ones in pieces), programs, signed reports,
//! and saved states as far as they are read without their passphrase.

use std::path::{Component, Path};

use rackbar_artifacts::carry::is_carried;
use rackbar_artifacts::programs::elf;
use rackbar_packs::{HEAD_BYTES, Head, Index, Intake};
use rackbar_proxy::store::carry;

/// A pack; and, since no fuzzer signs, its bytes as an index that was signed.
pub(super) fn pack(data: &[u8]) {
    let _ = Head::parse(data);
    for piece in [7, HEAD_BYTES, 4096] {
        let mut intake = Intake::new(None);
        let pushed = data.chunks(piece).try_for_each(|bytes| intake.push(bytes));
        if pushed.is_ok() {
            let _ = intake.finish();
        }
    }
    if let Ok(index) = Index::from_bytes(data) {
        assert!(
            index.images.iter().all(|image| index.content(image.content).is_some()),
            "a content is missing"
        );
        assert!(
            index
                .answers
                .iter()
                .all(|answer| index.content(answer.content).is_some()),
            "a content is missing"
        );
    }
}

/// A file that is to be a static program: it is never read beyond its end, and one that is taken names no interpreter.
pub(super) fn program(data: &[u8]) {
    let read = |offset: u64, into: &mut [u8]| {
        let from = usize::try_from(offset).expect("an offset in memory");
        into.copy_from_slice(&data[from..from + into.len()]);
        Ok(())
    };
    if elf::examine(data.len() as u64, &read).is_ok() {
        assert!(data.starts_with(b"\x7fELF"), "something else was taken for a program");
        let count = usize::from(u16::from_le_bytes([data[56], data[57]]));
        let table =
            usize::try_from(u64::from_le_bytes(data[32..40].try_into().expect("eight bytes"))).expect("a place");
        let kinds = (0..count).map(|index| &data[table + index * 56..][..4]);
        assert!(
            kinds.into_iter().all(|kind| kind != [3, 0, 0, 0]),
            "a dynamic program was taken"
        );
    }
}

/// A saved state: what its header says, and that no file that it lists would be taken to a place of another.
pub(super) fn state_file(data: &[u8]) {
    let Ok(info) = rackbar_store::look_at_export(&mut &*data) else {
        return;
    };
    let taken = |name: &str, sha256| is_carried(name, sha256) || carry::is_carried(name, sha256);
    for file in info.files.iter().filter(|file| taken(&file.name, &file.sha256)) {
        let mut parts = Path::new(&file.name).components();
        assert!(
            parts.all(|part| matches!(part, Component::Normal(_))) && file.name.matches('/').count() == 1,
            "{:?} leads elsewhere",
            file.name
        );
    }
}

/// A signed report that somebody shows, and its words where it is believed.
pub(super) fn report_file(data: &[u8]) {
    if let Ok(checked) = rackbar_verify::check(data, None) {
        assert!(
            rackbar_verify::check(data, Some(&checked.key)).is_ok(),
            "its own key is another"
        );
        let _ = rackbar_verify::text(&checked.report);
    }
}
