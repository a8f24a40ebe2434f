//! A configuration from kernel arguments, for an appliance that boots from the network or has no writable medium:
//! `rackbar.address=10.10.0.1/24 rackbar.dhcp=own rackbar.pool=10.10.0.100-10.10.0.199`.

use super::{Config, ConfigError, check, no_files};

/// Arguments that make the network of role `rack`, with the field each becomes.
const RACK: [(&str, &str); 4] = [
    ("rackbar.interface", "interface"),
    ("rackbar.vlan", "vlan"),
    ("rackbar.address", "address"),
    ("rackbar.dhcp", "dhcp"),
];

/// What else an operator may say; one of these alone is a configuration too.
const OTHERS: [&str; 5] = [
    "rackbar.name",
    "rackbar.pool",
    "rackbar.gateway",
    "rackbar.uplink",
    "rackbar.node_console",
];

/// Builds a configuration from the kernel's command line; `None` when it says nothing about one.
///
/// # Errors
/// As [`check`](fn@check), with the arguments' names as fields.
pub(crate) fn from_kernel_arguments(command_line: &str) -> Option<Result<Config, Vec<ConfigError>>> {
    let value = |name: &str| {
        let mut words = command_line.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let told = RACK.iter().any(|(name, _)| value(name).is_some()) || OTHERS.iter().any(|name| value(name).is_some());
    if !told {
        return None;
    }
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    let mut text = String::from("version = 1\n");
    if let Some(name) = value("rackbar.name") {
        text += &format!("name = {}\n", quoted(name));
    }
    text += "[[network]]\nname = \"rack\"\nrole = \"rack\"\n";
    for (argument, field) in RACK {
        match value(argument) {
            Some(vlan) if field == "vlan" && vlan.parse::<u16>().is_ok() => text += &format!("vlan = {vlan}\n"),
            Some(other) => text += &format!("{field} = {}\n", quoted(other)),
            None => {}
        }
    }
    if value("rackbar.address").is_none() {
        text += "address = \"dhcp, else 10.10.0.1/24\"\n";
    }
    if let Some(pools) = value("rackbar.pool") {
        let pools: Vec<String> = pools.split(',').map(quoted).collect();
        text += &format!("pool = [{}]\n", pools.join(", "));
    }
    if let Some(gateway) = value("rackbar.gateway") {
        text += &format!("gateway = {}\n", quoted(gateway));
    }
    if let Some(uplink) = value("rackbar.uplink") {
        text += &format!(
            "[[network]]\nname = \"uplink\"\nrole = \"uplink\"\ninterface = {}\n",
            quoted(uplink)
        );
    }
    if let Some(arguments) = value("rackbar.node_console") {
        text += &format!(
            "[boot]\nkernel_arguments = {}\n",
            quoted(&format!("console={arguments}"))
        );
    }
    Some(check(&text, &no_files).map_err(|errors| errors.into_iter().map(renamed).collect()))
}

/// The operator wrote an argument, not a line of a file.
fn renamed(error: ConfigError) -> ConfigError {
    let field = error.field.replace("network.", "rackbar.");
    ConfigError {
        line: None,
        field,
        ..error
    }
}
