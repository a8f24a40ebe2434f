//! The signed report: what was wanted, what was observed, what came of each check, and the evidence of erased disks.
//!
//! A report file is one JSON object of fixed form: the payload as text, the key and the signature. The signature is over
//! `rackbar report v1`, a zero byte and the payload's bytes, so it can be mistaken for no other signature of the key. A
//! reader takes the file only when writing it again gives the same bytes: no byte can change without being noticed.

use rackbar_model::{CheckResult, CheckStatus, Digest, EraseEvidence, NodeId, Timestamp};
use rackbar_trust::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Signer, verify};
use serde::{Deserialize, Serialize};

/// Version of the payload.
pub const REPORT_VERSION: u32 = 1;

const FORMAT: &str = "rackbar-report";
const DOMAIN: &[u8] = b"rackbar report v1\0";

/// What is reported of one node or a rack.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`] of the program that made it.
    pub version: u32,
    /// Name of the rack or site.
    pub site: String,
    /// SHA-256 of the site file in force.
    pub site_sha256: Option<Digest>,
    /// Version of Rackbar.
    pub appliance: String,
    /// Version of the list of checks.
    pub capabilities: u32,
    /// When it was made.
    pub at: Timestamp,
    /// The nodes.
    pub nodes: Vec<NodeReport>,
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its id; all zeros for an expected machine that was never seen.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Option<String>,
    /// Serial number of the machine.
    pub serial: Option<String>,
    /// Name and digest of the image.
    pub image: Option<(String, Digest)>,
    /// The plan it was made ready by.
    pub plan: Option<String>,
    /// The run that carried the plan out.
    pub run: Option<u64>,
    /// Results of the checks, with what was wanted and observed. None for a machine without proof: a reader that knows
    /// nothing of such entries does not take them for passed either.
    pub checks: Vec<CheckResult>,
    /// What shows that its disks were emptied.
    pub erased: Vec<EraseEvidence>,
    /// What its hardware bore when it was last burnt in, part by part: what the checks `burnin.*` rest on. It is here too where
    /// no checks were run since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub burned_in: Vec<CheckResult>,
    /// The state it was in when the report was made, in words; `None` in a report of an earlier program, which also
    /// leaves out what was not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl NodeReport {
    /// True when it was checked, neither a check nor its burn-in failed, and it still is what it was then.
    pub fn passed(&self) -> bool {
        let failed = |results: &[CheckResult]| results.iter().any(|one| one.status == CheckStatus::Failed);
        let proved = self.checks.iter().any(|check| check.status == CheckStatus::Passed);
        proved && !failed(&self.checks) && !failed(&self.burned_in) && self.gone().is_none()
    }

    /// Why checks that passed prove nothing any more, when they do not: the machine has left the state that they made. What
    /// an earlier program signed has no state, and stands for itself.
    pub fn gone(&self) -> Option<String> {
        let state = self.state.as_deref()?;
        let stays = ["ready", "handed_over"].contains(&state);
        (!stays && !self.checks.is_empty())
            .then(|| format!("its checks are of before, and it is not ready now; state: {state}"))
    }

    /// Why there is nothing to show for it, when there is not.
    pub fn unproved(&self) -> Option<String> {
        let state = self.state.as_deref().unwrap_or("not told");
        let none = self.checks.is_empty();
        none.then(|| format!("no proof: its checks were not run since it was last written; state: {state}"))
    }

    /// The checks, and of the burn-in what none of them tells. A machine that was exercised again since tells how it went then.
    pub fn results(&self) -> impl Iterator<Item = &CheckResult> {
        let same = |check: &CheckResult, one: &CheckResult| one.id.starts_with(&check.id);
        let old = move |check: &&CheckResult| self.burned_in.iter().any(|one| same(check, one) && one.at > check.at);
        let told = move |one: &&CheckResult| !self.checks.iter().any(|check| same(check, one) && check.at >= one.at);
        let checks = self.checks.iter().filter(move |check| !old(check));
        checks.chain(self.burned_in.iter().filter(told))
    }

    /// How many checks passed, failed, were skipped.
    pub fn counts(&self) -> [usize; 3] {
        [CheckStatus::Passed, CheckStatus::Failed, CheckStatus::Skipped]
            .map(|status| self.checks.iter().filter(|check| check.status == status).count())
    }
}

impl Report {
    /// True when it has nodes and every one of them passed.
    pub fn passed(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.iter().all(NodeReport::passed)
    }
}

/// A report file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReport {
    format: String,
    /// The report as JSON text: what is signed is these bytes.
    payload: String,
    /// Ed25519 public key, 64 hexadecimal digits.
    pub key: String,
    /// Ed25519 signature, 128 hexadecimal digits.
    signature: String,
}

impl SignedReport {
    /// The file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of four strings can always be written.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// A report that was checked, and the key it is signed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// What it says.
    pub report: Report,
    /// Who says it. Without a trusted key to compare it with, anyone may have made it.
    pub key: [u8; PUBLIC_KEY_LENGTH],
}

/// Why a report is not believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReportError {
    /// Not a report file.
    #[error("this is no report of Rackbar: {0}")]
    NoReport(String),
    /// Not a byte may differ from what was written.
    #[error("the report was changed after it was signed, or damaged: its signature does not fit")]
    Changed,
    /// Signed by somebody else.
    #[error(
        "the report is signed with another key ({seen}) than the trusted one ({trusted}): it is of another site, or forged"
    )]
    OtherKey {
        /// Key in the file, hexadecimal.
        seen: String,
        /// Key that was expected, hexadecimal.
        trusted: String,
    },
    /// A form this program does not know.
    #[error("the report is of version {0}, which this program does not know: check it with a newer Rackbar")]
    Newer(u32),
    /// It could not be written as JSON.
    #[error("the report could not be written: {0}")]
    Unwritable(String),
}

/// Signs a report. Its version is set to [`REPORT_VERSION`].
///
/// # Errors
/// [`ReportError::Unwritable`]; no report of today's form is.
pub fn sign(report: &Report, signer: &dyn Signer) -> Result<SignedReport, ReportError> {
    let report = Report {
        version: REPORT_VERSION,
        ..report.clone()
    };
    let payload = serde_json::to_string(&report).map_err(|error| ReportError::Unwritable(error.to_string()))?;
    Ok(SignedReport {
        format: FORMAT.into(),
        key: hex(&signer.public_key()),
        signature: hex(&signer.sign(&message(&payload))),
        payload,
    })
}

/// Checks a report file without asking anyone: that nothing was changed, and, with `trusted`, who signed it.
///
/// # Errors
/// [`ReportError`]: why it is not believed.
pub fn check(file: &[u8], trusted: Option<&[u8; PUBLIC_KEY_LENGTH]>) -> Result<Checked, ReportError> {
    let signed: SignedReport =
        serde_json::from_slice(file).map_err(|error| ReportError::NoReport(error.to_string()))?;
    if signed.format != FORMAT {
        return Err(ReportError::NoReport(format!("its format is {:?}", signed.format)));
    }
    let key: [u8; PUBLIC_KEY_LENGTH] = unhex(&signed.key).ok_or(ReportError::Changed)?;
    let signature: [u8; SIGNATURE_LENGTH] = unhex(&signed.signature).ok_or(ReportError::Changed)?;
    if signed.to_bytes() != file || verify(&key, &message(&signed.payload), &signature).is_err() {
        return Err(ReportError::Changed);
    }
    if let Some(trusted) = trusted.filter(|trusted| **trusted != key) {
        return Err(ReportError::OtherKey {
            seen: signed.key,
            trusted: hex(trusted),
        });
    }
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let unreadable = |error: serde_json::Error| ReportError::NoReport(error.to_string());
    match serde_json::from_str::<Version>(&signed.payload)
        .map_err(unreadable)?
        .version
    {
        REPORT_VERSION => {}
        other => return Err(ReportError::Newer(other)),
    }
    let report = serde_json::from_str(&signed.payload).map_err(unreadable)?;
    Ok(Checked { report, key })
}

fn message(payload: &str) -> Vec<u8> {
    [DOMAIN, payload.as_bytes()].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        // Capitals would be a second way to write the same report.
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = match *pair {
            [high, low] => digit(high)? << 4 | digit(low)?,
            _ => return None,
        };
    }
    (text.len() == 2 * N).then_some(out)
}
