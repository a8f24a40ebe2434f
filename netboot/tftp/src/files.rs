//! Names and what they stand for.

use std::collections::HashMap;
use std::sync::Arc;

/// Longest name looked at, in octets.
const NAME_LIMIT: usize = 255;

/// Where files come from. A name is a key, never a path.
pub trait Files {
    /// The content of a file by its normalised name; `None` when there is none.
    fn open(&self, name: &str) -> Option<Arc<[u8]>>;
}

/// Files in memory.
#[derive(Clone, Debug, Default)]
pub struct FileTable(HashMap<String, Arc<[u8]>>);

impl FileTable {
    /// Adds or replaces a file. Running transfers keep the content they began with.
    pub fn insert(&mut self, name: &str, content: impl Into<Arc<[u8]>>) {
        self.0.insert(name.to_owned(), content.into());
    }
}

impl Files for FileTable {
    fn open(&self, name: &str) -> Option<Arc<[u8]>> {
        self.0.get(name).cloned()
    }
}

/// A name as clients write it, without what they put around it: leading slashes, `./`, doubled slashes, and
/// backslashes, which firmware from the Windows world uses. `None` for names no file of ours has: empty, too long, not
/// printable ASCII, or with a `..` in it.
pub fn normalise(name: &[u8]) -> Option<String> {
    let printable = name.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    if name.len() > NAME_LIMIT || !printable {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    for part in name.split(|b| matches!(b, b'/' | b'\\')) {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => {
                if !out.is_empty() {
                    out.push('/');
                }
                out.extend(part.iter().map(|b| char::from(*b)));
            }
        }
    }
    Some(out).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_clients_put_around_them() {
        for name in [
            &b"loader.efi"[..],
            b"/loader.efi",
            b"\\loader.efi",
            b".//\\./loader.efi",
            b"loader.efi/",
        ] {
            assert_eq!(normalise(name).as_deref(), Some("loader.efi"));
        }
        assert_eq!(normalise(b"\\EFI\\BOOT\\x.efi").as_deref(), Some("EFI/BOOT/x.efi"));
    }

    #[test]
    fn names_that_climb_or_are_not_text_are_none() {
        for name in [
            &b""[..],
            b"/",
            b"../x",
            b"a/../b",
            b"..\\x",
            b"a\xffb",
            b"a\nb",
            &[b'a'; 256],
        ] {
            assert_eq!(normalise(name), None, "{name:?}");
        }
    }
}
