//! Answers moved behind an alias, compared name by name with what they were.

use super::*;
use proptest::prelude::*;

/// A record as it means: its owner, type, and its data with all names written out.
type Meaning = (Vec<u8>, u16, Vec<u8>);

/// A name with its pointers followed, as a client does.
fn expand(bytes: &[u8], mut at: usize) -> (Vec<u8>, usize) {
    let (mut name, mut end) = (Vec::new(), None);
    for _ in 0..256 {
        match bytes[at] {
            0 => {
                name.push(0);
                return (name, end.unwrap_or(at + 1));
            }
            192.. => {
                end = end.or(Some(at + 2));
                at = usize::from(u16_at(bytes, at).unwrap() & 0x3fff);
            }
            length => {
                let next = at + usize::from(length) + 1;
                name.extend_from_slice(&bytes[at..next]);
                at = next;
            }
        }
    }
    panic!("a loop of pointers");
}

fn meanings(bytes: &[u8]) -> Vec<Meaning> {
    let all = [6, 8, 10].iter().map(|at| u32::from(u16_at(bytes, *at).unwrap())).sum();
    let mut out = Vec::new();
    let end = skip_records(bytes, question_end(bytes).unwrap(), all, |record| {
        let (before, names) = names_in(record.rtype);
        let mut at = record.data.0 + before;
        let mut data = bytes[record.data.0..at].to_vec();
        for _ in 0..names {
            let (name, end) = expand(bytes, at);
            data.extend(name);
            at = end;
        }
        data.extend_from_slice(&bytes[at..record.data.1]);
        out.push((expand(bytes, record.at).0, record.rtype, data));
    });
    assert_eq!(end, Some(bytes.len()));
    out
}

/// Writes a name, its longest tail that was written before as a pointer.
fn push_name(out: &mut Vec<u8>, seen: &mut Vec<(Vec<u8>, usize)>, name: &Name) {
    for rest in crate::name::ancestors(name.wire()).take_while(|rest| *rest != [0]) {
        if let Some((_, at)) = seen.iter().find(|(tail, _)| tail == rest) {
            out.extend_from_slice(&(POINTER | *at as u16).to_be_bytes());
            return;
        }
        seen.push((rest.to_vec(), out.len()));
        out.extend_from_slice(&rest[..=usize::from(rest[0])]);
    }
    out.push(0);
}

/// An answer for `target` with these records: owner, type, name in the data.
fn answer(target: &Name, records: &[(Name, u16, Name)]) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
    let mut seen = Vec::new();
    push_name(&mut out, &mut seen, target);
    out.extend_from_slice(&[0, 1, 0, 1]);
    for (owner, rtype, name) in records {
        push_name(&mut out, &mut seen, owner);
        out.extend_from_slice(&rtype.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 100, 0, 0]);
        let start = out.len();
        let (before, names) = names_in(*rtype);
        out.extend(std::iter::repeat_n(7, before));
        (0..names).for_each(|_| push_name(&mut out, &mut seen, name));
        // Bytes that look like a pointer and are none.
        out.extend_from_slice(&[0xc0, 12, 1]);
        let length = (out.len() - start) as u16;
        out[start - 2..start].copy_from_slice(&length.to_be_bytes());
    }
    out
}

fn lead(target: &Name) -> Lead {
    let mut records = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0".to_vec();
    records.push(target.wire().len() as u8);
    records.extend_from_slice(target.wire());
    Lead {
        target: target.clone(),
        records,
        count: 1,
    }
}

const QUESTION: &[u8] = b"\x06mirror\x04rack\x07example\0\0\x01\0\x01";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn any_name() -> impl Strategy<Value = Name> {
    let label = prop::sample::select(vec!["a", "deb", "www", "example", "org", "long-label-of-a-name"]);
    prop::collection::vec(label, 0..5).prop_map(|labels| Name::from_labels(labels).unwrap())
}

#[test]
fn a_pointer_to_where_no_name_is_ends_the_matter() {
    let target = name("deb.example.org");
    let sound = answer(&target, &[(target.clone(), rtype::CNAME, name("a.example.org"))]);
    assert!(lead(&target).join(QUESTION, &sound).is_some());
    let data = sound.len() - 7;
    assert_eq!(&sound[data..data + 2], [1, b'a']);
    // The header, the type behind the question's name, itself, and behind.
    for place in [0, 11, 29, 32, data as u16 + 2, data as u16 + 5] {
        let mut bad = sound.clone();
        put_u16(&mut bad, data + 2, POINTER | place);
        assert_eq!(lead(&target).join(QUESTION, &bad), None, "{place}");
    }
    // A name that is longer than its record.
    let mut bad = sound;
    bad[data] = 60;
    assert_eq!(lead(&target).join(QUESTION, &bad), None);
}

#[test]
fn a_name_too_far_behind_to_be_pointed_to_ends_the_matter() {
    let target = name("deb.example.org");
    let far = |count| {
        let mut records = vec![(target.clone(), 999, target.clone()); count];
        records.extend([
            (name("a.far"), 999, target.clone()),
            (name("a.far"), 999, target.clone()),
        ]);
        let mut out = answer(&target, &records);
        put_u16(&mut out, 6, records.len() as u16);
        out
    };
    // The last pointer is to 0x3ff0 in their message, which is 33 bytes further on in ours.
    let theirs = far(1089);
    let at = theirs.len() - 15;
    assert_eq!(u16_at(&theirs, at), Some(POINTER | 0x3ff0));
    assert!(lead(&target).join(QUESTION, &far(1000)).is_some());
    assert_eq!(lead(&target).join(QUESTION, &theirs), None);
}

proptest! {
    #[test]
    fn records_mean_behind_an_alias_what_they_meant(
        target in any_name(),
        records in prop::collection::vec((any_name(), prop::sample::select(vec![1u16, 2, 5, 6, 12, 14, 15, 16, 24, 26, 33, 39, 46]), any_name()), 0..12),
    ) {
        let theirs = answer(&target, &records);
        let ours = lead(&target).join(QUESTION, &theirs).unwrap();
        prop_assert_eq!(&ours[..4], &theirs[..4]);
        let found = meanings(&ours);
        prop_assert_eq!(&found[0], &(QUESTION[..21].to_vec(), rtype::CNAME, target.wire().to_vec()));
        prop_assert_eq!(&found[1..], meanings(&theirs));
    }

    #[test]
    fn whatever_comes_is_joined_whole_or_not_at_all(
        records in prop::collection::vec((any_name(), prop::sample::select(vec![1u16, 5, 6, 15, 33]), any_name()), 1..5),
        at: prop::sample::Index, value: u8, cut: prop::sample::Index,
    ) {
        let target = name("deb.example.org");
        let mut theirs = answer(&target, &records);
        let place = at.index(theirs.len());
        theirs[place] = value;
        theirs.truncate(cut.index(theirs.len()) + 1);
        if let Some(ours) = lead(&target).join(QUESTION, &theirs) {
            let all = [6, 8, 10].iter().map(|at| u32::from(u16_at(&ours, *at).unwrap())).sum();
            let end = skip_records(&ours, question_end(&ours).unwrap(), all, |_| ());
            prop_assert!(end.is_some());
        }
    }
}
