//! Property tests of the parsers and writers: random trees through FAT, damaged PE images.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use proptest::prelude::*;
use rackbar_image::fat::Volume;
use rackbar_image::pe::{Section, append, section};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any tree of files is where the writer says it is, and fsck.fat has nothing to say.
    #[test]
    fn fat_volumes_hold_what_was_put_in(
        files in proptest::collection::btree_map("[a-z]{1,3}/[A-Za-z0-9_ ]{0,30}[a-z]\\.[a-z]{1,5}", proptest::collection::vec(any::<u8>(), 0..3000), 0..12),
        // FAT32, and small enough to be FAT16.
        size in prop_oneof![Just(34u64 << 20), Just(3u64 << 20)],
    ) {
        // FAT does not tell apart names that differ in case only.
        let mut seen = std::collections::BTreeSet::new();
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .filter(|(name, _)| seen.insert(name.to_ascii_lowercase()))
            .map(|(name, content)| (name.as_str(), &content[..]))
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let volume = Volume {
            size, cluster: 512, align: 2048, label: "PROP", serial: 1, hidden_sectors: 0, files: files.clone(),
        };
        let placed = volume.write(file.as_file(), 0).unwrap();
        for (name, content) in files.iter().filter(|(_, content)| !content.is_empty()) {
            let mut found = vec![0; content.len()];
            std::os::unix::fs::FileExt::read_exact_at(file.as_file(), &mut found, placed[*name]).unwrap();
            prop_assert_eq!(&found[..], *content);
            prop_assert_eq!(placed[*name] % 2048, 0);
        }
        common::run("fsck.fat", &["-n", file.path().to_str().unwrap()]);
    }
}

proptest! {
    #[test]
    fn damaged_pe_images_are_refused_and_never_panic(
        room in 0usize..3,
        cut in 0usize..1600,
        changes in proptest::collection::vec((0usize..700, any::<u8>()), 0..6),
    ) {
        let mut image = common::pe(room);
        for (at, byte) in changes {
            if let Some(target) = image.get_mut(at) {
                *target = byte;
            }
        }
        image.truncate(cut);
        let _ = section(&image, ".text");
        let _ = append(&image, &[Section { name: ".linux", content: &[1; 700] }]);
    }
}
