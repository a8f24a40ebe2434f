//! Files that an installed system is given so that it enrols itself at its tool. They hold secrets: the plan and its log
//! never see them.

use rackbar_model::OsFile;
use rackbar_plan::site::{ChefServer, PuppetServer, SaltMaster};
use serde_json::Value;

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
