//! The registrar: turn after turn, from what is wanted and what was registered to what the catalogue has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rackbar_handoff::consul::{Registration, ours, registered, service_ids};
use rackbar_model::NodeId;
use rackbar_store::{Store, StoreError, Table};
use tokio::sync::Notify;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::catalogue::{Catalogue, Place, Trouble};
use crate::record::{Record, records};

/// Everything is looked at this often, also without word of a change: somebody else may have changed the catalogue.
const WHOLE_LOOK: Duration = Duration::from_secs(300);

/// Changes come in bursts: a run that ends makes several events.
const GATHER: Duration = Duration::from_millis(300);

/// After a failure: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is wanted at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// Where; `None` when the site wants no registration. Then nothing of ours stays anywhere.
    pub place: Option<Place>,
    /// What, by machine.
    pub machines: BTreeMap<NodeId, Registration>,
}

/// Asked for what is wanted, in a thread that may wait. `None` when that is not known now: then nothing is changed.
pub type Source = Arc<dyn Fn() -> Option<Wanted> + Send + Sync>;

/// How it stands with one machine under one name in one catalogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What is, or may be, registered.
    pub record: Record,
    /// It is to be there; else it is being taken out.
    pub wanted: bool,
    /// Why it is not as wanted; `None` when it is.
    pub trouble: Option<String>,
}

/// How it stands with all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// The catalogue's URL.
    pub url: Option<String>,
    /// Why nothing can be done there now.
    pub trouble: Option<String>,
    /// Machine by machine.
    pub entries: Vec<Entry>,
}

impl Standing {
    fn is_well(&self) -> bool {
        self.trouble.is_none() && self.entries.iter().all(|one| one.trouble.is_none())
    }

    fn add(&mut self, record: Record, wanted: bool, trouble: Option<&Trouble>) {
        if let Some(Trouble::There(words)) = trouble {
            self.trouble.get_or_insert_with(|| words.clone());
        }
        self.entries.push(Entry {
            record,
            wanted,
            trouble: trouble.map(|trouble| trouble.words().to_owned()),
        });
    }
}

/// Told after each turn.
pub type Report = Arc<dyn Fn(&Standing) + Send + Sync>;

/// Keeps the catalogue as wanted.
pub struct Registrar {
    store: Store,
    source: Source,
    report: Report,
    ways: Vec<Catalogue>,
    /// By the URL they were given for: a token never goes to another catalogue.
    tokens: BTreeMap<String, Zeroizing<String>>,
    /// Machines that are as wanted, since the last look at everything.
    done: BTreeMap<NodeId, (Place, Registration)>,
    next_look: Instant,
}

/// A machine on its way in.
struct Aim<'a> {
    place: &'a Place,
    /// What is to be in the store once it is there.
    record: Record,
    registration: &'a Registration,
    /// What the store has.
    known: Option<&'a Record>,
}

impl Registrar {
    /// Nothing is asked yet. To be called within a tokio runtime.
    pub fn new(store: Store, source: Source, report: Report) -> Self {
        Self {
            store,
            source,
            report,
            ways: Vec::new(),
            tokens: BTreeMap::new(),
            done: BTreeMap::new(),
            next_look: Instant::now(),
        }
    }

    /// Registers for ever. `news` says that what is wanted may have changed. May be dropped at any point.
    pub async fn run(mut self, news: Arc<Notify>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let more = news.notified();
            let standing = self.turn().await.unwrap_or_else(|error| Standing {
                trouble: Some(format!("the store refuses: {error}")),
                ..Standing::default()
            });
            (self.report)(&standing);
            // Word of a change ends either wait; a catalogue in trouble is left in peace for a moment even so.
            let (rest, least) = if standing.is_well() {
                pause = FIRST_PAUSE;
                (self.next_look.saturating_duration_since(Instant::now()), GATHER)
            } else {
                let rest = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                (rest, FIRST_PAUSE)
            };
            let _ = tokio::time::timeout(rest, more).await;
            tokio::time::sleep(least).await;
        }
    }

    /// One look at what is wanted and what was registered, and the requests that follow.
    async fn turn(&mut self) -> Result<Standing, StoreError> {
        let (store, source) = (self.store.clone(), self.source.clone());
        let read = move || {
            let (wanted, records) = (source(), records(&store)?);
            let here = wanted.as_ref().and_then(|wanted| wanted.place.as_ref());
            let urls = records.iter().map(|record| &record.url);
            let tokens = tokens(&store, urls.chain(here.map(|place| &place.url)))?;
            Ok((wanted, records, tokens))
        };
        let (wanted, records, tokens) = blocking(read).await?;
        self.tokens = tokens;
        let mut standing = Standing::default();
        let Some(Wanted { place, machines }) = wanted else {
            records.into_iter().for_each(|record| standing.add(record, true, None));
            return Ok(standing);
        };
        let now = Instant::now();
        if now >= self.next_look {
            self.done.clear();
            self.next_look = now + WHOLE_LOOK;
        }
        standing.url = place.as_ref().map(|place| place.url.clone());
        let aims = place.iter().flat_map(|place| aims(place, &machines, &records));
        let aims: Vec<_> = aims.collect();
        // First out, then in: a machine with a new name would else be renamed there, with what others registered for it.
        for record in &records {
            if !aims.iter().any(|aim| aim.record.is_of(record))
                && let Some(trouble) = self.take_out(record, place.as_ref()).await
            {
                // It may be another catalogue than the one in force, whose trouble is its own.
                let trouble = Trouble::This(trouble.words().to_owned());
                standing.add(record.clone(), false, Some(&trouble));
            }
        }
        for aim in aims {
            let trouble = match &standing.trouble {
                _ if self.is_done(&aim) => None,
                // A catalogue that does not answer is not asked for each machine.
                Some(trouble) => Some(Trouble::There(trouble.clone())),
                None => self.bring(&aim).await?,
            };
            if trouble.is_none() {
                let now = (aim.place.clone(), aim.registration.clone());
                self.done.insert(aim.record.id, now);
            }
            standing.add(aim.record, true, trouble.as_ref());
        }
        let here = place.as_ref().map(|place| (place, self.tokens.get(&place.url)));
        self.ways
            .retain(|way| here.is_some_and(|(place, token)| way.leads(place, token)));
        self.done.retain(|id, _| machines.contains_key(id));
        standing.entries.sort_by(|a, b| a.record.cmp(&b.record));
        Ok(standing)
    }

    fn is_done(&self, aim: &Aim<'_>) -> bool {
        let done = self.done.get(&aim.record.id);
        done.is_some_and(|(place, registration)| place == aim.place && registration == aim.registration)
    }

    /// Brings one machine's entry to what is wanted; says why it is not.
    async fn bring(&mut self, aim: &Aim<'_>) -> Result<Option<Trouble>, StoreError> {
        let name = &aim.record.node;
        let found = match self.way(aim.place).node(name).await {
            Ok(found) => found,
            Err(trouble) => return Ok(Some(trouble)),
        };
        if !ours(&found, aim.record.id) {
            let words =
                format!("the catalogue has a node {name:?} that is not ours: rename the machine, or take it out there");
            return Ok(Some(Trouble::This(words)));
        }
        let mut all = aim.record.clone();
        let before = aim.known.into_iter().flat_map(|known| known.services.clone());
        all.services.extend(before);
        if aim.known != Some(&all) {
            self.keep(&all).await?;
        }
        if let Err(trouble) = put_in(self.way(aim.place), aim, &found, &all).await {
            return Ok(Some(trouble));
        }
        if all != aim.record {
            self.keep(&aim.record).await?;
        }
        Ok(None)
    }

    async fn keep(&self, record: &Record) -> Result<(), StoreError> {
        let (store, record) = (self.store.clone(), record.clone());
        blocking(move || record.keep(&store)).await
    }

    /// Takes out what was registered for a machine, and its node when nothing of anybody else's is left there.
    async fn take_out(&mut self, record: &Record, here: Option<&Place>) -> Option<Trouble> {
        let place = Place {
            url: record.url.clone(),
            datacenter: record.datacenter.clone(),
            // A catalogue that the site does not name any more: most often the next one has the same authority.
            roots: here.map(|here| here.roots.clone()).unwrap_or_default(),
            parent: here.and_then(|here| here.parent.clone()),
        };
        self.done.remove(&record.id);
        let taken = take_out(self.way(&place), record).await;
        if taken.is_ok() {
            record.forget(&self.store);
        }
        taken.err()
    }

    fn way(&mut self, place: &Place) -> &Catalogue {
        let token = self.tokens.get(&place.url);
        let at = self.ways.iter().position(|way| way.leads(place, token));
        let at = at.unwrap_or_else(|| {
            self.ways.push(Catalogue::new(place.clone(), token.cloned()));
            self.ways.len() - 1
        });
        &self.ways[at]
    }
}

/// Registers what is not there as wanted, and takes out what is there of ours and not wanted any more.
async fn put_in(way: &Catalogue, aim: &Aim<'_>, found: &serde_json::Value, all: &Record) -> Result<(), Trouble> {
    for body in aim.registration.services.values() {
        if !registered(found, body) {
            way.register(body).await?;
        }
    }
    let there = service_ids(found);
    for id in all.services.difference(&aim.record.services) {
        if there.contains(id) {
            way.deregister(&all.node, Some(id)).await?;
        }
    }
    Ok(())
}

async fn take_out(way: &Catalogue, record: &Record) -> Result<(), Trouble> {
    let found = way.node(&record.node).await?;
    // Gone, or somebody else's by now.
    if found.is_null() || !ours(&found, record.id) {
        return Ok(());
    }
    let there = service_ids(&found).into_iter();
    let (mine, others): (Vec<_>, Vec<_>) = there.partition(|id| record.services.contains(id));
    if others.is_empty() {
        return way.deregister(&record.node, None).await;
    }
    for id in &mine {
        way.deregister(&record.node, Some(id)).await?;
    }
    Ok(())
}

fn aims<'a>(
    place: &'a Place,
    machines: &'a BTreeMap<NodeId, Registration>,
    records: &'a [Record],
) -> impl Iterator<Item = Aim<'a>> {
    machines.iter().map(move |(id, registration)| {
        let record = Record {
            id: *id,
            node: registration.node.clone(),
            url: place.url.clone(),
            datacenter: place.datacenter.clone(),
            services: registration.services.keys().cloned().collect(),
        };
        Aim {
            place,
            known: records.iter().find(|known| known.is_of(&record)),
            record,
            registration,
        }
    })
}

/// None of a store that is locked: catalogues that want one say so.
fn tokens<'a>(
    store: &Store,
    urls: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, Zeroizing<String>>, StoreError> {
    let mut tokens = BTreeMap::new();
    for url in urls {
        if tokens.contains_key(url) {
            continue;
        }
        match store.get(Table::Secrets, &crate::token_key(url)) {
            Ok(Some(bytes)) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                tokens.insert(url.clone(), Zeroizing::new(text));
            }
            Ok(None) => {}
            Err(StoreError::Locked(_)) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(tokens)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
}
