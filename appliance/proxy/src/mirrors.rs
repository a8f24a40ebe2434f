//! How the upstreams of all mirrors did.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::rules::upstream::Ranking;
use crate::settings::Mirror;

#[derive(Default)]
pub(crate) struct Mirrors(Mutex<HashMap<String, (Vec<String>, Ranking)>>);

impl Mirrors {
    /// Takes over a list of mirrors; those that are as they were keep what is known of them.
    pub(crate) fn set(&self, mirrors: &[Mirror]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *all);
        for mirror in mirrors {
            let urls: Vec<String> = mirror.upstreams.iter().map(ToString::to_string).collect();
            let known = old.remove(&mirror.name).filter(|(known, _)| *known == urls);
            let fresh = || (urls.clone(), Ranking::new(urls.len()));
            all.insert(mirror.name.clone(), known.unwrap_or_else(fresh));
        }
    }

    /// The order in which to try.
    pub(crate) fn order(&self, name: &str, now: Duration) -> Vec<usize> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(name).map(|(_, ranking)| ranking.order(now)).unwrap_or_default()
    }

    /// Notes how one did.
    pub(crate) fn rank(&self, name: &str, index: usize, good: bool, now: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, ranking)) = all.get_mut(name) {
            if good {
                ranking.good(index);
            } else {
                ranking.bad(index, now);
            }
        }
    }
}
