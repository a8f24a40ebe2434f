//! Diffie-Hellman over the 2048-bit group of RFC 7919 appendix A.1, in constant time.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U256, U2048};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::crypto::{ActiveKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::{self, FfdheGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use zeroize::Zeroizing;

/// Octets of the group's numbers.
const LENGTH: usize = 256;

/// The group, for rustls.
#[derive(Debug)]
pub(crate) struct Ffdhe2048;

/// The one of it.
pub(crate) static FFDHE2048: Ffdhe2048 = Ffdhe2048;

fn parameters() -> Result<FixedMontyParams<{ U2048::LIMBS }>, Error> {
    let prime = U2048::from_be_slice(ffdhe_groups::FFDHE2048.p);
    let odd: Option<Odd<U2048>> = Odd::new(prime).into();
    odd.map(FixedMontyParams::new)
        .ok_or_else(|| Error::General("the group's prime is even".into()))
}

/// `base` to the power of `exponent`, in the time that any exponent takes.
fn power(base: &U2048, exponent: &U256, parameters: &FixedMontyParams<{ U2048::LIMBS }>) -> U2048 {
    FixedMontyForm::new(base, parameters).pow(exponent).retrieve()
}

impl SupportedKxGroup for Ffdhe2048 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        // RFC 7919 section 5.2: at least 225 bits for this group.
        let mut secret = Zeroizing::new([0u8; 32]);
        SystemRandom::new().fill(&mut *secret).map_err(|_| GetRandomFailed)?;
        let exponent = Zeroizing::new(U256::from_be_slice(&*secret));
        let generator = U2048::from_be_slice(&padded(ffdhe_groups::FFDHE2048.g)?);
        let public = power(&generator, &exponent, &parameters()?);
        Ok(Box::new(Exchange {
            exponent,
            public: public.to_be_bytes().as_ref().to_vec(),
        }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(ffdhe_groups::FFDHE2048)
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }
}

struct Exchange {
    exponent: Zeroizing<U256>,
    public: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let theirs = U2048::from_be_slice(&padded(peer)?);
        let highest = U2048::from_be_slice(ffdhe_groups::FFDHE2048.p).wrapping_sub(&U2048::ONE);
        // RFC 7919 section 5.1: outside 1 < y < p - 1 the secret would be known beforehand.
        if theirs <= U2048::ONE || theirs >= highest {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        let secret = Zeroizing::new(power(&theirs, &self.exponent, &parameters()?));
        // With its leading zeros: rustls takes them off for TLS 1.2 (RFC 5246 section 8.1.2).
        Ok(SharedSecret::from(secret.to_be_bytes().as_ref()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(ffdhe_groups::FFDHE2048)
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }
}

/// A number of a peer with its leading zeros, which TLS 1.2 leaves out.
fn padded(number: &[u8]) -> Result<[u8; LENGTH], Error> {
    let mut out = [0; LENGTH];
    let begin = LENGTH
        .checked_sub(number.len())
        .ok_or(PeerMisbehaved::InvalidKeyShare)?;
    out[begin..].copy_from_slice(number);
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's words may")]
mod tests {
    use super::*;

    #[test]
    fn both_sides_come_to_the_same_secret() {
        let (ours, theirs) = (FFDHE2048.start().unwrap(), FFDHE2048.start().unwrap());
        let (our_public, their_public) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
        assert_ne!(our_public, their_public);
        let (ours, theirs) = (
            ours.complete(&their_public).unwrap(),
            theirs.complete(&our_public).unwrap(),
        );
        assert_eq!(ours.secret_bytes(), theirs.secret_bytes());
        assert_eq!(ours.secret_bytes().len(), LENGTH);
    }

    #[test]
    fn shares_whose_secret_is_known_beforehand_are_refused() {
        let prime = ffdhe_groups::FFDHE2048.p;
        let mut below = prime.to_vec();
        *below.last_mut().unwrap() -= 1;
        for bad in [&[][..], &[0], &[1], &below, prime, &[0xff; LENGTH], &[1; LENGTH + 1]] {
            assert!(FFDHE2048.start().unwrap().complete(bad).is_err(), "{bad:x?}");
        }
        assert!(FFDHE2048.start().unwrap().complete(&[2]).is_ok());
    }
}
