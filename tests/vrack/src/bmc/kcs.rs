//! The in-band face: QEMU's `ipmi-bmc-extern` device dials a socket and speaks the small protocol of OpenIPMI's
//! simulator (QEMU, hw/ipmi/ipmi_bmc_extern.c): messages and commands, ended by a marker byte, markers escaped.
//!
//! message: sequence, network function and logical unit, command, \[completion,\] data, checksum, A0h
//! command: code, \[value,\] A1h

use std::io;
use std::sync::Arc;

use rackbar_ipmi::{Privilege, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::commands;
use super::state::BmcState;

const END_OF_MESSAGE: u8 = 0xa0;
const END_OF_COMMAND: u8 = 0xa1;
const ESCAPE: u8 = 0xaa;
const ESCAPED: u8 = 0x10;
/// Command FFh: the protocol's version, 1.
const VERSION: [u8; 3] = [0xff, 1, END_OF_COMMAND];
/// The longest message; KCS transfers stay under 255 bytes.
const LONGEST: usize = 300;

/// What a marker byte completes.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Unit {
    Message(Vec<u8>),
    Command,
}

/// Collects bytes until a marker.
#[derive(Default)]
struct Collector {
    bytes: Vec<u8>,
    escaped: bool,
}

impl Collector {
    fn push(&mut self, byte: u8) -> Option<Unit> {
        match byte {
            END_OF_MESSAGE => {
                self.escaped = false;
                Some(Unit::Message(std::mem::take(&mut self.bytes)))
            }
            END_OF_COMMAND => {
                self.escaped = false;
                self.bytes.clear();
                Some(Unit::Command)
            }
            ESCAPE => {
                self.escaped = true;
                None
            }
            _ => {
                let byte = if std::mem::take(&mut self.escaped) {
                    byte & !ESCAPED
                } else {
                    byte
                };
                if self.bytes.len() < LONGEST {
                    self.bytes.push(byte);
                }
                None
            }
        }
    }
}

/// Sequence and request of a message whose checksum is right.
fn decode(message: &[u8]) -> Option<(u8, Request)> {
    let (_, body) = message.split_last()?;
    let (sequence, request) = body.split_first()?;
    let sum = message.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if sum != 0 {
        return None;
    }
    Some((*sequence, Request::from_kcs(request).ok()?))
}

fn encode(sequence: u8, answer: &[u8]) -> Vec<u8> {
    let sum = answer.iter().fold(sequence, |sum, byte| sum.wrapping_add(*byte));
    let mut out = Vec::new();
    for byte in std::iter::once(sequence)
        .chain(answer.iter().copied())
        .chain([sum.wrapping_neg()])
    {
        if matches!(byte, END_OF_MESSAGE | END_OF_COMMAND | ESCAPE) {
            out.extend_from_slice(&[ESCAPE, byte | ESCAPED]);
        } else {
            out.push(byte);
        }
    }
    out.push(END_OF_MESSAGE);
    out
}

/// Serves one connection until the machine hangs up.
pub(super) async fn serve(state: &Arc<BmcState>, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.write_all(&VERSION).await?;
    let mut collector = Collector::default();
    let mut buffer = [0; 512];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        for &byte in buffer.get(..length).unwrap_or_default() {
            // Commands tell the version, a reset, capabilities: nothing that needs an answer here.
            let Some(Unit::Message(message)) = collector.push(byte) else {
                continue;
            };
            let Some((sequence, request)) = decode(&message) else {
                continue;
            };
            if state.faults().deaf {
                continue;
            }
            tokio::time::sleep(state.faults().slow).await;
            // Whoever runs in the machine's kernel may do everything: KCS knows no login (section 6.8).
            let response = commands::execute(state, Privilege::Administrator, &request).await;
            stream.write_all(&encode(sequence, &response.to_kcs())).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_in_data_are_escaped() {
        let answer: Vec<u8> = (0..=255).collect();
        let sent = encode(0xa0, &answer);
        assert_eq!(sent.iter().filter(|byte| **byte == END_OF_MESSAGE).count(), 1);
        let mut collector = Collector::default();
        let units: Vec<_> = sent.iter().filter_map(|byte| collector.push(*byte)).collect();
        let [Unit::Message(message)] = units.as_slice() else {
            panic!("{units:?}")
        };
        assert_eq!(message[1..257], answer);
        assert_eq!(message.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }

    #[test]
    fn a_wrong_checksum_is_dropped() {
        assert!(decode(&[1, 0x18, 0x01, 0xe6]).is_some());
        assert!(decode(&[1, 0x18, 0x01, 0xe7]).is_none());
        assert!(decode(&[]).is_none() && decode(&[0]).is_none());
    }
}
