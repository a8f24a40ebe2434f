//! Installers under way: which machine boots one, what it is answered, and what it tells of itself.
//!
//! An order is for one machine and one attempt of one action. It ends with that attempt, and with it all that was made for
//! it: boot files and arguments, the answers with their secrets. The answers are given once, over plain HTTP because
//! installers speak nothing else, to whoever shows the token that only the machine's own boot script held, from an address
//! that no other machine is known to have. Of the token only the digest is kept; who reads the store cannot ask for answers,
//! and the answers themselves are never in the store. After a restart of the appliance an installer that has its answers
//! goes on and is heard; one that has none is begun anew.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::MutexGuard;

use bytes::Bytes;
use rackbar_boot::BootSpec;
use rackbar_messages::JobId;
use rackbar_model::{Digest, EventKind, Lease, LeaseState, MacAddr, NodeId, Severity, Timestamp};
use rackbar_services::BootReply;
use rackbar_store::{Store, StoreError, Table};
use rackbar_trust::{Secret, sha256};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Rack;
use crate::course::{Course, Failure};
use crate::mind::Mind;
use crate::rack::{locked, now};

/// Marks our entries in the table of tokens.
const KIND: u8 = b'i';

/// Milliseconds in which the same address may fetch the answers again: an answer may get lost on the way.
const SECOND_CHANCE: u64 = 60 * 1_000;

/// What the archive had not, as far as it is kept and told.
const MOST_MISSING: usize = 16;

/// How far an installer is. Variants are in the order in which they follow each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Nothing was heard of it.
    Ordered,
    /// The machine was given kernel and arguments.
    Booting,
    /// It has its answers.
    Answered,
    /// It begins.
    Started,
    /// It has what it consists of, and looks for its disk.
    Disks,
    /// The disk has its partitions.
    Partitioned,
    /// The base system is on it.
    Base,
    /// The system is on the disk.
    Finished,
}

impl Step {
    /// The step that an installer tells of by this name.
    fn told(name: &str) -> Option<Self> {
        Some(match name {
            "started" => Self::Started,
            "disks" => Self::Disks,
            "partitioned" => Self::Partitioned,
            "base" => Self::Base,
            "finished" => Self::Finished,
            _ => return None,
        })
    }
}

/// What an installer tells of by a name.
enum Told {
    Step(Step),
    Failure(Failure),
}

impl Told {
    fn of(name: &str) -> Option<Self> {
        let step = Step::told(name).map(Self::Step);
        step.or_else(|| Failure::told(name).map(Self::Failure))
    }
}

/// What is known of an installer under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) step: Step,
    /// When that was heard.
    pub(crate) since: Timestamp,
    /// When anything was heard of it, requests to its archive or disc included.
    pub(crate) heard: Timestamp,
    /// Its address.
    pub(crate) from: Option<IpAddr>,
    /// Requests to its archive or disc.
    #[serde(default)]
    pub(crate) requests: u64,
    /// Packages that it was not given there, with the status.
    #[serde(default)]
    pub(crate) missing: Vec<String>,
    /// What it told of that went wrong.
    #[serde(default)]
    pub(crate) failed: Option<Failure>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    node: NodeId,
    job: JobId,
    mac: MacAddr,
    #[serde(default)]
    course: Course,
    seen: Seen,
}

/// What a machine is given, as long as its action is under way.
pub(crate) struct Material {
    /// Kernel, initial RAM file system and arguments, which hold the token.
    pub(crate) spec: BootSpec,
    /// Name and content of the answers, which are given once.
    pub(crate) answers: (&'static str, Bytes),
    /// Files beside them that hold no secret.
    pub(crate) beside: Vec<(&'static str, Bytes)>,
    /// Which installer it is.
    pub(crate) course: Course,
}

struct Underway {
    key: [u8; 32],
    job: JobId,
    mac: MacAddr,
    course: Course,
    material: Option<Material>,
    seen: watch::Sender<Seen>,
}

impl Underway {
    fn change(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }

    /// What is kept of it.
    fn kept(&self, node: NodeId, seen: Seen) -> Option<Vec<u8>> {
        let kept = Kept {
            node,
            job: self.job,
            mac: self.mac,
            course: self.course,
            seen,
        };
        serde_json::to_vec(&kept).ok()
    }
}

/// All installers under way.
pub(crate) struct Installs {
    store: Store,
    all: HashMap<NodeId, Underway>,
}

/// What a machine with an installer boots.
pub(crate) enum Boot {
    /// The installer.
    Installer(BootSpec),
    /// What it installed.
    Disk,
}

impl Installs {
    pub(crate) fn load(store: Store) -> Result<Self, StoreError> {
        let mut all = HashMap::new();
        for (key, value) in store.list(Table::Tokens)? {
            let Some((&KIND, digest)) = key.split_first() else {
                continue;
            };
            let kept = serde_json::from_slice::<Kept>(&value);
            if let (Ok(key), Ok(kept)) = (digest.try_into(), kept) {
                let (seen, _) = watch::channel(kept.seen);
                let (job, mac, course, material) = (kept.job, kept.mac, kept.course, None);
                all.insert(
                    kept.node,
                    Underway {
                        key,
                        job,
                        mac,
                        course,
                        material,
                        seen,
                    },
                );
            }
        }
        Ok(Self { store, all })
    }

    fn keep(&self, node: NodeId) {
        let Some(one) = self.all.get(&node) else { return };
        let json = one.kept(node, one.seen.borrow().clone());
        self.store.queue(Table::Tokens, &named(&one.key), json.as_deref());
    }

    fn end(&mut self, node: NodeId) {
        if let Some(gone) = self.all.remove(&node) {
            self.store.queue(Table::Tokens, &named(&gone.key), None);
        }
    }

    fn by_token(&self, token: &str) -> Option<NodeId> {
        let token: Digest = token.parse().ok()?;
        let key = sha256(&token.0);
        self.all.iter().find(|(_, one)| one.key == key).map(|(node, _)| *node)
    }

    /// What a step of its means.
    fn words(&self, node: NodeId, step: Step) -> &'static str {
        let course = self.all.get(&node).map(|one| one.course);
        course.unwrap_or_default().words(step)
    }

    /// Writes down that it failed. True when it was news: the first word of it says why.
    fn fail(&mut self, node: NodeId, why: Failure, now: Timestamp) -> bool {
        let Some(one) = self.all.get(&node) else { return false };
        let news = one.seen.borrow().failed.is_none();
        one.change(|seen| {
            seen.heard = now;
            seen.failed = seen.failed.or(Some(why));
        });
        self.keep(node);
        news
    }

    /// Moves a step on; never back. True when it was news.
    fn step(&mut self, node: NodeId, to: Step, from: Option<IpAddr>, now: Timestamp) -> bool {
        let Some(one) = self.all.get(&node) else { return false };
        let news = one.seen.borrow().step < to;
        one.change(|seen| {
            seen.heard = now;
            if news {
                (seen.step, seen.since) = (to, now);
            }
            seen.from = from.or(seen.from);
        });
        self.keep(node);
        news
    }
}

fn named(key: &[u8; 32]) -> Vec<u8> {
    std::iter::once(KIND).chain(key.iter().copied()).collect()
}

/// An order as its attempt holds it. Dropped, nothing more is given out for it; what was given stays heard until
/// [`Order::end`].
pub(crate) struct Order {
    rack: Rack,
    node: NodeId,
    job: JobId,
    pub(crate) course: Course,
    pub(crate) seen: watch::Receiver<Seen>,
}

impl Order {
    /// The attempt is over, however it went.
    pub(crate) fn end(self) {
        let mut installs = locked(&self.rack.inner.installs);
        if installs.all.get(&self.node).is_some_and(|one| one.job == self.job) {
            installs.end(self.node);
        }
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        let mut installs = locked(&self.rack.inner.installs);
        if let Some(one) = installs.all.get_mut(&self.node).filter(|one| one.job == self.job) {
            one.material = None;
        }
    }
}

impl Rack {
    /// What the machine boots is written down: an installer that has finished has no more say in it. Until then its machine,
    /// which restarts by itself, must find its disk.
    pub(crate) fn installer_settled(&self, node: NodeId) {
        let mut installs = locked(&self.inner.installs);
        let finished = |one: &Underway| one.seen.borrow().step == Step::Finished;
        if installs.all.get(&node).is_some_and(finished) {
            installs.end(node);
        }
    }

    /// Has the machine boot an installer from now on, in place of any earlier order for it.
    pub(crate) fn order_installer(
        &self,
        node: NodeId,
        job: JobId,
        mac: MacAddr,
        token: &Secret<32>,
        material: Material,
    ) -> Order {
        let now = now();
        let (sender, seen) = watch::channel(Seen {
            step: Step::Ordered,
            since: now,
            heard: now,
            from: None,
            requests: 0,
            missing: Vec::new(),
            failed: None,
        });
        let course = material.course;
        let mut installs = locked(&self.inner.installs);
        installs.end(node);
        let one = Underway {
            key: sha256(token.expose()),
            job,
            mac,
            course,
            material: Some(material),
            seen: sender,
        };
        installs.all.insert(node, one);
        installs.keep(node);
        drop(installs);
        Order {
            rack: self.clone(),
            node,
            job,
            course,
            seen,
        }
    }

    /// The order of an attempt that was under way before the appliance started; `None` when its installer had no answers
    /// yet, or there is none.
    pub(crate) fn resume_installer(&self, node: NodeId, job: JobId) -> Option<Order> {
        let installs = locked(&self.inner.installs);
        let one = installs.all.get(&node).filter(|one| one.job == job)?;
        let (course, seen) = (one.course, one.seen.subscribe());
        let answered = seen.borrow().step >= Step::Answered;
        let rack = self.clone();
        answered.then_some(Order {
            rack,
            node,
            job,
            course,
            seen,
        })
    }

    /// What the machine with `mac` boots on behalf of an installer. One that has its answers and boots from the network
    /// again was interrupted: it gets our agent, and its attempt says so.
    pub(crate) fn installer_boot(&self, mac: MacAddr) -> Option<Boot> {
        let node = self.look(|mind: &Mind| mind.by_mac.get(&mac).copied())?;
        let mut installs = locked(&self.inner.installs);
        let one = installs.all.get(&node)?;
        let step = one.seen.borrow().step;
        if step == Step::Finished {
            return Some(Boot::Disk);
        }
        if step >= Step::Answered {
            return None;
        }
        let mut spec = one.material.as_ref()?.spec.clone();
        // The installer's network is the one that the machine boots on now.
        let bootif = |mac: MacAddr| format!("BOOTIF=01-{}", mac.to_string().replace(':', "-"));
        spec.command_line = spec.command_line.replace(&bootif(one.mac), &bootif(mac));
        let news = installs.step(node, Step::Booting, None, now());
        let words = installs.words(node, Step::Booting);
        drop(installs);
        if news {
            self.tell_step(node, words);
        }
        Some(Boot::Installer(spec))
    }

    /// Answers an installer: what it asks for below its token, from `client`. And the machine, where the token says which.
    pub(crate) fn installer_asks(&self, token: &str, what: &str, client: IpAddr) -> (BootReply, Option<MacAddr>) {
        let mut installs = locked(&self.inner.installs);
        let Some(node) = installs.by_token(token) else {
            let text = "No installer is under way that this is for.";
            return (refused(404, text), None);
        };
        let Some(one) = installs.all.get(&node) else {
            return (refused(404, "No installer is under way."), None);
        };
        let (mac, seen) = (one.mac, one.seen.borrow().clone());
        if let Some(told) = Told::of(what) {
            if seen.step < Step::Answered || seen.from != Some(client) {
                drop(installs);
                let text = format!("{client} told of the installer's step {what}, and is not where its answers went");
                self.installer_note(node, text, Severity::Warning);
                return (refused(403, "This is not the machine that has the answers."), Some(mac));
            }
            let written = self.heard(installs, node, &told);
            return (
                written.map_or_else(not_kept, |()| plain(Bytes::from_static(b"ok\n"))),
                Some(mac),
            );
        }
        let beside = one.material.iter().flat_map(|material| &material.beside);
        if let Some((_, content)) = beside.into_iter().find(|(name, _)| *name == what) {
            let content = content.clone();
            drop(installs);
            if self.is_of_another(client, node) {
                return (refused(403, "That address is another machine's."), Some(mac));
            }
            return (plain(content), Some(mac));
        }
        let answers = one.material.as_ref().filter(|material| material.answers.0 == what);
        let Some(content) = answers.map(|material| material.answers.1.clone()) else {
            return (
                refused(404, "There is nothing of this name for the installer."),
                Some(mac),
            );
        };
        let lost = seen.step == Step::Answered && seen.from == Some(client) && now().since(seen.since) < SECOND_CHANCE;
        let why = if seen.step >= Step::Answered && !lost {
            Some((409, "they were given out already"))
        } else if self.is_of_another(client, node) {
            Some((403, "that address is another machine's"))
        } else {
            None
        };
        if let Some((status, why)) = why {
            drop(installs);
            let text = format!("{client} asked for the installer's answers and was refused: {why}");
            self.installer_note(node, text, Severity::Warning);
            return (
                refused(status, &format!("These answers are not for you: {why}.")),
                Some(mac),
            );
        }
        let news = installs.step(node, Step::Answered, Some(client), now());
        let words = installs.words(node, Step::Answered);
        drop(installs);
        if news {
            let text = format!("{words}, at {client}");
            self.installer_note(node, text, Severity::Info);
        }
        (plain(content), Some(mac))
    }

    /// An installer told of something. That it has finished it says once, and a machine that is not known to be installed is
    /// installed anew: this waits for the disk, and counts only when it is safe there.
    fn heard<'a>(
        &'a self,
        mut installs: MutexGuard<'a, Installs>,
        node: NodeId,
        told: &Told,
    ) -> Result<(), StoreError> {
        match *told {
            Told::Step(step) => {
                if step == Step::Finished {
                    match self.finished(installs, node)? {
                        Some(held) => installs = held,
                        None => return Ok(()),
                    }
                }
                let news = installs.step(node, step, None, now());
                let words = installs.words(node, step);
                drop(installs);
                if news {
                    self.tell_step(node, words);
                }
            }
            Told::Failure(why) => {
                let news = installs.fail(node, why, now());
                drop(installs);
                if news {
                    let text = format!("{}; {}", why.words(), why.advice());
                    self.installer_note(node, text, Severity::Error);
                }
            }
        }
        Ok(())
    }

    /// Writes down that the installer of a node has finished; `None` when its order ended meanwhile. Others are heard while
    /// the disk is waited for.
    fn finished<'a>(
        &'a self,
        installs: MutexGuard<'a, Installs>,
        node: NodeId,
    ) -> Result<Option<MutexGuard<'a, Installs>>, StoreError> {
        let Some(one) = installs.all.get(&node) else {
            return Ok(None);
        };
        let (key, mut seen) = (one.key, one.seen.borrow().clone());
        if seen.step < Step::Finished {
            (seen.step, seen.since) = (Step::Finished, now());
        }
        let (name, json) = (named(&key), one.kept(node, seen));
        let store = &installs.store;
        let written = store.begin_put_all(Table::Tokens, &[(&name, json.as_deref())])?;
        drop(installs);
        written.wait()?;
        let installs = locked(&self.inner.installs);
        let same = installs.all.get(&node).is_some_and(|one| one.key == key);
        Ok(same.then_some(installs))
    }

    /// True when the address is not this machine's, by the leases we gave: an installer asks for one before anything else.
    /// Where another server gives the addresses nothing is known of them.
    fn is_of_another(&self, client: IpAddr, node: NodeId) -> bool {
        let mut leases = self.leases();
        leases.retain(|lease| lease.state == LeaseState::Bound);
        let owner = |lease: &Lease| self.look(|mind| mind.by_mac.get(&lease.mac).copied());
        match leases.iter().find(|lease| IpAddr::from(lease.address) == client) {
            Some(lease) => owner(lease) != Some(node),
            None => leases.iter().any(|lease| owner(lease) == Some(node)),
        }
    }

    /// The proxy, or boot HTTP with a file of a disc, answered `client`, which asked for `target`, with `status`.
    pub fn archive_answered(&self, client: IpAddr, target: &str, status: u16) {
        let mut installs = locked(&self.inner.installs);
        let at = |one: &Underway| {
            let seen = one.seen.borrow();
            seen.from == Some(client) && seen.step < Step::Finished
        };
        let Some(node) = installs.all.iter().find(|(_, one)| at(one)).map(|(node, _)| *node) else {
            return;
        };
        let name = target.rsplit('/').next().unwrap_or_default();
        let first = missing(target, status);
        let mut told = None;
        if let Some(one) = installs.all.get_mut(&node) {
            let (course, package) = (one.course, one.course.is_package(name));
            one.change(|seen| {
                seen.heard = now();
                seen.requests = seen.requests.saturating_add(1);
                let new = status >= 400 && package && !seen.missing.contains(&first);
                if new && seen.missing.len() < MOST_MISSING {
                    seen.missing.push(first.clone());
                    told = Some((course, first));
                }
            });
        }
        drop(installs);
        if let Some((course, missing)) = told {
            let (source, cure) = (course.source(), course.cure());
            let text = format!("{source} did not give the installer {missing}. {cure}");
            self.installer_note(node, text, Severity::Warning);
        }
    }

    fn tell_step(&self, node: NodeId, words: &str) {
        self.installer_note(node, words.to_owned(), Severity::Info);
    }

    fn installer_note(&self, node: NodeId, text: String, severity: Severity) {
        self.tell(Some(node), EventKind::Note { text, severity });
    }
}

/// A package that was not to be had, as people read it: its name, the answer, and where it was asked for. A path from the
/// network: short and printable.
fn missing(target: &str, status: u16) -> String {
    let shown: String = target.chars().filter(char::is_ascii_graphic).take(200).collect();
    let name = shown.rsplit('/').next().unwrap_or_default();
    format!("{name} (HTTP {status} for {shown})")
}

fn refused(status: u16, text: &str) -> BootReply {
    BootReply::Refused {
        status,
        text: text.to_owned(),
    }
}

/// What an installer told of is not safe on the disk: a status with which it says so again.
fn not_kept(error: StoreError) -> BootReply {
    tracing::error!(%error, "what an installer told of could not be kept; it is asked to say so again");
    refused(503, "This could not be written down: say it again in a moment.")
}

fn plain(body: Bytes) -> BootReply {
    let content_type = "text/plain; charset=utf-8";
    BootReply::Bytes { content_type, body }
}
