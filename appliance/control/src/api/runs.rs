//! `/api/v1/runs`: plans under way.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use rackbar_model::Timestamp;
use rackbar_plan::{ActionId, PlanId, Run, RunId, RunState, Stand};
use serde::Serialize;
use utoipa::ToSchema;

use super::paging::{Page, PageQuery, tagged};
use super::{Caller, Deed, Problem};
use crate::Context;
use crate::operations::Order;

/// Between two looks at a run that somebody follows.
const LOOK: Duration = Duration::from_millis(500);

/// How many actions of a run stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Counts {
    /// Not begun yet.
    pub(crate) waiting: usize,
    /// Under way, or due again after a failed attempt.
    pub(crate) running: usize,
    /// Ended well.
    pub(crate) done: usize,
    /// Ended badly.
    pub(crate) failed: usize,
    /// Not begun, for good.
    pub(crate) skipped: usize,
}

/// A run without its plan and actions.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RunSummary {
    /// Its number.
    pub(crate) id: RunId,
    /// Its plan.
    pub(crate) plan: PlanId,
    /// Who committed it.
    pub(crate) by: String,
    /// When it began.
    pub(crate) began: Timestamp,
    /// When it ended.
    pub(crate) ended: Option<Timestamp>,
    /// How it stands.
    pub(crate) state: RunState,
    /// It waits for earlier runs and was paused meanwhile: it begins paused.
    pub(crate) held: bool,
    /// How its actions stand.
    pub(crate) actions: Counts,
}

impl From<&Run> for RunSummary {
    fn from(run: &Run) -> Self {
        let mut counts = Counts::default();
        for action in &run.plan.actions {
            match run.actions.get(&action.id) {
                None | Some(Stand::Waiting) => counts.waiting += 1,
                Some(Stand::Running(_) | Stand::Again { .. }) => counts.running += 1,
                Some(Stand::Done { .. }) => counts.done += 1,
                Some(Stand::Failed { .. }) => counts.failed += 1,
                Some(Stand::Skipped { .. }) => counts.skipped += 1,
            }
        }
        Self {
            id: run.id,
            plan: run.plan.id.clone(),
            by: run.by.clone(),
            began: run.began,
            ended: run.ended,
            state: run.state,
            held: run.held,
            actions: counts,
        }
    }
}

/// All runs, newest first.
#[utoipa::path(
    get, path = "/api/v1/runs", tag = "runs", params(PageQuery),
    responses((status = 200, body = Page<RunSummary>), (status = 400, body = Problem))
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Query(page): Query<PageQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut runs = context.operations.runs().await?;
    runs.sort_by_key(|run| std::cmp::Reverse(run.id));
    // Counted down, so that text order is newest first.
    let page = page.cut(runs, |run| format!("{:020}", u64::MAX - run.id.0))?;
    let page = Page {
        items: page.items.iter().map(|run| RunSummary::from(run.as_ref())).collect(),
        next_page_token: page.next_page_token,
    };
    Ok(tagged(&headers, &page))
}

/// One run with its plan, and how each action stands.
#[utoipa::path(
    get, path = "/api/v1/runs/{run}", tag = "runs", params(("run" = u64, Path)),
    responses((status = 200, body = Run), (status = 404, body = Problem))
)]
pub(crate) async fn show(
    State(context): State<Context>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Ok(tagged(&headers, context.operations.run(id).await?.as_ref()))
}

/// Pauses, resumes or cancels a run. What is under way is not broken off by a pause, and a run that waits for another begins
/// paused; the answer is the run as it then stands.
#[utoipa::path(
    post, path = "/api/v1/runs/{run}/{order}", tag = "runs",
    params(("run" = u64, Path), ("order" = String, Path, description = "`pause`, `resume` or `cancel`")),
    responses((status = 200, body = RunSummary), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn order(
    State(context): State<Context>,
    Path((id, order)): Path<(u64, String)>,
    Extension(Caller(by)): Extension<Caller>,
) -> Result<Response, Problem> {
    let order = order_named(&order)?;
    context.operations.order(id, order, &by.name).await?;
    let run = context.operations.run(id).await?;
    let deed = Deed(format!("{} run {id}", order.name()));
    Ok((Extension(deed), Json(RunSummary::from(run.as_ref()))).into_response())
}

/// The order of that name.
pub(crate) fn order_named(name: &str) -> Result<Order, Problem> {
    match name {
        "pause" => Ok(Order::Pause),
        "resume" => Ok(Order::Resume),
        "cancel" => Ok(Order::Cancel),
        _ => Err(Problem::not_found(
            "a run can be asked to `pause`, `resume` or `cancel`",
        )),
    }
}

/// What changed of a run since the last message of the stream; the first has everything.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunNews {
    /// The run.
    #[serde(flatten)]
    summary: RunSummary,
    /// The actions that stand otherwise than before.
    stands: BTreeMap<ActionId, Stand>,
}

/// A run as it goes on: a `run` message whenever something of it changed, the first with everything. Ends when the run
/// has ended.
#[utoipa::path(
    get, path = "/api/v1/runs/{run}/stream", tag = "runs", params(("run" = u64, Path)),
    responses((status = 200, content_type = "text/event-stream", body = RunNews), (status = 404, body = Problem))
)]
pub(crate) async fn stream(
    State(context): State<Context>,
    Path(id): Path<u64>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let first = context.operations.run(id).await?;
    let follow = Follow {
        context,
        id,
        last: None,
        ready: VecDeque::from([first]),
    };
    let news = unfold(follow, |mut follow| async move {
        let news = follow.next().await?;
        let json = serde_json::to_string(&news).unwrap_or_default();
        Some((Ok(sse::Event::default().event("run").data(json)), follow))
    });
    Ok(Sse::new(news).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

struct Follow {
    context: Context,
    id: u64,
    last: Option<Arc<Run>>,
    ready: VecDeque<Arc<Run>>,
}

impl Follow {
    async fn next(&mut self) -> Option<RunNews> {
        if self.last.as_ref().is_some_and(|run| run.ended.is_some()) {
            return None;
        }
        loop {
            let run = match self.ready.pop_front() {
                Some(run) => run,
                None => {
                    tokio::time::sleep(LOOK).await;
                    self.context.operations.run(self.id).await.ok()?
                }
            };
            let stands = changed(self.last.as_deref(), &run);
            let same = self
                .last
                .as_ref()
                .is_some_and(|last| last.state == run.state && last.ended == run.ended);
            if same && stands.is_empty() {
                continue;
            }
            let summary = RunSummary::from(run.as_ref());
            self.last = Some(run);
            return Some(RunNews { summary, stands });
        }
    }
}

/// The actions that stand otherwise than before.
fn changed(before: Option<&Run>, now: &Run) -> BTreeMap<ActionId, Stand> {
    let differs = |(id, stand): &(&ActionId, &Stand)| before.and_then(|run| run.actions.get(*id)) != Some(*stand);
    now.actions
        .iter()
        .filter(differs)
        .map(|(id, stand)| (id.clone(), stand.clone()))
        .collect()
}
