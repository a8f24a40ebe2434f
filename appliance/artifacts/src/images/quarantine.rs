//! What is not what its record says goes out of use, and stays where a person can look at it.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::{Shared, swap};

/// Where files go whose content is no longer what the record says.
const BROKEN: &str = "broken";

impl Shared {
    /// Takes an image out of use and says why.
    pub(super) fn quarantine(&self, name: &str, why: &str) {
        let mut state = self.state();
        let files = match state.entries.remove(name) {
            Some(entry) => {
                self.withdraw(&state, &entry);
                vec![self.data_of(&entry)]
            }
            // Nothing tells which file its record named: none of those that may be it is thrown away.
            None => self.may_be(name),
        };
        let broken = self.folder.join(BROKEN);
        let (mut moved, mut stuck) = (Vec::new(), Vec::new());
        for file in files {
            let to = broken.join(file.file_name().unwrap_or_else(|| OsStr::new(name)));
            match std::fs::create_dir_all(&broken).and_then(|()| std::fs::rename(&file, &to)) {
                Ok(()) => moved.push(to.display().to_string()),
                Err(error) => stuck.push((file, error)),
            }
        }
        let place = match (moved.as_slice(), stuck.as_slice()) {
            ([], []) => "no file of it is left".to_owned(),
            (moved, []) => format!("it lies in {} now", moved.join(" and ")),
            (_, [(_, error), ..]) => format!("and it cannot be moved to {} ({error})", broken.display()),
        };
        if stuck.is_empty() {
            let _ = std::fs::remove_file(self.record(name));
        }
        // With its record still there the next start tries again, and until then nothing clears it away.
        state.stuck.extend(stuck.into_iter().map(|(file, _)| file));
        state
            .problems
            .push(format!("image {name} is out of use: {why}; {place}. Add it again."));
    }

    /// Files that may be the image of this name: the plain one, and those that took its place. What only runs need has a
    /// record of its own and is not among them.
    fn may_be(&self, name: &str) -> Vec<PathBuf> {
        let found = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let all = found.map(|entry| entry.path());
        let mut fit: Vec<PathBuf> = all
            .filter(|path| path.extension().is_some_and(|ending| ending == "image"))
            .filter(|path| {
                let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
                let swapped = stem.strip_prefix(name).is_some_and(|rest| rest.starts_with('@'));
                stem == name || swapped && !path.with_file_name(format!("{stem}.{}", swap::HELD)).exists()
            })
            .collect();
        fit.sort();
        fit
    }
}
