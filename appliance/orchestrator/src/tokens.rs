//! Boot tokens and agent sessions. A token is made for one MAC address, rendered into one boot script or manifest, and
//! opens one session; the session lets the same boot of the same machine connect again, also after the appliance was
//! restarted. Only digests are kept: who reads the store cannot speak for a machine.
//!
//! A connection may drop after the greeting and before the welcome arrived: the agent then has nothing but its used
//! token. It is taken once more, for [`SECOND_CHANCE`], from the same address and for the same MAC address, and only
//! while the session it opened has said nothing: after the first word its machine has the session's secret, and who
//! shows the token is somebody else.

use std::collections::HashMap;
use std::net::IpAddr;

use rackbar_messages::{Proof, RefusedReason};
use rackbar_model::{MacAddr, NodeId, Timestamp};
use rackbar_store::{Store, StoreError, Table, Written};
use rackbar_trust::{Secret, TrustError, sha256};
use serde::{Deserialize, Serialize};

/// Milliseconds a token is good for. Between the script and the agent lie a download, a kernel start and drivers; slow
/// controllers alone take minutes.
pub const TOKEN_LIFE: u64 = 30 * 60 * 1_000;

/// Milliseconds after its first use in which a token may be shown again. The agent tries again within seconds.
pub const SECOND_CHANCE: u64 = 60 * 1_000;

/// Tokens outstanding per machine: firmware that tries again asks for a new script each time.
const PER_MACHINE: usize = 8;

/// Tokens outstanding in all; who asks for scripts of made-up machines pushes out the oldest.
const MAX_TOKENS: usize = 16_384;

/// Sessions in all; the least recently used goes first.
const MAX_SESSIONS: usize = 16_384;

type Key = [u8; 32];

#[derive(Clone, Serialize, Deserialize)]
struct BootToken {
    mac: MacAddr,
    expires: Timestamp,
    used: Option<Timestamp>,
    /// The session it opened, until that has said something.
    #[serde(default)]
    silent: Option<Silent>,
}

/// A session that was opened and has said nothing yet.
#[derive(Clone, Serialize, Deserialize)]
struct Silent {
    session: Key,
    from: IpAddr,
}

impl BootToken {
    /// True when this may be the machine that never got its welcome.
    fn may_come_again(&self, from: IpAddr, now: Timestamp) -> bool {
        let lately = self.used.is_some_and(|used| now.since(used) < SECOND_CHANCE);
        lately && self.silent.as_ref().is_some_and(|silent| silent.from == from)
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Session {
    node: NodeId,
    mac: MacAddr,
    since: Timestamp,
}

/// All tokens and sessions.
pub(crate) struct Tokens {
    store: Store,
    boot: HashMap<Key, BootToken>,
    sessions: HashMap<Key, Session>,
}

/// Who an agent turned out to be.
pub(crate) struct Admitted {
    pub(crate) node: NodeId,
    pub(crate) session: Secret<32>,
    /// It had a session already.
    pub(crate) again: bool,
    /// Its token was used before, and the welcome did not reach it.
    pub(crate) second_chance: bool,
    /// What is not on the disk yet.
    written: Option<Written>,
}

impl Admitted {
    /// Waits until it is durable.
    pub(crate) fn durable(mut self) -> Result<Self, Denied> {
        if let Some(written) = self.written.take() {
            written.wait()?;
        }
        Ok(self)
    }
}

/// Why nobody was admitted.
pub(crate) enum Denied {
    /// For the agent to know.
    Refused(RefusedReason),
    /// Our own trouble: the agent may try again.
    Trouble(String),
}

impl From<RefusedReason> for Denied {
    fn from(reason: RefusedReason) -> Self {
        Self::Refused(reason)
    }
}

impl From<TrustError> for Denied {
    fn from(error: TrustError) -> Self {
        Self::Trouble(error.to_string())
    }
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Self {
        Self::Trouble(error.to_string())
    }
}

impl Tokens {
    pub(crate) fn load(store: Store) -> Result<Self, StoreError> {
        let mut tokens = Self {
            boot: HashMap::new(),
            sessions: HashMap::new(),
            store,
        };
        for (key, value) in tokens.store.list(Table::Tokens)? {
            let Some((kind, digest)) = key.split_first() else {
                continue;
            };
            let Ok(digest) = Key::try_from(digest) else { continue };
            match kind {
                b'b' => drop(serde_json::from_slice(&value).map(|token| tokens.boot.insert(digest, token))),
                b's' => drop(serde_json::from_slice(&value).map(|session| tokens.sessions.insert(digest, session))),
                _ => {}
            }
        }
        Ok(tokens)
    }

    /// A new token for the machine with `mac`. It reaches the disk within milliseconds, long before its machine can
    /// show it.
    pub(crate) fn mint(&mut self, mac: MacAddr, now: Timestamp) -> Result<Secret<32>, TrustError> {
        self.make_room(mac, now);
        let secret = Secret::<32>::random()?;
        let key = sha256(secret.expose());
        let token = BootToken {
            mac,
            expires: now.plus(TOKEN_LIFE),
            used: None,
            silent: None,
        };
        self.store
            .queue(Table::Tokens, &named(b'b', &key), json(&token).as_deref());
        self.boot.insert(key, token);
        Ok(secret)
    }

    fn make_room(&mut self, mac: MacAddr, now: Timestamp) {
        let mut gone: Vec<Key> = self
            .boot
            .iter()
            .filter(|(_, one)| one.expires <= now)
            .map(|(key, _)| *key)
            .collect();
        let mut own: Vec<_> = self
            .boot
            .iter()
            .filter(|(_, one)| one.mac == mac)
            .map(|(key, one)| (one.expires, *key))
            .collect();
        own.sort();
        gone.extend(
            own.iter()
                .take((own.len() + 1).saturating_sub(PER_MACHINE))
                .map(|(_, key)| *key),
        );
        if self.boot.len() >= MAX_TOKENS {
            gone.extend(self.boot.iter().min_by_key(|(_, one)| one.expires).map(|(key, _)| *key));
        }
        for key in gone {
            self.boot.remove(&key);
            self.store.queue(Table::Tokens, &named(b'b', &key), None);
        }
    }

    /// Checks a proof. A good token is used up, and its session is durable once [`Admitted::durable`] has returned, which is
    /// before the agent is welcomed: a restart of the appliance neither revives a token nor forgets an agent. Waited for
    /// without the lock on these tokens, so that a rack of agents shares a few commits. `find` names the node of a machine.
    pub(crate) fn admit(
        &mut self,
        proof: &Proof,
        mac: MacAddr,
        from: IpAddr,
        now: Timestamp,
        find: impl FnOnce(MacAddr) -> Option<NodeId>,
    ) -> Result<Admitted, Denied> {
        match proof {
            Proof::BootToken(token) => self.admit_token(&sha256(token), mac, from, now, find),
            Proof::Session(session) => {
                let secret = Secret::new(*session);
                let key = sha256(session);
                let known = self.sessions.get_mut(&key).ok_or(RefusedReason::UnknownSession)?;
                if known.mac != mac {
                    return Err(RefusedReason::OtherMachine.into());
                }
                known.since = now;
                Ok(Admitted {
                    written: None,
                    node: known.node,
                    session: secret,
                    again: true,
                    second_chance: false,
                })
            }
        }
    }

    fn admit_token(
        &mut self,
        key: &Key,
        mac: MacAddr,
        from: IpAddr,
        now: Timestamp,
        find: impl FnOnce(MacAddr) -> Option<NodeId>,
    ) -> Result<Admitted, Denied> {
        let token = self.boot.get_mut(key).ok_or(RefusedReason::UnknownToken)?;
        if token.mac != mac {
            return Err(RefusedReason::OtherMachine.into());
        }
        let second_chance = token.used.is_some();
        if second_chance && !token.may_come_again(from, now) {
            return Err(RefusedReason::TokenUsed.into());
        }
        // A machine that got here in time is not locked out for a lost connection.
        if token.expires <= now && !second_chance {
            return Err(RefusedReason::TokenExpired.into());
        }
        let session = Secret::<32>::random()?;
        let node = find(mac).ok_or_else(|| Denied::Trouble("there are too many nodes".into()))?;
        let session_key = sha256(session.expose());
        // The window is counted from the first use: each try does not open a new one.
        token.used = token.used.or(Some(now));
        token.silent = Some(Silent {
            session: session_key,
            from,
        });
        let used = json(token);
        let writes = vec![(named(b'b', key), used)];
        let written = self.open(session_key, Session { node, mac, since: now }, writes)?;
        Ok(Admitted {
            written: Some(written),
            node,
            session,
            again: false,
            second_chance,
        })
    }

    /// A session said its first word: its token is done with.
    pub(crate) fn heard(&mut self, session: &[u8; 32]) {
        let session = sha256(session);
        let opener = |one: &BootToken| one.silent.as_ref().is_some_and(|silent| silent.session == session);
        if let Some((key, token)) = self.boot.iter_mut().find(|(_, one)| opener(one)) {
            token.silent = None;
            self.store
                .queue(Table::Tokens, &named(b'b', key), json(token).as_deref());
        }
    }

    /// Ends the sessions of a node: an agent of it that comes back has to boot anew.
    pub(crate) fn forget(&mut self, node: NodeId) {
        let mine = self.sessions.iter().filter(|(_, one)| one.node == node);
        let keys: Vec<Key> = mine.map(|(key, _)| *key).collect();
        for key in keys {
            self.sessions.remove(&key);
            self.store.queue(Table::Tokens, &named(b's', &key), None);
        }
    }

    /// Has a session written together with `writes`, and ends those it replaces.
    fn open(
        &mut self,
        session_key: Key,
        opened: Session,
        mut writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<Written, StoreError> {
        writes.push((named(b's', &session_key), json(&opened)));
        // A machine has one boot at a time: its earlier sessions end.
        let mut old: Vec<Key> = self
            .sessions
            .iter()
            .filter(|(_, one)| one.mac == opened.mac)
            .map(|(key, _)| *key)
            .collect();
        if self.sessions.len() >= MAX_SESSIONS {
            old.extend(
                self.sessions
                    .iter()
                    .min_by_key(|(_, one)| one.since)
                    .map(|(key, _)| *key),
            );
        }
        for key in old {
            self.sessions.remove(&key);
            writes.push((named(b's', &key), None));
        }
        self.sessions.insert(session_key, opened);
        let writes: Vec<_> = writes
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
            .collect();
        self.store.begin_put_all(Table::Tokens, &writes)
    }
}

fn named(kind: u8, key: &Key) -> Vec<u8> {
    std::iter::once(kind).chain(key.iter().copied()).collect()
}

fn json<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackbar_store::Options;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
    const NODE: NodeId = NodeId([1; 16]);

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 10, 0, 50));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 10, 0, 51));

    fn outcome(tokens: &mut Tokens, proof: Proof, mac: MacAddr, at: u64) -> Result<Secret<32>, RefusedReason> {
        outcome_from(tokens, proof, mac, HERE, at)
    }

    fn outcome_from(
        tokens: &mut Tokens,
        proof: Proof,
        mac: MacAddr,
        from: IpAddr,
        at: u64,
    ) -> Result<Secret<32>, RefusedReason> {
        let admitted = tokens.admit(&proof, mac, from, Timestamp(at), |_| Some(NODE));
        match admitted.and_then(Admitted::durable) {
            Ok(admitted) => Ok(admitted.session),
            Err(Denied::Refused(reason)) => Err(reason),
            Err(Denied::Trouble(text)) => panic!("{text}"),
        }
    }

    #[test]
    fn a_token_opens_one_session_for_its_machine_in_its_time_also_across_restarts() {
        let store = Store::in_memory(Options::default()).unwrap();
        let mut tokens = Tokens::load(store.clone()).unwrap();
        let token = tokens.mint(MAC, Timestamp(0)).unwrap();
        let proof = || Proof::BootToken(*token.expose());
        store.flush().unwrap();
        let mut tokens = Tokens::load(store.clone()).unwrap();
        assert_eq!(
            outcome(&mut tokens, Proof::BootToken([9; 32]), MAC, 1).err(),
            Some(RefusedReason::UnknownToken)
        );
        assert_eq!(
            outcome(&mut tokens, proof(), OTHER, 1).err(),
            Some(RefusedReason::OtherMachine)
        );
        assert_eq!(
            outcome(&mut tokens, proof(), MAC, TOKEN_LIFE).err(),
            Some(RefusedReason::TokenExpired)
        );
        let session = outcome(&mut tokens, proof(), MAC, 1).unwrap();
        tokens.heard(session.expose());
        store.flush().unwrap();
        assert_eq!(
            outcome(&mut tokens, proof(), MAC, 2).err(),
            Some(RefusedReason::TokenUsed)
        );
        let mut tokens = Tokens::load(store.clone()).unwrap();
        assert_eq!(
            outcome(&mut tokens, proof(), MAC, 2).err(),
            Some(RefusedReason::TokenUsed)
        );
        let again = || Proof::Session(*session.expose());
        assert!(outcome(&mut tokens, again(), MAC, 3).is_ok());
        assert_eq!(
            outcome(&mut tokens, again(), OTHER, 3).err(),
            Some(RefusedReason::OtherMachine)
        );
        let next = tokens.mint(MAC, Timestamp(4)).unwrap();
        assert!(outcome(&mut tokens, Proof::BootToken(*next.expose()), MAC, 5).is_ok());
        assert_eq!(
            outcome(&mut tokens, again(), MAC, 6).err(),
            Some(RefusedReason::UnknownSession)
        );
    }

    #[test]
    fn a_token_whose_welcome_was_lost_is_taken_again_from_the_same_place_for_a_minute() {
        let store = Store::in_memory(Options::default()).unwrap();
        let mut tokens = Tokens::load(store.clone()).unwrap();
        let token = tokens.mint(MAC, Timestamp(0)).unwrap();
        let proof = || Proof::BootToken(*token.expose());
        let used = Some(RefusedReason::TokenUsed);
        let lost = outcome(&mut tokens, proof(), MAC, 1_000).unwrap();
        assert_eq!(outcome_from(&mut tokens, proof(), MAC, ELSEWHERE, 2_000).err(), used);
        assert_eq!(
            outcome(&mut tokens, proof(), OTHER, 2_000).err(),
            Some(RefusedReason::OtherMachine)
        );
        let mut tokens = Tokens::load(store).unwrap();
        let second = outcome(&mut tokens, proof(), MAC, 1_000 + SECOND_CHANCE - 1).unwrap();
        assert_eq!(
            outcome(&mut tokens, Proof::Session(*lost.expose()), MAC, 61_000).err(),
            Some(RefusedReason::UnknownSession),
            "what nobody got opens nothing"
        );
        assert_eq!(
            outcome(&mut tokens, proof(), MAC, 1_000 + SECOND_CHANCE).err(),
            used,
            "the window is one"
        );
        assert!(outcome(&mut tokens, Proof::Session(*second.expose()), MAC, 61_000).is_ok());
    }

    #[test]
    fn what_is_kept_is_bounded_and_no_secret() {
        let store = Store::in_memory(Options::default()).unwrap();
        let mut tokens = Tokens::load(store.clone()).unwrap();
        let minted: Vec<_> = (0..50).map(|n| tokens.mint(MAC, Timestamp(n)).unwrap()).collect();
        assert_eq!(tokens.boot.len(), PER_MACHINE);
        store.flush().unwrap();
        let kept = store.list(Table::Tokens).unwrap();
        assert_eq!(kept.len(), PER_MACHINE);
        for (key, value) in kept {
            for secret in &minted {
                let hex = secret.expose_hex();
                assert!(!key.ends_with(secret.expose()) && !String::from_utf8_lossy(&value).contains(hex.as_str()));
            }
        }
        tokens.mint(OTHER, Timestamp(50 + TOKEN_LIFE)).unwrap();
        assert_eq!(tokens.boot.len(), 1, "expired ones go");
    }
}
