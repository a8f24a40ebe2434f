//! A pack, read to its end and proven: every object's name is computed from its content, and whatever an object names is in the
//! pack too, so that nothing of what its newest commit stands for can be missing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use flate2::Crc;

use crate::history::History;
use crate::id::digest;
use crate::object::{Kind, links};
use crate::unpack::{Base, Inflater, apply, head};
use crate::{GitError, Id, index};

/// How much a pack may make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Objects.
    pub objects: u64,
    /// Bytes of one object.
    pub object: u64,
    /// Bytes of all objects and of all deltas, each counted once. They are in memory at no time.
    pub total: u64,
    /// Bytes of objects in memory at one time: while deltas to them are unpacked, or what they name is looked at.
    pub held: u64,
    /// Deltas that an object is made of, one upon the other. Git makes no row of more than 4095 (`pack.depth`), and of 50 unless
    /// it is told otherwise.
    pub depth: u32,
    /// Bytes that are unpacked for the files of one commit. An object is unpacked with all that it is a delta to, so that a row
    /// of deltas costs anew for each of its objects that is looked at.
    pub work: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            objects: 1_000_000,
            object: 64 << 20,
            total: 8 << 30,
            held: 192 << 20,
            depth: 4095,
            work: 32 << 30,
        }
    }
}

/// An object of a pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    pub(crate) id: Id,
    pub(crate) kind: Kind,
    /// Its offset.
    pub(crate) at: u64,
    /// CRC-32 of its bytes as they are in the pack.
    pub(crate) crc: u32,
}

/// A pack that is proven.
pub struct Pack<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) limits: Limits,
    /// In the order of their names.
    objects: Vec<Object>,
    pub(crate) history: History,
    /// SHA-1 of all before it: the pack's name.
    sum: Id,
}

impl<'a> Pack<'a> {
    /// Reads a pack.
    ///
    /// # Errors
    /// When it makes no sense, is not whole, or passes a limit.
    pub fn read(bytes: &'a [u8], limits: Limits) -> Result<Self, GitError> {
        let wrong = |why| GitError::Pack { at: 0, why };
        let (body, sum) = bytes.split_last_chunk::<20>().ok_or(GitError::Short)?;
        let (start, _) = body.split_first_chunk::<12>().ok_or(GitError::Short)?;
        let [b'P', b'A', b'C', b'K', 0, 0, 0, 2, count @ ..] = *start else {
            return Err(wrong("it is no pack of version 2"));
        };
        let count = u64::from(u32::from_be_bytes(count));
        if count > limits.objects {
            let most = limits.objects;
            return Err(GitError::Large { what: "objects", most });
        }
        if digest(&[body]) != Some(Id(*sum)) {
            return Err(wrong("its own digest is not of it: it was changed or cut on its way"));
        }
        let mut reading = Reading::new(body, limits);
        let mut at = start.len();
        for _ in 0..count {
            at = reading.entry(at)?;
        }
        if at != body.len() {
            return Err(wrong("there is more behind its last object"));
        }
        reading.deltas()?;
        let (objects, history) = reading.whole()?;
        Ok(Self {
            bytes: body,
            limits,
            objects,
            history,
            sum: Id(*sum),
        })
    }

    /// The pack's own name.
    pub fn name(&self) -> Id {
        self.sum
    }

    /// How many objects it has.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Its commits.
    pub fn commits(&self) -> impl Iterator<Item = Id> {
        let all = self.objects.iter().filter(|object| object.kind == Kind::Commit);
        all.map(|object| object.id)
    }

    /// A commit and all that it was made of. A server may have sent others besides.
    ///
    /// # Errors
    /// When it is none of the pack.
    pub fn history(&self, commit: Id) -> Result<BTreeSet<Id>, GitError> {
        self.history.of(commit)
    }

    /// The index that belongs to it.
    ///
    /// # Errors
    /// When it is too long for one.
    pub fn index(&self) -> Result<Vec<u8>, GitError> {
        index::write(&self.objects, self.sum)
    }

    /// The commit that an object is, or that a tag is of.
    ///
    /// # Errors
    /// When it is not in the pack, or leads to something else.
    pub fn commit(&self, id: Id) -> Result<Id, GitError> {
        let (id, why) = (self.history.peeled(id), "it is no commit");
        match self.object(id)?.kind {
            Kind::Commit => Ok(id),
            Kind::Tag | Kind::Tree | Kind::Blob => Err(GitError::Object { id, why }),
        }
    }

    /// When a commit was made, in seconds since 1970.
    ///
    /// # Errors
    /// When it is none of the pack, or does not say it.
    pub fn committed(&self, id: Id) -> Result<u64, GitError> {
        let why = "a commit without a date since 1970";
        self.history.date(id)?.ok_or(GitError::Object { id, why })
    }

    pub(crate) fn object(&self, id: Id) -> Result<&Object, GitError> {
        let found = self.objects.binary_search_by_key(&id, |object| object.id).ok();
        found
            .and_then(|at| self.objects.get(at))
            .ok_or(GitError::Incomplete { what: "object", id })
    }
}

/// An entry, its object known or not yet.
struct Entry {
    at: u64,
    data: usize,
    size: u64,
    crc: u32,
    object: Option<(Id, Kind)>,
}

/// A base whose deltas are being unpacked.
struct Frame {
    data: Arc<Vec<u8>>,
    kind: Kind,
    /// Deltas that it is made of itself.
    depth: u32,
    /// Entries that are still to come.
    children: Vec<usize>,
}

struct Reading<'a> {
    pack: &'a [u8],
    limits: Limits,
    inflater: Inflater,
    entries: Vec<Entry>,
    /// Deltas by the offsets of their bases.
    by_offset: HashMap<u64, Vec<usize>>,
    /// Deltas by the names of their bases.
    by_id: HashMap<Id, Vec<usize>>,
    /// What objects name.
    named: HashMap<Id, Kind>,
    history: History,
    total: u64,
}

impl<'a> Reading<'a> {
    fn new(pack: &'a [u8], limits: Limits) -> Self {
        Self {
            pack,
            limits,
            inflater: Inflater::new(),
            entries: Vec::new(),
            by_offset: HashMap::new(),
            by_id: HashMap::new(),
            named: HashMap::new(),
            history: History::default(),
            total: 0,
        }
    }

    /// Reads the entry at an offset; gives where it ends.
    fn entry(&mut self, at: usize) -> Result<usize, GitError> {
        let (number, head) = (self.entries.len(), head(self.pack, at)?);
        if head.size > self.limits.object {
            return Err(self.large("bytes in an object", self.limits.object));
        }
        let mut data = Vec::new();
        let end = self.inflater.inflate(self.pack, head.data, head.size, &mut data)?;
        let mut crc = Crc::new();
        crc.update(self.pack.get(at..end).unwrap_or_default());
        let object = match head.base {
            Base::None(kind) => Some((self.judged(at as u64, kind, &data)?, kind)),
            Base::At(base) => {
                self.counted(head.size)?;
                self.by_offset.entry(base).or_default().push(number);
                None
            }
            Base::Of(id) => {
                self.counted(head.size)?;
                self.by_id.entry(id).or_default().push(number);
                None
            }
        };
        self.entries.push(Entry {
            at: at as u64,
            data: head.data,
            size: head.size,
            crc: crc.sum(),
            object,
        });
        Ok(end)
    }

    /// The name of an object, what it names written down.
    fn judged(&mut self, at: u64, kind: Kind, data: &[u8]) -> Result<Id, GitError> {
        self.counted(data.len() as u64)?;
        let start = format!("{} {}\0", kind.word(), data.len());
        let why = "an object that is made to have the name of another";
        let id = digest(&[start.as_bytes(), data]).ok_or(GitError::Pack { at, why })?;
        let (named, mut twice, mut own) = (&mut self.named, None, Vec::new());
        let has_history = matches!(kind, Kind::Commit | Kind::Tag);
        let read = links(kind, data, &mut |id, kind| {
            if *named.entry(id).or_insert(kind) != kind {
                twice = Some(id);
            }
            if has_history {
                own.push((id, kind));
            }
        });
        read.map_err(|why| GitError::Object { id, why })?;
        if let Some(id) = twice {
            let why = "it is named as two different kinds";
            return Err(GitError::Object { id, why });
        }
        // All of them have to be in the pack, so there are no more of them than of objects.
        if self.named.len() as u64 > self.limits.objects {
            return Err(self.large("objects", self.limits.objects));
        }
        self.history.note(id, kind, data, &own, self.limits.objects)?;
        Ok(id)
    }

    /// Counts bytes that were unpacked.
    fn counted(&mut self, bytes: u64) -> Result<(), GitError> {
        self.total = self.total.saturating_add(bytes);
        match self.total > self.limits.total {
            true => Err(self.large("bytes unpacked", self.limits.total)),
            false => Ok(()),
        }
    }

    fn large(&self, what: &'static str, most: u64) -> GitError {
        GitError::Large { what, most }
    }

    /// The deltas to an entry; each is given once.
    fn children(&mut self, at: u64, id: Id) -> Vec<usize> {
        let mut all = self.by_offset.remove(&at).unwrap_or_default();
        all.extend(self.by_id.remove(&id).unwrap_or_default());
        all
    }

    /// Unpacks all deltas, bases first.
    fn deltas(&mut self) -> Result<(), GitError> {
        for number in 0..self.entries.len() {
            let Some(entry) = self.entries.get(number) else { break };
            let (at, start, size) = (entry.at, entry.data, entry.size);
            // Deltas that are unpacked had their own deltas done with them.
            let Some((id, kind)) = entry.object else { continue };
            let children = self.children(at, id);
            if children.is_empty() {
                continue;
            }
            let mut data = Vec::new();
            self.inflater.inflate(self.pack, start, size, &mut data)?;
            self.family(Frame {
                data: Arc::new(data),
                kind,
                depth: 0,
                children,
            })?;
        }
        Ok(())
    }

    /// Unpacks the deltas to a base, the deltas to those, and so on. What a base takes of memory is free when its last delta is
    /// unpacked, so that a long row of single ones takes no more than two objects.
    fn family(&mut self, root: Frame) -> Result<(), GitError> {
        let (mut delta, mut held, mut frames) = (Vec::new(), root.data.len() as u64, vec![root]);
        while let Some(frame) = frames.last_mut() {
            let Some(number) = frame.children.pop() else {
                frames.pop();
                continue;
            };
            let (base, kind, depth) = (frame.data.clone(), frame.kind, frame.depth.saturating_add(1));
            if frame.children.is_empty() {
                held = held.saturating_sub(base.len() as u64);
                frames.pop();
            }
            let Some(entry) = self.entries.get(number) else {
                continue;
            };
            let (at, start, size) = (entry.at, entry.data, entry.size);
            if depth > self.limits.depth {
                let most = self.limits.depth;
                return Err(GitError::Deep { at, most });
            }
            self.inflater.inflate(self.pack, start, size, &mut delta)?;
            let data = apply(&base, &delta, self.limits.object).map_err(|why| GitError::Pack { at, why })?;
            drop(base);
            let id = self.judged(at, kind, &data)?;
            if let Some(entry) = self.entries.get_mut(number) {
                entry.object = Some((id, kind));
            }
            let children = self.children(at, id);
            if children.is_empty() {
                continue;
            }
            held = held.saturating_add(data.len() as u64);
            if held > self.limits.held {
                return Err(self.large("bytes in objects that others are deltas to", self.limits.held));
            }
            frames.push(Frame {
                data: Arc::new(data),
                kind,
                depth,
                children,
            });
        }
        Ok(())
    }

    /// All objects by their names, when each is there once, and all that they name is there.
    fn whole(self) -> Result<(Vec<Object>, History), GitError> {
        if let Some(id) = self.by_id.keys().min() {
            return Err(GitError::Incomplete { what: "base", id: *id });
        }
        let mut objects = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let why = "a delta without a base";
            let (id, kind) = entry.object.ok_or(GitError::Pack { at: entry.at, why })?;
            let (at, crc) = (entry.at, entry.crc);
            objects.push(Object { id, kind, at, crc });
        }
        objects.sort_unstable_by_key(|object| object.id);
        if let Some([first, _]) = objects.array_windows().find(|[a, b]| a.id == b.id) {
            let why = "it is there twice";
            return Err(GitError::Object { id: first.id, why });
        }
        for (id, kind) in &self.named {
            let found = objects.binary_search_by_key(id, |object| object.id).ok();
            let found = found.and_then(|at| objects.get(at)).map(|object| object.kind);
            match found {
                Some(found) if found == *kind => {}
                Some(_) => {
                    let why = "it is of another kind than what names it says";
                    return Err(GitError::Object { id: *id, why });
                }
                None => {
                    return Err(GitError::Incomplete {
                        what: kind.word(),
                        id: *id,
                    });
                }
            }
        }
        Ok((objects, self.history))
    }
}
