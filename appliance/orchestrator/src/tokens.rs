//! Boot tokens and agent sessions. A token is made for one MAC address, rendered into one boot script or manifest, and
//! opens one session; the session lets the same boot of the same machine connect again, also after the appliance was
//! restarted. Only digests are kept: who reads the store cannot speak for a machine.

use std::collections::HashMap;

use rackbar_messages::{Proof, RefusedReason};
use rackbar_model::{MacAddr, NodeId, Timestamp};
use rackbar_store::{Store, StoreError, Table};
use rackbar_trust::{Secret, TrustError, sha256};
use serde::{Deserialize, Serialize};

/// Milliseconds a token is good for. Between the script and the agent lie a download, a kernel start and drivers; slow
/// controllers alone take minutes.
pub const TOKEN_LIFE: u64 = 30 * 60 * 1_000;

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

    /// Checks a proof. A good token is used up, and its session is durable, before this returns: a restart of the
    /// appliance neither revives a token nor forgets an agent. `find` names the node of a machine.
    pub(crate) fn admit(
        &mut self,
        proof: &Proof,
        mac: MacAddr,
        now: Timestamp,
        find: impl FnOnce(MacAddr) -> Option<NodeId>,
    ) -> Result<Admitted, Denied> {
        match proof {
            Proof::BootToken(token) => self.admit_token(&sha256(token), mac, now, find),
            Proof::Session(session) => {
                let secret = Secret::new(*session);
                let key = sha256(session);
                let known = self.sessions.get_mut(&key).ok_or(RefusedReason::UnknownSession)?;
                if known.mac != mac {
                    return Err(RefusedReason::OtherMachine.into());
                }
                known.since = now;
                Ok(Admitted {
                    node: known.node,
                    session: secret,
                    again: true,
                })
            }
        }
    }

    fn admit_token(
        &mut self,
        key: &Key,
        mac: MacAddr,
        now: Timestamp,
        find: impl FnOnce(MacAddr) -> Option<NodeId>,
    ) -> Result<Admitted, Denied> {
        let token = self.boot.get_mut(key).ok_or(RefusedReason::UnknownToken)?;
        if token.mac != mac {
            return Err(RefusedReason::OtherMachine.into());
        }
        if token.used.is_some() {
            return Err(RefusedReason::TokenUsed.into());
        }
        if token.expires <= now {
            return Err(RefusedReason::TokenExpired.into());
        }
        let session = Secret::<32>::random()?;
        let node = find(mac).ok_or_else(|| Denied::Trouble("there are too many nodes".into()))?;
        token.used = Some(now);
        let used = json(token);
        let opened = Session { node, mac, since: now };
        let mut writes = vec![(named(b'b', key), used)];
        let session_key = sha256(session.expose());
        writes.push((named(b's', &session_key), json(&opened)));
        // A machine has one boot at a time: its earlier sessions end.
        let mut old: Vec<Key> = self
            .sessions
            .iter()
            .filter(|(_, one)| one.mac == mac)
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
        self.store.put_all(Table::Tokens, &writes)?;
        Ok(Admitted {
            node,
            session,
            again: false,
        })
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

    fn outcome(tokens: &mut Tokens, proof: Proof, mac: MacAddr, at: u64) -> Result<Secret<32>, RefusedReason> {
        match tokens.admit(&proof, mac, Timestamp(at), |_| Some(NODE)) {
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
