//! The file as it is written, before it is known to make sense. `Spanned` keeps the place for error messages.

use std::net::Ipv4Addr;

use rackbar_model::BootWay;
use serde::Deserialize;
use toml::Spanned;

use super::{Dhcp, Role, Uefi, Unknown};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) version: Spanned<u32>,
    pub(super) name: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) network: Vec<RawNetwork>,
    #[serde(default)]
    pub(super) clients: RawClients,
    #[serde(default)]
    pub(super) boot: RawBoot,
    #[serde(default)]
    pub(super) bmc: RawBmc,
    #[serde(default)]
    pub(super) api: RawApi,
    #[serde(default)]
    pub(super) dns: RawDns,
    #[serde(default)]
    pub(super) ntp: RawNtp,
    #[serde(default)]
    pub(super) syslog: RawSyslog,
    #[serde(default)]
    pub(super) capture: super::capture::RawCapture,
    #[serde(default)]
    pub(super) proxy: super::proxy::RawProxy,
    #[serde(default)]
    pub(super) packs: super::packs::RawPacks,
    #[serde(default)]
    pub(super) profiles: super::packs::RawProfiles,
    #[serde(default)]
    pub(super) webhook: Vec<super::webhook::RawWebhook>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDns {
    pub(super) domain: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) upstream: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) record: Vec<Spanned<RawRecord>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRecord {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) value: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNtp {
    #[serde(default)]
    pub(super) server: Vec<Spanned<String>>,
    pub(super) local_stratum: Option<Spanned<u8>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSyslog {
    pub(super) megabytes: Option<Spanned<u32>>,
    pub(super) per_second: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNetwork {
    pub(super) name: Spanned<String>,
    pub(super) role: Spanned<Role>,
    pub(super) interface: Option<Spanned<String>>,
    pub(super) vlan: Option<Spanned<u16>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) subnet: Option<Spanned<String>>,
    pub(super) through: Option<Spanned<String>>,
    pub(super) next_hop: Option<Spanned<Ipv4Addr>>,
    pub(super) dhcp: Option<Spanned<Dhcp>>,
    #[serde(default)]
    pub(super) pool: Vec<Spanned<String>>,
    pub(super) gateway: Option<Spanned<Ipv4Addr>>,
    pub(super) dns: Option<Spanned<toml::Value>>,
    pub(super) ntp: Option<Spanned<toml::Value>>,
    pub(super) syslog: Option<Spanned<toml::Value>>,
    pub(super) proxy: Option<Spanned<toml::Value>>,
    pub(super) domain: Option<Spanned<String>>,
    pub(super) lease_seconds: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) reservation: Vec<RawReservation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReservation {
    pub(super) mac: Spanned<String>,
    pub(super) address: Spanned<Ipv4Addr>,
    pub(super) name: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClients {
    #[serde(default)]
    pub(super) unknown: Unknown,
    #[serde(default)]
    pub(super) listed: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBoot {
    pub(super) kernel_arguments: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) uefi: Uefi,
    pub(super) negotiate: Option<Spanned<Vec<BootWay>>>,
    pub(super) http_connections: Option<Spanned<u16>>,
    pub(super) tftp_transfers: Option<Spanned<u16>>,
    #[serde(default)]
    pub(super) script: Vec<Spanned<RawScript>>,
    #[serde(default)]
    pub(super) file: Vec<Spanned<super::files::RawFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScript {
    pub(super) mac: Option<Spanned<String>>,
    pub(super) text: Option<Spanned<String>>,
    pub(super) file: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBmc {
    #[serde(default)]
    pub(super) credential: Vec<Spanned<RawCredential>>,
    #[serde(default)]
    pub(super) power_on_discovered: bool,
    #[serde(default)]
    pub(super) replace_initial_passwords: bool,
    pub(super) set_clocks: Option<bool>,
    #[serde(default)]
    pub(super) record_consoles: bool,
    #[serde(default)]
    pub(super) accept_certificates: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCredential {
    pub(super) username: String,
    pub(super) password: Option<String>,
    pub(super) password_file: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApi {
    pub(super) admin_token_sha256: Option<Spanned<String>>,
}
