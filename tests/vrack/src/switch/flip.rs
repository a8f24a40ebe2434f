//! One bit of what a web server sent is another when it arrives, and the checksums on the way say that it is right: so does a
//! middlebox with bad memory that takes segments apart and makes them anew. Only what is above TCP can notice.

use std::ops::Range;

const ETHERNET: usize = 14;
/// Offset of the checksum in a TCP header (RFC 9293, section 3.1).
const CHECKSUM: usize = 16;

/// A TCP segment over IPv4, in one piece: where its header begins in its frame, and what it carries.
struct Segment {
    header: usize,
    payload: Range<usize>,
}

/// The segment of a frame without a VLAN tag, where it is one from port 80.
fn from_web(frame: &[u8]) -> Option<Segment> {
    let ip = frame.get(ETHERNET..).filter(|_| frame.get(12..14) == Some(&[8, 0]))?;
    let word = |at: usize| Some(u16::from_be_bytes([*ip.get(at)?, *ip.get(at + 1)?]));
    let in_one_piece = word(6)? & 0x3fff == 0;
    let tcp = usize::from(ip.first()? & 0x0f) * 4;
    if !in_one_piece || *ip.get(9)? != 6 || word(tcp)? != 80 {
        return None;
    }
    let begin = tcp + usize::from(ip.get(tcp + 12)? >> 4) * 4;
    // Short frames are padded: what counts is what IP says.
    let end = usize::from(word(2)?).min(ip.len());
    Some(Segment {
        header: ETHERNET + tcp,
        payload: ETHERNET + begin..ETHERNET + end,
    })
}

/// How many octets a frame carries that a web server sent over plain HTTP; 0 for all other frames.
pub(super) fn carried(frame: &[u8]) -> usize {
    from_web(frame).map_or(0, |segment| segment.payload.len())
}

/// The frame with the lowest bit of the octet `at` of its payload another, and a checksum that fits; `None` when it has no such
/// octet.
pub(super) fn flipped(frame: &[u8], at: usize) -> Option<Vec<u8>> {
    let Segment { header, payload } = from_web(frame)?;
    let place = payload.start.checked_add(at).filter(|place| *place < payload.end)?;
    let mut changed = frame.to_vec();
    *changed.get_mut(place)? ^= 1;
    // The words of the checksum begin with the header; the last one is filled up with a zero.
    let first = place - (place - header) % 2;
    let word = |frame: &[u8]| {
        let second = frame.get(first + 1).filter(|_| first + 1 < payload.end);
        Some(u16::from_be_bytes([*frame.get(first)?, second.copied().unwrap_or(0)]))
    };
    let (old, new) = (word(frame)?, word(&changed)?);
    let checksum = changed.get_mut(header + CHECKSUM..)?.first_chunk_mut::<2>()?;
    *checksum = updated(u16::from_be_bytes(*checksum), old, new).to_be_bytes();
    Some(changed)
}

/// A checksum after one word became another (RFC 1624, equation 3).
fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with this text from a port, with its checksum, padded to what Ethernet carries at least.
    fn frame(port: u16, text: &[u8]) -> Vec<u8> {
        let mut tcp = [&port.to_be_bytes()[..], &[0x9c, 0x40]].concat();
        tcp.extend_from_slice(&[0, 0, 0, 7, 0, 0, 0, 9, 0x60, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        // An option, so that the header is longer than the usual one.
        tcp.extend_from_slice(&[1, 1, 1, 1]);
        tcp.extend_from_slice(text);
        let sum = !sum(&tcp);
        tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        let total = u16::try_from(20 + tcp.len()).unwrap();
        let mut ip = vec![0x45, 0];
        ip.extend_from_slice(&total.to_be_bytes());
        ip.extend_from_slice(&[0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let mut frame = [&[2; 12][..], &[8, 0], &ip, &tcp].concat();
        frame.resize(frame.len().max(60) + 4, 0xee);
        frame
    }

    /// The sum over a pseudo header and a segment (RFC 9293, section 3.1).
    fn sum(tcp: &[u8]) -> u16 {
        let pseudo = [10, 0, 0, 1, 10, 0, 0, 2, 0, 6];
        let length = u32::try_from(tcp.len()).unwrap();
        let words = |bytes: &[u8]| -> u32 {
            let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
            bytes.chunks(2).map(word).sum()
        };
        let mut sum = words(&pseudo) + length + words(tcp);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    fn segment(frame: &[u8]) -> &[u8] {
        let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        &frame[34..14 + total]
    }

    #[test]
    fn one_bit_is_another_and_the_checksum_fits_wherever_it_is() {
        let text = b"HTTP/1.1 200 OK\r\n\r\nseven, and an odd end";
        let sent = frame(80, text);
        assert_eq!((carried(&sent), sum(segment(&sent))), (text.len(), 0xffff));
        for at in 0..text.len() {
            let arrived = flipped(&sent, at).unwrap();
            assert_eq!(sum(segment(&arrived)), 0xffff, "octet {at}");
            let other: Vec<usize> = (0..sent.len())
                .filter(|place| sent[*place] != arrived[*place])
                .collect();
            let octet = 14 + 20 + 24 + at;
            assert!(other.contains(&octet) && sent[octet] ^ 1 == arrived[octet], "{other:?}");
            assert!(other.iter().all(|place| *place == octet || (50..52).contains(place)));
        }
        assert_eq!(flipped(&sent, text.len()), None);
    }

    #[test]
    fn what_is_no_segment_of_a_web_server_passes_as_it_is() {
        assert_eq!(carried(&frame(443, b"sealed")), 0);
        let whole = frame(80, b"a body");
        for (at, value) in [(12, 0x86), (20, 0x20), (21, 1), (23, 17)] {
            let mut other = whole.clone();
            other[at] = value;
            assert_eq!((carried(&other), flipped(&other, 0)), (0, None), "octet {at}");
        }
        for length in 0..whole.len() {
            let cut = &whole[..length];
            assert!(carried(cut) <= 6 && flipped(cut, 6).is_none(), "{length} octets");
        }
    }
}
