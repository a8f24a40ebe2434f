//! A question to an origin by a URL that the operator wrote down. The answer is for us alone: nothing of it is stored, and no
//! redirection is followed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, LOCATION, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};

use super::get::checked;
use super::{Coming, GetError, Origins};
use crate::Proxy;
use crate::operate::CacheError;
use crate::settings::Mode;

/// From the question to the last byte of the answer.
const WITHIN: Duration = Duration::from_secs(30 * 60);

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    /// URL.
    pub url: String,
    /// Headers besides our own.
    pub headers: Vec<(&'static str, &'static str)>,
    /// What is posted; without it the question is a GET.
    pub body: Option<Vec<u8>>,
    /// Bytes that the answer may have.
    pub most: usize,
}

impl Origins {
    /// Asks; gives the answer on its way.
    async fn exchange(&self, question: &Question) -> Result<Coming, GetError> {
        let method = question.body.as_ref().map_or(Method::GET, |_| Method::POST);
        let mut request = Request::builder().method(method).uri(checked(&question.url)?);
        for (name, value) in &question.headers {
            request = request.header(*name, *value);
        }
        let body = Bytes::from(question.body.clone().unwrap_or_default());
        let request = request
            .header(USER_AGENT, "rackbar")
            .header(ACCEPT_ENCODING, "identity")
            .body(Full::new(body).map_err(|never| match never {}).boxed_unsync());
        let answer = self.send(true, request.map_err(|_| GetError::Url)?).await?;
        let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
        match (answer.status(), to) {
            (StatusCode::OK, _) => Ok(Coming {
                body: answer.into_body(),
                length: None,
            }),
            (status, Some(to)) if status.is_redirection() => Err(GetError::Redirect {
                to: to.chars().take(200).collect(),
                why: "which is not followed: write that URL where this one is written",
            }),
            (status, _) => Err(GetError::Status(status)),
        }
    }
}

impl Proxy {
    /// Asks an origin, as the proxy's settings say: by a parent proxy, and trusting the site's authorities; gives the whole answer.
    ///
    /// # Errors
    /// When the proxy is offline, or there is no such answer.
    pub async fn question(&self, question: &Question) -> Result<Vec<u8>, CacheError> {
        let url = &question.url;
        if self.settings().mode == Mode::Offline {
            return Err(CacheError::Fetch(format!(
                "{url}: the proxy is offline and asks no origin; `rackbar cache mode online` lets it ask"
            )));
        }
        let answer = async {
            let coming = self.origins.exchange(question).await?;
            self.metrics.origin_requests.inc();
            coming.whole(question.most).await
        };
        match tokio::time::timeout(WITHIN, answer).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => {
                self.metrics.origin_failures.inc();
                Err(CacheError::Fetch(format!("{url}: {error}")))
            }
            Err(_) => Err(CacheError::Fetch(format!(
                "{url}: the answer was not whole within {} minutes",
                WITHIN.as_secs() / 60
            ))),
        }
    }
}
