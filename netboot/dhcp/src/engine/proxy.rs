//! Boot information beside another server's addresses (PXE 2.1 section 2.2), and the choice of a way per machine.

use rackbar_model::{BootWay, ClientArch, EventKind, Severity, Timestamp};

use super::boot::BootAnswer;
use super::question::{Question, Speaker};
use super::reply::Reply;
use super::stance::Stance;
use super::{Admission, Engine, event};
use crate::Output;
use crate::packet::MessageType;

/// The ways DHCP alone can try, in the order we try them when the site names none.
const OWN_WAYS: [BootWay; 3] = [BootWay::Proxy, BootWay::FullDhcp, BootWay::UefiHttp];

impl Engine {
    /// An OFFER without an address. Only clients that netboot get one: to all others it would be a broken offer.
    pub(super) fn proxy_offer(&mut self, now: Timestamp, at: usize, question: &Question<'_>, out: &mut Vec<Output>) {
        let network = &self.sites[at].network;
        if !(network.allows(BootWay::Proxy) || question.speaker == Speaker::Ipxe) {
            return;
        }
        let Some(boot) = BootAnswer::new(&self.config.boot, network, question, true, None) else {
            return;
        };
        self.proxy_reply(at, question, MessageType::Offer, &boot, out);
        if let Some(memory) = self.clients.get_mut(question.mac) {
            memory.answered(now);
        }
        if self.first_heard(now, question, MessageType::Offer) {
            let kind = EventKind::DhcpOffer {
                address: None,
                way: boot.way,
                boot_file: Some(boot.file),
            };
            out.push(event(question.mac, kind));
        }
    }

    /// The dialogue with a boot server, on port 4011 (or an INFORM on 67): the client has its address and asks for
    /// the boot file.
    pub(super) fn boot_server(&mut self, now: Timestamp, at: usize, question: &Question<'_>, out: &mut Vec<Output>) {
        let admission = self.admit(at, question);
        self.tell_ignored(question, admission, out);
        if matches!(self.sites[at].stance, Stance::Off) || admission != Admission::All {
            return;
        }
        let first = self.first_heard(now, question, MessageType::Request);
        if let Some(memory) = self.clients.get_mut(question.mac) {
            memory.asked_boot_server(now, question.ciaddr().or(question.source_address()));
        }
        if first {
            let kind = EventKind::DhcpRequest {
                address: question.ciaddr(),
                server: question.packet.server_id(),
            };
            out.push(event(question.mac, kind));
        }
        let network = &self.sites[at].network;
        let Some(boot) = BootAnswer::new(&self.config.boot, network, question, true, None) else {
            return;
        };
        self.proxy_reply(at, question, MessageType::Ack, &boot, out);
        if first {
            let kind = EventKind::DhcpAck {
                address: None,
                lease_seconds: None,
                boot_file: Some(boot.file),
            };
            out.push(event(question.mac, kind));
        }
    }

    fn proxy_reply(
        &mut self,
        at: usize,
        question: &Question<'_>,
        kind: MessageType,
        boot: &BootAnswer,
        out: &mut Vec<Output>,
    ) {
        let buffer = self.buffer();
        let network = &self.sites[at].network;
        let reply = Reply {
            network,
            question,
            kind,
            address: None,
            lease_seconds: None,
            boot: Some(boot),
            hostname: None,
            reason: None,
        };
        out.push(reply.send(buffer));
    }

    /// Looks at what this firmware did with our last answers and settles the way to lead it now.
    pub(super) fn negotiate(&mut self, now: Timestamp, at: usize, question: &Question<'_>, out: &mut Vec<Output>) {
        if !matches!(question.speaker, Speaker::Rom | Speaker::HttpRom) {
            return;
        }
        self.doubt(now, question, out);
        if BootAnswer::new(&self.config.boot, &self.sites[at].network, question, false, None).is_none() {
            self.tell_fileless(question, out);
            return;
        }
        let feasible = self.feasible(at, question);
        let addressed = |way: &BootWay| matches!(way, BootWay::FullDhcp | BootWay::UefiHttp | BootWay::UefiHttps);
        let may_address = feasible.iter().any(addressed);
        let proxying = matches!(self.sites[at].stance, Stance::Proxy(_));
        let usual = match (proxying, question.speaker) {
            (true, _) => feasible.first().copied(),
            // A site that forgot the way of its own machines still boots them.
            (false, Speaker::HttpRom) => feasible.iter().copied().find(addressed).or(Some(BootWay::UefiHttp)),
            (false, _) => Some(BootWay::FullDhcp),
        };
        let Some(memory) = self.clients.get_mut(question.mac) else {
            return;
        };
        let fits = match memory.way {
            Some(BootWay::Proxy) => proxying,
            // Led by address beside another server only after the proxy way was given up, or because it worked.
            // What was learnt yields to the site: it may have forbidden the way, or taken the addresses away, since.
            Some(BootWay::FullDhcp | BootWay::UefiHttp | BootWay::UefiHttps) if proxying => {
                may_address
                    && (memory.given_up.contains(&BootWay::Proxy) || memory.proven == memory.way || usual == memory.way)
            }
            Some(BootWay::FullDhcp) => question.speaker == Speaker::Rom,
            Some(way @ (BootWay::UefiHttp | BootWay::UefiHttps)) => {
                question.speaker == Speaker::HttpRom && (feasible.contains(&way) || usual == memory.way)
            }
            Some(way @ (BootWay::RedfishUrl | BootWay::VirtualMedia)) => feasible.contains(&way),
            None => false,
        };
        if !fits {
            memory.way = usual;
            memory.proven = None;
            memory.given_up.clear();
            memory.reason = None;
            memory.learnt = None;
        }
        let Some(reason) = memory.looks_again(now) else { return };
        match memory.next_way(feasible) {
            Some(to) => {
                if let Some(from) = memory.change_way(to, now) {
                    memory.reason = Some(reason.clone());
                    let habit = memory.learn(now);
                    out.push(event(question.mac, EventKind::WayChanged { from, to, reason }));
                    let mac = question.mac;
                    out.push(Output::Learnt { mac, habit });
                }
            }
            None if !std::mem::replace(&mut memory.stuck, true) => {
                let text = format!("{reason}; this site allows no other way to boot it");
                out.push(event(
                    question.mac,
                    EventKind::Note {
                        text,
                        severity: Severity::Warning,
                    },
                ));
            }
            None => {}
        }
    }

    /// Drops what was learnt of this firmware when nothing confirmed it for long, or when another firmware speaks: a
    /// machine switched from BIOS to UEFI has to show anew what it does.
    fn doubt(&mut self, now: Timestamp, question: &Question<'_>, out: &mut Vec<Output>) {
        let limit = self.config.limits.habit_millis;
        let Some(memory) = self.clients.get_mut(question.mac) else {
            return;
        };
        let bios = |arch: Option<ClientArch>| arch.is_none_or(|arch| arch == ClientArch::X86Bios);
        let other = memory.way.is_some() && bios(memory.arch) != bios(question.arch);
        memory.arch = question.arch;
        let old = memory.learnt.is_some_and(|at| now.since(at) >= limit);
        if !(old || other) || !memory.unlearn() {
            return;
        }
        let mac = question.mac;
        out.push(Output::Learnt { mac, habit: None });
        let why = if old {
            format!("nothing confirmed it for {} days", limit / 86_400_000)
        } else {
            "another firmware speaks now (BIOS and UEFI are two)".to_owned()
        };
        let text = format!("forgot what was learnt of this machine's boot firmware: {why}");
        out.push(event(
            mac,
            EventKind::Note {
                text,
                severity: Severity::Info,
            },
        ));
    }

    /// Ways the site allows and that can work for this client here, best first.
    fn feasible(&self, at: usize, question: &Question<'_>) -> Vec<BootWay> {
        let site = &self.sites[at];
        let proxying = matches!(site.stance, Stance::Proxy(_));
        let own = matches!(site.stance, Stance::Own(_));
        let addressed = proxying && site.table.can_serve(&question.key());
        let ways = if site.network.ways.is_empty() {
            &OWN_WAYS[..]
        } else {
            &site.network.ways
        };
        let works = |way: &BootWay| match way {
            BootWay::Proxy => proxying,
            BootWay::FullDhcp => addressed && question.speaker == Speaker::Rom,
            BootWay::UefiHttp => (own || addressed) && question.speaker == Speaker::HttpRom,
            BootWay::UefiHttps => {
                let policy = &self.config.boot;
                let url = BootAnswer::new(policy, &site.network, question, false, Some(BootWay::UefiHttps));
                (own || addressed) && question.speaker == Speaker::HttpRom && url.is_some()
            }
            // The orchestrator acts on the event through the BMC. What it can give is a boot program of UEFI on x86-64.
            BootWay::RedfishUrl | BootWay::VirtualMedia => {
                matches!(question.arch, Some(ClientArch::X64Uefi | ClientArch::X64UefiHttp))
            }
        };
        ways.iter().copied().filter(works).collect()
    }
}
