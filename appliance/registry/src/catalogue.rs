//! Consul's catalogue over HTTP: the few requests that a machine without an agent of its own needs.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use rackbar_outward::{Client, Parent, client};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// For the catalogue to answer in.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Of an answer. A node with a thousand services stays far below.
const LONGEST: usize = 1 << 20;

/// Of the words of a refusal.
const WORDS: usize = 200;

/// Which catalogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its URL, without a path of the API.
    pub url: String,
    /// Its datacentre; the catalogue's own when there is none.
    pub datacenter: Option<String>,
    /// Authorities (DER) that its certificate is checked against; the public ones when there are none.
    pub roots: Vec<Vec<u8>>,
    /// The proxy through which it is reached.
    pub parent: Option<Parent>,
}

/// Why a request was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// Nothing can be done there now: it cannot be reached, is not well or does not know our token.
    There(String),
    /// It refuses this one request.
    This(String),
}

impl Trouble {
    pub(crate) fn words(&self) -> &str {
        match self {
            Self::There(words) | Self::This(words) => words,
        }
    }
}

/// A way to one catalogue.
pub(crate) struct Catalogue {
    place: Place,
    client: Client,
    token: Option<Zeroizing<String>>,
}

impl Catalogue {
    pub(crate) fn new(place: Place, token: Option<Zeroizing<String>>) -> Self {
        Self {
            client: client(&place.roots, place.parent.clone()),
            place,
            token,
        }
    }

    /// True for a way to the same place with the same token.
    pub(crate) fn leads(&self, place: &Place, token: Option<&Zeroizing<String>>) -> bool {
        self.place == *place && self.token.as_ref() == token
    }

    /// `GET /v1/catalog/node/NAME`: null when it knows none of that name.
    pub(crate) async fn node(&self, name: &str) -> Result<Value, Trouble> {
        let mut path = format!("/v1/catalog/node/{name}");
        if let Some(datacenter) = &self.place.datacenter {
            path.push_str(&format!("?dc={datacenter}"));
        }
        let answer = self.ask(Method::GET, &path, None).await?;
        read_node(&answer).map_err(Trouble::There)
    }

    /// `PUT /v1/catalog/register`.
    pub(crate) async fn register(&self, body: &Value) -> Result<(), Trouble> {
        self.ask(Method::PUT, "/v1/catalog/register", Some(body))
            .await
            .map(drop)
    }

    /// `PUT /v1/catalog/deregister`: a service of a node, or the node with all that it has.
    pub(crate) async fn deregister(&self, node: &str, service: Option<&str>) -> Result<(), Trouble> {
        let mut body = json!({ "Node": node });
        if let Some(service) = service {
            body["ServiceID"] = json!(service);
        }
        if let Some(datacenter) = &self.place.datacenter {
            body["Datacenter"] = json!(datacenter);
        }
        let path = "/v1/catalog/deregister";
        self.ask(Method::PUT, path, Some(&body)).await.map(drop)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, Trouble> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.place.url.trim_end_matches('/')))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("rackbar/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            let mut value = http::HeaderValue::from_str(token)
                .map_err(|_| Trouble::There("the token has characters that no header may have".into()))?;
            value.set_sensitive(true);
            request = request.header("x-consul-token", value);
        }
        let request = request.body(Full::new(body.unwrap_or_default()));
        let request = request.map_err(|error| Trouble::There(format!("its URL cannot be asked: {error}")))?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.answer(request)).await;
        answer.unwrap_or_else(|_| {
            let seconds = ANSWER_WITHIN.as_secs();
            Err(Trouble::There(format!("no answer within {seconds} s")))
        })
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<Bytes, Trouble> {
        let answer = self.client.request(request).await;
        let answer = answer.map_err(Trouble::There)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| Trouble::There(format!("its answer broke off: {error}")))?;
        let body = body.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let words = format!("it answers {}: {}", status.as_u16(), said(&body));
        Err(match status.as_u16() {
            401 | 403 => Trouble::There(format!(
                "{words}; give it a token: rackbar registration token --file FILE"
            )),
            // Consul says 500 where a body or a name is not to its liking.
            400 | 404..=499 | 500 => Trouble::This(words),
            _ => Trouble::There(words),
        })
    }
}

/// Reads what a catalogue says of a node (the body of `GET /v1/catalog/node/NAME`): null when it knows none of that name.
///
/// # Errors
/// When it is no JSON, or is nested deeper than 127 levels; in words.
pub fn read_node(answer: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(answer).map_err(|error| format!("its answer is no JSON: {error}"))
}

/// The words with which a catalogue refuses, fit for a line of a journal: at most 200 characters, none of them a control
/// character.
pub fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars().filter(|c| !c.is_control()).take(WORDS).collect()
}
