//! A clock that is set while machines are served.

use super::Engine;
use crate::Output;
use crate::shift::Shift;

impl Engine {
    /// The clock was set, by so many milliseconds: what was read from it moves along. Offers, probes, pauses and leases
    /// last as long as they would have, and the leases of this run are to be made durable anew. What the store had at
    /// the start stays, because it was read from another clock: leases of a year ago end when the clock, at first in
    /// 1970, is set, and those given a moment before do not.
    pub fn shift(&mut self, millis: i64, out: &mut Vec<Output>) {
        let by = Shift(millis);
        for site in &mut self.sites {
            site.stance.shift(by);
            if let Some(foreign) = &mut site.foreign {
                foreign.shift(by);
            }
            site.table.shift(by);
        }
        if let Some((begun, last)) = &mut self.lived {
            self.clients.shift(by, *begun..=*last);
            by.apply(begun);
            by.apply(last);
        }
        self.tell.shift(by);
        self.strange_relays.shift(by);
        self.decliners.shift(by);
        let moved = self.known_leases().filter(|(_, stored)| !stored);
        out.extend(moved.map(|(lease, _)| Output::Commit(lease)));
    }
}
