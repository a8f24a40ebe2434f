//! The targets by name. A name is also that of the target's folder under `fuzz/corpus`.

mod alias;
mod frames;
mod git;
mod hardware;
mod images;
mod install;
mod installers;
mod ipmi;
mod loader;
mod netboot;
mod packs;
mod proxy;
mod registry;
mod rules;
mod services;
mod site;
mod upstream;

/// What is done with one input.
pub type Target = fn(&[u8]);

/// Every target.
pub const TARGETS: &[(&str, Target)] = &[
    ("dhcp-engine", netboot::dhcp_engine),
    ("dhcp-packet", netboot::dhcp_packet),
    ("tftp-packet", netboot::tftp_packet),
    ("tftp-server", netboot::tftp_server),
    ("http-request", netboot::http_request),
    ("boot-frame", netboot::boot_frame),
    ("boot-manifest", netboot::manifest),
    ("boot-image", netboot::image),
    ("messages", netboot::messages),
    ("site-script", netboot::site_script),
    ("loader-http", loader::http),
    ("loader-packet", loader::packet),
    ("loader-device-path", loader::device_path),
    ("loader-payload", loader::payload),
    ("loader-text", loader::text),
    ("ipmi-packet", ipmi::packet),
    ("ipmi-commands", ipmi::commands),
    ("ipmi-records", ipmi::records),
    ("ipmi-server", ipmi::server),
    ("ipmi-client", ipmi::client),
    ("redfish-json", hardware::redfish),
    ("machine-report", hardware::machine_report),
    ("smbios", hardware::smbios),
    ("lldp", hardware::lldp),
    ("bpdu", hardware::bpdu),
    ("lacpdu", hardware::lacpdu),
    ("uevent", hardware::uevent),
    ("gpt", hardware::gpt),
    ("device-answer", hardware::device_answer),
    ("node-answer", hardware::node_answer),
    ("efi-load-option", install::load_option),
    ("disk-content", install::disk_content),
    ("boot-menu", install::boot_menu),
    ("system-files", install::system_files),
    ("qcow2", install::qcow2),
    ("image-fetch", install::image_fetch),
    ("esxi-boot-cfg", installers::esxi_boot_cfg),
    ("talos-secrets", installers::talos_secrets),
    ("rackbar-toml", site::rackbar_toml),
    ("site-toml", site::site_toml),
    ("puppet-csr", site::puppet_csr),
    ("registry-answer", registry::answer),
    ("hardware-profile", site::hardware_profile),
    ("words", site::words),
    ("dns-query", services::dns_query),
    ("dns-answer", services::dns_answer),
    ("dns-alias", alias::dns_alias),
    ("service-frame", frames::service_frame),
    ("ntp-packet", services::ntp_packet),
    ("syslog", services::syslog),
    ("proxy-request", proxy::request),
    ("proxy-answer", proxy::answer),
    ("proxy-rules", rules::rules),
    ("package-index", proxy::package_index),
    ("pack", packs::pack),
    ("program", packs::program),
    ("state-file", packs::state_file),
    ("report-file", packs::report_file),
    ("image-content", images::content),
    ("iso-tree", images::iso_tree),
    ("openpgp", upstream::openpgp),
    ("upstream-list", upstream::list),
    ("release", upstream::release),
    ("rpm-repomd", upstream::repomd),
    ("rpm-primary", upstream::primary),
    ("git-answer", git::answer),
    ("git-pack", git::pack),
];
