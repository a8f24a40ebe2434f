//! Fetching one document of a publisher by a URL that the operator wrote down.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;

use super::{OriginError, Origins};

/// Redirections that are followed, one after the other.
const REDIRECTS: usize = 5;
/// Between two pieces of a body.
const PIECE_WITHIN: Duration = Duration::from_secs(60);

/// Why a document is not had.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// The URL is none that can be asked for.
    #[error("it is no URL that begins with http:// or https:// and names a host")]
    Url,
    /// There is no answer.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The answer is not the document.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// It leads elsewhere, and that is not followed.
    #[error("it leads to {to}, {why}")]
    Redirect {
        /// Where to.
        to: String,
        /// Why that is not followed.
        why: &'static str,
    },
    /// It is too long.
    #[error("it is longer than {0} bytes")]
    Large(usize),
    /// It broke off.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// It does not go on.
    #[error("nothing came for {} s", PIECE_WITHIN.as_secs())]
    Stalled,
}

/// A document on its way.
pub struct Coming {
    pub(super) body: Incoming,
    /// Its length in bytes, when the origin said it.
    pub length: Option<u64>,
}

impl Origins {
    /// Asks for a document. A host that the operator wrote down is asked whatever its address; one that it leads to must be
    /// one that clients may be led to.
    ///
    /// # Errors
    /// When there is no answer, or another one than the document.
    pub async fn get(&self, url: &str) -> Result<Coming, GetError> {
        let first = checked(url)?;
        let mut at = first.clone();
        for _ in 0..=REDIRECTS {
            let trusted = at.authority() == first.authority();
            let request = Request::get(at.clone())
                .header(USER_AGENT, "rackbar")
                // A digest is of the file as it is.
                .header(ACCEPT_ENCODING, "identity")
                .body(Empty::new().map_err(|never| match never {}).boxed_unsync())
                .map_err(|_| GetError::Url)?;
            let answer = self.send(trusted, request).await?;
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            match (answer.status(), to) {
                (StatusCode::OK, _) => {
                    let length = answer.headers().get(CONTENT_LENGTH);
                    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                    let body = answer.into_body();
                    return Ok(Coming { body, length });
                }
                (status, Some(to)) if status.is_redirection() => at = led(&at, to)?,
                (status, _) => return Err(GetError::Status(status)),
            }
        }
        let (to, why) = (at.to_string(), "one of too many redirections");
        Err(GetError::Redirect { to, why })
    }
}

impl Coming {
    /// The next bytes; `None` at the end, which is only reached when all came that was announced.
    ///
    /// # Errors
    /// When it broke off, or nothing came for a minute.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, GetError> {
        loop {
            let frame = tokio::time::timeout(PIECE_WITHIN, self.body.frame()).await;
            match frame.map_err(|_| GetError::Stalled)? {
                None => return Ok(None),
                Some(Err(error)) => return Err(GetError::Broken(error.to_string())),
                // Trailers are passed over.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    _ => {}
                },
            }
        }
    }

    /// All of it, when it has `most` bytes or less.
    ///
    /// # Errors
    /// When it is longer, or broke off.
    pub async fn whole(mut self, most: usize) -> Result<Vec<u8>, GetError> {
        let mut out = Vec::new();
        while let Some(piece) = self.piece().await? {
            if out.len().saturating_add(piece.len()) > most {
                return Err(GetError::Large(most));
            }
            out.extend_from_slice(&piece);
        }
        Ok(out)
    }
}

pub(super) fn checked(url: &str) -> Result<Uri, GetError> {
    let uri: Uri = url.parse().map_err(|_| GetError::Url)?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.authority().is_some_and(|host| !host.as_str().contains('@'));
    if known && plain { Ok(uri) } else { Err(GetError::Url) }
}

/// Whether a URL can be asked for by [`Origins::get`].
///
/// # Errors
/// When it is not `http` or `https`, names no host, or has a password in it.
pub fn check_url(url: &str) -> Result<(), GetError> {
    checked(url).map(drop)
}

/// Where a redirection leads: to another host, a path there, or a path here.
fn led(from: &Uri, to: &str) -> Result<Uri, GetError> {
    let refused = |why| GetError::Redirect {
        to: to.chars().take(200).collect(),
        why,
    };
    let absolute = if to.starts_with('/') && !to.starts_with("//") {
        let (scheme, host) = (from.scheme_str().unwrap_or("http"), from.authority());
        format!("{scheme}://{}{to}", host.map_or("", |host| host.as_str()))
    } else {
        to.to_owned()
    };
    let uri = checked(&absolute).map_err(|_| refused("which is no URL that can be asked for"))?;
    if from.scheme_str() == Some("https") && uri.scheme_str() != Some("https") {
        return Err(refused("which is not protected any more"));
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_lead_to_urls_alone_and_never_out_of_https() {
        let from = checked("https://a.example/x/y?z").unwrap();
        assert_eq!(led(&from, "/p?q").unwrap().to_string(), "https://a.example/p?q");
        assert_eq!(
            led(&from, "https://b.example/p").unwrap().to_string(),
            "https://b.example/p"
        );
        for bad in [
            "http://a.example/p",
            "file:///etc/passwd",
            "p",
            "//b.example/p",
            "https://u@b.example/",
            "",
        ] {
            assert!(matches!(led(&from, bad), Err(GetError::Redirect { .. })), "{bad}");
        }
        let plain = checked("http://a.example/").unwrap();
        assert!(led(&plain, "https://a.example/").is_ok());
    }

    #[test]
    fn only_web_addresses_can_be_asked_for() {
        for good in ["http://a/", "https://a.example:8443/b%20c", "http://10.0.0.1/x"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            "/a",
            "ftp://a/b",
            "http://",
            "http://u:p@a/",
            "http://a/ b",
            "file:///a",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
