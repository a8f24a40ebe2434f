//! Forwarding to resolvers that others run, with cache, time-outs and failover.
//!
//! ```text
//!             ask: in the cache ─────────────────────────▶ Reply
//!              │ the same question is under way ─▶ wait with the others
//!              ▼
//!           Pending ── Send ──▶ upstream ── a sound answer ──▶ Reply to all who wait, cache
//!              ▲                   │ time-out, refusal, SERVFAIL, nonsense
//!              └── next upstream ◀─┘   after the last try: SERVFAIL to all who wait
//! ```
//!
//! Each try has a number and a socket of its own (the shell opens it, so its port is random too); what does not repeat
//! number and question is not believed (RFC 5452). An upstream that failed is asked last for a while.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::answer::{Client, Transport, limit};
use crate::cache::{Cache, Kept, Key};
use crate::lead::Lead;
use crate::message::{OPT_LENGTH, Query, field, flag, push_opt, put_u16};
use crate::rcode;
use crate::scan::{Scan, question_end, scan, u16_at, u32_at};

/// Bounds of the forwarder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Questions under way at once.
    pub pending: usize,
    /// Questions of one client under way at once.
    pub per_client: usize,
    /// Clients that wait for one question.
    pub waiters: usize,
    /// Bytes of the cache.
    pub cache_bytes: usize,
    /// Milliseconds that a try may take; the second and later ones twice as long.
    pub patience: u64,
    /// Tries of one question.
    pub tries: u32,
    /// Milliseconds that an upstream which failed is asked last.
    pub penalty: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending: 2048,
            per_client: 256,
            waiters: 64,
            cache_bytes: 4 << 20,
            patience: 800,
            tries: 4,
            penalty: 30_000,
        }
    }
}

/// Longest that an answer is kept, in seconds (RFC 8767 section 4 advises a day at most for a cap of this kind).
const LONGEST: u32 = 86_400;
/// Longest that "no such name" is kept (RFC 2308 section 5).
const LONGEST_NEGATIVE: u32 = 3_600;
/// Seconds that a failure is kept (RFC 9520 section 3.2: at least one).
const FAILURE: u64 = 2_000;

/// A client that waits. `W` is how the shell finds it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiter<W> {
    who: W,
    address: IpAddr,
    id: u16,
    flags: u16,
    question: Box<[u8]>,
    edns: bool,
    dnssec: bool,
    limit: usize,
    /// What the answer begins with, when the client asked for an alias of ours.
    lead: Option<Lead>,
}

/// What the shell is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output<W> {
    /// Send a message from a new socket that hears `upstream` only; its answer is [`Forwarder::answered`] with `slot`.
    Send {
        /// Number of the try.
        slot: u64,
        /// To whom.
        upstream: SocketAddr,
        /// How.
        transport: Transport,
        /// What.
        message: Vec<u8>,
    },
    /// The socket of this try is needed no more.
    Close {
        /// Number of the try.
        slot: u64,
    },
    /// An answer for a client.
    Reply {
        /// Whom.
        who: W,
        /// The message.
        message: Vec<u8>,
    },
}

/// What was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Answers from the cache.
    pub hits: u64,
    /// Questions sent to an upstream, repeats included.
    pub sent: u64,
    /// Tries that ended without an answer in time.
    pub timeouts: u64,
    /// Answers that were not to our question, or not readable.
    pub nonsense: u64,
    /// Questions that ended in SERVFAIL.
    pub failed: u64,
    /// Questions refused because a bound was reached.
    pub refused: u64,
}

struct Upstream {
    address: SocketAddr,
    bad_until: u64,
}

struct Pending<W> {
    waiters: Vec<Waiter<W>>,
    slot: u64,
    id: u16,
    upstream: usize,
    tried: u32,
    deadline: u64,
    /// The question in lower case.
    question: Box<[u8]>,
}

/// The questions under way and the answers of the past.
pub struct Forwarder<W> {
    limits: Limits,
    upstreams: Vec<Upstream>,
    cache: Cache,
    failures: HashMap<Key, u64>,
    pending: HashMap<(Key, bool), Pending<W>>,
    slots: HashMap<u64, (Key, bool)>,
    per_client: HashMap<IpAddr, usize>,
    next_slot: u64,
    random: Box<dyn FnMut() -> u16 + Send>,
    counters: Counters,
}

impl<W> Forwarder<W> {
    /// Without upstreams. `random` gives message numbers that nobody can guess.
    pub fn new(limits: Limits, random: Box<dyn FnMut() -> u16 + Send>) -> Self {
        Self {
            cache: Cache::new(limits.cache_bytes),
            limits,
            upstreams: Vec::new(),
            failures: HashMap::new(),
            pending: HashMap::new(),
            slots: HashMap::new(),
            per_client: HashMap::new(),
            next_slot: 0,
            random,
            counters: Counters::default(),
        }
    }

    /// Asks these from now on, the first one first. What others said is forgotten: they may have seen other names.
    pub fn set_upstreams(&mut self, addresses: &[SocketAddr]) {
        if self
            .upstreams
            .iter()
            .map(|one| one.address)
            .eq(addresses.iter().copied())
        {
            return;
        }
        self.upstreams = addresses
            .iter()
            .map(|&address| Upstream { address, bad_until: 0 })
            .collect();
        self.cache.clear();
        self.failures.clear();
    }

    /// Whether there is somebody to ask.
    pub fn has_upstreams(&self) -> bool {
        !self.upstreams.is_empty()
    }

    /// What was counted so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Answers in the cache.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// Takes a question. `now` is in milliseconds of a clock that never goes back.
    pub fn ask(&mut self, now: u64, query: &Query<'_>, client: &Client, who: W, out: &mut Vec<Output<W>>) {
        self.take(now, query, Waiter::new(query, client, who, None), client.transport, out);
    }

    /// Takes a question for an alias of ours: asks for what it leads to, once, and answers with the way there and what
    /// was found. When nobody says what is there, the way is answered with SERVFAIL. An answer that leads back into our
    /// zones is handed on as it is.
    pub fn chase(
        &mut self,
        now: u64,
        query: &Query<'_>,
        lead: Lead,
        client: &Client,
        who: W,
        out: &mut Vec<Output<W>>,
    ) {
        let waiter = Waiter::new(query, client, who, Some(lead));
        self.take(now, query, waiter, client.transport, out);
    }

    fn take(&mut self, now: u64, query: &Query<'_>, waiter: Waiter<W>, transport: Transport, out: &mut Vec<Output<W>>) {
        let key = Key {
            name: waiter.lead.as_ref().map_or(&query.name, Lead::target).clone(),
            rtype: query.rtype,
            dnssec: query.dnssec(),
            unchecked: query.unchecked(),
        };
        if let Some(kept) = self.cache.get(&key, now) {
            self.counters.hits += 1;
            out.push(reply(waiter, &kept, now));
            return;
        }
        let address = waiter.address;
        if self.failures.get(&key).is_some_and(|until| now < *until) {
            out.push(waiter.error(rcode::SERVFAIL));
            return;
        }
        let of_client = self.per_client.get(&address).copied().unwrap_or(0);
        if of_client >= self.limits.per_client || self.upstreams.is_empty() {
            self.counters.refused += 1;
            out.push(waiter.error(rcode::SERVFAIL));
            return;
        }
        let key = (key, transport == Transport::Tcp);
        if let Some(pending) = self.pending.get_mut(&key) {
            if pending.waiters.len() < self.limits.waiters {
                pending.waiters.push(waiter);
                *self.per_client.entry(address).or_default() += 1;
            } else {
                self.counters.refused += 1;
                out.push(waiter.error(rcode::SERVFAIL));
            }
            return;
        }
        if self.pending.len() >= self.limits.pending {
            self.counters.refused += 1;
            out.push(waiter.error(rcode::SERVFAIL));
            return;
        }
        let mut question = key.0.name.wire().to_vec();
        question.extend_from_slice(&query.rtype.to_be_bytes());
        question.extend_from_slice(&query.class.to_be_bytes());
        let pending = Pending {
            waiters: vec![waiter],
            slot: 0,
            id: 0,
            upstream: usize::MAX,
            tried: 0,
            deadline: 0,
            question: question.into(),
        };
        *self.per_client.entry(address).or_default() += 1;
        self.pending.insert(key.clone(), pending);
        self.send(now, &key, out);
    }

    /// Sends a question to the best upstream that did not just fail it.
    fn send(&mut self, now: u64, key: &(Key, bool), out: &mut Vec<Output<W>>) {
        let Some(pending) = self.pending.get_mut(key) else {
            return;
        };
        let count = self.upstreams.len();
        let last = pending.upstream;
        let order = |n: &usize| {
            let bad = self.upstreams.get(*n).is_some_and(|one| now < one.bad_until);
            // The one just tried comes last, those that failed lately before it.
            (*n == last && count > 1, bad, *n)
        };
        let Some(index) = (0..count).min_by_key(order) else {
            return self.give_up(now, key, out);
        };
        let Some(upstream) = self.upstreams.get(index).map(|one| one.address) else {
            return;
        };
        self.next_slot += 1;
        (pending.slot, pending.upstream, pending.id) = (self.next_slot, index, (self.random)());
        pending.tried += 1;
        let patience = self.limits.patience * if pending.tried > 1 { 2 } else { 1 };
        pending.deadline = now.saturating_add(patience);
        self.slots.insert(pending.slot, key.clone());
        self.counters.sent += 1;
        let mut message = vec![0; field::HEADER];
        let unchecked = if key.0.unchecked { flag::CD } else { 0 };
        // AD asks to be told whether the upstream found the answer sound (RFC 6840 section 5.7).
        let head = [pending.id, flag::RD | flag::AD | unchecked, 1, 0, 0, 1];
        for (n, value) in head.into_iter().enumerate() {
            put_u16(&mut message, n * 2, value);
        }
        message.extend_from_slice(&pending.question);
        push_opt(&mut message, 0, key.0.dnssec);
        let transport = if key.1 { Transport::Tcp } else { Transport::Udp };
        out.push(Output::Send {
            slot: pending.slot,
            upstream,
            transport,
            message,
        });
    }

    /// A message came for a try.
    pub fn answered(&mut self, now: u64, slot: u64, message: &[u8], out: &mut Vec<Output<W>>) {
        let Some(key) = self.slots.get(&slot).cloned() else {
            return;
        };
        let Some(pending) = self.pending.get(&key) else { return };
        let Some(scan) = believed(message, pending.id, &pending.question) else {
            // Somebody else may have sent it: the true answer may still come.
            self.counters.nonsense += 1;
            return;
        };
        let code = message.get(3).copied().unwrap_or(0) & 15;
        if scan.upper != 0 || !matches!(code, rcode::NOERROR | rcode::NXDOMAIN) {
            return self.failed(now, slot, out);
        }
        let index = pending.upstream;
        if let Some(upstream) = self.upstreams.get_mut(index) {
            upstream.bad_until = 0;
        }
        let truncated = u16_at(message, field::FLAGS).is_some_and(|flags| flags & flag::TC != 0);
        let bound = if code == rcode::NXDOMAIN || u16_at(message, 6) == Some(0) {
            LONGEST_NEGATIVE
        } else {
            LONGEST
        };
        let keep = if truncated { 0 } else { scan.keep.min(bound) };
        let mut bytes = message.get(..scan.length).unwrap_or_default().to_vec();
        put_u16(&mut bytes, 10, scan.additional);
        let kept = Kept {
            message: bytes,
            ttls: scan.ttls,
            at: now,
            until: now.saturating_add(u64::from(keep) * 1000),
        };
        for waiter in self.end(&key, out) {
            out.push(reply(waiter, &kept, now));
        }
        if keep > 0 {
            self.cache.put(key.0, kept);
        }
    }

    /// A try failed: refused by the other machine, or its answer was no answer.
    pub fn failed(&mut self, now: u64, slot: u64, out: &mut Vec<Output<W>>) {
        let Some(key) = self.slots.remove(&slot) else { return };
        out.push(Output::Close { slot });
        let Some(pending) = self.pending.get(&key) else { return };
        if let Some(upstream) = self.upstreams.get_mut(pending.upstream) {
            upstream.bad_until = now.saturating_add(self.limits.penalty);
        }
        if pending.tried >= self.limits.tries {
            self.give_up(now, &key, out);
        } else {
            self.send(now, &key, out);
        }
    }

    /// When [`Self::expire`] wants to be called.
    pub fn deadline(&self) -> Option<u64> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// Ends the tries that took too long.
    pub fn expire(&mut self, now: u64, out: &mut Vec<Output<W>>) {
        let late = self.pending.values().filter(|pending| pending.deadline <= now);
        for slot in late.map(|pending| pending.slot).collect::<Vec<_>>() {
            self.counters.timeouts += 1;
            self.failed(now, slot, out);
        }
        if self.failures.len() > 1024 {
            self.failures.retain(|_, until| now < *until);
        }
    }

    fn give_up(&mut self, now: u64, key: &(Key, bool), out: &mut Vec<Output<W>>) {
        self.counters.failed += 1;
        for waiter in self.end(key, out) {
            out.push(waiter.error(rcode::SERVFAIL));
        }
        if self.failures.len() < 4096 {
            self.failures.insert(key.0.clone(), now.saturating_add(FAILURE));
        }
    }

    fn end(&mut self, key: &(Key, bool), out: &mut Vec<Output<W>>) -> Vec<Waiter<W>> {
        let Some(pending) = self.pending.remove(key) else {
            return Vec::new();
        };
        if self.slots.remove(&pending.slot).is_some() {
            out.push(Output::Close { slot: pending.slot });
        }
        for waiter in &pending.waiters {
            if let Some(count) = self.per_client.get_mut(&waiter.address) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.per_client.remove(&waiter.address);
                }
            }
        }
        pending.waiters
    }
}

/// An answer to the question that was asked, whole.
fn believed(message: &[u8], id: u16, question: &[u8]) -> Option<Scan> {
    let flags = u16_at(message, field::FLAGS)?;
    let sound = u16_at(message, 0)? == id && flags & flag::QR != 0 && flags >> 11 & 15 == 0;
    let end = question_end(message)?;
    let same = message.get(field::HEADER..end)?.eq_ignore_ascii_case(question);
    if !sound || !same || u16_at(message, field::COUNTS)? != 1 {
        return None;
    }
    scan(message, end)
}

impl<W> Waiter<W> {
    fn new(query: &Query<'_>, client: &Client, who: W, lead: Option<Lead>) -> Self {
        Self {
            who,
            address: client.address,
            id: query.id,
            flags: query.flags,
            question: query.question.into(),
            edns: query.edns.is_some(),
            dnssec: query.dnssec(),
            limit: limit(query, client.transport),
            lead,
        }
    }

    fn error(self, code: u8) -> Output<W> {
        let message = match &self.lead {
            Some(lead) => lead.begin(&self.question),
            None => {
                let mut message = vec![0; field::HEADER];
                put_u16(&mut message, field::COUNTS, 1);
                message.extend_from_slice(&self.question);
                message
            }
        };
        self.finish(message, u16::from(code))
    }

    /// The message with this client's number, question, limit and OPT. `flags` are those beside QR, RA and the client's.
    fn finish(self, mut message: Vec<u8>, mut flags: u16) -> Output<W> {
        flags |= flag::QR | flag::RA | self.flags & (flag::RD | flag::CD);
        if self.lead.is_some() {
            // The first name is ours (RFC 1035 section 4.1.1), and we sign nothing.
            flags = flags & !flag::AD | flag::AA;
        }
        let end = field::HEADER + self.question.len();
        if let Some(question) = message.get_mut(field::HEADER..end) {
            question.copy_from_slice(&self.question);
        }
        let opt = if self.edns { OPT_LENGTH } else { 0 };
        if message.len() + opt > self.limit {
            message.truncate(end);
            flags |= flag::TC;
            [6, 8, 10].into_iter().for_each(|at| put_u16(&mut message, at, 0));
        }
        if self.edns {
            push_opt(&mut message, 0, self.dnssec);
            let additional = u16_at(&message, 10).unwrap_or(0).saturating_add(1);
            put_u16(&mut message, 10, additional);
        }
        put_u16(&mut message, 0, self.id);
        put_u16(&mut message, field::FLAGS, flags);
        Output::Reply { who: self.who, message }
    }
}

/// The kept answer as this client is to get it.
fn reply<W>(waiter: Waiter<W>, kept: &Kept, now: u64) -> Output<W> {
    let mut message = kept.message.clone();
    let age = u32::try_from(now.saturating_sub(kept.at) / 1000).unwrap_or(u32::MAX);
    for at in kept.ttls.iter().map(|at| usize::from(*at)) {
        let ttl = u32_at(&message, at).unwrap_or(0).saturating_sub(age);
        if let Some(place) = message.get_mut(at..at + 4) {
            place.copy_from_slice(&ttl.to_be_bytes());
        }
    }
    if let Some(lead) = &waiter.lead {
        match lead.join(&waiter.question, &message) {
            Some(joined) => message = joined,
            None => return waiter.error(rcode::SERVFAIL),
        }
    }
    let before = u16_at(&message, field::FLAGS).unwrap_or(0);
    // AD is for those who said that they know what it means (RFC 6840 section 5.8).
    let told = waiter.dnssec || waiter.flags & flag::AD != 0;
    let kept_flags = flag::TC | 15 | if told { flag::AD } else { 0 };
    waiter.finish(message, before & kept_flags)
}

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
