//! The second half of the main job, through the API and nothing else: an image into the catalogue, the site file, a
//! plan, its commit with consent, and the run until every machine is ready.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Method;
use hyper::body::{Bytes, Frame};
use rackbar_model::{Digest, ImageEntry, Node, NodeId, NodeState};
use rackbar_plan::{Plan, Run, RunId, RunState, Stand};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use crate::api::Api;
use crate::eventually;

/// How long four emulated machines may take from commit to ready.
pub const READY: Duration = Duration::from_secs(15 * 60);
/// Bytes of an image that are sent at once.
const PIECE: usize = 256 << 10;

/// What is asked of the planner.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PlanRequest {
    /// Only these nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeId>>,
    /// Install also what is installed as wanted.
    pub reinstall: bool,
}

/// The answer to a commit.
#[derive(Deserialize)]
struct Committed {
    id: RunId,
}

impl Api {
    /// Puts an image into the catalogue.
    ///
    /// # Errors
    /// When the file cannot be read or the appliance refuses it; with its words.
    pub async fn upload(&self, name: &str, file: &Path, sha256: Digest) -> Result<ImageEntry> {
        let opened = tokio::fs::File::open(file)
            .await
            .with_context(|| format!("opening {}", file.display()))?;
        let bytes = opened.metadata().await?.len();
        let body = StreamBody::new(futures_util::stream::unfold(opened, |mut file| async {
            let mut piece = vec![0; PIECE];
            match file.read(&mut piece).await {
                Ok(0) => None,
                Ok(length) => {
                    piece.truncate(length);
                    Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))), file))
                }
                Err(error) => Some((Err(error), file)),
            }
        }));
        let headers = [
            ("content-type", "application/octet-stream".to_owned()),
            ("content-length", bytes.to_string()),
            (
                "content-digest",
                format!("sha-256=:{}:", BASE64_STANDARD.encode(sha256.0)),
            ),
        ];
        let path = format!("/api/v1/images/{name}");
        // A debug build of the switch and an emulated appliance take about a second for five megabytes.
        let limit = Duration::from_secs(60 + (bytes >> 20));
        let (status, answer) = self
            .send(Method::PUT, &path, &headers, body.boxed_unsync(), limit)
            .await?;
        understood("PUT", &path, status, &answer)
    }

    /// Puts a site file in force.
    ///
    /// # Errors
    /// With the problems the appliance found in it.
    pub async fn set_site(&self, text: &str) -> Result<()> {
        let headers = [("content-type", "application/toml".to_owned())];
        let (status, answer) = self.send_text(Method::PUT, "/api/v1/site", &headers, text).await?;
        ensure!(
            (200..300).contains(&status),
            "PUT /api/v1/site: {status}: {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    }

    /// Makes a plan.
    ///
    /// # Errors
    /// When the appliance cannot; with its words. So for all that follow.
    pub async fn plan(&self, request: &PlanRequest) -> Result<Plan> {
        self.post("/api/v1/plans", request).await
    }

    /// Commits a plan; `destroy` names the nodes whose data may go.
    ///
    /// # Errors
    /// As [`Api::plan`].
    pub async fn commit(&self, plan: &Plan, destroy: &[String]) -> Result<RunId> {
        let path = format!("/api/v1/plans/{}/commit", plan.id);
        let answer: Committed = self.post(&path, &serde_json::json!({ "destroy": destroy })).await?;
        Ok(answer.id)
    }

    /// A run as it stands.
    ///
    /// # Errors
    /// As [`Api::plan`].
    pub async fn run(&self, id: RunId) -> Result<Run> {
        self.read(&format!("/api/v1/runs/{id}")).await
    }

    /// Sends a document as JSON and reads the answer.
    ///
    /// # Errors
    /// As [`Api::plan`].
    pub async fn post<T: serde::de::DeserializeOwned>(&self, path: &str, document: &impl Serialize) -> Result<T> {
        let headers = [("content-type", "application/json".to_owned())];
        let text = serde_json::to_string(document)?;
        let (status, answer) = self.send_text(Method::POST, path, &headers, &text).await?;
        understood("POST", path, status, &answer)
    }
}

fn understood<T: serde::de::DeserializeOwned>(method: &str, path: &str, status: u16, answer: &[u8]) -> Result<T> {
    let shown = String::from_utf8_lossy(answer);
    ensure!((200..300).contains(&status), "{method} {path}: {status}: {shown}");
    serde_json::from_slice(answer).with_context(|| format!("reading the answer to {method} {path}: {shown}"))
}

/// The names of the nodes whose data a plan destroys.
pub fn destroyed(plan: &Plan, nodes: &[Node]) -> Vec<String> {
    let mut ids: Vec<NodeId> = plan
        .actions
        .iter()
        .filter(|action| action.destroys.is_some())
        .filter_map(|action| action.node)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let name = |id: &NodeId| nodes.iter().find(|node| node.id == *id).map(|node| node.name.clone());
    ids.iter().filter_map(name).collect()
}

/// What did not end well in a run, one line each.
pub fn troubles(run: &Run) -> Vec<String> {
    let line = |(id, stand): (&rackbar_plan::ActionId, &Stand)| match stand {
        Stand::Failed {
            reason, advice, tries, ..
        } => Some(format!("{id} failed after {tries} tries: {reason} ({advice})")),
        Stand::Again { tries, reason, .. } => Some(format!("{id} is tried again after {tries} tries: {reason}")),
        Stand::Skipped { reason } => Some(format!("{id} was not begun: {reason}")),
        Stand::Waiting | Stand::Running(_) | Stand::Done { .. } => None,
    };
    run.actions.iter().filter_map(line).collect()
}

/// Waits until a run has ended well.
///
/// # Errors
/// When it ends otherwise, with what failed, or does not end in time.
pub async fn until_done(api: &Api, id: RunId, limit: Duration) -> Result<Run> {
    let ended = || async {
        match api.run(id).await {
            Ok(run) if matches!(run.state, RunState::Going | RunState::Paused) => {
                let running = |(id, stand): (&rackbar_plan::ActionId, &Stand)| match stand {
                    Stand::Running(attempt) => Some(format!("{id}: {:?}", attempt.progress.as_ref().map(|p| &p.doing))),
                    _ => None,
                };
                let mut seen: Vec<String> = run.actions.iter().filter_map(running).collect();
                seen.extend(troubles(&run));
                Err(seen)
            }
            Ok(run) => Ok(run),
            Err(error) => Err(vec![format!("{error:#}")]),
        }
    };
    let run = eventually(&format!("run {id} ends"), limit, ended).await?;
    if run.state != RunState::Done {
        bail!("run {id} ended as {:?}: {:#?}", run.state, troubles(&run));
    }
    Ok(run)
}

/// Checks that a node is ready and shows no drift.
///
/// # Errors
/// Says what it is instead.
pub fn is_ready(node: &Node) -> Result<()> {
    ensure!(
        node.state == NodeState::Ready,
        "{} is {:?}: {}",
        node.name,
        node.state,
        node.verdict
    );
    Ok(())
}
