//! The second half of the main job, through the API and nothing else: an image into the catalogue, the site file, a
//! plan, its commit with consent, and the run until every machine is ready.

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

/// A disk image that was built, on this machine.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name in the catalogue.
    pub name: String,
    /// The file.
    pub path: std::path::PathBuf,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// The account that logs in.
    pub user: String,
}

/// The image of an operating system that `cargo xtask os-image` built, with the drivers of real servers: `RACKBAR_OS`, which
/// `cargo xtask test` sets, names its description.
///
/// # Errors
/// When it is not set or the description cannot be read.
pub fn image() -> Result<Image> {
    built("RACKBAR_OS", "debian-12")
}

/// The same with the drivers of virtual machines alone (no SATA, no BMC from inside): a quarter less to write, and it starts
/// in half the time. For stories that tell of other things. `RACKBAR_OS_LIGHT`, as above.
///
/// # Errors
/// As [`image`].
pub fn light_image() -> Result<Image> {
    built("RACKBAR_OS_LIGHT", "debian-12")
}

/// The image with cloud-init, and those drivers: `RACKBAR_OS_CLOUD_INIT`, as above.
///
/// # Errors
/// As [`image`].
pub fn cloud_image() -> Result<Image> {
    built("RACKBAR_OS_CLOUD_INIT", "debian-12-cloud-init")
}

/// The image that a variable names, under the name that sites of the stories know it by.
fn built(variable: &str, name: &str) -> Result<Image> {
    let path = std::env::var_os(variable).map(std::path::PathBuf::from);
    let path = path.with_context(|| {
        format!("{variable} is not set: run the scenarios with `cargo xtask test`, which builds the image first")
    })?;
    let image = Image::described(&path)?;
    Ok(Image {
        name: name.into(),
        ..image
    })
}

impl Image {
    /// Reads the description that lies beside an image: `NAME.json` beside `NAME.img.zst`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn described(path: &std::path::Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Description {
            name: String,
            sha256: Digest,
            user: String,
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let Description { name, sha256, user } =
            serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        let installer = path.with_file_name(format!("{name}.tar"));
        let path = if installer.exists() {
            installer
        } else {
            path.with_file_name(format!("{name}.img.zst"))
        };
        Ok(Self {
            name,
            path,
            sha256,
            user,
        })
    }
}

/// Commits a plan for the whole rack, with consent for everything it destroys.
///
/// # Errors
/// When a machine is refused, nothing is planned, or the appliance refuses.
pub async fn commit_all(api: &Api) -> Result<(Plan, RunId)> {
    let plan = api.plan(&PlanRequest::default()).await?;
    let refused: Vec<&str> = plan.refused.iter().map(|refusal| refusal.reason.as_str()).collect();
    ensure!(refused.is_empty(), "the planner refuses: {refused:#?}");
    ensure!(!plan.actions.is_empty(), "the plan does nothing: {plan:#?}");
    let consent = destroyed(&plan, &api.nodes().await?);
    let run = api.commit(&plan, &consent).await?;
    Ok((plan, run))
}

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
    pub async fn upload(&self, image: &Image) -> Result<ImageEntry> {
        let file = image.path.as_path();
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
                format!("sha-256=:{}:", BASE64_STANDARD.encode(image.sha256.0)),
            ),
        ];
        let path = format!("/api/v1/images/{}?user={}", image.name, image.user);
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

    /// The rack's signed report, as a file.
    ///
    /// # Errors
    /// As [`Api::plan`].
    pub async fn report(&self) -> Result<Bytes> {
        self.get("/api/v1/report").await
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
            Ok(run) if !run.state.ended() => {
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
