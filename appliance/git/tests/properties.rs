//! Whatever a server answers: nothing panics, and what is taken is what was sent.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

use proptest::collection::vec;
use proptest::prelude::*;
use rackbar_git::{Limits, Pack, Wanted, advertised, read_pack, read_refs};
use sha1_checked::{Digest as _, Sha1};

const LIMITS: Limits = Limits {
    objects: 1000,
    object: 1 << 20,
    total: 8 << 20,
    held: 2 << 20,
    depth: 100,
    work: 64 << 20,
};

/// A pack that git made of a short history, without its own digest.
const REAL: &[u8] = include_bytes!("../../../fuzz/corpus/git-pack/ofs");

fn sealed(body: &[u8]) -> Vec<u8> {
    [body, Sha1::digest(body).as_slice()].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_makes_anything_panic(data in vec(any::<u8>(), 0..400), name in "[ -~]{0,40}") {
        let _ = (advertised(&data), read_pack(data.clone()));
        if let Some(wanted) = Wanted::read(&name) {
            let _ = read_refs(&data, &wanted);
        }
        let head = [b"PACK\0\0\0\x02\0\0\0\x02", data.as_slice()].concat();
        prop_assert!(Pack::read(&sealed(&head), LIMITS).is_err());
    }

    #[test]
    fn a_pack_comes_out_of_its_pieces_as_it_went_in(pack in vec(any::<u8>(), 1..5000), size in 1_usize..900, noise: bool) {
        let mut answer = b"000dpackfile\n".to_vec();
        for piece in pack.chunks(size) {
            answer.extend_from_slice(format!("{:04x}\x01", piece.len() + 5).as_bytes());
            answer.extend_from_slice(piece);
            if noise {
                answer.extend_from_slice(b"000b\x02counts");
            }
        }
        answer.extend_from_slice(b"0000");
        for cut in [1, 4, answer.len() / 2] {
            prop_assert!(read_pack(answer[..answer.len() - cut].to_vec()).is_err());
        }
        prop_assert_eq!(read_pack(answer), Ok(pack));
    }

    #[test]
    fn a_pack_that_was_changed_is_refused_or_whole(place in 12..REAL.len(), byte: u8, cut in 0_usize..40) {
        let mut body = REAL.to_vec();
        body[place] = byte;
        body.truncate(REAL.len() - cut);
        let bytes = sealed(&body);
        if let Ok(pack) = Pack::read(&bytes, LIMITS) {
            for commit in pack.commits() {
                prop_assert!(pack.files(commit, 1 << 20, &mut |_, _| Ok(())).is_ok());
            }
        }
    }
}
