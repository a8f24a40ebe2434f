//! Which frames are captured: as a rule, and as a program in classic BPF by which the kernel tells them apart, so that an
//! image on its way to a hundred machines costs a capture nothing.

use rackbar_model::MacAddr;

use crate::frame::{
    ARP, DHCP, DNS, ETHERNET, ICMP, ICMPV6, IPV4, IPV6, IPV6_HEADER, LLDP, TCP, TFTP, UDP, byte, half, ip,
    is_tftp_answer, word,
};

/// Most TCP ports and MAC addresses of a filter; further ones are passed over. The program's jumps reach no further.
const MOST_PORTS: usize = 8;
/// See [`MOST_PORTS`].
const MOST_MACS: usize = 16;

/// FIN, SYN and RST: what opens and ends a connection.
const OPENS_OR_ENDS: u8 = 0b111;

/// What is looked for. Always: ARP, LLDP, DHCP, requests and the beginning of transfers of TFTP, ICMP.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Filter {
    /// TCP ports whose connections' beginnings and ends are wanted too.
    pub tcp: Vec<u16>,
    /// DNS too.
    pub names: bool,
    /// What of everything else.
    pub rest: Rest,
}

/// What of everything else is looked for; only its headers are kept.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Rest {
    /// Nothing.
    #[default]
    Nothing,
    /// What these MAC addresses send or are sent.
    Of(Vec<MacAddr>),
    /// All.
    Everything,
}

impl Filter {
    /// True for a frame that is looked for: what [`Self::program`] says of one without a VLAN tag.
    pub fn takes(&self, frame: &[u8]) -> bool {
        match &self.rest {
            Rest::Everything => return true,
            Rest::Of(macs) if macs.iter().take(MOST_MACS).any(|mac| touches(frame, *mac)) => return true,
            Rest::Of(_) | Rest::Nothing => {}
        }
        self.boots(frame).unwrap_or(false)
    }

    /// `None` when the frame ends before what had to be looked at, which the kernel takes for a no.
    fn boots(&self, frame: &[u8]) -> Option<bool> {
        match half(frame, 12)? {
            ARP | LLDP => return Some(true),
            IPV4 | IPV6 => {}
            _ => return Some(false),
        }
        let (v4, ip) = (half(frame, 12)? == IPV4, ip(frame)?);
        let at = ip.payload;
        match ip.protocol {
            _ if ip.later => Some(false),
            ICMP if v4 => Some(true),
            ICMPV6 if !v4 => Some(true),
            UDP => {
                let mut ports = self.udp();
                let wanted = ports.any(|port| half(frame, at) == Some(port));
                half(frame, at)?;
                if wanted || self.udp().any(|port| half(frame, at + 2) == Some(port)) {
                    return Some(true);
                }
                is_tftp_answer(frame, at)
            }
            TCP => {
                if byte(frame, at + 13)? & OPENS_OR_ENDS == 0 {
                    return Some(false);
                }
                Some(
                    self.tcp()
                        .any(|port| half(frame, at) == Some(port) || half(frame, at + 2) == Some(port)),
                )
            }
            _ => Some(false),
        }
    }

    fn udp(&self) -> impl Iterator<Item = u16> {
        DHCP.into_iter().chain([TFTP]).chain(self.names.then_some(DNS))
    }

    fn tcp(&self) -> impl Iterator<Item = u16> {
        self.tcp.iter().copied().take(MOST_PORTS)
    }

    /// In words, for the capture file.
    pub fn words(&self) -> String {
        let mut words = "arp, lldp, dhcp, tftp (requests and first blocks), icmp".to_owned();
        if self.names {
            words.push_str(", dns");
        }
        if !self.tcp.is_empty() {
            let ports: Vec<String> = self.tcp().map(|port| port.to_string()).collect();
            words.push_str(&format!(", beginnings and ends of tcp {}", ports.join(" ")));
        }
        match &self.rest {
            Rest::Nothing => {}
            Rest::Of(_) => words.push_str(", headers of all else of the machine"),
            Rest::Everything => words.push_str(", headers of all else"),
        }
        words
    }

    /// The program for the kernel. Of frames with a VLAN tag it takes none: those are seen on the VLAN's own interface.
    pub fn program(&self) -> Vec<Instruction> {
        let mut code = Code::default();
        let (take, pass) = (code.label(), code.label());
        code.load(LOAD_WORD, VLAN_TAG_PRESENT);
        code.jump(EQUAL, 0, Next, To(pass));
        match &self.rest {
            Rest::Nothing => self.boot_program(&mut code, pass),
            Rest::Everything => {}
            Rest::Of(macs) => {
                for mac in macs.iter().take(MOST_MACS) {
                    code.touches(*mac);
                }
                self.boot_program(&mut code, pass);
            }
        }
        code.place(take);
        code.load(RETURN, ALL);
        code.place(pass);
        code.load(RETURN, 0);
        code.resolved()
    }

    /// Falls through, or returns, where a frame is of a boot; goes to `pass` where it is not.
    fn boot_program(&self, code: &mut Code, pass: Label) {
        let [take, v4, v6, udp, tcp] = [(); 5].map(|()| code.label());
        code.load(LOAD_HALF, 12);
        for (kind, to) in [(ARP, take), (LLDP, take), (IPV4, v4), (IPV6, v6)] {
            code.jump(EQUAL, u32::from(kind), To(to), Next);
        }
        code.load(RETURN, 0);
        code.place(v4);
        code.load(LOAD_HALF, 20);
        code.jump(ANY_BIT, 0x1fff, To(pass), Next);
        code.load(LOAD_BYTE, 23);
        code.jump(EQUAL, u32::from(ICMP), To(take), Next);
        code.load(LOAD_IHL, ETHERNET as u32);
        code.jump(EQUAL, u32::from(UDP), To(udp), Next);
        code.jump(EQUAL, u32::from(TCP), To(tcp), To(pass));
        code.place(v6);
        code.load(LOAD_BYTE, 20);
        code.jump(EQUAL, u32::from(ICMPV6), To(take), Next);
        code.load(SET_X, IPV6_HEADER as u32);
        code.jump(EQUAL, u32::from(UDP), To(udp), Next);
        code.jump(EQUAL, u32::from(TCP), To(tcp), To(pass));
        code.place(udp);
        for at in [0, 2] {
            code.load(LOAD_HALF_X, ETHERNET as u32 + at);
            for port in self.udp() {
                code.jump(EQUAL, u32::from(port), To(take), Next);
            }
        }
        // A transfer goes on between ports of its own: its beginning is known by its first bytes.
        for at in [0, 2] {
            code.load(LOAD_HALF_X, ETHERNET as u32 + at);
            code.jump(AT_LEAST, 1_024, Next, To(pass));
        }
        code.load(LOAD_WORD_X, ETHERNET as u32 + 8);
        for begin in [0x0003_0001, 0x0004_0000, 0x0004_0001] {
            code.jump(EQUAL, begin, To(take), Next);
        }
        code.load(SHIFT_RIGHT, 16);
        code.jump(EQUAL, 5, To(take), Next);
        code.jump(EQUAL, 6, To(take), To(pass));
        code.place(tcp);
        code.load(LOAD_BYTE_X, ETHERNET as u32 + 13);
        code.jump(ANY_BIT, u32::from(OPENS_OR_ENDS), Next, To(pass));
        for at in [0, 2] {
            code.load(LOAD_HALF_X, ETHERNET as u32 + at);
            for port in self.tcp() {
                code.jump(EQUAL, u32::from(port), To(take), Next);
            }
        }
        code.load(RETURN, 0);
        code.place(take);
    }
}

fn touches(frame: &[u8], mac: MacAddr) -> bool {
    let (high, low) = parts(mac);
    [0, 6]
        .iter()
        .any(|&at| half(frame, at).map(u32::from) == Some(high) && word(frame, at + 2) == Some(low))
}

fn parts(mac: MacAddr) -> (u32, u32) {
    let [a, b, c, d, e, f] = mac.0;
    (u32::from(u16::from_be_bytes([a, b])), u32::from_be_bytes([c, d, e, f]))
}

/// An instruction of classic BPF, as `struct sock_filter` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to leap when it is so.
    pub jt: u8,
    /// Instructions to leap when it is not.
    pub jf: u8,
    /// Its number.
    pub k: u32,
}

// Codes of `linux/bpf_common.h`: class, size or operation, mode or source.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD_X: u16 = 0x40;
const LOAD_HALF_X: u16 = 0x48;
const LOAD_BYTE_X: u16 = 0x50;
const SET_X: u16 = 0x01;
/// X = 4 * (byte & 15).
const LOAD_IHL: u16 = 0xb1;
const SHIFT_RIGHT: u16 = 0x74;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT: whether a tag was taken off.
const VLAN_TAG_PRESENT: u32 = 0xffff_f000 + 48;
const ALL: u32 = 0x4_0000;

type Label = usize;

#[derive(Clone, Copy)]
enum Target {
    Next,
    To(Label),
}
use Target::{Next, To};

/// A program while it is written; all jumps lead forwards.
#[derive(Default)]
struct Code {
    lines: Vec<(u16, Target, Target, u32)>,
    labels: Vec<usize>,
}

impl Code {
    fn label(&mut self) -> Label {
        self.labels.push(0);
        self.labels.len() - 1
    }

    fn place(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label) {
            *place = self.lines.len();
        }
    }

    fn load(&mut self, code: u16, k: u32) {
        self.lines.push((code, Next, Next, k));
    }

    fn jump(&mut self, code: u16, k: u32, yes: Target, no: Target) {
        self.lines.push((code, yes, no, k));
    }

    /// Takes what a MAC address sends or is sent, at once: the end is too far to jump to.
    fn touches(&mut self, mac: MacAddr) {
        let (high, low) = parts(mac);
        for at in [0, 6] {
            let other = self.label();
            self.load(LOAD_HALF, at);
            self.jump(EQUAL, high, Next, To(other));
            self.load(LOAD_WORD, at + 2);
            self.jump(EQUAL, low, Next, To(other));
            self.load(RETURN, ALL);
            self.place(other);
        }
    }

    fn resolved(&self) -> Vec<Instruction> {
        let leap = |from: usize, to: Target| match to {
            Next => 0,
            // Bounded by how many ports and addresses there may be; a test tries the longest.
            To(label) => self
                .labels
                .get(label)
                .map_or(0, |to| u8::try_from(to.saturating_sub(from + 1)).unwrap_or(u8::MAX)),
        };
        let lines = self.lines.iter().enumerate();
        lines
            .map(|(at, &(code, yes, no, k))| Instruction {
                code,
                jt: leap(at, yes),
                jf: leap(at, no),
                k,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::{CLIENT, ethernet, ipv4, ipv6, tcp, udp};
    use proptest::prelude::*;

    /// The kernel's interpreter, as far as these programs need it.
    fn run(program: &[Instruction], frame: &[u8]) -> bool {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0);
        loop {
            let one = program[at];
            at += 1;
            let place = one.k.wrapping_add(if one.code & 0x40 != 0 { x } else { 0 }) as usize;
            let loaded = match one.code {
                LOAD_WORD if one.k == VLAN_TAG_PRESENT => Some(0),
                LOAD_WORD | LOAD_WORD_X => word(frame, place),
                LOAD_HALF | LOAD_HALF_X => half(frame, place).map(u32::from),
                LOAD_BYTE | LOAD_BYTE_X => byte(frame, place).map(u32::from),
                LOAD_IHL => match byte(frame, one.k as usize) {
                    Some(byte) => {
                        x = 4 * u32::from(byte & 0xf);
                        Some(a)
                    }
                    None => None,
                },
                SET_X => {
                    x = one.k;
                    Some(a)
                }
                SHIFT_RIGHT => Some(a >> one.k),
                EQUAL | AT_LEAST | ANY_BIT => {
                    let is = match one.code {
                        EQUAL => a == one.k,
                        AT_LEAST => a >= one.k,
                        _ => a & one.k != 0,
                    };
                    at += usize::from(if is { one.jt } else { one.jf });
                    Some(a)
                }
                RETURN => return one.k != 0,
                other => panic!("no such instruction here: {other:#x}"),
            };
            match loaded {
                Some(loaded) => a = loaded,
                None => return false,
            }
        }
    }

    fn boot() -> Filter {
        Filter {
            tcp: vec![80, 8_443],
            ..Filter::default()
        }
    }

    #[test]
    fn boot_packets_are_taken_and_an_image_on_its_way_is_not() {
        let filter = boot();
        let program = filter.program();
        for frame in [
            ethernet(ARP, &[0; 28]),
            ethernet(LLDP, &[]),
            ipv4(UDP, &udp(68, 67, &[])),
            ipv4(UDP, &udp(40_000, 4_011, &[])),
            ipv6(UDP, &udp(546, 547, &[])),
            ipv4(UDP, &udp(2_070, 69, b"\0\x01loader.efi\0octet\0")),
            ipv4(UDP, &udp(3_000, 2_070, &[0, 6, b'b', b'l'])),
            ipv4(UDP, &udp(3_000, 2_070, &[0, 3, 0, 1, 9])),
            ipv4(UDP, &udp(3_000, 2_070, &[0, 5, 0, 1])),
            ipv6(UDP, &udp(2_070, 3_000, &[0, 4, 0, 0])),
            ipv4(ICMP, &[8]),
            ipv6(ICMPV6, &[133]),
            ipv4(TCP, &tcp(40_000, 80, 2, &[])),
            ipv6(TCP, &tcp(8_443, 40_000, 0x14, &[])),
        ] {
            assert!(run(&program, &frame) && filter.takes(&frame), "{frame:02x?}");
        }
        let mut fragment = ipv4(UDP, &udp(68, 67, &[]));
        fragment[21] = 9;
        for frame in [
            ipv4(TCP, &tcp(80, 40_000, 0x10, &[0; 1_400])),
            ipv4(TCP, &tcp(40_000, 22, 2, &[])),
            ipv4(UDP, &udp(3_000, 2_070, &[0, 3, 0, 2, 9])),
            ipv4(UDP, &udp(3_000, 2_070, &[0, 4, 1, 0])),
            ipv4(UDP, &udp(514, 514, &[0, 5, 0, 0])),
            ipv4(UDP, &udp(40_000, 53, &[])),
            ethernet(0x8100, &[0; 60]),
            fragment,
        ] {
            assert!(!run(&program, &frame) && !filter.takes(&frame), "{frame:02x?}");
        }
        let names = Filter { names: true, ..boot() };
        assert!(run(&names.program(), &ipv4(UDP, &udp(40_000, 53, &[]))));
        assert!(names.words().contains("dns"), "{}", names.words());
    }

    #[test]
    fn everything_of_a_machine_can_be_taken() {
        let mut frame = ipv4(TCP, &tcp(80, 40_000, 0x10, &[0; 1_400]));
        frame[..6].copy_from_slice(&CLIENT.0);
        // The longest program that there can be: its jumps must still reach.
        let macs: Vec<MacAddr> = (0..40).map(|n| MacAddr([2, 9, 9, 9, 9, n])).collect();
        let crowd = Filter {
            tcp: (1_000..1_040).collect(),
            names: true,
            rest: Rest::Of([&macs[..15], &[CLIENT]].concat()),
        };
        assert!(run(&crowd.program(), &frame));
        assert!(run(&crowd.program(), &ethernet(ARP, &[])));
        assert!(run(&crowd.program(), &ipv4(TCP, &tcp(9, 1_007, 1, &[]))));
        frame[..6].copy_from_slice(&[2, 9, 9, 9, 9, 0xff]);
        assert!(!run(&crowd.program(), &frame));
        let everything = Filter {
            rest: Rest::Everything,
            ..Filter::default()
        };
        assert!(run(&everything.program(), &frame) && everything.takes(&frame));
    }

    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let port = prop_oneof![
            Just(67u16),
            Just(69),
            Just(80),
            Just(547),
            Just(53),
            Just(1_023),
            Just(1_024),
            any::<u16>()
        ];
        let begin = prop_oneof![
            Just(vec![0u8, 3, 0, 1]),
            Just(vec![0, 6, 1]),
            proptest::collection::vec(any::<u8>(), 0..12)
        ];
        let protocol = prop_oneof![Just(UDP), Just(TCP), Just(ICMP), Just(ICMPV6), any::<u8>()];
        let parts = (port.clone(), port, begin, protocol, any::<u8>(), any::<bool>());
        let made = parts.prop_map(|(from, to, begin, protocol, flags, v4)| {
            let inner = if protocol == TCP {
                tcp(from, to, flags, &begin)
            } else {
                udp(from, to, &begin)
            };
            if v4 {
                ipv4(protocol, &inner)
            } else {
                ipv6(protocol, &inner)
            }
        });
        let raw = proptest::collection::vec(any::<u8>(), 14..90);
        let frame = prop_oneof![4 => made, 1 => raw];
        (
            frame,
            proptest::option::of(0usize..100),
            proptest::option::of((14usize..60, any::<u8>())),
        )
            .prop_map(|(mut frame, cut, changed)| {
                if let Some((at, value)) = changed
                    && let Some(byte) = frame.get_mut(at)
                {
                    *byte = value;
                }
                frame.truncate(cut.map_or(frame.len(), |cut| cut.max(14)));
                frame
            })
    }

    proptest! {
        #[test]
        fn the_kernel_is_told_what_the_rule_says(
            frame in frames(), names in any::<bool>(), tcp in proptest::collection::vec(prop_oneof![Just(80u16), any::<u16>()], 0..10), of in any::<bool>(),
        ) {
            let rest = if of { Rest::Of(vec![CLIENT, MacAddr([2, 0, 0, 0, 0, 1])]) } else { Rest::Nothing };
            for rest in [rest, Rest::Nothing, Rest::Of(vec![CLIENT])] {
                let filter = Filter { tcp: tcp.clone(), names, rest };
                prop_assert_eq!(run(&filter.program(), &frame), filter.takes(&frame), "{:02x?}", frame);
            }
        }
    }
}
