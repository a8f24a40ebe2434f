//! A flight's task: ask one upstream after the other, and make of the answer what it allows.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use rackbar_model::Severity;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::arrive::announced;
use super::{Ask, Flight, How, Landing, Phase, Small, Upstream};
use crate::Proxy;
use crate::origin::{Body, OriginError};
use crate::rules::conditional::{freshened, set_validators, strip_hop_by_hop, validates};
use crate::rules::freshness::{NotStored, storable};
use crate::rules::target::without_query;
use crate::rules::vary::{Selecting, selecting};
use crate::store::{Entry, Record};

/// Redirections followed for a mirror.
const REDIRECTS: usize = 5;

/// An origin's error is passed on up to this size.
const SMALL: usize = 64 << 10;

/// Within so long it has to be whole: everybody who asks for the same waits for it.
const SMALL_WITHIN: Duration = Duration::from_secs(10);

/// Rounds over all upstreams that cannot be reached.
const ROUNDS: u32 = 2;

/// An answer, whose it is, and when it was asked for.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(super) upstream: Upstream,
    pub(super) asked_at: u64,
}

impl Proxy {
    /// Runs a flight to its end.
    pub(crate) async fn fly(
        self: Arc<Self>,
        name: String,
        flight: Arc<Flight>,
        ask: Ask,
        stale: Option<Arc<Entry>>,
        lead: oneshot::Sender<Response<Incoming>>,
    ) {
        let landing = Landing {
            flights: &self.flights,
            name: &name,
            flight: &flight,
        };
        let last = self.asked(&ask, stale.as_ref(), &flight, lead).await;
        // Whoever boards after the phase was told but before the flight landed finds the entry or the phase: both right.
        if let Some(phase) = last {
            flight.phase.send_replace(phase);
        }
        drop(landing);
    }

    /// The last phase, unless it was told on the way.
    async fn asked(
        self: &Arc<Self>,
        ask: &Ask,
        stale: Option<&Arc<Entry>>,
        flight: &Flight,
        lead: oneshot::Sender<Response<Incoming>>,
    ) -> Option<Phase> {
        // What contradicts its promised digest is not asked whether it still holds.
        let wrong = |entry: &&Arc<Entry>| ask.expected.is_some_and(|sum| !entry.object.has(&sum));
        let validating = stale.filter(|entry| !wrong(entry));
        let (answer, holds) = match self.judged(ask, validating).await {
            Ok(judged) => judged,
            Err(error) => return Some(self.unreachable(ask, validating, &error)),
        };
        if holds {
            return validating.map(|entry| self.validated(entry, &answer));
        }
        let status = answer.response.status().as_u16();
        let trouble = matches!(status, 500 | 502 | 503 | 504);
        if let Some(entry) = validating.filter(|entry| trouble && self.usable(entry, ask, false)) {
            return Some(Phase::Entry(entry.clone(), How::StaleIfError));
        }
        // What the operator had locked is the same for all, whatever its server says of caches; most say nothing.
        if ask.strict && status == 200 {
            return self.arrive(ask, answer, Selecting::new(), flight, lead).await;
        }
        // What is pinned is not given up for the word that it is gone, or elsewhere, by now.
        let spared = stale.filter(|entry| entry.pinned() && entry.record.status == 200);
        let storable = match storable(&Method::GET, &ask.headers, status, answer.response.headers()) {
            Ok(()) if status != 200 && spared.is_some() => Err(NotStored::Pinned),
            judged => judged,
        };
        match storable {
            Ok(()) => match selecting(answer.response.headers(), &ask.headers) {
                Some(selecting) => self.arrive(ask, answer, selecting, flight, lead).await,
                None => Some(private(answer.response, lead, "vary")),
            },
            Err(_) if status >= 400 && announced(&answer.response).is_none_or(|size| size <= SMALL as u64) => {
                Some(small(answer.response, &answer.upstream).await)
            }
            Err(why) => Some(private(answer.response, lead, why.word())),
        }
    }

    /// What the origin answers, and whether that is that what is stored still holds.
    async fn judged(&self, ask: &Ask, validating: Option<&Arc<Entry>>) -> Result<(Answer, bool), OriginError> {
        let mut headers = ask.headers.clone();
        let conditional = validating.filter(|entry| set_validators(&mut headers, &entry.headers));
        let answer = self.first_answer(ask, &headers).await?;
        let Some(entry) = conditional.filter(|_| answer.response.status() == 304) else {
            return Ok((answer, false));
        };
        if validates(&entry.headers, answer.response.headers()) {
            return Ok((answer, true));
        }
        // It is about a version that we do not have.
        let answer = self.first_answer(ask, &ask.headers).await?;
        if answer.response.status() == 304 {
            let why = "it answers 304 with the ETag of a version that was not asked about, and to a request without conditions";
            return Err(OriginError::Failed(why.into()));
        }
        Ok((answer, false))
    }

    /// The first answer that is none of an upstream in trouble; else the last one there was.
    pub(crate) async fn first_answer(&self, ask: &Ask, headers: &HeaderMap) -> Result<Answer, OriginError> {
        let mut last = Err(OriginError::Failed("there is no upstream".into()));
        for round in 0..ROUNDS {
            for upstream in self.ranked(ask) {
                let answer = self.one_answer(ask, &upstream, headers).await;
                let status = answer.as_ref().map_or(0, |answer| answer.response.status().as_u16());
                let good = matches!(status, 1..=399) || matches!(status, 400..=499 if status != 404 && status != 429);
                if let Some(mirror) = &ask.mirror {
                    // A mirror without a file may only be late.
                    self.mirrors
                        .rank(mirror, upstream.index, good || status == 404, self.uptime());
                }
                if good {
                    return answer;
                }
                // An answer of any kind is worth more to a client than the reason why another gave none.
                if answer.is_ok() || last.is_err() {
                    last = answer;
                }
            }
            let refused = matches!(last, Err(OriginError::Refused(_)));
            if last.is_ok() || refused || round + 1 == ROUNDS {
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        last
    }

    fn ranked(&self, ask: &Ask) -> Vec<Upstream> {
        match &ask.mirror {
            None => ask.upstreams.clone(),
            Some(mirror) => {
                let order = self.mirrors.order(mirror, self.uptime());
                let mut all = ask.upstreams.clone();
                all.sort_by_key(|one| order.iter().position(|index| *index == one.index));
                all
            }
        }
    }

    async fn one_answer(&self, ask: &Ask, upstream: &Upstream, headers: &HeaderMap) -> Result<Answer, OriginError> {
        let mut at = upstream.clone();
        let asked_at = crate::now();
        for _ in 0..=REDIRECTS {
            let response = self.origins.send(at.trusted, get(&at, headers)?).await?;
            self.metrics.origin_requests.inc();
            let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) && ask.mirror.is_some();
            let location = response
                .headers()
                .get(http::header::LOCATION)
                .and_then(|value| value.to_str().ok());
            match location
                .filter(|_| redirect)
                .and_then(|location| at.url.follow(location))
            {
                None => {
                    return Ok(Answer {
                        response,
                        upstream: at,
                        asked_at,
                    });
                }
                Some(url) if at.url.https && !url.https => {
                    let (from, to) = (at.url.to_string(), url.to_string());
                    return Err(OriginError::Failed(format!(
                        "{} leads to {}, which is not protected any more: it is not followed",
                        without_query(&from),
                        without_query(&to)
                    )));
                }
                Some(url) => {
                    // An upstream may lead us anywhere but to where clients may not go either.
                    at = at.led(url);
                }
            }
        }
        Err(OriginError::Failed(format!(
            "{} led from one place to the next {REDIRECTS} times",
            upstream.url
        )))
    }

    fn unreachable(&self, ask: &Ask, stale: Option<&Arc<Entry>>, error: &OriginError) -> Phase {
        if let Some(entry) = stale.filter(|entry| self.usable(entry, ask, true)) {
            return Phase::Entry(entry.clone(), How::StaleIfError);
        }
        self.metrics.origin_failures.inc();
        let status = match error {
            OriginError::Refused(_) => 403,
            OriginError::Silent => 504,
            OriginError::Parent(_) | OriginError::Failed(_) => 502,
        };
        let places: Vec<String> = ask.upstreams.iter().map(|one| one.url.to_string()).collect();
        Phase::Failed(status, format!("{}: {error}", places.join(", ")).into())
    }

    fn usable(&self, entry: &Entry, ask: &Ask, unreachable: bool) -> bool {
        // A request changed it since (RFC 9111 section 4.4): only what is kept to be had without its origin stands in for one that
        // cannot be asked.
        let kept = entry.pinned() || entry.pack.is_some();
        if entry.is_invalid() && !(unreachable && kept) {
            return false;
        }
        // Whoever pinned it wants it to be had without its origin: our own limit is for what nobody asked to keep.
        let most = match entry.pinned() {
            true => u64::MAX,
            false => self.settings().stale_if_unreachable,
        };
        // Whoever put a pack in did so that it stands in for an origin that cannot be reached, however old it is.
        (unreachable && entry.pack.is_some())
            || entry
                .fresh
                .usable_after_error(&ask.wanted, crate::now(), unreachable, most)
    }

    /// The entry after the origin said that it still holds.
    fn validated(&self, entry: &Arc<Entry>, answer: &Answer) -> Phase {
        let headers = freshened(&entry.headers, answer.response.headers());
        let record = Record {
            headers: crate::store::pairs(&headers),
            request_time: answer.asked_at,
            response_time: crate::now(),
            ..entry.record.clone()
        };
        if entry.pack.is_some() {
            return Phase::Entry(self.store.freshen(entry, record), How::Validated);
        }
        match self.store.renew(entry, record) {
            Ok(Some(new)) => Phase::Entry(new, How::Validated),
            // It was evicted meanwhile: whoever reads it finds that out, and asks for it anew.
            Ok(None) => Phase::Entry(entry.clone(), How::Validated),
            Err(error) => {
                (self.tell)(Severity::Warning, error.to_string());
                Phase::Entry(entry.clone(), How::Validated)
            }
        }
    }
}

fn get(upstream: &Upstream, headers: &HeaderMap) -> Result<Request<Body>, OriginError> {
    let empty: Body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let request = Request::get(upstream.url.to_string()).body(empty);
    let mut request = request.map_err(|error| OriginError::Failed(error.to_string()))?;
    *request.headers_mut() = upstream.headers(headers);
    Ok(request)
}

/// Hands the answer to the client that asked; when it is gone, so is the answer.
pub(super) fn private(
    response: Response<Incoming>,
    lead: oneshot::Sender<Response<Incoming>>,
    why: &'static str,
) -> Phase {
    let _ = lead.send(response);
    Phase::Private(why)
}

/// Takes an origin's error in, for all who wait. What breaks off, or comes too slowly, is nobody's answer.
async fn small(response: Response<Incoming>, from: &Upstream) -> Phase {
    let (parts, body) = response.into_parts();
    let failed = |status, why: &str| Phase::Failed(status, format!("{}: the answer {why}", from.url).into());
    let body = match timeout(SMALL_WITHIN, content(body)).await {
        Ok(Ok(Some(body))) => body,
        // Nobody knew, and what was read of it is gone: each gets it anew, whole.
        Ok(Ok(None)) => return Phase::Private("large-error"),
        Ok(Err(error)) => return failed(502, &format!("{} broke off: {error}", parts.status)),
        Err(_) => {
            let within = SMALL_WITHIN.as_secs();
            return failed(504, &format!("{} was not whole within {within} s", parts.status));
        }
    };
    let mut headers = parts.headers;
    strip_hop_by_hop(&mut headers);
    Phase::Small(Arc::new(Small {
        status: parts.status.as_u16(),
        headers,
        body,
    }))
}

/// A content of up to [`SMALL`] bytes; `None` for a longer one.
async fn content(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let mut content = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = frame?.into_data().unwrap_or_default();
        if content.len() + data.len() > SMALL {
            return Ok(None);
        }
        content.extend_from_slice(&data);
    }
    Ok(Some(content.freeze()))
}
