//! Files that an installed system is given so that it enrols itself at its tool. They hold secrets: the plan and its log
//! never see them.

use rackbar_model::OsFile;
use rackbar_plan::site::{ChefServer, Enrol, PuppetServer, SaltMaster};
use serde_json::Value;

use crate::enrol::Kind;
use crate::member::{Member, Rack};
use crate::{chef, puppet, salt};

const SECRET: u32 = 0o600;
const OPEN: u32 = 0o644;

fn file(path: impl Into<String>, content: String, mode: u32) -> OsFile {
    OsFile {
        path: path.into(),
        content,
        mode,
    }
}

/// For Puppet's agent: the token in `csr_attributes.yaml`, the server and certificate name in `puppet.conf`, and our facts.
pub fn puppet_files(server: &PuppetServer, certname: &str, node: &str, token: &str, facts: &Value) -> Vec<OsFile> {
    let confdir = server.confdir.trim_end_matches('/');
    let line = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let mut conf = format!(
        "[main]\nserver = {}\ncertname = {}\n",
        line(&server.server),
        line(certname)
    );
    if let Some(environment) = &server.environment {
        conf.push_str(&format!("[agent]\nenvironment = {}\n", line(environment)));
    }
    vec![
        file(
            format!("{confdir}/csr_attributes.yaml"),
            puppet::csr_attributes(token, node),
            SECRET,
        ),
        file(format!("{confdir}/puppet.conf"), conf, OPEN),
        file("/etc/facter/facts.d/rackbar.json", format!("{facts:#}\n"), OPEN),
    ]
}

/// For Salt's minion: its keys, which the master accepts already, and where the master is.
pub fn salt_files(master: &SaltMaster, id: &str, private: &str, public: &str) -> Vec<OsFile> {
    vec![
        file("/etc/salt/pki/minion/minion.pem", private.to_owned(), SECRET),
        file("/etc/salt/pki/minion/minion.pub", public.to_owned(), OPEN),
        file(
            "/etc/salt/minion.d/rackbar.conf",
            salt::minion_configuration(master, id),
            OPEN,
        ),
    ]
}

/// For Chef's client: its key, where the server is, and the attributes of its first run.
pub fn chef_files(server: &ChefServer, name: &str, private: &str, first_boot: &Value) -> Vec<OsFile> {
    vec![
        file("/etc/chef/client.pem", private.to_owned(), SECRET),
        file("/etc/chef/client.rb", chef::client_rb(server, name), OPEN),
        file("/etc/chef/first-boot.json", format!("{first_boot:#}\n"), OPEN),
    ]
}

/// Why there are no files for a tool.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoFiles {
    /// The site does not say where the tool's server is.
    #[error("the site file has no [handoff.{0}] that says where its server is")]
    NoServer(&'static str),
    /// The secret is of another tool's kind, or was forgotten already.
    #[error("the secret is not one for {0}, or is not kept any more; make another")]
    NotIts(&'static str),
}

/// What `member` is given so that it enrols itself at `tool` by `secret`.
///
/// # Errors
/// See [`NoFiles`].
pub fn files(rack: &Rack<'_>, member: &Member<'_>, tool: Enrol, secret: &Kind) -> Result<Vec<OsFile>, NoFiles> {
    let no_server = || NoFiles::NoServer(tool.name());
    let servers = rack.handoff().ok_or_else(no_server)?;
    let id = member.node.id.to_string();
    let (private, public) = match secret {
        Kind::Token { text: Some(text), .. } => (text, ""),
        Kind::Pair {
            private: Some(private),
            public,
        } => (private, public.as_str()),
        Kind::Token { .. } | Kind::Pair { .. } => return Err(NoFiles::NotIts(tool.name())),
    };
    Ok(match (tool, secret) {
        (Enrol::Puppet, Kind::Token { .. }) => {
            let server = servers.puppet.as_ref().ok_or_else(no_server)?;
            let facts = puppet::external_facts(rack, &id);
            puppet_files(server, &member.fqdn, &id, &private.0, &facts)
        }
        (Enrol::Salt, Kind::Pair { .. }) => {
            let master = servers.salt.as_ref().ok_or_else(no_server)?;
            salt_files(master, &member.fqdn, &private.0, public)
        }
        (Enrol::Chef, Kind::Pair { .. }) => {
            let server = servers.chef.as_ref().ok_or_else(no_server)?;
            chef_files(server, &member.fqdn, &private.0, &chef::first_boot(rack, &id))
        }
        _ => return Err(NoFiles::NotIts(tool.name())),
    })
}
