//! The pages of what a person asks for: plans, runs, images, and what to do with one machine.

use axum::Router;
use axum::extract::{Extension, Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use minijinja::{Value, context};
use rackbar_model::{BurnIn, NodeId};
use rackbar_plan::Plan;
use serde::Deserialize;

use super::plan_view::{by_node, run_state};
use super::{Viewer, foreign_form, frame, graph, message, refresh, render, repositories, shown, trouble, view};
use crate::Context;
use crate::api::{
    AuditFilter, Deed, Problem, RunSummary, changes_of, commit_deed, destroyed, find_node, order_named, standing_deed,
};
use crate::operations::{Consent, ImageStanding, Install, PlanRequest, duration};

/// Machines up to which a person types every name; above, how many they are.
const TYPED_NAMES: usize = 3;

/// Routes of this part; the caller guards them.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .merge(super::site::router())
        .merge(super::report::router())
        .route("/plans", post(make_plan))
        .route("/plans/{plan}", get(plan))
        .route("/plans/{plan}/commit", post(commit))
        .route("/runs", get(runs))
        .route("/runs/{run}", get(run))
        .route("/runs/{run}/order", post(order))
        .route("/images", get(images))
        .route("/images/{name}/remove", post(remove_image))
        .route("/images/{name}/standing", post(set_standing))
        .route("/programs/{name}/remove", post(remove_program))
        .route("/changes", get(changes))
        .route("/nodes/{node}/recover", post(recover))
        .route("/nodes/{node}/maintenance", post(maintenance))
        .route("/nodes/{node}/bind", post(bind))
}

/// A machine's name now.
pub(super) fn name_of(context: &Context) -> impl Fn(NodeId) -> String + '_ {
    |id| {
        let node = context.rack.node(&id.to_string());
        node.map_or_else(|| id.to_string(), |node| node.name.clone())
    }
}

#[derive(Deserialize)]
struct PlanForm {
    form_key: String,
    /// Names, apart by commas or blanks; empty for all.
    #[serde(default)]
    nodes: String,
    reinstall: Option<String>,
    /// An image, for the way without roles.
    #[serde(default)]
    os: String,
    mirror: Option<String>,
    #[serde(default)]
    ssh_key: String,
    /// Minutes for each part, for a burn-in.
    burn_cpu: Option<u32>,
    burn_memory: Option<u32>,
    burn_disk: Option<u32>,
}

impl PlanForm {
    fn burn_in(&self) -> Option<BurnIn> {
        let seconds = |minutes: Option<u32>| minutes.unwrap_or_default().saturating_mul(60);
        let asked = [self.burn_cpu, self.burn_memory, self.burn_disk]
            .iter()
            .any(Option::is_some);
        asked.then(|| BurnIn {
            cpu_seconds: seconds(self.burn_cpu),
            memory_seconds: seconds(self.burn_memory),
            disk_seconds: seconds(self.burn_disk),
        })
    }
}

/// The words of a list that a person typed.
fn words(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| c == ',' || c.is_whitespace());
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

async fn make_plan(State(context): State<Context>, headers: HeaderMap, Form(form): Form<PlanForm>) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let keys = form.ssh_key.lines().map(str::trim).filter(|line| !line.is_empty());
    let install = (!form.os.is_empty()).then(|| Install {
        os: form.os.clone(),
        disk: None,
        mirror: form.mirror.is_some(),
        ssh_keys: keys.map(str::to_owned).collect(),
    });
    let request = PlanRequest {
        nodes: words(&form.nodes),
        reinstall: form.reinstall.is_some(),
        rotate_passwords: false,
        install,
        burn_in: form.burn_in(),
    };
    match context.operations.plan(request).await {
        Ok(plan) => {
            let deed = Deed(format!("make plan {}", plan.id));
            (Extension(deed), Redirect::to(&format!("/plans/{}", plan.id))).into_response()
        }
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

fn plan_values(context: &Context, plan: &Plan, error: Option<&Problem>) -> Value {
    let name = name_of(context);
    let consent = destroyed(plan, &name);
    let nodes = by_node(plan, None, &name);
    let estimate = plan
        .actions
        .iter()
        .map(|action| u64::from(action.estimate_seconds))
        .sum::<u64>();
    let unchanged: Vec<_> = plan.unchanged.iter().map(|id| name(*id)).collect();
    context! {
        page => "runs",
        plan => plan.id.0.as_str(),
        made => plan.made.to_string(),
        actions => plan.actions.len(),
        estimate => duration(estimate),
        machines => plan.by_node().len(),
        limits => plan.limits.words(),
        nodes => shown(&nodes),
        refused => shown(&plan.refused),
        left_out => shown(&plan.left_out),
        unchanged => shown(&unchanged),
        consent => shown(&consent),
        typed_count => consent.len() > TYPED_NAMES,
        graph => graph::svg(plan, None, &name).map(Value::from_safe_string),
        error => error.map(Problem::detail),
        changed => error.map(|problem| shown(&problem.changed())),
        missing => error.map(|problem| shown(&problem.consent())),
    }
}

async fn plan(
    State(context): State<Context>,
    Path(id): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
) -> Response {
    match context.operations.plan_by_id(&id).await {
        Ok(plan) => render(
            "plan.html",
            context! { ..plan_values(&context, &plan, None), ..frame(&context, &headers, &user) },
        ),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

#[derive(Deserialize)]
struct CommitForm {
    form_key: String,
    #[serde(default)]
    consent: String,
}

/// The names that a typed consent stands for: all of them when it is their number, else those that were typed.
fn consented(typed: &str, wanted: &[Consent]) -> Vec<String> {
    let counted = wanted.len() > TYPED_NAMES && typed.trim() == wanted.len().to_string();
    if counted {
        return wanted.iter().map(|consent| consent.node.clone()).collect();
    }
    words(typed)
}

async fn commit(
    State(context): State<Context>,
    Path(id): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<CommitForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let plan = match context.operations.plan_by_id(&id).await {
        Ok(plan) => plan,
        Err(refused) => return trouble(&Problem::from(refused)),
    };
    let names = consented(&form.consent, &destroyed(&plan, name_of(&context)));
    let deed = commit_deed(&id, &names);
    match context.operations.commit(&id, names, &user.name).await {
        Ok(run) => {
            let deed = Deed(format!("{deed}, as run {}", run.id));
            (Extension(deed), Redirect::to(&format!("/runs/{}", run.id))).into_response()
        }
        Err(refused) => {
            let problem = Problem::from(refused);
            let values = plan_values(&context, &plan, Some(&problem));
            let mut response = render("plan.html", context! { ..values, ..frame(&context, &headers, &user) });
            *response.status_mut() = problem.status();
            let told = problem.into_response();
            response.extensions_mut().extend(told.extensions().clone());
            response.extensions_mut().insert(Deed(deed));
            response
        }
    }
}

async fn runs(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    let runs = match context.operations.runs().await {
        Ok(runs) => runs,
        Err(refused) => return trouble(&Problem::from(refused)),
    };
    let mut rows: Vec<_> = runs.iter().map(|run| RunSummary::from(run.as_ref())).collect();
    rows.sort_by_key(|run| std::cmp::Reverse(run.id));
    let mut images = context.operations.images().await.unwrap_or_default();
    images.retain(|one| one.retired.is_none());
    render(
        "runs.html",
        context! {
            page => "runs", runs => shown(&rows), images => shown(&images), ..frame(&context, &headers, &user)
        },
    )
}

async fn run(
    State(context): State<Context>,
    Path(id): Path<u64>,
    Viewer(user): Viewer,
    headers: HeaderMap,
) -> Response {
    let run = match context.operations.run(id).await {
        Ok(run) => run,
        Err(refused) => return trouble(&Problem::from(refused)),
    };
    let name = name_of(&context);
    let nodes = by_node(&run.plan, Some(&run), &name);
    let graph = graph::svg(&run.plan, Some(&run), &name).map(Value::from_safe_string);
    let stream = run.ended.is_none().then(|| format!("/api/v1/runs/{id}/stream"));
    render(
        "run.html",
        context! {
            page => "runs",
            run => shown(&RunSummary::from(run.as_ref())),
            state => run_state(run.state),
            total => run.plan.actions.len(),
            limits => run.plan.limits.words(),
            nodes => shown(&nodes),
            graph,
            stream,
            ..frame(&context, &headers, &user)
        },
    )
}

#[derive(Deserialize)]
struct OrderForm {
    form_key: String,
    order: String,
}

async fn order(
    State(context): State<Context>,
    Path(id): Path<u64>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<OrderForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let order = match order_named(&form.order) {
        Ok(order) => order,
        Err(problem) => return trouble(&problem),
    };
    match context.operations.order(id, order, &user.name).await {
        Ok(()) => {
            let deed = Deed(format!("{} run {id}", order.name()));
            (Extension(deed), Redirect::to(&format!("/runs/{id}"))).into_response()
        }
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

async fn images(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    let mut images = match context.operations.images().await {
        Ok(images) => images,
        Err(refused) => return trouble(&Problem::from(refused)),
    };
    images.sort_by(|a, b| a.image.name.cmp(&b.image.name));
    let refreshes = refresh::last(&context, &images).await;
    let sizes: Vec<_> = images.iter().map(|one| view::size(one.image.bytes)).collect();
    // Like packs, they are shown where there are any: an appliance without a place for them has images all the same.
    let programs = context.operations.programs().await.unwrap_or_default();
    let program_sizes: Vec<_> = programs.iter().map(|one| view::size(one.bytes)).collect();
    let packs = context.operations.packs().await.unwrap_or_default().packs;
    let pack_sizes: Vec<_> = packs.iter().map(|pack| view::size(pack.bytes)).collect();
    render(
        "images.html",
        context! {
            page => "images", images => shown(&images), sizes => shown(&sizes), refreshes => shown(&refreshes), packs => shown(&packs),
            repositories => shown(&repositories::rows(&context).await), pack_sizes => shown(&pack_sizes), programs => shown(&programs), program_sizes => shown(&program_sizes),
            ..frame(&context, &headers, &user)
        },
    )
}

#[derive(Deserialize)]
struct KeyForm {
    form_key: String,
}

async fn remove_image(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Form(form): Form<KeyForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    match context.operations.remove_image(&name).await {
        Ok(()) => (
            Extension(Deed(format!("take out image {name}"))),
            Redirect::to("/images"),
        )
            .into_response(),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

async fn remove_program(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Form(form): Form<KeyForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    match context.operations.remove_program(&name).await {
        Ok(()) => {
            let deed = Deed(format!("take out program {name}"));
            (Extension(deed), Redirect::to("/images")).into_response()
        }
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

#[derive(Deserialize)]
struct StandingForm {
    form_key: String,
    retired: bool,
}

async fn set_standing(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Form(form): Form<StandingForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let standing = ImageStanding {
        retired: form.retired,
        instead: None,
    };
    let deed = Deed(standing_deed(&name, &standing));
    match context.operations.set_image_standing(&name, standing).await {
        Ok(_) => (Extension(deed), Redirect::to("/images")).into_response(),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

async fn changes(State(context): State<Context>, Viewer(user): Viewer, headers: HeaderMap) -> Response {
    match changes_of(&context, AuditFilter::first(200)).await {
        Ok(changes) => render(
            "changes.html",
            context! { page => "events", changes => shown(&changes), ..frame(&context, &headers, &user) },
        ),
        Err(problem) => trouble(&problem),
    }
}

async fn recover(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<KeyForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let node = match find_node(&context, &name) {
        Ok(node) => node,
        Err(problem) => return trouble(&problem),
    };
    let deed = Deed(format!("recover {}", node.name));
    match context.operations.recover(&node.id.to_string(), &user.name).await {
        Ok(done) => {
            let mut response = message(StatusCode::OK, &format!("{}: {done}", node.name));
            response.extensions_mut().insert(deed);
            response
        }
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

#[derive(Deserialize)]
struct MaintenanceForm {
    form_key: String,
    on: bool,
    #[serde(default)]
    reason: String,
}

async fn maintenance(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<MaintenanceForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let node = match find_node(&context, &name) {
        Ok(node) => node,
        Err(problem) => return trouble(&problem),
    };
    let id = node.id.to_string();
    let word = if form.on { "into" } else { "out of" };
    let deed = Deed(format!("{} {word} maintenance", node.name));
    match context
        .operations
        .maintenance(&id, form.on, form.reason, &user.name)
        .await
    {
        Ok(()) => (Extension(deed), Redirect::to(&format!("/nodes/{id}"))).into_response(),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

#[derive(Deserialize)]
struct BindForm {
    form_key: String,
    #[serde(default)]
    role: String,
}

async fn bind(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<BindForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let node = match find_node(&context, &name) {
        Ok(node) => node,
        Err(problem) => return trouble(&problem),
    };
    let id = node.id.to_string();
    let role = Some(form.role.trim().to_owned()).filter(|role| !role.is_empty());
    let deed = match &role {
        Some(role) => format!("bind {} to role {role}", node.name),
        None => format!("leave the role of {} to the rules", node.name),
    };
    match context.operations.bind(&id, role, &user.name).await {
        Ok(()) => (Extension(Deed(deed)), Redirect::to(&format!("/nodes/{id}"))).into_response(),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> Vec<Consent> {
        let consent = |name: &&str| Consent {
            node: (*name).to_owned(),
            loses: Vec::new(),
        };
        names.iter().map(consent).collect()
    }

    #[test]
    fn consent_by_number_is_for_many_and_must_be_right() {
        let many = wanted(&["a", "b", "c", "d"]);
        assert_eq!(consented(" 4 ", &many), ["a", "b", "c", "d"]);
        assert_eq!(consented("3", &many), ["3"], "a wrong number names nobody");
        assert_eq!(consented("a, b\nc d", &many), ["a", "b", "c", "d"]);
        assert_eq!(
            consented("1", &wanted(&["a"])),
            ["1"],
            "one machine is called by its name"
        );
        assert!(consented("", &wanted(&["a"])).is_empty());
    }
}
