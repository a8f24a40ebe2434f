//! The endorsement key of a TPM 2.0: the identity its maker gave it, which outlives every reinstallation.
//!
//! Only the two commands that are needed (TPM 2.0 Library Part 3), over the kernel's resource manager, which removes
//! what we made when we close it. Nothing in the TPM changes.
//!
//! A key stored at its usual handle is read; otherwise the TPM derives it anew from its seed by the standard template,
//! which takes some TPMs ten seconds. A maker who used a template of his own (TCG EK Credential Profile 2.2.1.4) is not
//! followed: most such TPMs refuse the standard one and tell no value; one that takes both tells the standard template's
//! key, which is as good a witness of identity but is not the key of the maker's certificate.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use crate::Root;

/// Where the TCG Provisioning Guidance (table 2) stores the RSA endorsement key.
const STORED: [u8; 4] = 0x8101_0001u32.to_be_bytes();

/// Larger than any answer to these two commands.
const ANSWER: usize = 4096;

/// `TPMT_PUBLIC` of template L-1 (TCG EK Credential Profile B.3.3) up to the modulus: RSA, SHA-256, attributes, policy,
/// AES-128-CFB, no scheme, 2048 bits, the default exponent.
const TEMPLATE: [u8; 56] = [
    0x00, 0x01, 0x00, 0x0b, 0x00, 0x03, 0x00, 0xb2, 0x00, 0x20, 0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a,
    0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b,
    0x33, 0x14, 0x69, 0xaa, 0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// Bytes of a modulus of 2048 bits.
const MODULUS: usize = 256;

/// A DER `SubjectPublicKeyInfo` of a 2048-bit RSA key up to the modulus (RFC 3279, section 2.3.1).
const SPKI: [u8; 33] = [
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
];

/// And behind it: the exponent, 65537.
const SPKI_END: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

/// The public part of the endorsement key as a DER `SubjectPublicKeyInfo`, as `openssl pkey -pubin -outform der` writes
/// it. `None` without a TPM 2.0.
///
/// # Errors
/// When the TPM cannot be used, or refuses: its owner may have put a password on endorsement.
pub fn endorsement_key(root: &Root) -> io::Result<Option<Vec<u8>>> {
    let device = OpenOptions::new().read(true).write(true).open(root.path("dev/tpmrm0"));
    let mut device = match device {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let stored = ask(&mut device, &read_public()).and_then(|answer| public_key(answer.get(10..).unwrap_or_default()));
    match stored {
        Ok(key) => Ok(Some(key)),
        // An answer with a session has the new object's handle and the parameters' length before them.
        Err(_) => public_key(ask(&mut device, &create_primary())?.get(18..).unwrap_or_default()).map(Some),
    }
}

/// Sends a command and takes its answer, which begins with tag, length and code, 10 bytes.
fn ask(device: &mut File, command: &[u8]) -> io::Result<Vec<u8>> {
    device.write_all(command)?;
    let mut answer = vec![0; ANSWER];
    // The driver gives the whole answer to one read.
    let length = device.read(&mut answer)?;
    answer.truncate(length);
    match answer.get(6..10) {
        Some([0, 0, 0, 0]) => Ok(answer),
        Some(code) => {
            let code = code.iter().fold(0u32, |code, byte| code << 8 | u32::from(*byte));
            Err(io::Error::other(format!("the TPM refuses with code {code:#x}")))
        }
        None => Err(io::Error::other("the TPM's answer is cut short")),
    }
}

/// A command: tag (0x8001 without sessions, 0x8002 with), length, code, and the rest.
fn command(tag: u16, code: u32, rest: &[&[u8]]) -> Vec<u8> {
    let rest = rest.concat();
    let length = (10 + rest.len()) as u32;
    [
        &tag.to_be_bytes()[..],
        &length.to_be_bytes(),
        &code.to_be_bytes(),
        &rest,
    ]
    .concat()
}

/// `TPM2_ReadPublic` (section 12.4) of the stored key.
fn read_public() -> Vec<u8> {
    command(0x8001, 0x0173, &[&STORED])
}

/// `TPM2_CreatePrimary` (section 24.1) under the endorsement hierarchy with an empty password.
fn create_primary() -> Vec<u8> {
    let hierarchy = 0x4000_000bu32.to_be_bytes();
    // Nine bytes of authorisation: TPM_RS_PW, no nonce, no attributes, no password.
    let authorisation = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    let no_secret = [0, 4, 0, 0, 0, 0];
    let unique = [0u8; MODULUS];
    let lengths = [
        ((TEMPLATE.len() + 2 + MODULUS) as u16).to_be_bytes(),
        (MODULUS as u16).to_be_bytes(),
    ];
    // No outside information, no PCRs.
    let end = [0; 6];
    command(
        0x8002,
        0x0131,
        &[
            &hierarchy,
            &authorisation,
            &no_secret,
            &lengths[0],
            &TEMPLATE,
            &lengths[1],
            &unique,
            &end,
        ],
    )
}

/// The key in a `TPM2B_PUBLIC`, when it is of the standard template.
pub(crate) fn public_key(public: &[u8]) -> io::Result<Vec<u8>> {
    let modulus = public
        .get(2..)
        .and_then(|public| public.strip_prefix(&TEMPLATE))
        .and_then(|unique| unique.strip_prefix(&(MODULUS as u16).to_be_bytes()))
        .and_then(|modulus| modulus.get(..MODULUS))
        // The prefix above says that the number is positive and its first bit set, as in every key of this length.
        .filter(|modulus| modulus.first().is_some_and(|first| first & 0x80 != 0));
    match modulus {
        Some(modulus) => Ok([&SPKI, modulus, &SPKI_END].concat()),
        None => Err(io::Error::other("the TPM's key is not a standard endorsement key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;
    use proptest::prelude::*;

    fn public(modulus: u8) -> Vec<u8> {
        let lengths = [314u16.to_be_bytes(), 256u16.to_be_bytes()];
        [&lengths[0][..], &TEMPLATE, &lengths[1], &[modulus; MODULUS]].concat()
    }

    #[test]
    fn commands_state_their_own_length() {
        assert_eq!(read_public(), [0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x73, 0x81, 1, 0, 1]);
        let create = create_primary();
        assert_eq!(create.len(), 355);
        assert_eq!(create[..10], [0x80, 2, 0, 0, 1, 0x63, 0, 0, 1, 0x31]);
    }

    #[test]
    fn a_standard_key_becomes_der_whose_lengths_are_right() {
        let key = public_key(&public(0xc5)).unwrap();
        assert_eq!(key.len(), 4 + 0x122);
        assert_eq!(key[33..33 + MODULUS], [0xc5; MODULUS]);
        let mut foreign = public(0xc5);
        foreign[5] = 0x0c;
        assert!(public_key(&foreign).is_err());
        assert!(public_key(&public(0x45)).is_err());
    }

    #[test]
    fn a_machine_without_a_tpm_has_no_key() {
        assert_eq!(endorsement_key(Tree::new(&[]).root()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read(bytes: Vec<u8>, at in 0usize..316, byte: u8, cut in 0usize..316) {
            let mut answer = public(0x80);
            answer[at] = byte;
            answer.truncate(cut);
            let _ = (public_key(&bytes), public_key(&answer));
        }
    }
}
