//! What operators put into the catalogue of images: disks, packed and not, and installers' archives.

use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use rackbar_boot_media::tree::Tree;

// Private to their crate.
#[allow(dead_code, reason = "only the looking is called")]
#[path = "../../../appliance/artifacts/src/images/detect.rs"]
mod detect;
#[path = "../../../appliance/artifacts/src/images/disc.rs"]
mod disc;
#[allow(dead_code, reason = "only the looking is called")]
#[path = "../../../appliance/artifacts/src/images/installer.rs"]
mod installer;
#[allow(dead_code, reason = "only whole files are looked at")]
#[path = "../../../appliance/artifacts/src/images/window.rs"]
mod window;

/// A file is judged as an installer's archive first, and then as a disk. What is taken for an installer lies in the file.
pub(super) fn content(data: &[u8]) {
    thread_local!(static CONTENT: OnceCell<File> = const { OnceCell::new() });
    CONTENT.with(|file| {
        let file = file.get_or_init(|| {
            let path = std::env::temp_dir().join(format!("rackbar-fuzz-image-{}", std::process::id()));
            let mut open = File::options();
            let file = open.read(true).write(true).create_new(true).open(&path);
            let file = file.expect("a file in the folder for temporary files");
            let _ = std::fs::remove_file(path);
            file
        });
        file.set_len(0).expect("a file that can be cut");
        file.write_all_at(data, 0).expect("room for the file");
        let bytes = data.len() as u64;
        if let Ok(Some(found)) = installer::find(&window::Window::whole(file, bytes)) {
            for part in [found.kernel, found.initrd] {
                let end = part.offset.checked_add(part.bytes);
                assert!(
                    part.bytes > 0 && end.is_some_and(|end| end <= bytes),
                    "a part lies outside of the archive"
                );
            }
        }
        let _ = detect::detect(file, bytes, None);
    });
}

/// A disc's tree: every file lies on the disc, and no path leads out of it.
pub(super) fn iso_tree(data: &[u8]) {
    let Ok(tree) = Tree::read(data, data.len() as u64) else {
        return;
    };
    for (path, place) in tree.files() {
        let end = place.offset.checked_add(place.bytes);
        assert!(
            end.is_some_and(|end| end <= data.len() as u64),
            "a file lies outside of the disc"
        );
        assert!(
            path.split('/').all(|name| !matches!(name, "" | "." | "..")),
            "a path leads elsewhere"
        );
    }
}
