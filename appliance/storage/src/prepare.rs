//! Giving an empty disk its partition and file system, and in the end its name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rackbar_hardware::gpt::{self, Partition, Table};
use rackbar_hardware::{Root, block};
use rackbar_install::{Machine, own};

use crate::copy::bytes_below;
use crate::{DATA, MOVING, OwnDisk, StorageError, during};

const MIB: u64 = 1 << 20;

/// Size of the file system before it is grown: the template of the shipped disk image.
const TEMPLATE: u64 = 64 * MIB;

/// Block size of the template.
const BLOCK: u64 = 4096;

/// Kept free beside what is copied: the appliance must be able to go on.
const ROOM: u64 = 64 * MIB;

/// How long the kernel gets to show the partition.
const PATIENCE: Duration = Duration::from_secs(10);

/// Linux filesystem data, 0fc63daf-8483-4772-8e79-3d69d8477de4, as stored.
const LINUX_DATA: [u8; 16] = [
    0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
];

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// A disk with an empty file system that is mounted, and that no boot takes for the state yet. Dropped, it is unmounted and
/// left as it is.
#[derive(Debug)]
pub struct Prepared {
    disk: PathBuf,
    partition: PathBuf,
    mounted: PathBuf,
    sector: u64,
    sectors: u64,
    /// Of the partition.
    bytes: u64,
    guid: [u8; 16],
}

/// A random GUID of version 4 (RFC 9562), as stored in a table: the version is in the third field, which is little-endian.
fn guid() -> Result<[u8; 16], StorageError> {
    let mut bytes: [u8; 16] = rackbar_trust::random().map_err(|error| StorageError(error.to_string()))?;
    let [_, _, _, _, _, _, _, version, variant, ..] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    Ok(bytes)
}

/// The template's bytes, at the partition's place on the disk. Zeros are written too: the disk may have held something.
struct At<'a> {
    disk: &'a File,
    offset: u64,
}

impl mkext4::RegionSink for At<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_all_at(bytes, self.offset.saturating_add(offset))
    }

    fn zeros(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let zeros = vec![0; MIB as usize];
        let (mut at, mut left) = (self.offset.saturating_add(offset), length);
        while left > 0 {
            let step = left.min(MIB);
            let part = zeros.get(..step as usize).unwrap_or_default();
            self.disk.write_all_at(part, at)?;
            (at, left) = (at.saturating_add(step), left - step);
        }
        Ok(())
    }
}

fn write_template(disk: &File, offset: u64) -> Result<(), StorageError> {
    let words = |error: mkext4::Error| StorageError(format!("making the file system: {error}"));
    // Its own number, so that no two such disks in one machine are taken for one. The time inside is of no use.
    let mut options = mkext4::Options::new(TEMPLATE, guid()?, 0);
    options.label = Some(DATA.to_owned());
    // Nobody but the appliance writes here; blocks kept back for root would only be lost.
    options.reserved_percent = 0;
    let layout = mkext4::FsBuilder::new(options)
        .and_then(mkext4::FsBuilder::seal)
        .map_err(words)?;
    let mut sink = At { disk, offset };
    let written = layout.writer(&mut sink).and_then(|writer| writer.finish());
    written.map(drop).map_err(words)
}

/// Empties a disk that [`crate::choose()`] gave, and makes its partition and file system. The file system is mounted at
/// `mounted` and as large as the disk.
///
/// # Errors
/// In words. The disk is then empty or half prepared, and no boot takes it for the state.
pub fn prepare(root: &Root, own: &OwnDisk, mounted: &Path) -> Result<Prepared, StorageError> {
    let prepared = make(root, own, mounted)?;
    prepared.grow()?;
    Ok(prepared)
}

/// The same, with the file system as small as its template.
pub(crate) fn make(root: &Root, own: &OwnDisk, mounted: &Path) -> Result<Prepared, StorageError> {
    let name = &own.disk.name;
    let machine = Machine { root: root.clone() };
    own::empty(&machine, name).map_err(|failure| StorageError(format!("{}; {}", failure.reason, failure.advice)))?;
    let sector = u64::from(own.disk.sector_bytes).max(512);
    let sectors = own.disk.size_bytes / sector;
    let align = MIB / sector;
    let table = Partition {
        number: 1,
        name: MOVING.into(),
        kind: LINUX_DATA,
        guid: guid()?,
        first: align,
        // Whole mebibytes, and one left at the end for the table's second copy.
        last: (sectors / align)
            .saturating_sub(1)
            .saturating_mul(align)
            .saturating_sub(1),
    };
    let disk_guid = guid()?;
    let part = table.clone();
    let table = Table::with_one(sector, sectors, disk_guid, &table)
        .ok_or_else(|| StorageError(format!("{name} is too small for a partition")))?;
    let path = root.path(format!("dev/{name}"));
    let disk = OpenOptions::new().read(true).write(true).open(&path);
    let disk = disk.map_err(during(format!("opening {name}")))?;
    write_template(&disk, part.first.saturating_mul(sector))?;
    let written = || during(format!("writing the partition table of {name}"));
    disk.write_all_at(&gpt::protective_mbr(sectors), 0).map_err(written())?;
    table.write(&disk, sectors).map_err(written())?;
    disk.sync_all().map_err(written())?;
    let (start, length) = (part.first * sector, (part.last + 1 - part.first) * sector);
    let partition = root.path(format!("dev/{}", own::partition_name(name, 1)));
    show(&disk, &partition, start, length)?;
    let prepared = Prepared {
        disk: path,
        partition,
        mounted: mounted.to_owned(),
        sector,
        sectors,
        bytes: length,
        guid: disk_guid,
    };
    let mounting = during(format!("mounting {}", prepared.partition.display()));
    mount_ext4(&prepared.partition, mounted).map_err(mounting)?;
    Ok(prepared)
}

/// Makes the kernel show the partition.
fn show(disk: &File, partition: &Path, start: u64, length: u64) -> Result<(), StorageError> {
    let reread = block::reread_partitions(disk);
    // A kernel without the GPT parser, or one where something holds the disk, is told; one that found it says EBUSY.
    match block::add_partition(disk, 1, start, length) {
        Err(error) if reread.is_err() || error.raw_os_error() != Some(nix::libc::EBUSY) => {
            return Err(during("the kernel does not take the new partition")(error));
        }
        _ => {}
    }
    let deadline = Instant::now() + PATIENCE;
    while !partition.exists() {
        if Instant::now() > deadline {
            return Err(StorageError(format!("{} did not appear", partition.display())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn mount_ext4(device: &Path, at: &Path) -> io::Result<()> {
    fs::create_dir_all(at)?;
    mount(Some(device), at, Some("ext4"), SAFE, Some("errors=remount-ro"))?;
    Ok(())
}

impl Prepared {
    /// Lets the file system fill the partition: the kernel's own online resize, journalled.
    fn grow(&self) -> Result<(), StorageError> {
        let words = || during(format!("growing the file system on {}", self.partition.display()));
        let folder = File::open(&self.mounted).map_err(words())?;
        block::resize_ext4(&folder, self.bytes / BLOCK).map_err(words())
    }

    /// Where the new file system is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Looks whether what is below `data` fits.
    ///
    /// # Errors
    /// Says how much is missing.
    pub fn has_room_for(&self, data: &Path) -> Result<(), StorageError> {
        let free = nix::sys::statvfs::statvfs(&self.mounted)
            .map_err(|error| during(format!("asking for the room on {}", self.disk.display()))(error.into()))?;
        let free = free.blocks_available().saturating_mul(free.fragment_size());
        let wanted = bytes_below(data).saturating_add(ROOM);
        if free >= wanted {
            return Ok(());
        }
        Err(StorageError(format!(
            "the state needs {} MiB and {} has {} MiB: choose a larger disk, or remove images that are not needed",
            wanted / MIB,
            self.disk.display(),
            free / MIB
        )))
    }

    /// Puts everything that was copied on the medium.
    ///
    /// # Errors
    /// When the disk could not take some of it.
    pub fn sync(&self) -> Result<(), StorageError> {
        let words = || during(format!("writing to {}", self.disk.display()));
        let folder = File::open(&self.mounted).map_err(words())?;
        nix::unistd::syncfs(folder.as_fd()).map_err(|error| words()(error.into()))
    }

    /// The step that counts: the file system takes the place of the one at `data`, and the partition gets the name by which
    /// every boot finds it. Nobody may use `data` meanwhile. `aside` is a folder for the old file system until it goes.
    ///
    /// # Errors
    /// In words; then the old file system is at `data` as it was, and no boot takes the disk for the state.
    pub fn settle(self, data: &Path, aside: &Path) -> Result<(), StorageError> {
        self.sync()?;
        fs::create_dir_all(aside).map_err(during(format!("creating {}", aside.display())))?;
        move_mount(data, aside).map_err(during(format!("moving what is at {} aside", data.display())))?;
        let settled = mount_ext4(&self.partition, data)
            .map_err(during(format!(
                "mounting {} at {}",
                self.partition.display(),
                data.display()
            )))
            .and_then(|()| {
                self.rename(DATA).inspect_err(|_| {
                    // The second copy of the table may have taken the new name.
                    let _ = self.rename(MOVING);
                    let _ = umount2(data, MntFlags::MNT_DETACH);
                })
            });
        match settled {
            Ok(()) => {
                // Its memory is free again when the last file in it is closed.
                let _ = umount2(aside, MntFlags::MNT_DETACH);
                Ok(())
            }
            Err(error) => match move_mount(aside, data) {
                Ok(()) => Err(error),
                Err(back) => Err(StorageError(format!(
                    "{error}; and what was moved aside does not go back: {back}"
                ))),
            },
        }
    }

    /// Writes the partition's name. Both copies of the table are written one after the other, each whole on the medium
    /// before the next begins: a power cut leaves the old name or the new one.
    fn rename(&self, name: &str) -> Result<(), StorageError> {
        let words = || during(format!("writing the partition table of {}", self.disk.display()));
        let disk = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.disk)
            .map_err(words())?;
        let found = gpt::find(&disk, self.sector, self.sectors).filter(|found| found.table.disk_guid() == self.guid);
        let found = found.ok_or_else(|| words()(io::Error::other("it is not the one that was written")))?;
        found.table.renamed(1, name).write(&disk, self.sectors).map_err(words())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let _ = umount2(&self.mounted, MntFlags::MNT_DETACH);
    }
}

fn move_mount(from: &Path, to: &Path) -> io::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    Ok(())
}
