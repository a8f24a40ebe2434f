//! Keys, authentication codes and encryption of cipher suites 3 and 17 (section 13.28 to 13.32, table 22-20).
//!
//! Suite 17 (SHA-256) is the one to want; suite 3 (SHA-1) is what older controllers still speak. Suites with weaker or
//! no integrity or confidentiality are not offered and not taken: suite 0 is the well-known open door of many BMCs.

use aes::Aes128;
use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use ring::hmac;
use zeroize::Zeroizing;

use crate::Secret;
use crate::rakp::{Rakp1, Rakp2, Role};
use crate::secret::same;

const BLOCK: usize = 16;

/// A cipher suite (section 22.15.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CipherSuite {
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Three,
    /// RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
}

impl CipherSuite {
    /// Its number.
    pub const fn id(self) -> u8 {
        match self {
            Self::Three => 3,
            Self::Seventeen => 17,
        }
    }

    /// Algorithm numbers for authentication, integrity, confidentiality (tables 13-17 to 13-19).
    pub const fn algorithms(self) -> [u8; 3] {
        match self {
            Self::Three => [1, 1, 1],
            Self::Seventeen => [3, 4, 1],
        }
    }

    /// The suite with these algorithm numbers.
    pub const fn from_algorithms(algorithms: [u8; 3]) -> Option<Self> {
        match algorithms {
            [1, 1, 1] => Some(Self::Three),
            [3, 4, 1] => Some(Self::Seventeen),
            _ => None,
        }
    }

    /// Length of the integrity code of a packet and of RAKP 4, in bytes.
    pub const fn code_len(self) -> usize {
        match self {
            Self::Three => 12,
            Self::Seventeen => 16,
        }
    }

    /// Length of the key exchange code of RAKP 2 and 3, in bytes.
    pub const fn exchange_len(self) -> usize {
        match self {
            Self::Three => 20,
            Self::Seventeen => 32,
        }
    }

    const fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::Three => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Seventeen => hmac::HMAC_SHA256,
        }
    }

    fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(self.algorithm(), key));
        for part in parts {
            context.update(part);
        }
        Zeroizing::new(context.sign().as_ref().to_vec())
    }

    /// The code of RAKP 2: the BMC knows the password (section 13.21).
    pub(crate) fn rakp2_code(self, password: &Secret, console: u32, one: &Rakp1, two: &Rakp2) -> Zeroizing<Vec<u8>> {
        self.hmac(
            password.bytes(),
            &[
                &console.to_le_bytes(),
                &one.managed_id.to_le_bytes(),
                &one.random,
                &two.random,
                &two.guid,
                &[one.role.byte(), one.user_len()],
                &one.user,
            ],
        )
    }

    /// The code of RAKP 3: the console knows the password (section 13.22).
    pub(crate) fn rakp3_code(self, password: &Secret, console: u32, one: &Rakp1, random: &[u8]) -> Zeroizing<Vec<u8>> {
        let role = [one.role.byte(), one.user_len()];
        self.hmac(password.bytes(), &[random, &console.to_le_bytes(), &role, &one.user])
    }
}

/// What both ends hold once a session is agreed on. Wiped on drop.
pub struct SessionKeys {
    suite: CipherSuite,
    sik: Zeroizing<Vec<u8>>,
    k1: Zeroizing<Vec<u8>>,
    k2: Zeroizing<[u8; BLOCK]>,
}

impl core::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SessionKeys(suite {})", self.suite.id())
    }
}

impl SessionKeys {
    /// Derives the session integrity key and from it K1 and K2 (sections 13.31 and 13.32). The BMC key KG is the
    /// user's password in "one-key" logins, which is how every BMC is shipped.
    pub fn derive(
        suite: CipherSuite,
        key: &Secret,
        console: &[u8; 16],
        bmc: &[u8; 16],
        role: Role,
        user: &[u8],
    ) -> Self {
        let len = u8::try_from(user.len()).unwrap_or(u8::MAX);
        let sik = suite.hmac(key.bytes(), &[console, bmc, &[role.byte(), len], user]);
        let k1 = suite.hmac(&sik, &[&[1; 20]]);
        let long = suite.hmac(&sik, &[&[2; 20]]);
        let mut k2 = Zeroizing::new([0; BLOCK]);
        for (to, from) in k2.iter_mut().zip(long.iter()) {
            *to = *from;
        }
        Self { suite, sik, k1, k2 }
    }

    /// The suite these keys are for.
    pub const fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// The code of RAKP 4 (section 13.23): truncated like a packet's.
    pub(crate) fn rakp4_code(&self, console_random: &[u8; 16], managed_id: u32, guid: &[u8; 16]) -> Vec<u8> {
        let full = self
            .suite
            .hmac(&self.sik, &[console_random, &managed_id.to_le_bytes(), guid]);
        full.iter().take(self.suite.code_len()).copied().collect()
    }

    /// The integrity code of a packet.
    pub(crate) fn code(&self, signed: &[u8]) -> Vec<u8> {
        let full = self.suite.hmac(&self.k1, &[signed]);
        full.iter().take(self.suite.code_len()).copied().collect()
    }

    /// Checks the integrity code of a packet in constant time.
    pub(crate) fn check(&self, signed: &[u8], code: &[u8]) -> bool {
        same(&self.code(signed), code)
    }

    /// Initialisation vector and ciphertext of a payload (section 13.29): padded 01, 02, ... and the pad's length.
    pub(crate) fn encrypt(&self, iv: [u8; BLOCK], plain: &[u8]) -> Vec<u8> {
        let mut text = Zeroizing::new(plain.to_vec());
        let pad = (BLOCK - (plain.len() + 1) % BLOCK) % BLOCK;
        text.extend((1..=pad).map(|n| n as u8));
        text.push(pad as u8);
        let len = text.len();
        let cipher = cbc::Encryptor::<Aes128>::new(&(*self.k2).into(), &iv.into());
        let mut out = iv.to_vec();
        // Cannot fail: the length is a multiple of the block, and the buffer holds exactly that.
        if let Ok(cut) = cipher.encrypt_padded::<NoPadding>(&mut text, len) {
            out.extend_from_slice(cut);
        }
        out
    }

    /// Undoes [`Self::encrypt`]; `None` for anything it could not have written. Called after the integrity check, so
    /// the answer is no padding oracle.
    pub(crate) fn decrypt(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (iv, cut) = bytes.split_first_chunk::<BLOCK>()?;
        if cut.is_empty() {
            return None;
        }
        let mut text = cut.to_vec();
        let cipher = cbc::Decryptor::<Aes128>::new(&(*self.k2).into(), &(*iv).into());
        cipher.decrypt_padded::<NoPadding>(&mut text).ok()?;
        let pad = usize::from(text.pop()?);
        let keep = text.len().checked_sub(pad).filter(|_| pad < BLOCK)?;
        text.truncate(keep);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(suite: CipherSuite) -> SessionKeys {
        let secret = Secret::new(b"password").unwrap();
        SessionKeys::derive(
            suite,
            &secret,
            &[1; 16],
            &[2; 16],
            Role::named(crate::Privilege::Administrator),
            b"admin",
        )
    }

    #[test]
    fn aes_has_the_answers_of_sp_800_38a() {
        // NIST SP 800-38A, F.2.1: CBC-AES128, first block.
        let mut keys = keys(CipherSuite::Three);
        keys.k2 = Zeroizing::new(0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes());
        let iv = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f_u128.to_be_bytes();
        let plain = 0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a_u128.to_be_bytes();
        let out = keys.encrypt(iv, &plain);
        assert_eq!(
            out[16..32],
            0x7649_abac_8119_b246_cee9_8e9b_12e9_197d_u128.to_be_bytes()
        );
    }

    proptest! {
        #[test]
        fn decrypts_what_it_encrypts(plain in proptest::collection::vec(any::<u8>(), 0..80), iv: [u8; 16]) {
            for suite in [CipherSuite::Three, CipherSuite::Seventeen] {
                let keys = keys(suite);
                let out = keys.encrypt(iv, &plain);
                prop_assert_eq!(out.len() % 16, 0);
                prop_assert_eq!(keys.decrypt(&out), Some(plain.clone()));
                let code = keys.code(&out);
                prop_assert_eq!(code.len(), suite.code_len());
                prop_assert!(keys.check(&out, &code));
                prop_assert!(!keys.check(&out, &code[1..]));
            }
        }

        #[test]
        fn any_ciphertext_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = keys(CipherSuite::Seventeen).decrypt(&bytes);
        }
    }
}
