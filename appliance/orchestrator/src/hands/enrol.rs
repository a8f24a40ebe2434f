//! The secrets by which a system enrols itself at its tools: made at the moment that its files are laid, kept sealed, told to
//! nobody else.

use std::sync::Arc;

use rackbar_handoff::{Rack as View, files};
use rackbar_model::{Digest, Node, NodeId, OsFile, OsSetup, RootTarget};
use rackbar_plan::site::Enrol;
use rackbar_plan::{ActionKind, RunId};

use super::{Appliance, Done, Task};
use crate::enrolments::Enrolments;
use crate::rack::now;

/// What is installed, as those tools are told of it.
pub(super) struct Installing<'a> {
    pub(super) target: &'a RootTarget,
    pub(super) image: &'a str,
    pub(super) sha256: Digest,
}

impl Appliance {
    /// The files by which the system of `setup` enrols itself at `tools`, with secrets of this run.
    pub(super) async fn enrolment_files(
        &self,
        task: &Task,
        node: NodeId,
        (tools, setup): (&[Enrol], &OsSetup),
        installing: Installing<'_>,
    ) -> Result<Vec<OsFile>, Done> {
        if tools.is_empty() {
            return Ok(Vec::new());
        }
        let nobody = || Done::failed("the machine is not known any more", "plan and commit again", false);
        let shown = self.rack.node_by_id(node).ok_or_else(nobody)?;
        let nodes = [as_installed(&shown, task.run, setup, installing)];
        let site = task.system.site.clone();
        let view = View {
            name: "",
            site: site.as_ref().map(|site| &site.site),
            nodes: &nodes,
        };
        let member = view.find(&node.to_string()).ok_or_else(nobody)?;
        let mut laid = Vec::new();
        for tool in tools.iter().copied() {
            let (book, name, run) = (Enrolments::new(self.store.clone()), member.fqdn.clone(), task.run);
            // A pair of keys takes seconds on a slow processor.
            let made = tokio::task::spawn_blocking(move || book.for_run(tool, node, &name, run, now())).await;
            let made = made.map_err(|error| Done::failed(error.to_string(), "", true))?;
            let made = made.map_err(|error| Done::failed(error.to_string(), "look at the state of the store", true))?;
            let advice = "set it (`rackbar site set FILE`), then plan and commit again";
            let of_tool = files(&view, &member, tool, &made.secret);
            laid.extend(of_tool.map_err(|error| Done::failed(error.to_string(), advice, false))?);
        }
        Ok(laid)
    }

    /// A machine is installed anew: what an earlier system could enrol by is no good any more.
    pub(super) fn take_back_earlier(&self, node: NodeId, run: RunId) -> Result<(), Done> {
        let book = Enrolments::new(self.store.clone());
        let earlier = book.take_back(node, |one| one.run != Some(run.0), now());
        earlier.map_err(|error| {
            let reason = format!("the secrets that its earlier system enrols by cannot be taken back: {error}");
            Done::failed(reason, "look at the state of the store", true)
        })
    }

    /// An action that laid secrets ended for good.
    pub(super) fn enrolment_settled(&self, node: NodeId, run: RunId, kind: &ActionKind, well: bool) {
        if kind.enrols().is_empty() {
            return;
        }
        let book = Enrolments::new(self.store.clone());
        let kept = match well {
            true => book.laid(node, run, now()),
            false => book.take_back(node, |one| one.run == Some(run.0), now()),
        };
        if let Err(error) = kept {
            // Asked again at the next start.
            tracing::error!(%node, %run, %error, "what became of the secrets it enrols by cannot be written down");
        }
    }
}

/// The machine as it will be, so that its tools know it by the name that they are asked with later.
fn as_installed(node: &Node, run: RunId, setup: &OsSetup, installing: Installing<'_>) -> Arc<Node> {
    let mut node = node.clone();
    node.installed = Some(rackbar_model::Installed {
        image: installing.image.to_owned(),
        sha256: installing.sha256,
        target: installing.target.clone(),
        hostname: setup.hostname.clone(),
        user: setup.user.clone(),
        host_key: String::new(),
        proved: false,
        at: now(),
        run: run.0,
    });
    // What is written stays as it is for as long as the system does.
    node.state = rackbar_model::NodeState::Ready;
    Arc::new(node)
}
