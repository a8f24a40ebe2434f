//! Texts that the real gpg signed, judged: every way of being wrong has a signature of its own.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;

use common::Gpg;
use rackbar_upstream::{Keyring, Refusal, Refused, cleartext, detached};

/// 1 January 2026, when keys are made.
const MADE: u64 = 1_767_225_600;
const DAY: u64 = 86_400;
const TEXT: &str = "Suite: stable  \n- dashed\n\nDate: today\n";
/// As it is signed: without white space at ends of lines, and without the last line's end.
const SIGNED: &str = "Suite: stable\n- dashed\n\nDate: today";

fn ring(parts: &[Vec<u8>]) -> Keyring {
    Keyring::read(&parts.concat()).unwrap()
}

/// Why the one signature does not count.
fn why(refused: Refused) -> Refusal {
    let Refused::NoneGood(mut all) = refused else {
        panic!("{refused}")
    };
    assert_eq!(all.len(), 1);
    all.remove(0).1
}

#[test]
fn texts_of_trusted_keys_are_taken_whatever_their_kind() {
    let gpg = Gpg::new();
    for (name, algorithm) in [
        ("rsa", "rsa3072"),
        ("ed", "ed25519"),
        ("p256", "nistp256"),
        ("p384", "nistp384"),
    ] {
        let print = gpg.key(MADE, name, algorithm, "sign", "1y", &[]);
        let keys = ring(&[gpg.export(MADE, name)]);
        assert_eq!(keys.fingerprints(), std::slice::from_ref(&print));
        // gpg makes no signature whose digest is shorter than the key.
        let digests = ["SHA256", "SHA384", "SHA512"];
        for digest in &digests[usize::from(name == "p384")..] {
            let file = gpg.clearsign(MADE + DAY, &[name], &["--digest-algo", digest], TEXT);
            let signed = cleartext(&file, &keys, MADE + 2 * DAY).unwrap();
            assert_eq!(
                (signed.text.as_str(), signed.time),
                (SIGNED, MADE + DAY),
                "{name} {digest}"
            );
            assert_eq!((&signed.signer, &signed.key), (&print, &print));
        }
        for more in [&[][..], &["--textmode"]] {
            let beside = gpg.detach(MADE + DAY, name, more, TEXT.as_bytes());
            let signed = detached(TEXT.as_bytes(), &beside, &keys, MADE + 2 * DAY).unwrap();
            assert_eq!(
                (signed.text.as_str(), &signed.signer),
                (TEXT, &print),
                "{name} {more:?}"
            );
        }
    }
    // Binary keys and signatures as well.
    let keys = Keyring::read(&gpg.run(MADE, &["--export"], b"")).unwrap();
    assert_eq!(keys.fingerprints().len(), 4);
    let beside = gpg.run(MADE + DAY, &["--local-user", "rsa", "--detach-sign"], TEXT.as_bytes());
    assert!(detached(TEXT.as_bytes(), &beside, &keys, MADE + DAY).is_ok());
}

#[test]
fn a_text_that_was_changed_or_signed_by_another_is_refused() {
    let gpg = Gpg::new();
    gpg.key(MADE, "ours", "ed25519", "sign", "never", &[]);
    gpg.key(MADE, "other", "ed25519", "sign", "never", &[]);
    let keys = ring(&[gpg.export(MADE, "ours")]);
    let file = String::from_utf8(gpg.clearsign(MADE, &["ours"], &[], TEXT)).unwrap();
    for (from, to) in [
        ("today", "tomorrow"),
        ("Suite", "suite"),
        ("\n\nDate", "\nDate"),
        ("- - dashed", "- dashed"),
    ] {
        assert!(file.contains(from), "{file}");
        let changed = cleartext(file.replacen(from, to, 1).as_bytes(), &keys, MADE).unwrap_err();
        let none = why(changed);
        assert_eq!(none, Refusal::Bad, "{from}");
    }
    let other = gpg.clearsign(MADE, &["other"], &[], TEXT);
    assert_eq!(why(cleartext(&other, &keys, MADE).unwrap_err()), Refusal::UnknownKey);
    let beside = gpg.detach(MADE, "ours", &[], TEXT.as_bytes());
    assert_eq!(why(detached(b"other", &beside, &keys, MADE).unwrap_err()), Refusal::Bad);
    let appended = [file.as_bytes(), b"Origin: Evil\n"].concat();
    assert!(matches!(cleartext(&appended, &keys, MADE), Err(Refused::Frame(_))));
    let before = [b"Origin: Evil\n", file.as_bytes()].concat();
    assert!(matches!(cleartext(&before, &keys, MADE), Err(Refused::Frame(_))));
    let twice = [file.as_bytes(), file.as_bytes()].concat();
    assert!(matches!(cleartext(&twice, &keys, MADE), Err(Refused::Frame(_))));
}

#[test]
fn one_good_signature_of_several_is_enough() {
    let gpg = Gpg::new();
    let print = gpg.key(MADE, "new", "ed25519", "sign", "never", &[]);
    gpg.key(MADE, "old", "rsa2048", "sign", "never", &[]);
    let file = gpg.clearsign(MADE, &["old", "new"], &[], TEXT);
    let signed = cleartext(&file, &ring(&[gpg.export(MADE, "new")]), MADE).unwrap();
    assert_eq!((signed.signer, signed.text.as_str()), (print, SIGNED));
    let stranger = Gpg::new();
    stranger.key(MADE, "stranger", "ed25519", "sign", "never", &[]);
    let none = cleartext(&file, &ring(&[stranger.export(MADE, "stranger")]), MADE).unwrap_err();
    assert!(matches!(&none, Refused::NoneGood(all) if all.len() == 2), "{none}");
}

#[test]
fn sha1_counts_nowhere() {
    let gpg = Gpg::new();
    gpg.key(MADE, "good", "rsa2048", "sign", "never", &[]);
    gpg.key(
        MADE,
        "weak",
        "rsa2048",
        "sign",
        "never",
        &["--cert-digest-algo", "SHA1"],
    );
    let keys = ring(&[gpg.export(MADE, "good")]);
    let file = gpg.clearsign(MADE, &["good"], &["--digest-algo", "SHA1"], TEXT);
    assert!(matches!(why(cleartext(&file, &keys, MADE).unwrap_err()), Refusal::WeakHash(name) if name == "SHA1"));
    let file = gpg.clearsign(MADE, &["weak"], &[], TEXT);
    let weak = ring(&[gpg.export(MADE, "weak")]);
    assert_eq!(why(cleartext(&file, &weak, MADE).unwrap_err()), Refusal::Unbound);
}

#[test]
fn times_count() {
    let gpg = Gpg::new();
    gpg.key(MADE, "short", "ed25519", "sign", "seconds=864000", &[]);
    let keys = ring(&[gpg.export(MADE, "short")]);
    let file = gpg.clearsign(MADE + DAY, &["short"], &[], TEXT);
    // Signed while the key was good: good for ever.
    assert!(cleartext(&file, &keys, MADE + 100 * DAY).is_ok());
    let at = MADE + DAY;
    assert!(cleartext(&file, &keys, at - 300).is_ok());
    let future = why(cleartext(&file, &keys, at - 301).unwrap_err());
    assert_eq!(
        future,
        Refusal::Future {
            made: at,
            now: at - 301
        }
    );
    let lasting = gpg.clearsign(
        MADE + DAY,
        &["short"],
        &["--default-sig-expire", "seconds=172800"],
        TEXT,
    );
    assert!(cleartext(&lasting, &keys, at + 2 * DAY - 1).is_ok());
    assert_eq!(
        why(cleartext(&lasting, &keys, at + 2 * DAY).unwrap_err()),
        Refusal::Expired(at + 2 * DAY)
    );
    // The same key, made to last longer, signs after the end that the older certificate tells of.
    gpg.run(
        MADE + 2 * DAY,
        &["--quick-set-expire", &keys.fingerprints()[0], "seconds=8640000"],
        b"",
    );
    let late = gpg.clearsign(MADE + 20 * DAY, &["short"], &[], TEXT);
    let end = MADE + 10 * DAY;
    assert_eq!(
        why(cleartext(&late, &keys, MADE + 20 * DAY).unwrap_err()),
        Refusal::KeyExpired(end)
    );
    assert!(cleartext(&late, &ring(&[gpg.export(MADE + 20 * DAY, "short")]), MADE + 20 * DAY).is_ok());
}

#[test]
fn a_revoked_key_counts_no_more() {
    let gpg = Gpg::new();
    let print = gpg.key(MADE, "gone", "ed25519", "sign", "never", &[]);
    let file = gpg.clearsign(MADE, &["gone"], &[], TEXT);
    let before = ring(&[gpg.export(MADE, "gone")]);
    gpg.revoke(MADE + DAY, &print);
    let after = ring(&[gpg.export(MADE + DAY, "gone")]);
    assert!(cleartext(&file, &before, MADE + DAY).is_ok());
    // No reason is given: it may have been stolen, so that what it signed before does not count either.
    assert_eq!(why(cleartext(&file, &after, MADE + DAY).unwrap_err()), Refusal::Revoked);
}

#[test]
fn a_subkey_signs_for_its_certificate_alone_and_only_what_it_is_for() {
    let gpg = Gpg::new();
    let print = gpg.key(MADE, "main", "ed25519", "cert", "never", &[]);
    gpg.run(
        MADE,
        &["--quick-add-key", &print, "rsa2048", "sign", "seconds=864000"],
        b"",
    );
    let keys = ring(&[gpg.export(MADE, "main")]);
    let subkey = gpg.fingerprints(MADE, "main").remove(1);
    let file = gpg.clearsign(MADE + DAY, &["main"], &[], TEXT);
    let signed = cleartext(&file, &keys, MADE + DAY).unwrap();
    assert_eq!((signed.signer, signed.key), (print.clone(), subkey.clone()));
    // Its own revocation leaves the certificate whole. gpg's command line has no batch word for it.
    let commands = b"key 1\nrevkey\ny\n1\n\ny\nsave\n";
    gpg.run(
        MADE + 2 * DAY,
        &["--command-fd", "0", "--no-batch", "--edit-key", &print],
        commands,
    );
    let revoked = ring(&[gpg.export(MADE + 2 * DAY, "main")]);
    assert_eq!(
        why(cleartext(&file, &revoked, MADE + 2 * DAY).unwrap_err()),
        Refusal::Revoked
    );
}

#[test]
fn short_rsa_and_dsa_do_not_count() {
    let gpg = Gpg::new();
    for algorithm in ["rsa1024", "dsa2048"] {
        gpg.key(MADE, algorithm, algorithm, "sign", "never", &[]);
        let keys = ring(&[gpg.export(MADE, algorithm)]);
        let file = gpg.clearsign(MADE, &[algorithm], &["--digest-algo", "SHA512"], TEXT);
        assert_eq!(
            why(cleartext(&file, &keys, MADE).unwrap_err()),
            Refusal::WeakKey,
            "{algorithm}"
        );
    }
}

#[test]
fn files_that_are_no_public_keys_are_refused() {
    let gpg = Gpg::new();
    gpg.key(MADE, "ours", "ed25519", "sign", "never", &[]);
    let export = gpg.export(MADE, "ours");
    for bad in [
        b"".to_vec(),
        b"hello".to_vec(),
        vec![0xff; 99],
        export[..export.len() / 2].to_vec(),
        gpg.run(MADE, &["--armor", "--export-secret-keys", "ours"], b""),
        vec![b'x'; rackbar_upstream::MAX_KEYS + 1],
    ] {
        assert!(Keyring::read(&bad).is_err(), "{}", String::from_utf8_lossy(&bad));
    }
}
