//! Fixture trees for tests: a folder that stands for `/`.

use crate::Root;

pub(crate) struct Tree {
    _folder: tempfile::TempDir,
    root: Root,
}

impl Tree {
    /// Writes the given files into a new folder.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        Self::of_bytes(&files)
    }

    pub(crate) fn of_bytes(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        for (path, bytes) in files {
            let path = root.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        Self { _folder: folder, root }
    }

    /// Makes `link` point to `target`, both relative to the tree.
    pub(crate) fn link(self, link: &str, target: &str) -> Self {
        let (link, target) = (self.root.path(link), self.root.path(target));
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::fs::create_dir_all(&target).unwrap();
        std::os::unix::fs::symlink(target, link).unwrap();
        self
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }
}
