//! Data packs: heads, indexes that somebody signed, and whole ones in pieces.

use rackbar_packs::{HEAD_BYTES, Head, Index, Intake};

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
        assert!(index.images.iter().all(|image| index.content(image.content).is_some()), "a content is missing");
        assert!(index.answers.iter().all(|answer| index.content(answer.content).is_some()), "a content is missing");
    }
}
