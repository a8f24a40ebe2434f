//! Adding sections to a PE/COFF image: how the loader becomes a unified kernel image. (Microsoft PE format; the
//! section names are those of the UAPI group's UKI specification, with `.initrd2` of our own.)
//!
//! New sections are appended to the file and to the address space. When the section table has no free rows before
//! the first section's data, all data moves down by whole file-alignment units and every file offset in the headers
//! is corrected; the loaded addresses never change.

use anyhow::{Context, Result, ensure};

/// A section to add.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// At most eight ASCII characters.
    pub name: &'a str,
    /// Its bytes; `VirtualSize` is exactly their number.
    pub content: &'a [u8],
}

const SECTION_HEADER: usize = 40;
/// Initialised data, readable, neither writable nor executable: firmware that enforces W^X maps it read-only.
const READ_ONLY_DATA: u32 = 0x4000_0040;
const CHECKSUM: usize = 64;
const SIZE_OF_INITIALIZED_DATA: usize = 8;
const SECTION_ALIGNMENT: usize = 32;
const FILE_ALIGNMENT: usize = 36;
const SIZE_OF_IMAGE: usize = 56;
const SIZE_OF_HEADERS: usize = 60;
const DATA_DIRECTORIES: usize = 112;
const DIRECTORY_SECURITY: usize = 4;
const DIRECTORY_DEBUG: usize = 6;

/// Where things are in an image's headers.
#[derive(Debug, Clone, Copy)]
struct Headers {
    coff: usize,
    optional: usize,
    table: usize,
    sections: usize,
    section_alignment: usize,
    file_alignment: usize,
}

/// An existing section.
#[derive(Debug, Clone, Copy)]
struct Placed {
    row: usize,
    address: usize,
    virtual_size: usize,
    raw_size: usize,
    raw_at: usize,
}

/// Returns `image` with `sections` appended.
///
/// # Errors
/// When `image` is not a 64-bit PE image, is signed (a signature would no longer hold), already has a section of
/// that name, or its headers cannot grow before the first section's address.
pub fn append(image: &[u8], sections: &[Section<'_>]) -> Result<Vec<u8>> {
    let mut out = image.to_vec();
    let headers = Headers::read(&out)?;
    let present = headers.placed(&out)?;
    for section in sections {
        ensure!(
            (1..=8).contains(&section.name.len()),
            "section name {:?} is not 1 to 8 long",
            section.name
        );
        for old in &present {
            ensure!(
                name(&out, old.row)? != section.name,
                "the image already has a section {}",
                section.name
            );
        }
    }
    make_room(&mut out, headers, sections.len())?;
    let present = headers.placed(&out)?;

    let file_end = present
        .iter()
        .map(|section| section.raw_at + section.raw_size)
        .max()
        .unwrap_or(0);
    // Symbols or other trailing data would end up inside our first section; linkers for UEFI write none.
    out.truncate(file_end.max(headers.table + headers.sections * SECTION_HEADER));
    let address_end = present
        .iter()
        .map(|section| section.address + section.virtual_size.max(1))
        .max()
        .unwrap_or(0);
    let mut address = address_end.next_multiple_of(headers.section_alignment);
    let mut added = 0;
    for (index, section) in sections.iter().enumerate() {
        let raw_at = out.len().next_multiple_of(headers.file_alignment);
        let raw_size = section.content.len().next_multiple_of(headers.file_alignment);
        out.resize(raw_at, 0);
        out.extend_from_slice(section.content);
        out.resize(raw_at + raw_size, 0);
        let row = headers.table + (headers.sections + index) * SECTION_HEADER;
        let target = out.get_mut(row..row + 8).context("section table does not fit")?;
        target.fill(0);
        target
            .iter_mut()
            .zip(section.name.bytes())
            .for_each(|(to, from)| *to = from);
        for (at, value) in [
            (8, section.content.len()),
            (12, address),
            (16, raw_size),
            (20, raw_at),
            (24, 0),
            (28, 0),
            (32, 0),
        ] {
            put(&mut out, row + at, value)?;
        }
        put(&mut out, row + 36, READ_ONLY_DATA as usize)?;
        address = (address + section.content.len().max(1)).next_multiple_of(headers.section_alignment);
        added += raw_size;
    }
    let count = u16::try_from(headers.sections + sections.len()).context("too many sections")?;
    out.get_mut(headers.coff + 2..headers.coff + 4)
        .context("short header")?
        .copy_from_slice(&count.to_le_bytes());
    put(&mut out, headers.optional + SIZE_OF_IMAGE, address)?;
    let data = get(&out, headers.optional + SIZE_OF_INITIALIZED_DATA, 4)?;
    put(
        &mut out,
        headers.optional + SIZE_OF_INITIALIZED_DATA,
        data.saturating_add(added),
    )?;
    // UEFI does not look at the checksum; zero says that there is none.
    put(&mut out, headers.optional + CHECKSUM, 0)?;
    Ok(out)
}

/// The content of a section, without its padding.
pub fn section<'a>(image: &'a [u8], wanted: &str) -> Result<Option<&'a [u8]>> {
    let headers = Headers::read(image)?;
    for placed in headers.placed(image)? {
        if name(image, placed.row)? == wanted {
            let length = placed.virtual_size.min(placed.raw_size);
            return Ok(Some(bytes(image, placed.raw_at, length)?));
        }
    }
    Ok(None)
}

impl Headers {
    fn read(image: &[u8]) -> Result<Self> {
        ensure!(image.starts_with(b"MZ"), "not a PE image: no MZ at its start");
        let pe = get(image, 0x3C, 4)?;
        ensure!(
            bytes(image, pe, 4)? == b"PE\0\0",
            "not a PE image: no PE header at {pe:#x}"
        );
        let (coff, optional) = (pe + 4, pe + 24);
        ensure!(get(image, optional, 2)? == 0x20B, "not a 64-bit PE image (PE32+)");
        let table = optional + get(image, coff + 16, 2)?;
        let headers = Self {
            coff,
            optional,
            table,
            sections: get(image, coff + 2, 2)?,
            section_alignment: get(image, optional + SECTION_ALIGNMENT, 4)?,
            file_alignment: get(image, optional + FILE_ALIGNMENT, 4)?,
        };
        ensure!(
            headers.section_alignment.is_power_of_two() && headers.file_alignment.is_power_of_two(),
            "PE alignments {} and {} are not powers of two",
            headers.section_alignment,
            headers.file_alignment
        );
        if let Some(at) = headers.directory(image, DIRECTORY_SECURITY)? {
            ensure!(
                get(image, at + 4, 4)? == 0,
                "the image is signed; add sections first, then sign"
            );
        }
        Ok(headers)
    }

    /// Offset of a data directory's row, when the image has that many.
    fn directory(&self, image: &[u8], index: usize) -> Result<Option<usize>> {
        let count = get(image, self.optional + DATA_DIRECTORIES - 4, 4)?;
        Ok((index < count).then_some(self.optional + DATA_DIRECTORIES + index * 8))
    }

    fn placed(&self, image: &[u8]) -> Result<Vec<Placed>> {
        let rows = (0..self.sections).map(|index| self.table + index * SECTION_HEADER);
        rows.map(|row| {
            Ok(Placed {
                row,
                virtual_size: get(image, row + 8, 4)?,
                address: get(image, row + 12, 4)?,
                raw_size: get(image, row + 16, 4)?,
                raw_at: get(image, row + 20, 4)?,
            })
        })
        .collect()
    }
}

/// Makes sure that `more` rows fit behind the section table, moving all section data down in the file if need be.
fn make_room(out: &mut Vec<u8>, headers: Headers, more: usize) -> Result<()> {
    let needed = headers.table + (headers.sections + more) * SECTION_HEADER;
    let size_of_headers = get(out, headers.optional + SIZE_OF_HEADERS, 4)?;
    let present = headers.placed(out)?;
    let used: Vec<_> = present.iter().filter(|section| section.raw_size > 0).copied().collect();
    let first_data = used
        .iter()
        .map(|section| section.raw_at)
        .min()
        .unwrap_or(size_of_headers);
    if needed <= size_of_headers.min(first_data) {
        return Ok(());
    }
    let shift = (needed - size_of_headers.min(first_data)).next_multiple_of(headers.file_alignment);
    let first_address = present
        .iter()
        .map(|section| section.address)
        .min()
        .unwrap_or(usize::MAX);
    ensure!(
        size_of_headers + shift <= first_address,
        "the PE headers have no room for {more} more sections: they may grow to {first_address:#x}, needed are {:#x}",
        size_of_headers + shift
    );
    if let Some(row) = headers.directory(out, DIRECTORY_DEBUG)? {
        move_debug_entries(out, &present, row, shift)?;
    }
    ensure!(
        first_data <= out.len(),
        "PE section data starts behind the end of the file"
    );
    out.splice(first_data..first_data, std::iter::repeat_n(0, shift));
    for section in used {
        put(out, section.row + 20, section.raw_at + shift)?;
    }
    put(out, headers.optional + SIZE_OF_HEADERS, size_of_headers + shift)
}

/// Debug directory entries hold a file offset besides the address.
fn move_debug_entries(out: &mut [u8], present: &[Placed], row: usize, shift: usize) -> Result<()> {
    let (address, size) = (get(out, row, 4)?, get(out, row + 4, 4)?);
    let inside = |section: &&Placed| address >= section.address && address - section.address < section.raw_size;
    let Some(section) = present.iter().find(inside) else {
        return Ok(());
    };
    let start = section.raw_at + (address - section.address);
    for entry in (start..start.saturating_add(size)).step_by(28) {
        let at = get(out, entry + 24, 4)?;
        if at != 0 {
            put(out, entry + 24, at + shift)?;
        }
    }
    Ok(())
}

fn name(image: &[u8], row: usize) -> Result<&str> {
    let raw = bytes(image, row, 8)?;
    let length = raw.iter().position(|byte| *byte == 0).unwrap_or(8);
    std::str::from_utf8(&raw[..length]).context("section name is not text")
}

fn bytes(image: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    let end = at.checked_add(length).context("PE sizes overflow")?;
    image
        .get(at..end)
        .with_context(|| format!("PE image ends before {end:#x}"))
}

/// A little-endian number of `size` bytes, at most four.
fn get(image: &[u8], at: usize, size: usize) -> Result<usize> {
    Ok(bytes(image, at, size)?
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

fn put(image: &mut [u8], at: usize, value: usize) -> Result<()> {
    let value = u32::try_from(value).context("PE images end at 4 GiB")?;
    let target = image
        .get_mut(at..at + 4)
        .with_context(|| format!("PE image ends before {at:#x}"))?;
    target.copy_from_slice(&value.to_le_bytes());
    Ok(())
}
