//! Health, metrics (Prometheus text format 0.0.4) and the API's own document.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rackbar_model::{LeaseState, PowerState, Severity};

use crate::Context;

/// The process lives.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Every service does its work.
pub(crate) async fn readyz(State(context): State<Context>) -> Response {
    let broken: Vec<_> = context
        .rack
        .services()
        .into_iter()
        .filter(|s| s.severity == Severity::Error)
        .collect();
    if broken.is_empty() {
        return "ready\n".into_response();
    }
    let text: String = broken.iter().map(|s| format!("{}: {}\n", s.name, s.state)).collect();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// The OpenAPI document.
pub(crate) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], super::openapi_json()).into_response()
}

/// Gauges of the rack, then the services' own counters.
pub(crate) async fn metrics(State(context): State<Context>) -> Response {
    let mut text = rack_metrics(&context);
    text.push_str(&(context.counters)());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn rack_metrics(context: &Context) -> String {
    let nodes = context.rack.nodes();
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &nodes {
        *states.entry(node.state.name()).or_default() += 1;
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# HELP rackbar_build_info The running program.\n# TYPE rackbar_build_info gauge\n\
         rackbar_build_info{{version=\"{}\"}} 1\n\
         # HELP rackbar_nodes Machines by state.\n# TYPE rackbar_nodes gauge\n",
        context.about.version
    );
    for (state, count) in states {
        let _ = writeln!(text, "rackbar_nodes{{state=\"{state}\"}} {count}");
    }
    let count = |name: &str, help: &str, kind: &str, value: u64| {
        format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
    };
    let agents = nodes.iter().filter(|n| n.agent_connected).count() as u64;
    let powered = nodes.iter().filter(|n| n.power == PowerState::On).count() as u64;
    let bound = context
        .rack
        .leases()
        .iter()
        .filter(|l| l.state == LeaseState::Bound)
        .count() as u64;
    text.push_str(&count(
        "rackbar_agents_connected",
        "Agents whose connection stands.",
        "gauge",
        agents,
    ));
    text.push_str(&count(
        "rackbar_nodes_powered_on",
        "Machines whose BMC says on.",
        "gauge",
        powered,
    ));
    text.push_str(&count(
        "rackbar_dhcp_leases_bound",
        "Leases that are bound.",
        "gauge",
        bound,
    ));
    text.push_str(&count(
        "rackbar_events_total",
        "Events recorded.",
        "counter",
        context.rack.last_seq(),
    ));
    text
}
