//! The HTTPS API before the executor, and the client that a person's program would use.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures_util::FutureExt as _;
use rackbar_control::client::{Client, Endpoint};
use rackbar_control::operations::{Answer, Operations, PlanRequest, Refused, SiteMistake};
use rackbar_control::{About, Access, Context, Handle, Limits, Listeners, Role, Token, serve};
use rackbar_model::Digest;
use rackbar_orchestrator::Rack;
use rackbar_orchestrator::executor::{Executor, PlanRequest as Wanted};
use rackbar_plan::{Plan, PlanId, Run, RunId};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use super::{SITE, loopback};

const TOKEN: &str = "an admin token of the benchmark";

/// The site's certificates, as the daemon makes them.
pub(super) struct Certificate {
    pub(super) ca: CertificateDer<'static>,
    pub(super) server: Arc<rustls::ServerConfig>,
}

impl Certificate {
    pub(super) fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec!["rackbar".into()])?.signed_by(&key, &ca)?;
        let der: CertificateDer<'static> = ca.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone(), der.clone()], key)?;
        let server = Arc::new(server);
        Ok(Self { ca: der, server })
    }
}

/// The part of the appliance's door that this needs.
struct Door(Executor);

impl Door {
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Executor) -> Result<T, Refused> + Send + 'static,
    ) -> Answer<'_, T> {
        let executor = self.0.clone();
        async move {
            let done = tokio::task::spawn_blocking(move || work(&executor)).await;
            done.unwrap_or_else(|error| Err(Refused::Internal(error.to_string())))
        }
        .boxed()
    }
}

impl Operations for Door {
    fn set_site(&self, text: String, by: &str) -> Answer<'_, ()> {
        let by = by.to_owned();
        self.ask(move |executor| {
            let mistake = |problem: rackbar_plan::SiteProblem| SiteMistake {
                line: 1,
                column: 1,
                field: problem.field,
                message: problem.message,
                suggestion: problem.suggestion,
            };
            let set = executor.set_site(&text, &by);
            set.map(drop)
                .map_err(|problems| Refused::Mistakes(problems.into_iter().map(mistake).collect()))
        })
    }

    fn plan(&self, _request: PlanRequest) -> Answer<'_, Arc<Plan>> {
        self.ask(|executor| {
            let plan = executor.plan(&Wanted::default());
            plan.map_err(|error| Refused::Invalid(error.to_string()))
        })
    }

    fn commit(&self, id: &str, consent: Vec<String>, by: &str) -> Answer<'_, Arc<Run>> {
        let (id, by) = (PlanId(id.to_owned()), by.to_owned());
        self.ask(move |executor| {
            let run = executor.commit(&id, &consent, &by);
            let run = run.map_err(|error| Refused::Conflict(error.to_string()))?;
            executor.run(run).ok_or_else(|| Refused::NotFound("the run".into()))
        })
    }
}

/// A server and its client.
pub(super) struct Api {
    client: Client,
    _handle: Handle,
}

impl Api {
    pub(super) async fn start(rack: Rack, executor: Executor, tls: &Certificate) -> Result<Self> {
        let sha256 = |bytes: &[u8]| Digest(rackbar_trust::sha256(bytes));
        let about = About {
            site: "bench".into(),
            version: "0".into(),
            fingerprint: "00".repeat(32),
            volatile: false,
        };
        let token = Token {
            name: "admin".into(),
            sha256: sha256(TOKEN.as_bytes()),
            role: Role::Admin,
        };
        let context = Context {
            rack,
            about: Arc::new(about),
            operations: Arc::new(Door(executor)),
            access: Arc::new(Access::new(vec![token])),
            counters: Arc::new(String::new),
        };
        let listeners = Listeners {
            https: vec![loopback()],
            tls: tls.server.clone(),
            socket: None,
            limits: Limits::default(),
        };
        let handle = serve(context, listeners).await?;
        let authority = handle.addresses().first().context("the API listens")?.to_string();
        let endpoint = Endpoint::Https {
            authority,
            pin: sha256(&tls.ca),
            token: TOKEN.into(),
        };
        let client = Client::new(endpoint)?;
        let kind = "application/toml";
        client.put_text("/api/v1/site", kind, SITE.into()).await?;
        Ok(Self {
            client,
            _handle: handle,
        })
    }

    /// What a person does: plan, look, say yes by name.
    pub(super) async fn plan_and_commit(&self, nodes: u32) -> Result<RunId> {
        let body = self.client.post("/api/v1/plans", &json!({})).await?;
        let plan: Plan = serde_json::from_slice(&body).context("the plan")?;
        let refused: Vec<_> = plan.refused.iter().take(3).collect();
        ensure!(refused.is_empty(), "nodes are refused: {refused:?}");
        let names: Vec<&str> = plan.destructive().iter().map(|view| view.name).collect();
        ensure!(
            names.len() == nodes as usize,
            "the plan is for {} machines",
            names.len()
        );
        let path = format!("/api/v1/plans/{}/commit", plan.id);
        let body = self.client.post(&path, &json!({ "destroy": names })).await?;
        let run: serde_json::Value = serde_json::from_slice(&body)?;
        let id = run.get("id").and_then(serde_json::Value::as_u64);
        Ok(RunId(id.context("the run's number")?))
    }
}
