//! Memory: patterns are written to all that is free but for 128 MiB, then read back. Walking ones find stuck and
//! coupled bits, each cell's own address finds lines of the address bus that are stuck together.

use std::time::Duration;

use nix::libc;
use rackbar_model::CheckResult;

use super::{Span, threads};
use crate::control::{Control, refuse};
use crate::disk::{Buffer, MIB};
use crate::{Machine, Result};

/// Left free for the system and the agent.
const SPARED: u64 = 128 * MIB;

/// Memory is taken in pieces of this size: they need not lie together.
const PIECE: u64 = 64 * MIB;

/// Faults that are listed.
const LISTED: usize = 8;

/// What is written to a cell at `address` in turn number `turn`.
fn pattern(turn: u64, address: u64) -> u64 {
    match turn % 70 {
        0 => 0,
        1 => u64::MAX,
        2 => 0xaaaa_aaaa_aaaa_aaaa,
        3 => 0x5555_5555_5555_5555,
        4 => address,
        5 => !address,
        walking => 1 << (walking - 6),
    }
}

/// Exercises the memory that is free.
pub(super) fn run(machine: &Machine, length: Duration, control: &Control) -> Result<CheckResult> {
    let text = machine.root.text("proc/meminfo").unwrap_or_default();
    let free = available(&text).saturating_sub(SPARED);
    if free < PIECE {
        return Err(refuse(
            "less than 192 MiB of memory are free, which is too little to test",
            "",
        ));
    }
    run_on(free / PIECE * PIECE, length, control)
}

/// `MemAvailable` of /proc/meminfo in bytes.
fn available(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

fn run_on(bytes: u64, length: Duration, control: &Control) -> Result<CheckResult> {
    let span = Span::begin("exercising the memory", length, control);
    let mut pieces: Vec<Buffer> = (0..bytes / PIECE).map(|_| Buffer::new(PIECE as usize)).collect();
    // Locked memory is certain to be memory: this system has no swap, but a machine under test should say so itself.
    let locked = pieces.iter().filter(|piece| lock(piece)).count();
    let (mut faults, mut turns) = (Vec::new(), 0u64);
    loop {
        each(&mut pieces, |number, cells| write(cells, turns, number));
        let found = each(&mut pieces, |number, cells| verify(cells, turns, number));
        faults.extend(found.into_iter().flatten());
        faults.truncate(LISTED);
        turns += 1;
        if !span.goes_on() {
            break;
        }
    }
    pieces.iter().for_each(unlock);
    control.check()?;
    let rate = (bytes / MIB * turns * 2) as f64 / span.begun.elapsed().as_secs_f64().max(0.001);
    Ok(span.result(
        "burnin.memory".to_owned(),
        format!("{} MiB keep what is written to them", bytes / MIB),
        &faults,
        format!(
            "{turns} patterns in {} MiB ({locked} of {} pieces locked), {rate:.0} MiB/s",
            bytes / MIB,
            pieces.len()
        ),
        "replace the memory module; the machine's event log may name its slot",
    ))
}

/// Runs `work` on all pieces, some at once, and gives its results in order.
fn each<T: Send>(pieces: &mut [Buffer], work: impl Fn(u64, &mut [u64]) -> T + Sync) -> Vec<T> {
    let share = pieces.len().div_ceil(threads()).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = pieces
            .chunks_mut(share)
            .enumerate()
            .map(|(group, pieces)| {
                let work = &work;
                scope.spawn(move || {
                    let first = group * share;
                    let numbered = pieces.iter_mut().enumerate();
                    numbered
                        .map(|(index, piece)| work((first + index) as u64, cells(piece)))
                        .collect::<Vec<T>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().ok())
            .flatten()
            .collect()
    })
}

/// A piece as cells of 64 bits.
fn cells(piece: &mut Buffer) -> &mut [u64] {
    // SAFETY: any bytes are valid u64, and align_to gives only whole, aligned ones in the middle.
    unsafe { piece.align_to_mut::<u64>().1 }
}

fn write(cells: &mut [u64], turn: u64, piece: u64) {
    for (index, cell) in cells.iter_mut().enumerate() {
        *cell = pattern(turn, piece * PIECE + 8 * index as u64);
    }
    // The compiler must not know what is in memory when it is read again.
    std::hint::black_box(cells);
}

fn verify(cells: &mut [u64], turn: u64, piece: u64) -> Option<String> {
    let cells = std::hint::black_box(cells);
    cells.iter().enumerate().find_map(|(index, cell)| {
        let address = piece * PIECE + 8 * index as u64;
        let wanted = pattern(turn, address);
        (*cell != wanted)
            .then(|| format!("cell {address:#x} of the tested memory held {cell:#018x} in place of {wanted:#018x}"))
    })
}

fn lock(piece: &Buffer) -> bool {
    // SAFETY: the range is the buffer's own memory; locking does not change it.
    unsafe { libc::mlock(piece.as_ptr().cast(), piece.len()) == 0 }
}

fn unlock(piece: &Buffer) {
    // SAFETY: as above.
    unsafe { libc::munlock(piece.as_ptr().cast(), piece.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackbar_model::CheckStatus;

    #[test]
    fn good_memory_passes() {
        let result = run_on(2 * PIECE, Duration::from_millis(10), &Control::default()).unwrap();
        assert_eq!(result.status, CheckStatus::Passed, "{result:?}");
        assert!(result.observed.contains("128 MiB"));
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), 2 << 20);
    }

    #[test]
    fn a_flipped_bit_is_found_with_every_pattern() {
        for turn in 0..70 {
            let mut memory = vec![0; 4096];
            write(&mut memory, turn, 3);
            assert_eq!(verify(&mut memory, turn, 3), None);
            memory[1234] ^= 1 << (turn % 64);
            let fault = verify(&mut memory, turn, 3).unwrap();
            assert!(fault.contains(&format!("{:#x}", 3 * PIECE + 8 * 1234)), "{fault}");
        }
    }
}
