//! The PowerShell script that sets the installed system up at its first start: what an answer file has no words for.

use rackbar_os_files::network::Base;
use rackbar_os_files::text;

use super::{AT, Windows, proxy};
use crate::FAILURES;
use crate::check::everybody;
use crate::error::Result;
use crate::input::Install;
use crate::quote::{base64, powershell};

/// Functions, each for one kind of line below.
const HEAD: &str = include_str!("head.ps1");

pub(super) fn script(install: &Install, system: &Windows, bases: &[Base]) -> Result<String> {
    let mut lines = Lines(format!("{HEAD}function Work {{\n"));
    lines.call("Administrator", &[]);
    let [base] = super::STEPS;
    tell(&mut lines, system, base);
    for account in everybody(install) {
        lines.call("Account", &[powershell(&account.name), powershell(&account.full_name)]);
    }
    bases.iter().for_each(|base| interface(&mut lines, install, base));
    services(&mut lines, install)?;
    sshd(&mut lines, install)?;
    lines.call("Done", &[encoded(&config(install.done.as_str()))]);
    lines.0.push_str("}\nfunction Failed {\n");
    let [_, bad_setup, _] = FAILURES;
    tell(&mut lines, system, bad_setup);
    lines.0.push_str(concat!(
        "}\ntry {\n  Work\n} catch {\n  $_ | Out-String | Out-File 'C:\\Windows\\Setup\\rackbar.log'\n  Failed\n",
        // What Setup kept of the answers has the token and this script in it.
        "} finally {\n  Remove-Item -Force -ErrorAction SilentlyContinue 'C:\\Windows\\Panther\\unattend*.xml'\n",
        "  Remove-Item -Force -Recurse -ErrorAction SilentlyContinue \"$Scripts\\*\"\n}\n",
    ));
    Ok(lines.0)
}

struct Lines(String);

impl Lines {
    fn call(&mut self, name: &str, words: &[String]) {
        self.0.push_str("  ");
        self.0.push_str(name);
        for word in words {
            self.0.push(' ');
            self.0.push_str(word);
        }
        self.0.push('\n');
    }
}

fn encoded(text: &str) -> String {
    format!("'{}'", base64(text))
}

/// A configuration file of curl(1), which Windows has, that asks for a URL and not through a proxy.
fn config(url: &str) -> String {
    format!("url = \"{url}\"\nnoproxy = \"*\"\ngloboff\nfail\nsilent\nshow-error\nmax-time = 20\noutput = \"NUL\"\n")
}

fn tell(lines: &mut Lines, system: &Windows, step: &str) {
    if let Some(steps) = &system.steps {
        lines.call("Tell", &[encoded(&config(&steps.file(step)))]);
    }
}

fn interface(lines: &mut Lines, install: &Install, base: &Base) {
    let (Some(port), Some(network)) = (base.ports.first(), &base.untagged) else {
        return;
    };
    let mac = port.mac.to_string().replace(':', "-");
    lines.call("$nic = Nic", &[powershell(&mac), powershell(&network.name)]);
    let nic = || "$nic".to_owned();
    if let Some(mtu) = network.mtu {
        lines.call("Mtu", &[nic(), mtu.to_string()]);
    }
    for address in &network.addresses {
        let (ip, prefix) = address.split_once('/').unwrap_or((address, ""));
        lines.call("Address", &[nic(), powershell(ip), powershell(prefix)]);
    }
    if let Some(gateway) = network.gateway {
        lines.call("Gateway", &[nic(), powershell(&gateway.to_string())]);
    }
    let servers: Vec<String> = install
        .setup
        .dns
        .iter()
        .map(|server| powershell(&server.to_string()))
        .collect();
    if !servers.is_empty() {
        lines.call("Resolvers", &[nic(), format!("@({})", servers.join(", "))]);
    }
}

fn services(lines: &mut Lines, install: &Install) -> Result<()> {
    let setup = &install.setup;
    if let Some(domain) = &setup.domain {
        lines.call("Domain", &[powershell(domain)]);
    }
    if !setup.ntp.is_empty() {
        // 0x8: as a client, not as a peer of the same rank.
        let peers: Vec<String> = setup.ntp.iter().map(|server| format!("{server},0x8")).collect();
        lines.call("Clock", &[powershell(&peers.join(" "))]);
    }
    if let Some(server) = proxy(install)? {
        lines.call("Proxy", &[powershell(&server)]);
    }
    Ok(())
}

/// Who may log in: all accounts are administrators, and all administrators' keys are in one file.
fn sshd(lines: &mut Lines, install: &Install) -> Result<()> {
    let setup = &install.setup;
    lines.call("Sshd", &[]);
    if !setup.ssh_host_key.0.is_empty() {
        let public = text::public_key(&setup.ssh_host_key.0, &setup.hostname).map_err(|bad| AT.setup(bad))?;
        lines.call("HostKey", &[encoded(&setup.ssh_host_key.0), encoded(&public)]);
    }
    let keys: String = super::keys(install).iter().map(|key| format!("{key}\n")).collect();
    lines.call("Keys", &[encoded(&keys)]);
    lines.call("Start-Service sshd", &[]);
    Ok(())
}
