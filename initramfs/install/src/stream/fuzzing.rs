//! Doors to what reads images while they are fetched, for the fuzz targets: see `crate::fuzzing`.

use super::http::{Answer, Url};
use super::qcow2::{Qcow2, ReadAt};
use crate::Result;

/// A file that lies in memory.
struct Memory<'a>(&'a [u8]);

impl ReadAt for Memory<'_> {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<()> {
        buffer.fill(0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = self.0.get(from..).unwrap_or_default();
        buffer.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

/// Reads the first bytes of the guest's disk, at most `most`, out of a qcow2 image; gives how many there were and how
/// many the image says that there are.
///
/// # Errors
/// Why the image is refused, in words.
pub fn qcow2(image: &[u8], most: usize) -> Result<(usize, u64)> {
    let mut image = Qcow2::open(Memory(image))?;
    let mut buffer = vec![0; most];
    Ok((image.fill(&mut buffer)?, image.size()))
}

/// Reads the header of an HTTP answer; gives where its body begins, when it is whole and understood.
pub fn http_answer(bytes: &[u8]) -> Option<usize> {
    Answer::parse(bytes).ok().flatten().map(|(_, end)| end)
}

/// Whether this is an address that an image is fetched from.
pub fn is_url(text: &str) -> bool {
    Url::parse(text).is_ok()
}
