//! Changing things: PATCH guarded by entity tags, actions, and tasks followed to their end.

use hyper::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::http::Reply;
use super::{Redfish, location_path, view};
use crate::error::{Cause, Error};

/// How often a change is tried with another entity tag.
const TAGS: usize = 3;

impl Redfish {
    /// Changes a resource and, where the BMC makes a task of it, waits for its end.
    pub(super) async fn patch(&mut self, path: &str, body: &Value) -> Result<(), Error> {
        let reply = self.patch_only(path, body).await?;
        self.follow(&format!("PATCH {path}"), reply).await
    }

    /// Runs an action and, where the BMC makes a task of it, waits for its end.
    pub(super) async fn post(&mut self, path: &str, body: &Value) -> Result<(), Error> {
        let reply = self.request(&Method::POST, path, None, Some(body)).await?;
        self.follow(&format!("POST {path}"), reply).await
    }

    /// As [`Self::guarded`], with PATCH.
    pub(super) async fn patch_only(&mut self, path: &str, body: &Value) -> Result<Reply, Error> {
        self.guarded(&Method::PATCH, path, Some(body)).await
    }

    /// Changes or removes a resource, guarded by its entity tag: read, then `If-Match`. When somebody changed it in between
    /// (412) it is read anew; firmware that gives a weak tag and takes only strong ones (RFC 9110 section 8.8.3 lets it
    /// compare strongly) then gets it without the `W/`. A BMC that wants a tag (428) but gives none gets `*`.
    pub(super) async fn guarded(&mut self, method: &Method, path: &str, body: Option<&Value>) -> Result<Reply, Error> {
        let mut tag = if self.quirks.etag_broken {
            None
        } else {
            self.tag(path).await?
        };
        for attempt in 0..TAGS {
            let refused = match self.request(method, path, tag.clone(), body).await {
                Err(Error {
                    cause: Cause::Refused { code, .. },
                    ..
                }) if matches!(code, 412 | 428) => code,
                other => return other,
            };
            tracing::debug!(bmc = %self.address.ip, path, refused, "entity tag refused");
            let fresh = self.tag(path).await?;
            tag = match fresh {
                None if refused == 428 => Some("*".to_owned()),
                None => break,
                Some(fresh) if attempt == 0 => Some(fresh),
                Some(fresh) => match fresh.strip_prefix("W/") {
                    Some(strong) => Some(strong.to_owned()),
                    None => break,
                },
            };
        }
        let words =
            "the entity tag is refused again and again; if this firmware always does, its profile needs etag_broken";
        Err(self.error(
            format!("{method} {path}"),
            Cause::Refused {
                code: 412,
                message: words.to_owned(),
            },
        ))
    }

    async fn tag(&mut self, path: &str) -> Result<Option<String>, Error> {
        // Some settings objects can be written but not read.
        let reply = match self.request(&Method::GET, path, None, None).await {
            Ok(reply) => reply,
            Err(Error {
                cause:
                    Cause::Unsupported(_)
                    | Cause::Forbidden(_)
                    | Cause::PasswordChangeRequired { .. }
                    | Cause::Refused {
                        code: 400..=428 | 430..=499,
                        ..
                    },
                ..
            }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = reply.header("etag").map(str::to_owned);
        let tag = header.or_else(|| reply.json.get("@odata.etag").and_then(Value::as_str).map(str::to_owned));
        // Seen as `W/` alone: a tag of nothing guards nothing.
        Ok(tag.filter(|tag| {
            !tag.trim_start_matches("W/")
                .trim_matches('"')
                .trim_start_matches("W/")
                .is_empty()
        }))
    }

    /// Follows a 202 (DSP0266 section 12.1.2): the task monitor answers 202 until the end, or the body is a task whose
    /// state tells. The change was taken: a BMC that is silent or busy now is asked again, and whatever is not seen in
    /// the end must not look as if nothing had begun.
    pub(super) async fn follow(&mut self, name: &str, reply: Reply) -> Result<(), Error> {
        let Some(monitor) = monitor(&reply) else { return Ok(()) };
        let start = Instant::now();
        loop {
            let trouble = match self.request(&Method::GET, &monitor, None, None).await {
                Ok(reply) => match end(&reply) {
                    Some(Ok(())) => return Ok(()),
                    Some(Err(message)) => return Err(self.error(name, Cause::Refused { code: 500, message })),
                    None => None,
                },
                // A monitor may vanish as soon as its task is done (DSP0266 section 12.1.2).
                Err(Error {
                    cause: Cause::Unsupported(_) | Cause::Refused { code: 410, .. },
                    ..
                }) => return Ok(()),
                Err(error) => Some(error.cause),
            };
            let patient = matches!(
                trouble,
                None | Some(Cause::Unreachable(_) | Cause::Refused { code: 429 | 503, .. })
            );
            if !patient || start.elapsed() >= self.timing.settle {
                let trouble = trouble.map(|cause| format!(" ({cause})")).unwrap_or_default();
                let what = format!("the end of task {monitor}{trouble}");
                let after = start.elapsed();
                return Err(self.error(name, Cause::NotSeen { what, after }));
            }
            sleep(self.timing.look).await;
        }
    }

    /// One look at a task that waits for a reset by design: only an early failure counts.
    pub(super) async fn glance(&mut self, name: &str, reply: &Reply) -> Result<Option<String>, Error> {
        let Some(monitor) = monitor(reply) else { return Ok(None) };
        match self
            .request(&Method::GET, &monitor, None, None)
            .await
            .ok()
            .as_ref()
            .and_then(end)
        {
            Some(Err(message)) => Err(self.error(name, Cause::Refused { code: 500, message })),
            _ => Ok(Some(monitor)),
        }
    }
}

/// Where a reply that began a task lets it be watched.
fn monitor(reply: &Reply) -> Option<String> {
    if reply.status != 202 {
        return None;
    }
    let header = reply.header("location").and_then(location_path);
    header
        .or_else(|| view::text(&reply.json, "/TaskMonitor").and_then(|path| view::own_path(&path)))
        .or_else(|| reply.json.get("TaskState").and(view::link(&reply.json, "")))
}

/// How a task ended, or nothing while it runs.
fn end(reply: &Reply) -> Option<Result<(), String>> {
    let state = view::text(&reply.json, "/TaskState");
    match state.as_deref() {
        Some("Completed") => {
            let failed = view::text(&reply.json, "/TaskStatus").is_some_and(|status| status == "Critical");
            Some(if failed { Err(task_words(&reply.json)) } else { Ok(()) })
        }
        Some("Exception" | "Killed" | "Cancelled" | "Interrupted") => Some(Err(task_words(&reply.json))),
        Some(_) => None,
        None => (reply.status != 202).then_some(Ok(())),
    }
}

fn task_words(task: &Value) -> String {
    let messages = task.get("Messages").and_then(Value::as_array).into_iter().flatten();
    let words: Vec<_> = messages.filter_map(|message| view::text(message, "/Message")).collect();
    let state = view::text(task, "/TaskState").unwrap_or_default();
    if words.is_empty() {
        format!("its task ended as {state}")
    } else {
        format!("its task ended as {state}: {}", words.join(" "))
    }
}
