//! A certificate request as a Puppet server hands it to its policy executable: PKCS #10 (RFC 2986) in PEM (RFC 7468).
//! From a stranger on the network, so everything in it is a claim.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::prelude::FromDer as _;

/// Puppet's arc of names for extensions; `.1` are facts, `.3` would give rights on the server.
const PUPPET_FACTS: &str = "1.3.6.1.4.1.34380.1.1.";
/// `pp_uuid`.
const PP_UUID: &str = "1.3.6.1.4.1.34380.1.1.1";
/// More than any request; a PEM file of the largest RSA key in use has 3 KiB.
const LARGEST: usize = 64 << 10;

/// What a request claims.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Common name of the subject.
    pub common_name: String,
    /// The challenge password (RFC 2985 section 5.4.1): the token.
    pub challenge: Option<String>,
    /// `pp_uuid`, which our `csr_attributes.yaml` asks for.
    pub node: Option<String>,
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub key_sha256: [u8; 32],
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            common_name,
            challenge,
            node,
            ..
        } = self;
        write!(
            f,
            "Request({common_name}, challenge: {}, node: {node:?})",
            challenge.is_some()
        )
    }
}

/// Why a request is not looked at further.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRequest {
    /// No PEM, or no request in it.
    #[error("this is no certificate request: {0}")]
    Malformed(&'static str),
    /// It asks for more than a node may have.
    #[error("it asks for the extension {0}, which a node is not to have; sign it by hand when that is meant")]
    Extension(String),
}

/// Reads a request.
///
/// # Errors
/// See [`BadRequest`].
pub fn read(pem: &[u8]) -> Result<Request, BadRequest> {
    if pem.len() > LARGEST {
        return Err(BadRequest::Malformed("it is too large"));
    }
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| BadRequest::Malformed("it is no PEM"))?;
    if pem.label != "CERTIFICATE REQUEST" && pem.label != "NEW CERTIFICATE REQUEST" {
        return Err(BadRequest::Malformed("its PEM label is another"));
    }
    let (rest, request) = X509CertificationRequest::from_der(&pem.contents)
        .map_err(|_| BadRequest::Malformed("its DER cannot be read"))?;
    if !rest.is_empty() {
        return Err(BadRequest::Malformed("something follows it"));
    }
    of(&request)
}

fn of(request: &X509CertificationRequest<'_>) -> Result<Request, BadRequest> {
    let info = &request.certification_request_info;
    let mut names = info.subject.iter_common_name().map(|name| name.as_str());
    let (Some(Ok(name)), None) = (names.next(), names.next()) else {
        return Err(BadRequest::Malformed("it has no common name, or several"));
    };
    let mut challenge = None;
    let mut node = None;
    for attribute in info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ChallengePassword(one) if challenge.is_none() => challenge = Some(one.0.clone()),
            ParsedCriAttribute::ChallengePassword(_) => {
                return Err(BadRequest::Malformed("it has several challenge passwords"));
            }
            ParsedCriAttribute::ExtensionRequest(asked) => {
                for extension in &asked.extensions {
                    let oid = extension.oid.to_id_string();
                    if !oid.starts_with(PUPPET_FACTS) {
                        return Err(BadRequest::Extension(oid));
                    }
                    if oid == PP_UUID {
                        node = text(extension.value);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Request {
        common_name: name.to_owned(),
        challenge,
        node,
        key_sha256: rackbar_trust::sha256(info.subject_pki.raw),
    })
}

/// The text in a DER string of less than 128 bytes (X.690 sections 8.1.3.4 and 8.23).
fn text(der: &[u8]) -> Option<String> {
    let (&[tag, length], body) = der.split_first_chunk::<2>()?;
    let string = matches!(tag, 0x0c | 0x13 | 0x16);
    (string && usize::from(length) == body.len())
        .then(|| String::from_utf8(body.to_vec()).ok())
        .flatten()
}
