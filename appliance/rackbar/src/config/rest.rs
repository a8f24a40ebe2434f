//! The check of what is not a network: clients, boot, BMCs.

use std::net::SocketAddr;

use rackbar_boot::{NodeArguments, SiteScript, node_command_line};
use rackbar_model::{BootWay, Digest, MacAddr};
use rackbar_trust::Secret;
use toml::Spanned;

use super::check::Checker;
use super::raw::{RawBmc, RawBoot, RawClients, RawScript};
use super::{Bmc, Boot, Clients, Credential, Password, Unknown};

impl Checker<'_> {
    pub(super) fn clients(&mut self, raw: &RawClients) -> Clients {
        let listed: Vec<MacAddr> = raw
            .listed
            .iter()
            .filter_map(|text| self.mac(text, "clients.listed"))
            .collect();
        let first = raw.listed.first().map(Spanned::span);
        if raw.unknown == Unknown::Enrol && !listed.is_empty() {
            self.wrong(
                first,
                "clients.listed",
                "a list has no effect while unknown = \"enrol\"",
                "write unknown = \"listed\"",
            );
        }
        Clients {
            unknown: raw.unknown,
            listed,
        }
    }

    pub(super) fn boot(&mut self, raw: &RawBoot) -> Boot {
        let kernel_arguments = raw
            .kernel_arguments
            .as_ref()
            .map(|text| text.get_ref().trim().to_owned())
            .unwrap_or_default();
        let trial = NodeArguments {
            server: SocketAddr::from(([255, 255, 255, 255], 65535)),
            pin: Digest([0; 32]),
            token: &Secret::new([0; 32]),
            mac: MacAddr::BROADCAST,
            extra: &kernel_arguments,
        };
        if let Err(error) = node_command_line(&trial) {
            let span = raw.kernel_arguments.as_ref().map(Spanned::span);
            self.wrong(span, "boot.kernel_arguments", error.to_string(), "");
        }
        let usual = vec![BootWay::Proxy, BootWay::FullDhcp, BootWay::UefiHttp];
        let negotiate = raw.negotiate.as_ref().map_or(usual, |ways| ways.get_ref().clone());
        let span = raw.negotiate.as_ref().map(Spanned::span);
        if negotiate.is_empty() {
            self.wrong(
                span,
                "boot.negotiate",
                "no way is left for a machine to boot",
                "leave it out for all ways",
            );
        }
        Boot {
            kernel_arguments,
            uefi: raw.uefi,
            negotiate,
            scripts: self.scripts(&raw.script),
            files: self.boot_files(&raw.file),
            http_connections: self.places(raw.http_connections.as_ref(), "boot.http_connections"),
            tftp_transfers: self.places(raw.tftp_transfers.as_ref(), "boot.tftp_transfers"),
        }
    }

    /// How many machines are served at one time, where that is said.
    fn places(&mut self, wanted: Option<&Spanned<u16>>, field: &str) -> Option<usize> {
        let wanted = wanted?;
        if *wanted.get_ref() == 0 {
            let problem = "with no place no machine could ever boot";
            self.wrong(Some(wanted.span()), field, problem, "leave it out for the usual number");
        }
        Some(usize::from(*wanted.get_ref()))
    }

    fn scripts(&mut self, raw: &[Spanned<RawScript>]) -> Vec<SiteScript> {
        let mut scripts: Vec<SiteScript> = Vec::new();
        for one in raw {
            let all = one.get_ref().mac.is_none();
            let mac = one
                .get_ref()
                .mac
                .as_ref()
                .and_then(|mac| self.mac(mac, "boot.script.mac"));
            if !all && mac.is_none() {
                continue;
            }
            if scripts.iter().any(|other| other.mac() == mac) {
                let whom = mac.map_or_else(|| "all machines".to_owned(), |mac| mac.to_string());
                let problem = format!("there are two scripts for {whom}");
                self.wrong(
                    Some(one.span()),
                    "boot.script",
                    problem,
                    "keep one, or give one another mac",
                );
            }
            scripts.extend(self.script(one, mac));
        }
        scripts
    }

    /// One script, from the text in the configuration or from the file it names.
    fn script(&mut self, raw: &Spanned<RawScript>, mac: Option<MacAddr>) -> Option<SiteScript> {
        let (field, span, text) = match (&raw.get_ref().text, &raw.get_ref().file) {
            (Some(text), None) => ("boot.script.text", text.span(), text.get_ref().clone()),
            (None, Some(file)) => match self.files.text(file.get_ref()) {
                Ok(text) => ("boot.script.file", file.span(), text),
                Err(reason) => {
                    let problem = format!("{:?}: {reason}", file.get_ref());
                    let instead = "put the script beside rackbar.toml and write its name here";
                    self.wrong(Some(file.span()), "boot.script.file", problem, instead);
                    return None;
                }
            },
            _ => {
                let problem = "a script has either a text or a file";
                self.wrong(Some(raw.span()), "boot.script", problem, "");
                return None;
            }
        };
        match SiteScript::new(mac, &text) {
            Ok(script) => Some(script),
            Err(error) => {
                self.wrong(Some(span), field, error.to_string(), "");
                None
            }
        }
    }

    pub(super) fn bmc(&mut self, raw: &RawBmc) -> Bmc {
        let mut credentials = Vec::new();
        for one in &raw.credential {
            let raw = one.get_ref();
            let password = match (&raw.password, &raw.password_file) {
                (Some(password), None) => Password::Here(password.clone()),
                (None, Some(file)) => Password::File(file.into()),
                _ => {
                    self.wrong(
                        Some(one.span()),
                        "bmc.credential",
                        "a credential has either a password or a password_file",
                        "",
                    );
                    continue;
                }
            };
            if raw.username.is_empty() {
                self.wrong(
                    Some(one.span()),
                    "bmc.credential.username",
                    "the user name is empty",
                    "",
                );
            }
            credentials.push(Credential {
                username: raw.username.clone(),
                password,
            });
        }
        let mut accept_certificates = Vec::new();
        for text in &raw.accept_certificates {
            match text.get_ref().parse() {
                Ok(fingerprint) => accept_certificates.push(fingerprint),
                Err(error) => {
                    let problem = format!("{error}");
                    let instead = "the event of the BMC that was refused has it";
                    self.wrong(Some(text.span()), "bmc.accept_certificates", problem, instead);
                }
            }
        }
        Bmc {
            credentials,
            power_on_discovered: raw.power_on_discovered,
            replace_initial_passwords: raw.replace_initial_passwords,
            set_clocks: raw.set_clocks.unwrap_or(true),
            record_consoles: raw.record_consoles,
            accept_certificates,
        }
    }
}
