//! What the agent reads from a machine's firmware, and of the images that it fetches, while it installs.

// Private to its crate: the firmware's boot entries.
#[allow(dead_code, reason = "only what is called here")]
#[path = "../../../initramfs/install/src/efi/option.rs"]
mod option;

use option::LoadOption;
use rackbar_install::fuzzing;

/// A `Boot####` variable. An entry that was understood must come back the same from what would be written for it.
pub(super) fn load_option(data: &[u8]) {
    let Some(option) = LoadOption::parse(data) else { return };
    let _ = option.starts().name();
    assert_eq!(
        LoadOption::parse(&option.bytes()).as_ref(),
        Some(&option),
        "an entry changes when it is written back"
    );
}

/// How much of a guest's disk is read.
const MOST: usize = 1 << 20;

pub(super) fn qcow2(data: &[u8]) {
    let Ok((have, size)) = fuzzing::qcow2(data, MOST) else {
        return;
    };
    let expected = usize::try_from(size).unwrap_or(usize::MAX).min(MOST);
    assert_eq!(have, expected, "a disk of {size} bytes was read short without a word");
}

pub(super) fn image_fetch(data: &[u8]) {
    if let Some(end) = fuzzing::http_answer(data) {
        assert!(end <= data.len(), "the body begins behind what came");
    }
    let text = String::from_utf8_lossy(data);
    if fuzzing::is_url(&text) {
        assert!(
            !text.contains(['\r', '\n', ' ']),
            "an address could end the request's line"
        );
    }
}
