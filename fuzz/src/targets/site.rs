//! What people write: the appliance's configuration, hardware profiles, addresses and names.

use rackbar_hw_profiles::Profiles;
use rackbar_model::{Digest, MacAddr, NodeId, Timestamp};
use rackbar_plan::Site;

// Private to the program.
#[allow(dead_code, unused_imports, missing_docs, reason = "only the reading is called")]
#[path = "../../../appliance/rackbar/src/config/mod.rs"]
mod config;

pub(super) fn rackbar_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(errors) = config::check(text, &|name: &str| Ok(format!("#!ipxe\necho {name}\n"))) {
        assert!(!errors.is_empty(), "refused without a reason");
        let _ = config::in_words(&errors);
    }
    let _ = config::from_kernel_arguments(text);
}

pub(super) fn site_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(problems) = Site::parse(text) {
        assert!(!problems.is_empty(), "refused without a reason");
    }
}

/// A certificate request, as a Puppet server passes it on from a stranger: PEM, or the DER in it.
pub(super) fn puppet_csr(data: &[u8]) {
    use base64::Engine as _;
    let _ = rackbar_handoff::csr::read(data);
    let text = base64::prelude::BASE64_STANDARD.encode(data);
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n");
    let _ = rackbar_handoff::csr::read(pem.as_bytes());
}

pub(super) fn hardware_profile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(mut profiles) = Profiles::shipped() {
        let _ = profiles.add("fuzz.toml", text);
    }
}

/// What is shown is read back the same.
pub(super) fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(mac) = text.parse::<MacAddr>() {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(time.to_string().parse(), Ok(time), "{text}");
    }
}
