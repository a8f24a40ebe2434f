//! Whether a file is a program that any x86-64 Linux runs by itself: a static ELF executable.
//!
//! Read are the header, the program headers and the dynamic section (System V gABI, chapters 4 and 5, and its AMD64
//! supplement), with the kernel's own view of what may be mapped. Sections are for debuggers and may be missing. The
//! bytes are a stranger's: every number is checked before it is used.

use std::io;

/// Why a file is no program that we take, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It is something else altogether.
    #[error("it is {0}")]
    Other(&'static str),
    /// It is for another machine or system.
    #[error("it is built for {0}; build it for x86-64 Linux")]
    Foreign(String),
    /// It is ELF, but nothing that runs.
    #[error("it is {0}")]
    NoProgram(&'static str),
    /// It needs files of the system that it runs on.
    #[error(
        "it is linked dynamically ({0}), and would need libraries of the machine: build it with CGO_ENABLED=0 (Go), for \
         the target x86_64-unknown-linux-musl (Rust), or with -static (C)"
    )]
    Dynamic(&'static str),
    /// It ends too early.
    #[error("it is cut off: {what} reaches to byte {needs}, and the file has {bytes}; copy or build it again")]
    Cut {
        /// What is not all there.
        what: &'static str,
        /// Bytes it would take.
        needs: u64,
        /// Bytes there are.
        bytes: u64,
    },
    /// Its header makes no sense.
    #[error("its ELF header is damaged: {0}; build it again")]
    Damaged(&'static str),
    /// It could not be read back.
    #[error("it cannot be read back ({0})")]
    Read(#[from] io::Error),
}

/// Size of the ELF header of 64-bit files.
const HEADER: u64 = 64;
/// Size of one program header of 64-bit files.
const SEGMENT: u64 = 56;
/// Most program headers that are read; linkers write a dozen.
const SEGMENTS: u16 = 128;
/// Most of a dynamic section that is read; that of a static program has some hundred bytes.
const DYNAMIC: u64 = 64 << 10;
/// Addresses of a process end here on x86-64 with four levels of page tables.
const USER_END: u64 = 0x7fff_ffff_f000;
/// Size of a page.
const PAGE: u64 = 4096;

const ET_REL: u16 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PF_X: u32 = 1;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_SONAME: u64 = 14;

/// Reads `N` bytes of a slice at a place that is known to be in it; zeros where it is not.
fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let found = at.checked_add(N).and_then(|end| from.get(at..end));
    found.and_then(|found| found.try_into().ok()).unwrap_or([0; N])
}

fn half(from: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(from, at))
}

fn word(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

fn long(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}

/// The part of a program header that counts here.
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
}

impl Segment {
    fn read(from: &[u8]) -> Self {
        Self {
            kind: word(from, 0),
            flags: word(from, 4),
            offset: long(from, 8),
            address: long(from, 16),
            in_file: long(from, 32),
            in_memory: long(from, 40),
        }
    }
}

/// Looks at a file of `length` bytes that `read` gives from an offset on, whole or with an error.
///
/// # Errors
/// [`ElfError`]: why it is not taken, in a sentence that says what to do.
pub fn examine(length: u64, read: &dyn Fn(u64, &mut [u8]) -> io::Result<()>) -> Result<(), ElfError> {
    let mut head = [0; HEADER as usize];
    let there = usize::try_from(length.min(HEADER)).unwrap_or(0);
    if let Some(head) = head.get_mut(..there) {
        read(0, head)?;
    }
    if let Some(other) = other(head.get(..there).unwrap_or_default()) {
        return Err(ElfError::Other(other));
    }
    fits("its header", 0, HEADER, length)?;
    for_here(&head)?;
    let kind = half(&head, 16);
    let segments = segments(&head, length, read)?;
    for segment in &segments {
        fits("a part that is loaded", segment.offset, segment.in_file, length)?;
    }
    if segments.iter().any(|segment| segment.kind == PT_INTERP) {
        return Err(ElfError::Dynamic("it names a program interpreter"));
    }
    let dynamic = segments.iter().find(|segment| segment.kind == PT_DYNAMIC);
    if let Some(dynamic) = dynamic {
        linking(dynamic, read)?;
    }
    let entry = long(&head, 24);
    if kind == ET_DYN && entry == 0 {
        return Err(ElfError::NoProgram(
            "a shared library and no program: it has no entry point",
        ));
    }
    loads(&segments, entry)
}

/// What a file is that is no ELF, by its first bytes.
fn other(head: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 8] = [
        (b"\x7fELF", ""),
        (b"#!", "a script: write its text as `script` of a step in the site file"),
        (
            b"MZ",
            "a program for Windows or firmware; build it for x86-64 Linux (Go: GOOS=linux)",
        ),
        (
            b"\xcf\xfa\xed\xfe",
            "a program for macOS; build it for x86-64 Linux (Go: GOOS=linux)",
        ),
        (
            b"\xca\xfe\xba\xbe",
            "a program for macOS or Java; build it for x86-64 Linux (Go: GOOS=linux)",
        ),
        (b"\x1f\x8b", "packed with gzip; unpack it first (gunzip, or tar -xzf)"),
        (b"PK\x03\x04", "a ZIP archive; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it first"),
    ];
    if head.is_empty() {
        return Some("empty; name the file of the program");
    }
    let known = KINDS.iter().find(|(begin, _)| head.starts_with(begin));
    match known {
        Some((_, "")) => None,
        Some((_, what)) => Some(what),
        None => Some("no ELF executable: its first bytes are not 7f 45 4c 46; build a static program for x86-64 Linux"),
    }
}

/// The header's own words: class, byte order, version, system, machine and kind.
fn for_here(head: &[u8]) -> Result<(), ElfError> {
    let [class, order, version, system] = bytes(head, 4);
    if class != 2 {
        return Err(ElfError::Foreign("a 32-bit machine".to_owned()));
    }
    if order != 1 {
        return Err(ElfError::Foreign("a big-endian machine".to_owned()));
    }
    if version != 1 || word(head, 20) != 1 {
        return Err(ElfError::Damaged("it is of another version than 1"));
    }
    // ELFOSABI_NONE, which linkers write for Linux, and ELFOSABI_GNU, for its extensions.
    if system != 0 && system != 3 {
        return Err(ElfError::Foreign(format!("another system (OS ABI {system})")));
    }
    match half(head, 18) {
        EM_X86_64 => {}
        183 => return Err(ElfError::Foreign("AArch64".to_owned())),
        243 => return Err(ElfError::Foreign("RISC-V".to_owned())),
        machine => return Err(ElfError::Foreign(format!("another machine (ELF machine {machine})"))),
    }
    match half(head, 16) {
        ET_EXEC | ET_DYN => Ok(()),
        ET_REL => Err(ElfError::NoProgram("an object file; link it")),
        ET_CORE => Err(ElfError::NoProgram("a core dump and no program")),
        _ => Err(ElfError::Damaged(
            "it is neither a program nor anything else that is known",
        )),
    }
}

/// True where a part lies within the file.
fn fits(what: &'static str, offset: u64, size: u64, length: u64) -> Result<(), ElfError> {
    match offset.checked_add(size) {
        Some(needs) if needs <= length => Ok(()),
        Some(needs) => Err(ElfError::Cut {
            what,
            needs,
            bytes: length,
        }),
        None => Err(ElfError::Damaged("a part of it would end beyond all files")),
    }
}

fn segments(
    head: &[u8],
    length: u64,
    read: &dyn Fn(u64, &mut [u8]) -> io::Result<()>,
) -> Result<Vec<Segment>, ElfError> {
    let (offset, size, count) = (long(head, 32), half(head, 54), half(head, 56));
    if count == 0 {
        return Err(ElfError::Damaged("nothing of it is to be loaded"));
    }
    if u64::from(half(head, 52)) != HEADER || u64::from(size) != SEGMENT {
        return Err(ElfError::Damaged(
            "its headers have another size than those of 64-bit programs",
        ));
    }
    if count > SEGMENTS {
        return Err(ElfError::Damaged("it has more than 128 program headers"));
    }
    if offset < HEADER {
        return Err(ElfError::Damaged("its program headers lie in its header"));
    }
    let table = u64::from(count).saturating_mul(SEGMENT);
    fits("its table of program headers", offset, table, length)?;
    let mut raw = vec![0; usize::try_from(table).unwrap_or(0)];
    read(offset, &mut raw)?;
    Ok(raw.chunks_exact(SEGMENT as usize).map(Segment::read).collect())
}

/// The dynamic section, which a static program has only to move itself: it needs nobody, and is nobody's library.
fn linking(dynamic: &Segment, read: &dyn Fn(u64, &mut [u8]) -> io::Result<()>) -> Result<(), ElfError> {
    if dynamic.in_file > DYNAMIC {
        return Err(ElfError::Damaged("its dynamic section has more than 64 KiB"));
    }
    let mut raw = vec![0; usize::try_from(dynamic.in_file).unwrap_or(0)];
    read(dynamic.offset, &mut raw)?;
    let tags = raw.chunks_exact(16).map(|entry| long(entry, 0));
    for tag in tags.take_while(|tag| *tag != DT_NULL) {
        match tag {
            DT_NEEDED => return Err(ElfError::Dynamic("it needs shared libraries")),
            DT_SONAME => return Err(ElfError::NoProgram("a shared library and no program")),
            _ => {}
        }
    }
    Ok(())
}

/// What is mapped: in order, without overlap, within a process, and the entry point in something that may run.
fn loads(segments: &[Segment], entry: u64) -> Result<(), ElfError> {
    let mut end = 0;
    let mut entered = false;
    let mut any = false;
    for segment in segments.iter().filter(|segment| segment.kind == PT_LOAD) {
        if segment.in_file > segment.in_memory {
            return Err(ElfError::Damaged("a part has more bytes in the file than in memory"));
        }
        let stops = segment.address.checked_add(segment.in_memory);
        let Some(stops) = stops.filter(|stops| *stops <= USER_END) else {
            return Err(ElfError::Damaged("a part lies where no process has memory"));
        };
        if segment.address < end {
            return Err(ElfError::Damaged("its parts overlap, or are out of order"));
        }
        if segment.in_file > 0 && segment.address % PAGE != segment.offset % PAGE {
            return Err(ElfError::Damaged(
                "a part does not lie in memory as it lies in the file",
            ));
        }
        entered |= segment.flags & PF_X != 0 && (segment.address..stops).contains(&entry);
        end = stops;
        any = true;
    }
    match (any, entered) {
        (false, _) => Err(ElfError::Damaged("nothing of it is to be loaded")),
        (true, false) => Err(ElfError::Damaged("its entry point is in no part that may run")),
        (true, true) => Ok(()),
    }
}
