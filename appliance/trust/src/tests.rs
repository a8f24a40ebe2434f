//! Published vectors, and the two backends held against each other.

use alloc::format;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// RFC 8032 section 7.1: seed, public key, message, signature.
const RFC8032: [[&str; 4]; 3] = [
    [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ],
    [
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ],
    [
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ],
];

fn key_of(seed: &str) -> SigningKey {
    SigningKey::from_seed(&seed.parse().unwrap()).unwrap()
}

#[test]
fn rfc8032_vectors_hold_on_both_backends() {
    for [seed, public, message, signature] in RFC8032 {
        let (public, message, signature) = (hex(public), hex(message), hex(signature));
        let key = key_of(seed);
        assert_eq!(key.public_key().to_vec(), public);
        assert_eq!(key.sign(&message).to_vec(), signature);
        let public: [u8; 32] = public.try_into().unwrap();
        assert_eq!(ring_backend::verify(&public, &message, &signature), Ok(()));
        assert_eq!(dalek_backend::verify(&public, &message, &signature), Ok(()));
    }
}

#[test]
fn a_signature_of_the_wrong_length_is_refused_not_panicked_on() {
    let key = key_of(RFC8032[0][0]).public_key();
    for length in [0, 1, 63, 65, 200] {
        let signature = alloc::vec![0u8; length];
        assert_eq!(
            ring_backend::verify(&key, b"x", &signature),
            Err(TrustError::BadSignature)
        );
        assert_eq!(
            dalek_backend::verify(&key, b"x", &signature),
            Err(TrustError::BadSignature)
        );
    }
}

#[test]
fn the_loader_refuses_a_key_under_which_every_message_is_signed() {
    // The neutral element as key and as R, zero as s: without the strict check, a valid signature of anything.
    let mut key = [0u8; 32];
    key[0] = 1;
    let mut signature = [0u8; 64];
    signature[0] = 1;
    assert_eq!(
        dalek_backend::verify(&key, b"anything", &signature),
        Err(TrustError::BadSignature)
    );
}

#[test]
fn sha256_of_abc_is_the_published_one() {
    let expected = hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(sha256(b"abc").to_vec(), expected);
    let mut other = dalek_backend::Sha256::new();
    other.update(b"a");
    other.update(b"bc");
    assert_eq!(other.finish().to_vec(), expected);
}

#[test]
fn sha512_of_abc_is_the_published_one() {
    let expected = hex(
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    );
    let mut hash = Sha512::new();
    hash.update(b"a");
    hash.update(b"bc");
    assert_eq!(hash.finish().to_vec(), expected);
}

#[test]
fn a_generated_key_is_read_back_from_its_pkcs8() {
    let (key, pkcs8) = SigningKey::generate().unwrap();
    let again = SigningKey::from_pkcs8(&pkcs8).unwrap();
    assert_eq!(verify(&key.public_key(), b"m", &again.sign(b"m")), Ok(()));
    assert_ne!(SigningKey::generate().unwrap().0.public_key(), key.public_key());
    assert_eq!(
        SigningKey::from_pkcs8(&pkcs8[1..]).err(),
        Some(TrustError::BadPrivateKey)
    );
}

#[test]
fn secrets_do_not_show_themselves() {
    let secret = Secret::new([0xabu8; 4]);
    assert_eq!(format!("{secret:?}"), "Secret<4>(..)");
    assert_eq!(secret.expose_hex().as_str(), "abababab");
    assert_eq!("abababab".parse(), Ok(secret));
    assert_eq!("ababab".parse::<Secret<4>>(), Err(ParseSecretError { digits: 8 }));
    assert_eq!("abababzz".parse::<Secret<4>>(), Err(ParseSecretError { digits: 8 }));
    let key = key_of(RFC8032[0][0]);
    assert!(!format!("{key:?}").contains("9d61"));
    assert!(format!("{key:?}").contains("d75a98"));
}

#[test]
fn random_secrets_differ() {
    assert_ne!(Secret::<32>::random().unwrap(), Secret::<32>::random().unwrap());
}

proptest! {
    #[test]
    fn the_backends_hash_alike_whatever_the_pieces(pieces: Vec<Vec<u8>>) {
        let (mut a, mut b) = (ring_backend::Sha256::new(), dalek_backend::Sha256::new());
        for piece in &pieces {
            a.update(piece);
            b.update(piece);
        }
        let digest = a.finish();
        prop_assert_eq!(digest, b.finish());
        prop_assert_eq!(digest, sha256(&pieces.concat()));
    }

    #[test]
    fn what_ring_signs_dalek_verifies_and_a_flipped_bit_it_does_not(
        seed: [u8; 32], mut message in prop::collection::vec(any::<u8>(), 1..200), bit: usize,
    ) {
        let key = SigningKey::from_seed(&Secret::new(seed)).unwrap();
        let mut signature = key.sign(&message);
        prop_assert_eq!(dalek_backend::verify(&key.public_key(), &message, &signature), Ok(()));
        signature[bit / 8 % 64] ^= 1 << (bit % 8);
        prop_assert!(dalek_backend::verify(&key.public_key(), &message, &signature).is_err());
        prop_assert!(ring_backend::verify(&key.public_key(), &message, &signature).is_err());
        signature[bit / 8 % 64] ^= 1 << (bit % 8);
        let at = bit / 8 % message.len();
        message[at] ^= 1 << (bit % 8);
        prop_assert!(dalek_backend::verify(&key.public_key(), &message, &signature).is_err());
    }

    #[test]
    fn arbitrary_bytes_as_keys_and_signatures_never_panic(key: [u8; 32], signature: Vec<u8>, message: Vec<u8>) {
        let _ = ring_backend::verify(&key, &message, &signature);
        let _ = dalek_backend::verify(&key, &message, &signature);
        let _ = SigningKey::from_pkcs8(&message);
    }

    #[test]
    fn constant_time_comparison_is_a_comparison(a: Vec<u8>, b: Vec<u8>) {
        prop_assert_eq!(constant_time_eq(&a, &b), a == b);
        prop_assert!(constant_time_eq(&a, &a));
    }
}
