//! What a booting client is told, by who speaks and from where.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use rackbar_model::{BootWay, ClientArch, MacAddr};

use super::question::{Question, Speaker};
use crate::{BootPolicy, Network};

/// The boot part of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BootAnswer {
    /// The way it stands for; `None` when it only tells our own loader where we are.
    pub(super) way: Option<BootWay>,
    /// Boot file name or URL: `file` field and option 67.
    pub(super) file: String,
    /// TFTP server: `siaddr`, `sname` and option 66. Only for clients that fetch by TFTP.
    pub(super) tftp_server: Option<Ipv4Addr>,
    /// Option 60.
    pub(super) vendor_class: Option<&'static str>,
    /// Option 43 with PXE's discovery control.
    pub(super) use_boot_file: bool,
    /// Option 175 with "no-pxedhcp".
    pub(super) no_pxedhcp: bool,
}

impl BootAnswer {
    /// What this client is told on this network, beside another server's address (`proxy`) or with one of ours, when
    /// it is led by `led`. `None`: it does not boot, or we have nothing for it.
    pub(super) fn new(
        policy: &BootPolicy,
        network: &Network,
        question: &Question<'_>,
        proxy: bool,
        led: Option<BootWay>,
    ) -> Option<Self> {
        if !policy.enabled {
            return None;
        }
        let answer = |file: &str| Self {
            way: Some(if proxy { BootWay::Proxy } else { BootWay::FullDhcp }),
            file: fill(file, network.server, question.mac),
            tftp_server: None,
            vendor_class: None,
            use_boot_file: false,
            no_pxedhcp: false,
        };
        match question.speaker {
            // A PXE ROM believes an answer only with option 60, and EDK2 only with option 43 beside it.
            Speaker::Rom => Some(Self {
                tftp_server: Some(policy.tftp_server.unwrap_or(network.server)),
                vendor_class: Some("PXEClient"),
                use_boot_file: true,
                ..answer(file_for(policy, question, ClientArch::X86Bios)?)
            }),
            // UEFI 2.10 section 24.7.3.1: without `HTTPClient` echoed the firmware drops the offer.
            Speaker::HttpRom => {
                // Beside another server there is one URL and no second try: TLS only where the site wants nothing else.
                let only_tls = network.allows(BootWay::UefiHttps) && !network.allows(BootWay::UefiHttp);
                let tls = only_tls || (!proxy && led == Some(BootWay::UefiHttps));
                let way = match (proxy, tls) {
                    (true, _) => BootWay::Proxy,
                    (false, true) => BootWay::UefiHttps,
                    (false, false) => BootWay::UefiHttp,
                };
                Some(Self {
                    way: Some(way),
                    vendor_class: Some("HTTPClient"),
                    ..answer(&http_file(policy, question, tls)?)
                })
            }
            // iPXE takes `PXEClient` in an answer with an address as an order to look for PXE boot servers, so there
            // it must be absent; in a proxy answer it is how iPXE knows one. Never option 43: that brings its menu up.
            Speaker::Ipxe => Some(Self {
                vendor_class: proxy.then_some("PXEClient"),
                no_pxedhcp: !proxy,
                ..answer(&policy.script_url)
            }),
            // smoltcp would take a proxy answer for a broken offer.
            Speaker::Loader => (!proxy).then(|| Self {
                way: None,
                ..answer(&policy.loader_url)
            }),
            Speaker::Agent | Speaker::Plain => None,
        }
    }
}

/// The boot file of the first of the client's architectures we have one for. Old ROMs send no option 93 at all.
fn file_for<'p>(policy: &'p BootPolicy, question: &Question<'_>, absent: ClientArch) -> Option<&'p str> {
    if question.arch.is_none() {
        return policy.file(absent);
    }
    let http = question.speaker == Speaker::HttpRom;
    question
        .packet
        .archs()
        .filter(|arch| arch.is_http() == http)
        .find_map(|arch| policy.file(arch))
}

/// The URL for a client of UEFI HTTP Boot.
fn http_file<'p>(policy: &'p BootPolicy, question: &Question<'_>, tls: bool) -> Option<Cow<'p, str>> {
    let file = file_for(policy, question, ClientArch::X64UefiHttp)?;
    if tls {
        policy.over_tls(file).map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(file))
    }
}

fn fill(template: &str, server: Ipv4Addr, mac: MacAddr) -> String {
    if !template.contains('{') {
        return template.to_owned();
    }
    let mac = mac.to_string().replace(':', "-");
    template.replace("{server}", &server.to_string()).replace("{mac}", &mac)
}
