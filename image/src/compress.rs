//! Zstandard as the kernel's initramfs unpacker takes it: one frame per archive, with a window the kernel is willing
//! to allocate. Compressing at the highest ordinary level is slow, so results are cached by the digest of the input.

use std::io::Read;

use anyhow::{Context, Result, anyhow, ensure};
use ruzstd::decoding::StreamingDecoder;
use structured_zstd::encoding::{CompressionLevel, compress_slice_to_vec};

use crate::cache::Cache;
use crate::digest::sha256;

/// The level shipped media are compressed with.
pub const LEVEL: i32 = 19;

/// Largest window we accept from the compressor. A node needs this much memory besides the archive itself; levels up
/// to 19 use 8 MiB.
const WINDOW_LIMIT: u64 = 8 << 20;

/// Compresses `content` into one frame.
pub fn zstd(content: &[u8], level: i32, cache: &Cache) -> Result<Vec<u8>> {
    let name = format!("zstd{level}-{}", sha256(content));
    if let Some(compressed) = cache.get(&name)? {
        return Ok(compressed);
    }
    let compressed = zstd_once(content, level)?;
    cache.put(&name, &compressed)?;
    Ok(compressed)
}

/// Compresses `content` into one frame that states its size, without keeping the result: for what is large and made
/// seldom.
///
/// # Errors
/// When it does not decompress to what went in.
pub fn zstd_once(content: &[u8], level: i32) -> Result<Vec<u8>> {
    let compressed = compress_slice_to_vec(content, CompressionLevel::from_level(level));
    check(&compressed, content)?;
    Ok(compressed)
}

/// Decompresses with a decoder that shares no code with the compressor, and compares: a defect in either must stop
/// the build, not a server's boot.
fn check(compressed: &[u8], content: &[u8]) -> Result<()> {
    let mut output = Vec::with_capacity(content.len());
    let mut decoder = StreamingDecoder::new_with_max_window_size(compressed, WINDOW_LIMIT)
        .map_err(|error| anyhow!("reading the header of our own archive: {error}"))?;
    decoder
        .read_to_end(&mut output)
        .context("decompressing our own archive")?;
    ensure!(
        output == content,
        "the compressed archive does not decompress to what went in"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compresses_and_finds_it_again_in_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let content = b"rack ".repeat(4000);
        let first = zstd(&content, LEVEL, &cache).unwrap();
        assert!(first.len() < 200);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(zstd(&content, LEVEL, &cache).unwrap(), first);
    }

    #[test]
    fn a_window_larger_than_the_kernel_should_allocate_is_refused() {
        // Magic, descriptor without a single segment, window descriptor of 16 MiB, then one empty last block.
        let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 14 << 3, 0x01, 0x00, 0x00];
        assert!(check(&frame, b"").is_err());
        let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 13 << 3, 0x01, 0x00, 0x00];
        assert!(check(&frame, b"").is_ok());
    }
}
