//! `/api/v1/images`: the catalogue of operating systems.

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::TryStreamExt as _;
use rackbar_model::{Digest, ImageEntry};

use super::paging::{Page, tagged};
use super::{Deed, Problem};
use crate::Context;
use crate::operations::{CatalogueEntry, ImageFacts, ImageStanding, ImageStandingDone, NewImage};

/// The catalogue, by name.
#[utoipa::path(get, path = "/api/v1/images", tag = "images", responses((status = 200, body = Page<CatalogueEntry>)))]
pub(crate) async fn list(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Problem> {
    let mut items = context.operations.images().await?;
    items.sort_by(|a, b| a.image.name.cmp(&b.image.name));
    let page = Page {
        items,
        next_page_token: None,
    };
    Ok(tagged(&headers, &page))
}

/// Puts an image in, or another in its place. The body is the file as it is; with `Content-Digest` (RFC 9530) a file
/// that came wrong is refused and nothing changes.
#[utoipa::path(
    put, path = "/api/v1/images/{name}", tag = "images",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(
        ("name" = String, Path), ImageFacts,
        ("Content-Digest" = Option<String>, Header, description = "`sha-256=:<base64>:`")
    ),
    responses((status = 201, body = ImageEntry), (status = 400, body = Problem))
)]
pub(crate) async fn put(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(facts): Query<ImageFacts>,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, Problem> {
    let sha256 = content_digest(&headers)?;
    let bytes = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Box::pin(body.into_data_stream().map_err(std::io::Error::other));
    let image = NewImage {
        name,
        facts,
        sha256,
        bytes,
        body,
    };
    let entry = context.operations.put_image(image).await?;
    let deed = Deed(format!(
        "put in image {}, {} bytes, SHA-256 {}",
        entry.name, entry.bytes, entry.sha256
    ));
    Ok((StatusCode::CREATED, Extension(deed), Json(entry)).into_response())
}

/// Takes an image out of the catalogue.
#[utoipa::path(
    delete, path = "/api/v1/images/{name}", tag = "images", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn remove(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    context.operations.remove_image(&name).await?;
    Ok((
        Extension(Deed(format!("take out image {name}"))),
        StatusCode::NO_CONTENT,
    )
        .into_response())
}

/// Retires an image, so that no new plan takes it, or lets new plans take it again. Runs that have begun go on, and machines
/// that have it keep it.
#[utoipa::path(
    put, path = "/api/v1/images/{name}/standing", tag = "images", params(("name" = String, Path)),
    request_body = ImageStanding,
    responses(
        (status = 200, description = "what was done, in words", body = ImageStandingDone),
        (status = 404, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn set_standing(
    State(context): State<Context>,
    Path(name): Path<String>,
    Json(standing): Json<ImageStanding>,
) -> Result<Response, Problem> {
    let deed = Deed(standing_deed(&name, &standing));
    let done = context.operations.set_image_standing(&name, standing).await?;
    Ok((Extension(deed), Json(ImageStandingDone { done })).into_response())
}

/// What becomes of an image, for the list of changes.
pub(crate) fn standing_deed(name: &str, standing: &ImageStanding) -> String {
    match (standing.retired, &standing.instead) {
        (false, _) => format!("let new plans take image {name} again"),
        (true, None) => format!("retire image {name}"),
        (true, Some(instead)) => format!("retire image {name}, {instead} takes its place"),
    }
}

/// The SHA-256 that `Content-Digest` or, of older programs, `Digest` (RFC 3230) promises. Other algorithms are passed
/// over, as RFC 9530 section 2 has it; a SHA-256 that cannot be read is refused, since it was meant to be checked.
pub(super) fn content_digest(headers: &HeaderMap) -> Result<Option<Digest>, Problem> {
    for name in ["content-digest", "repr-digest", "digest"] {
        for value in headers.get_all(name) {
            let text = value.to_str().unwrap_or_default();
            for part in text.split(',') {
                let Some((algorithm, sum)) = part.trim().split_once('=') else {
                    continue;
                };
                if !algorithm.eq_ignore_ascii_case("sha-256") {
                    continue;
                }
                // A byte sequence of a structured field stands between colons (RFC 8941 section 3.3.5).
                let bytes = BASE64_STANDARD.decode(sum.trim_matches(':')).ok();
                let sum = bytes
                    .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                    .ok_or_else(|| {
                        Problem::invalid(format!("{name}: the sha-256 is not `sha-256=:<32 bytes in base64>:`"))
                    })?;
                return Ok(Some(Digest(sum)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn read(name: &'static str, value: &str) -> Result<Option<Digest>, Problem> {
        let value = HeaderValue::from_str(value).unwrap();
        content_digest(&HeaderMap::from_iter([(HeaderName::from_static(name), value)]))
    }

    #[test]
    fn content_digest_is_read_in_both_spellings_and_never_ignored_when_wrong() {
        let sum = BASE64_STANDARD.encode([7u8; 32]);
        let meant = Some(Digest([7; 32]));
        assert_eq!(read("content-digest", &format!("sha-256=:{sum}:")).unwrap(), meant);
        assert_eq!(
            read("content-digest", &format!("sha-512=:AAAA:, SHA-256=:{sum}:")).unwrap(),
            meant
        );
        assert_eq!(read("digest", &format!("sha-256={sum}")).unwrap(), meant);
        assert_eq!(read("content-digest", "md5=:AAAA:").unwrap(), None);
        for wrong in ["sha-256=:AAAA:", "sha-256=::", "sha-256=:%%:"] {
            assert!(read("content-digest", wrong).is_err(), "{wrong}");
        }
    }
}
