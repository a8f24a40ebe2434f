//! The kernel arguments of a node: who its appliance is, how to know it, and the token that lets it in once.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::net::SocketAddr;

use rackbar_model::{Digest, MacAddr};
use rackbar_trust::Secret;

/// Longest command line an x86 kernel takes (`COMMAND_LINE_SIZE` minus the end of the string), in bytes. What is longer
/// the kernel cuts off without a word, and our arguments could be what is lost.
const LONGEST: usize = 2047;

/// What goes into a node's command line.
#[derive(Clone, Copy, Debug)]
pub struct NodeArguments<'a> {
    /// The appliance's agent port as this node reaches it.
    pub server: SocketAddr,
    /// SHA-256 of the site CA certificate's DER.
    pub pin: Digest,
    /// The one-time token, made for `mac`.
    pub token: &'a Secret<32>,
    /// The interface the node boots from.
    pub mac: MacAddr,
    /// The site's own arguments, put last: `console=ttyS1,115200 iommu=pt`. May be empty.
    pub extra: &'a str,
}

/// The command line of a node, as ARCHITECTURE.md "Kernel arguments" has it. Secret: it holds the token.
///
/// # Errors
/// When `extra` could break out of its line or take the place of ours, or when the whole is too long for the kernel.
pub fn node_command_line(arguments: &NodeArguments<'_>) -> Result<String, BadArgument> {
    let NodeArguments {
        server,
        pin,
        token,
        mac,
        extra,
    } = arguments;
    if let Some(bad) = extra.chars().find(|c| c.is_control() || !c.is_ascii()) {
        return Err(BadArgument::Character(bad));
    }
    for word in extra.split_ascii_whitespace() {
        if word.starts_with("rackbar.") || word.starts_with("BOOTIF=") {
            return Err(BadArgument::Ours(word.to_string()));
        }
    }
    let bootif = mac.to_string().replace(':', "-");
    let mut line = format!(
        "rackbar.role=node rackbar.server={server} rackbar.pin={pin} rackbar.token={} BOOTIF=01-{bootif}",
        token.expose_hex().as_str(),
    );
    if !extra.trim().is_empty() {
        line.push(' ');
        line.push_str(extra.trim());
    }
    if line.len() > LONGEST {
        return Err(BadArgument::TooLong(line.len()));
    }
    Ok(line)
}

/// Why extra kernel arguments were not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadArgument {
    /// A control character or one outside ASCII.
    Character(char),
    /// An argument that is ours to set.
    Ours(String),
    /// The whole command line has this many bytes.
    TooLong(usize),
}

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(c) => write!(
                f,
                "kernel arguments may hold printable ASCII only, not {}",
                c.escape_default()
            ),
            Self::Ours(word) => write!(
                f,
                "the kernel argument `{word}` is set by Rackbar itself; take it out of the site's arguments"
            ),
            Self::TooLong(length) => write!(
                f,
                "the kernel command line would have {length} bytes; the kernel takes {LONGEST}: shorten the site's arguments"
            ),
        }
    }
}

impl core::error::Error for BadArgument {}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments<'a>(token: &'a Secret<32>, extra: &'a str) -> NodeArguments<'a> {
        NodeArguments {
            server: "192.0.2.1:4917".parse().unwrap(),
            pin: Digest([0xaa; 32]),
            token,
            mac: "52:54:00:12:34:56".parse().unwrap(),
            extra,
        }
    }

    #[test]
    fn the_line_is_as_the_contract_has_it() {
        let token = Secret::new([0xbb; 32]);
        let line = node_command_line(&arguments(&token, " console=ttyS0 ")).unwrap();
        let (aa, bb) = ("aa".repeat(32), "bb".repeat(32));
        assert_eq!(
            line,
            format!(
                "rackbar.role=node rackbar.server=192.0.2.1:4917 rackbar.pin={aa} rackbar.token={bb} \
                 BOOTIF=01-52-54-00-12-34-56 console=ttyS0"
            )
        );
    }

    #[test]
    fn extra_arguments_cannot_replace_ours() {
        let token = Secret::new([1; 32]);
        let refused = |extra: &str| node_command_line(&arguments(&token, extra)).unwrap_err();
        assert_eq!(refused("a=1\nboot"), BadArgument::Character('\n'));
        assert_eq!(
            refused("a=1 rackbar.pin=00"),
            BadArgument::Ours("rackbar.pin=00".into())
        );
        assert!(matches!(refused(&"x".repeat(3000)), BadArgument::TooLong(_)));
    }
}
