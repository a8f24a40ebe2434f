//! Taking a content in: write, tell how far it is, go on where it broke, prove it, keep it.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use rackbar_model::Severity;
use rackbar_upstream::Sum;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::run::{Answer, private};
use super::{Arriving, Ask, End, Flight, HELD_BACK, How, Phase, Progress};
use crate::Proxy;
use crate::rules::conditional::strip_hop_by_hop;
use crate::rules::resume::{Broken, Continuation};
use crate::rules::target::without_query;
use crate::rules::upstream::pause_before;
use crate::rules::vary::Selecting;
use crate::store::{Reader, Record, Spool, SpoolError, StoreError};

/// Readers are told of new bytes when there are this many, or when the origin pauses for this long: each telling wakes
/// all of them.
const TELL_BYTES: u64 = 256 << 10;
const TELL_AFTER: Duration = Duration::from_millis(2);

/// An origin that sends nothing for so long is as good as gone.
const SILENT: Duration = Duration::from_secs(30);

/// An index of indexes of up to so many bytes is read before anybody has its end. Debian's have 200 KB.
const EARLY_MOST: u64 = 4 << 20;

/// How taking in ended.
enum Taken {
    Whole,
    /// With the digest that was found instead of the promised one.
    Wrong(Sum),
    Broken(String),
}

impl Proxy {
    /// Takes in an answer that may be stored. The last phase, unless it was told on the way.
    pub(super) async fn arrive(
        self: &Arc<Self>,
        ask: &Ask,
        answer: Answer,
        selecting: Selecting,
        flight: &Flight,
        lead: oneshot::Sender<Response<Incoming>>,
    ) -> Option<Phase> {
        if announced(&answer.response).is_none() && self.is_too_large(&ask.key) {
            return Some(private(answer.response, lead, "no-room"));
        }
        let expected = ask.expected.filter(|_| answer.response.status() == 200);
        let mut answer = answer;
        let mut lead = Some(lead);
        for second in [false, true] {
            let size = announced(&answer.response);
            let store = self.store.clone();
            let begin = move || Spool::begin(&store, size).map(|spool| spool.promised(expected.as_ref()));
            let begun = tokio::task::spawn_blocking(begin).await;
            let Ok(Ok(spool)) = begun else {
                if let Ok(Err(error)) = begun {
                    self.no_room(ask, &error);
                }
                return Some(match lead.take() {
                    Some(lead) => private(answer.response, lead, "no-room"),
                    None => Phase::Private("no-room"),
                });
            };
            let asked_at = answer.asked_at;
            let upstream = answer.upstream.clone();
            let hold = expected.is_some() || self.names_others(&ask.key).is_some();
            let (arriving, body) = self.arriving(answer, selecting.clone(), &spool, size, hold);
            // What fits into what is held back is proved before anybody sees a byte of it.
            let quiet = expected.is_some() && size.is_some_and(|size| size <= HELD_BACK);
            if !quiet && !second {
                flight.phase.send_replace(Phase::Arriving(arriving.clone()));
            }
            let (spool, taken) = self.take(ask, body, &arriving, spool, expected).await;
            match taken {
                Taken::Whole => return self.keep(ask, &arriving, spool, asked_at, quiet || second).await,
                Taken::Broken(why) => return Some(self.broke(ask, &arriving, &upstream.url.to_string(), why)),
                Taken::Wrong(found) => self.mismatch(ask, &arriving, found, &upstream, second),
            }
            if second {
                break;
            }
            answer = match self.first_answer(ask, &again(ask)).await {
                Ok(answer) if answer.response.status() == 200 => answer,
                _ => break,
            };
        }
        let promised = expected.map_or_else(String::new, |sum| format!("{} {sum}", sum.kind()));
        let text = format!(
            "{}: what the origin sends has not the {promised} that its index of packages promises; refresh the \
             index (apt-get update), or wait until the mirror has finished its own update",
            ask.key
        );
        Some(Phase::Failed(502, text.into()))
    }

    fn arriving(
        &self,
        answer: Answer,
        selecting: Selecting,
        spool: &Spool,
        size: Option<u64>,
        hold: bool,
    ) -> (Arc<Arriving>, Incoming) {
        let (parts, body) = answer.response.into_parts();
        let mut headers = parts.headers;
        strip_hop_by_hop(&mut headers);
        let status = parts.status.as_u16();
        let arriving = Arriving {
            prelude: crate::serve::head::prelude(status, &headers),
            status,
            headers,
            selecting,
            file: spool.file(),
            asked_at: answer.asked_at,
            size,
            progress: watch::channel(Progress {
                ready: 0,
                end: End::Open,
            })
            .0,
            hold,
        };
        (Arc::new(arriving), body)
    }

    /// Takes over what an index of indexes promises before anybody has its end: whoever has it asks for what it names at once.
    /// False when it is none, or none by its length.
    async fn learn_early(self: &Arc<Self>, ask: &Ask, arriving: &Arriving, spool: &Spool) -> bool {
        let (file, size) = (spool.file(), spool.written());
        let small = arriving.status == 200 && size <= EARLY_MOST;
        let Some((kind, root)) = self.names_others(&ask.key).filter(|_| small) else {
            return false;
        };
        let (proxy, key, came) = (self.clone(), ask.key.clone(), self.promises.turn());
        let learnt = tokio::task::spawn_blocking(move || {
            proxy.take_promises(&key, (&kind, &root), came, Reader::of(file, 0, size));
        });
        learnt.await.is_ok()
    }

    /// Writes all that comes, going on where it breaks.
    async fn take(
        &self,
        ask: &Ask,
        mut body: Incoming,
        arriving: &Arriving,
        mut spool: Spool,
        expected: Option<Sum>,
    ) -> (Spool, Taken) {
        let mut skip = 0;
        let mut attempt = 0;
        loop {
            let before = spool.written();
            let why = match self.pump(&mut body, skip, arriving, &mut spool).await {
                Ok(()) if arriving.size.is_none_or(|size| size == spool.written()) => {
                    let found = expected.map(|promised| (promised, spool.sum()));
                    let taken = match found.filter(|(promised, found)| promised != found) {
                        Some((_, found)) => Taken::Wrong(found),
                        None => Taken::Whole,
                    };
                    return (spool, taken);
                }
                Ok(()) => "it ended before its announced size".to_owned(),
                Err(Pumped::Store(error)) => {
                    self.note_too_large(&ask.key);
                    self.no_room(ask, &error);
                    return (spool, Taken::Broken(error.to_string()));
                }
                Err(Pumped::Origin(why)) => why,
            };
            // Whoever gets on may begin to count anew.
            attempt = if spool.written() > before { 1 } else { attempt + 1 };
            match self
                .resumed(ask, arriving, &spool, expected.is_some(), &mut attempt)
                .await
            {
                Some((next, skipped)) => (body, skip) = (next, skipped),
                None => return (spool, Taken::Broken(why)),
            }
        }
    }

    /// Asks for the rest until somebody has it.
    async fn resumed(
        &self,
        ask: &Ask,
        arriving: &Arriving,
        spool: &Spool,
        digest_known: bool,
        attempt: &mut u32,
    ) -> Option<(Incoming, u64)> {
        let broken = Broken {
            headers: &arriving.headers,
            got: spool.written(),
            size: arriving.size,
            digest_known,
        };
        if !broken.can_resume() {
            return None;
        }
        let mut headers = ask.headers.clone();
        broken.ask(&mut headers);
        while let Some(pause) = pause_before(*attempt) {
            tokio::time::sleep(pause).await;
            *attempt += 1;
            let Ok(answer) = self.first_answer(ask, &headers).await else {
                continue;
            };
            let status = answer.response.status().as_u16();
            match broken.judge(status, answer.response.headers()) {
                Continuation::Appends => {
                    self.metrics.resumed.inc();
                    return Some((answer.response.into_body(), 0));
                }
                Continuation::Skip(bytes) => {
                    self.metrics.resumed.inc();
                    return Some((answer.response.into_body(), bytes));
                }
                Continuation::No if status >= 500 => {}
                Continuation::No => return None,
            }
        }
        None
    }

    /// Writes what one answer brings, after `skip` bytes that are there already.
    async fn pump(
        &self,
        body: &mut Incoming,
        mut skip: u64,
        arriving: &Arriving,
        spool: &mut Spool,
    ) -> Result<(), Pumped> {
        let mut told = spool.written();
        loop {
            let wait = if spool.written() > told { TELL_AFTER } else { SILENT };
            let data = match timeout(wait, body.frame()).await {
                Ok(None) => {
                    tell(arriving, spool.written());
                    return Ok(());
                }
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) => return Err(Pumped::Origin(error.to_string())),
                Err(_) if spool.written() > told => {
                    tell(arriving, spool.written());
                    told = spool.written();
                    continue;
                }
                Err(_) => return Err(Pumped::Origin(format!("nothing came for {} s", SILENT.as_secs()))),
            };
            let data = after(data, &mut skip);
            if arriving
                .size
                .is_some_and(|size| spool.written().saturating_add(data.len() as u64) > size)
            {
                return Err(Pumped::Origin("more came than was announced".into()));
            }
            self.metrics.origin_bytes.add(data.len() as u64);
            spool.write(&data).map_err(Pumped::Store)?;
            if told == 0 || spool.written().saturating_sub(told) >= TELL_BYTES {
                tell(arriving, spool.written());
                told = spool.written();
            }
        }
    }

    /// Lets the readers finish, and stores the content. With `tell`, the entry is the flight's last phase.
    async fn keep(
        self: &Arc<Self>,
        ask: &Ask,
        arriving: &Arc<Arriving>,
        spool: Spool,
        asked_at: u64,
        tell: bool,
    ) -> Option<Phase> {
        let digest = spool.digest();
        let size = spool.written();
        let learnt = self.learn_early(ask, arriving, &spool).await;
        arriving.progress.send_replace(Progress {
            ready: size,
            end: End::Whole,
        });
        let record = Record {
            key: ask.key.clone(),
            selecting: arriving.selecting.clone(),
            status: arriving.status,
            headers: crate::store::pairs(&arriving.headers),
            request_time: asked_at,
            response_time: crate::now(),
            digest,
            size,
        };
        let store = self.store.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let held = spool.seal(digest)?;
            store.insert(record, held.object.clone())
        });
        let error: String = match kept.await {
            Ok(Ok(entry)) => {
                if !learnt {
                    self.learn(&entry);
                }
                return tell.then_some(Phase::Entry(entry, How::Fetched));
            }
            Ok(Err(error)) => StoreError::to_string(&error),
            Err(error) => error.to_string(),
        };
        (self.tell)(
            Severity::Warning,
            format!("{} was served but not stored: {error}", without_query(&ask.key)),
        );
        // Whoever has it while it came has all of it; whoever looks now finds nothing.
        Some(Phase::Private("not-stored"))
    }

    fn broke(&self, ask: &Ask, arriving: &Arriving, from: &str, why: String) -> Phase {
        self.metrics.origin_failures.inc();
        arriving.progress.send_modify(|progress| progress.end = End::Broken);
        let (key, place) = (without_query(&ask.key), without_query(from));
        tracing::warn!(key, from = place, why, "a fetch broke off and could not be resumed");
        Phase::Failed(502, format!("{from} broke off: {why}").into())
    }

    fn mismatch(&self, ask: &Ask, arriving: &Arriving, found: Sum, from: &super::Upstream, second: bool) {
        self.metrics.mismatches.inc();
        arriving.progress.send_modify(|progress| progress.end = End::Broken);
        if let Some(mirror) = &ask.mirror {
            self.mirrors.rank(mirror, from.index, false, self.uptime());
        }
        let promised = ask.expected.map_or_else(String::new, |sum| sum.to_string());
        let next = if second {
            "it is refused"
        } else {
            "it is refused and fetched once more"
        };
        let text = format!(
            "{} from {} has {} {found} where {promised} was promised: {next}",
            without_query(&ask.key),
            without_query(&from.url.to_string()),
            found.kind()
        );
        (self.tell)(Severity::Error, text);
    }

    fn no_room(&self, ask: &Ask, error: &SpoolError) {
        self.metrics.not_stored.inc();
        if self.first_in_a_minute() {
            let text = format!("{} is passed on without being stored: {error}", without_query(&ask.key));
            (self.tell)(Severity::Warning, text);
        }
    }
}

enum Pumped {
    Origin(String),
    Store(SpoolError),
}

pub(super) fn announced(response: &Response<Incoming>) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The headers of a second try: no cache on the way shall give us the same again.
fn again(ask: &Ask) -> http::HeaderMap {
    let mut headers = ask.headers.clone();
    headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache"));
    headers
}

fn tell(arriving: &Arriving, written: u64) {
    let hold = arriving.hold;
    let held = if hold {
        arriving.size.map_or(written, |size| size.saturating_sub(HELD_BACK))
    } else {
        u64::MAX
    };
    let most = if hold && arriving.size.is_none() {
        written.saturating_sub(HELD_BACK)
    } else {
        written.min(held)
    };
    arriving
        .progress
        .send_modify(|progress| progress.ready = progress.ready.max(most));
}

fn after(mut data: Bytes, skip: &mut u64) -> Bytes {
    let count = usize::try_from(*skip).unwrap_or(usize::MAX).min(data.len());
    *skip = skip.saturating_sub(count as u64);
    data.split_off(count)
}
