//! The one-time secrets by which installed systems enrol themselves at their tools, as the store keeps them: one record among
//! the sealed ones for each machine and tool, `enrol/<tool>/<node>`, so that no machine has two that are good.
//!
//! An installation makes its own ([`Enrolments::for_run`]). Until its end is in the journal the whole secret is kept, because an
//! agent that did the work already says so again without laying anything; then the private part of a key is forgotten
//! ([`Enrolments::laid`]), or the secret is taken back. Reading and writing of a record are under one lock: whatever uses a
//! secret up is recorded before the answer leaves, and two servers that ask at once get one yes.

use std::sync::{Mutex, PoisonError};

use rackbar_handoff::enrol::{Enrolment, NoSecret};
use rackbar_model::{NodeId, Timestamp};
use rackbar_plan::RunId;
use rackbar_plan::site::Enrol;
use rackbar_store::{Store, StoreError, Table};

/// Milliseconds a secret is good for: a reinstall of a large machine, a queue at its tool, and a night.
const GOOD_FOR: u64 = 24 * 3_600_000;

/// Held from reading a record to writing it.
static RECORDS: Mutex<()> = Mutex::new(());

/// Why there is no secret to lay.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// It could not be made.
    #[error(transparent)]
    Secret(#[from] NoSecret),
    /// It could not be kept.
    #[error("the secret to enrol with cannot be kept: {0}")]
    Store(#[from] StoreError),
}

/// The secrets in a store.
#[derive(Clone)]
pub struct Enrolments {
    store: Store,
}

fn key(tool: Enrol, node: NodeId) -> Vec<u8> {
    format!("enrol/{}/{node}", tool.name()).into_bytes()
}

impl Enrolments {
    /// The secrets in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// A secret of `tool` for `node`, under `name`, that no run made. Kept only when it is put into place
    /// ([`Self::replace`]). Takes seconds for some tools.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn make(tool: Enrol, node: NodeId, name: &str, now: Timestamp) -> Result<Enrolment, NoSecret> {
        Enrolment::new(tool, node, name, now, Timestamp(now.0.saturating_add(GOOD_FOR)))
    }

    fn read(&self, key: &[u8]) -> Result<Option<Enrolment>, StoreError> {
        let json = self.store.get(Table::Secrets, key)?;
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    fn write(&self, key: &[u8], enrolment: &Enrolment) -> Result<(), StoreError> {
        let json = serde_json::to_vec(enrolment).map_err(|error| StoreError::Failed(error.to_string()))?;
        self.store.put(Table::Secrets, key, &json)
    }

    /// Puts a secret in the place of the one that its machine had for its tool.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn replace(&self, tool: Enrol, enrolment: &Enrolment) -> Result<(), StoreError> {
        let _held = RECORDS.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&key(tool, enrolment.node), enrolment)
    }

    /// Has `change` look at the secret of a machine for a tool, and keeps what it made of it; `None` when there is none.
    ///
    /// # Errors
    /// When the store refuses; the secret is then as it was.
    pub fn change<T>(
        &self,
        tool: Enrol,
        node: NodeId,
        change: impl FnOnce(&mut Enrolment) -> T,
    ) -> Result<Option<T>, StoreError> {
        let key = key(tool, node);
        let _held = RECORDS.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut enrolment) = self.read(&key)? else {
            return Ok(None);
        };
        let before = enrolment.clone();
        let answer = change(&mut enrolment);
        if enrolment != before {
            self.write(&key, &enrolment)?;
        }
        Ok(Some(answer))
    }

    /// The secret that a run lays into the system of a machine: made at the first attempt, the same at those that repeat it.
    /// Takes seconds for some tools.
    ///
    /// # Errors
    /// See [`EnrolmentError`].
    pub fn for_run(
        &self,
        tool: Enrol,
        node: NodeId,
        name: &str,
        run: RunId,
        now: Timestamp,
    ) -> Result<Enrolment, EnrolmentError> {
        let kept = self.read(&key(tool, node))?;
        if let Some(kept) = kept.filter(|kept| kept.run == Some(run.0) && kept.stands(name, now)) {
            return Ok(kept);
        }
        let mut new = Self::make(tool, node, name, now)?;
        new.run = Some(run.0);
        self.replace(tool, &new)?;
        Ok(new)
    }

    /// What a run made for a machine lies in its system, and that is in the journal.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn laid(&self, node: NodeId, run: RunId, now: Timestamp) -> Result<(), StoreError> {
        self.each(node, |enrolment| {
            if enrolment.run == Some(run.0) && enrolment.revoked.is_none() {
                enrolment.placed.get_or_insert(now);
                enrolment.forget_private();
            }
        })
    }

    /// Takes the secrets of a machine back that `which` says; one that was used up too, so that the request that it was used
    /// for gets no second yes.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn take_back(
        &self,
        node: NodeId,
        which: impl Fn(&Enrolment) -> bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.each(node, |enrolment| {
            if enrolment.revoked.is_none() && which(enrolment) {
                enrolment.take_back(now);
            }
        })
    }

    fn each(&self, node: NodeId, change: impl Fn(&mut Enrolment)) -> Result<(), StoreError> {
        Enrol::ALL
            .into_iter()
            .try_for_each(|tool| self.change(tool, node, &change).map(drop))
    }

    /// Every secret, of machines that were forgotten too.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn list(&self) -> Result<Vec<Enrolment>, StoreError> {
        let stored = self.store.list(Table::Secrets)?;
        let mine = stored.iter().filter(|(key, _)| key.starts_with(b"enrol/"));
        Ok(mine.filter_map(|(_, json)| serde_json::from_slice(json).ok()).collect())
    }

    /// Takes away what a machine that was forgotten had.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn forget(&self, node: NodeId) -> Result<(), StoreError> {
        let _held = RECORDS.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = Enrol::ALL.map(|tool| key(tool, node));
        let gone: Vec<(&[u8], Option<&[u8]>)> = keys.iter().map(|key| (key.as_slice(), None)).collect();
        self.store.put_all(Table::Secrets, &gone)
    }
}

#[cfg(test)]
mod tests {
    use rackbar_handoff::enrol::Kind;
    use rackbar_store::Options;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const NAME: &str = "web-1.rack.example";

    fn book() -> (Enrolments, NodeId) {
        let node = "00000001-0000-0000-0000-000000000000".parse().expect("an id");
        (
            Enrolments::new(Store::in_memory(Options::default()).expect("a store")),
            node,
        )
    }

    fn text(enrolment: &Enrolment) -> String {
        match &enrolment.secret {
            Kind::Token { text: Some(text), .. } => text.0.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_run_lays_the_same_secret_at_every_attempt_and_the_next_run_another() {
        let (book, node) = book();
        let make = |run| {
            book.for_run(Enrol::Puppet, node, NAME, RunId(run), NOW)
                .expect("a secret")
        };
        let first = make(1);
        assert_eq!(first, make(1), "an attempt that is repeated");
        let again = Enrolments::new(book.store.clone());
        let kept = again
            .for_run(Enrol::Puppet, node, NAME, RunId(1), NOW)
            .expect("a secret");
        assert_eq!(text(&first), text(&kept), "after a crash");
        let second = make(2);
        assert_ne!(text(&first), text(&second));
        assert_eq!(book.list().expect("the secrets"), [second], "one is good at most");
    }

    #[test]
    fn a_secret_of_a_failed_run_or_of_an_earlier_system_is_taken_back_and_forgotten() {
        let (book, node) = book();
        let run = RunId(3);
        let make = || book.for_run(Enrol::Puppet, node, NAME, run, NOW).expect("a secret");
        let first = text(&make());
        book.take_back(node, |one| one.run == Some(4), NOW).expect("a store");
        assert_eq!(text(&make()), first, "another run's");
        book.take_back(node, |one| one.run == Some(3), NOW).expect("a store");
        let taken = book.list().expect("the secrets");
        assert_eq!(taken[0].state(NOW), "revoked");
        let stored = book.store.list(Table::Secrets).expect("the secrets");
        let shown = |(_, json): &(Vec<u8>, Vec<u8>)| String::from_utf8_lossy(json).contains(&first);
        assert!(!stored.iter().any(shown), "what was taken back is kept nowhere");
        book.laid(node, run, NOW).expect("a store");
        assert_eq!(
            book.list().expect("the secrets")[0].placed,
            None,
            "it was never good again"
        );
        assert_ne!(text(&make()), first);
    }

    #[test]
    fn the_private_part_is_forgotten_once_it_is_laid() {
        let (book, node) = book();
        let run = RunId(5);
        let private = |enrolment: &Enrolment| matches!(&enrolment.secret, Kind::Pair { private: Some(_), .. });
        assert!(private(
            &book.for_run(Enrol::Salt, node, NAME, run, NOW).expect("a secret")
        ));
        book.laid(node, RunId(4), NOW).expect("a store");
        assert!(private(&book.list().expect("the secrets")[0]), "another run's end");
        book.laid(node, run, NOW).expect("a store");
        let laid = book.list().expect("the secrets");
        assert!(!private(&laid[0]) && laid[0].state(NOW) == "placed", "{laid:?}");
        book.forget(node).expect("a store");
        assert!(book.list().expect("the secrets").is_empty());
    }
}
