//! HTTPS boot: its certificates, kept in the store, and its server, which runs while `boot.negotiate` names `uefi_https`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rackbar_artifacts::Artifacts;
use rackbar_boot_tls::{Identity, server_config};
use rackbar_control::{Handle, serve_boot};
use rackbar_model::{BootWay, Digest, Severity};
use rackbar_orchestrator::Rack;
use rackbar_services::http::Documents;
use rackbar_store::{Store, Table};
use rackbar_trust::sha256;

use super::services::status;
use crate::config::Config;

/// Its name among the services, and of its certificates among the secrets.
const NAME: &str = "https-boot";

/// The server, while it runs.
pub(super) struct HttpsBoot {
    store: Store,
    rack: Rack,
    artifacts: Arc<Artifacts>,
    listen: SocketAddr,
    running: Option<(Handle, Vec<IpAddr>)>,
}

impl HttpsBoot {
    /// Nothing runs yet.
    pub(super) fn new(store: Store, rack: Rack, artifacts: Arc<Artifacts>, listen: SocketAddr) -> Self {
        Self {
            store,
            rack,
            artifacts,
            listen,
            running: None,
        }
    }

    /// Starts, stops or renews it, as the configuration and our addresses now want it. The first time it makes two RSA
    /// keys, which takes a second or two.
    pub(super) async fn follow(&mut self, config: &Config, addresses: Vec<IpAddr>, documents: Documents) {
        let wanted = config.boot.negotiate.contains(&BootWay::UefiHttps);
        if !wanted {
            if let Some((handle, _)) = self.running.take() {
                handle.stop().await;
                self.told("off: boot.negotiate does not name uefi_https".into(), Severity::Info);
            }
            return;
        }
        if self.running.as_ref().is_some_and(|(_, old)| *old == addresses) {
            return;
        }
        if let Some((handle, _)) = self.running.take() {
            handle.stop().await;
        }
        match self.start(&config.name, &addresses, documents).await {
            Ok((handle, fingerprint)) => {
                let listen = self.listen;
                let words =
                    format!("serving on {listen}; firmware must trust the certificate with SHA-256 {fingerprint}");
                self.told(words, Severity::Info);
                self.running = Some((handle, addresses));
            }
            Err(error) => self.told(format!("{error:#}; trying again"), Severity::Error),
        }
    }

    async fn start(&self, site: &str, addresses: &[IpAddr], documents: Documents) -> Result<(Handle, Digest)> {
        let (store, name, addresses) = (self.store.clone(), format!("Rackbar boot {site}"), addresses.to_vec());
        let identity = tokio::task::spawn_blocking(move || identity(&store, &name, &addresses)).await??;
        let authority = identity.authority();
        self.artifacts.add_bytes("boot-ca.cer", authority)?;
        let tls = server_config(&identity)?;
        let handle = serve_boot(self.listen, tls, documents).await?;
        Ok((handle, Digest(sha256(authority))))
    }

    /// Stops it, when it runs.
    pub(super) async fn stop(&mut self) {
        if let Some((handle, _)) = self.running.take() {
            handle.stop().await;
        }
    }

    fn told(&self, state: String, severity: Severity) {
        self.rack.set_service(status(NAME, state, severity));
    }
}

/// The identity in the store, made anew when there is none, its certificate made anew when our addresses changed.
fn identity(store: &Store, name: &str, addresses: &[IpAddr]) -> Result<Identity> {
    let kept = store.get(Table::Secrets, NAME.as_bytes())?;
    let (identity, changed) = match kept {
        Some(json) => {
            let parts =
                serde_json::from_slice(&json).context("the certificates for HTTPS boot in the store are damaged")?;
            let mut identity = Identity::from_parts(parts);
            let changed = identity.serve(addresses)?;
            (identity, changed)
        }
        None => (Identity::generate(name, addresses)?, true),
    };
    if changed {
        let json = zeroize::Zeroizing::new(serde_json::to_vec(&identity.to_parts())?);
        store.put(Table::Secrets, NAME.as_bytes(), &json)?;
    }
    Ok(identity)
}
