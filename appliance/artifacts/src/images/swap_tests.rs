//! Stories of an entry whose place another image takes: at once or not at all, and what runs began with stays.

use super::tests::{ROOM, add, files, meta, open, pack, raw};
use super::*;
use rackbar_model::{Refreshed, Timestamp, Upstream};
use rackbar_trust::sha256;

const NAME: &str = "debian-12";

fn upload(images: &Images, content: &[u8]) -> Upload {
    let mut upload = images.begin(meta(NAME)).unwrap();
    upload.write(content).unwrap();
    upload
}

fn digest(content: &[u8]) -> Digest {
    Digest(sha256(content))
}

fn upstream(sums: &str) -> Upstream {
    Upstream::Sums {
        sums: sums.into(),
        signature: None,
        file: "d".into(),
        keys: "k".into(),
    }
}

fn refreshed(became: Digest) -> Refreshed {
    Refreshed {
        checked: Timestamp(1),
        signer: "AB".into(),
        date: 7,
        text: became,
        file: "d".into(),
        listed: became.to_string(),
        became,
    }
}

#[test]
fn another_image_takes_the_place_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, three) = (raw(10, 1), raw(20, 2), raw(30, 3));
    {
        let (images, artifacts) = open(folder.path(), ROOM);
        let first = add(&images, NAME, &one).unwrap();
        let second = upload(&images, &two)
            .replace(Some(digest(&two)), &first, &HashSet::new())
            .unwrap();
        assert_eq!(images.get(NAME), Some(second.clone()));
        assert!(artifacts.get(&first.sha256).is_none() && artifacts.get(&second.sha256).is_some());
        let third = upload(&images, &three).replace(None, &second, &HashSet::new()).unwrap();
        assert_eq!(images.space().0, 30 * 512);
        // The same content again is the entry that is there.
        let same = upload(&images, &three).replace(None, &third, &HashSet::new()).unwrap();
        assert!(Arc::ptr_eq(&same, &third));
        assert_eq!(images.source(NAME).unwrap().1.metadata().unwrap().len(), 30 * 512);
    }
    let image = format!("{NAME}@{}.image", digest(&three));
    assert_eq!(files(folder.path()), [format!("{NAME}.json"), image]);
    let (images, artifacts) = open(folder.path(), ROOM);
    images.settle();
    assert!(images.problems().is_empty(), "{:?}", images.problems());
    assert!(artifacts.get(&digest(&three)).is_some());
    images.remove(NAME, &HashSet::new()).unwrap();
    assert!(files(folder.path()).is_empty());
}

#[test]
fn what_a_run_began_with_stays_until_it_ends_also_through_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (raw(10, 1), raw(20, 2));
    let used = HashSet::from([digest(&one)]);
    {
        let (images, artifacts) = open(folder.path(), ROOM);
        let first = add(&images, NAME, &one).unwrap();
        upload(&images, &two).replace(None, &first, &used).unwrap();
        assert!(artifacts.get(&first.sha256).is_some());
        assert_eq!(images.space().0, 30 * 512, "both take room");
    }
    let (images, artifacts) = open(folder.path(), ROOM);
    images.settle();
    assert!(images.problems().is_empty(), "{:?}", images.problems());
    let held = images.exact(NAME, digest(&one)).unwrap();
    assert_eq!(images.get(NAME).unwrap().sha256, digest(&two));
    let mut byte = [0];
    artifacts.get(&held.sha256).unwrap().read_at(0, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    images.release(&used);
    assert!(artifacts.get(&held.sha256).is_some());
    images.release(&HashSet::new());
    assert!(artifacts.get(&held.sha256).is_none() && images.exact(NAME, digest(&one)).is_none());
    assert_eq!(images.exact(NAME, digest(&two)).unwrap().bytes, 20 * 512);
    assert_eq!(files(folder.path()).len(), 2, "{:?}", files(folder.path()));
}

#[test]
fn a_swap_that_fails_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (images, artifacts) = open(folder.path(), 100 * 512);
    let (one, two) = (raw(40, 1), raw(50, 2));
    let first = add(&images, NAME, &one).unwrap();
    let none = HashSet::new();
    let wrong = upload(&images, &two).replace(Some(digest(&one)), &first, &none);
    assert!(matches!(wrong, Err(ImageError::Digest { .. })), "{wrong:?}");
    let bad = upload(&images, &[7; 2048]).replace(None, &first, &none);
    assert!(matches!(bad, Err(ImageError::Content { .. })), "{bad:?}");
    let mut large = images.begin(meta(NAME)).unwrap();
    assert!(matches!(large.write(&raw(61, 3)), Err(ImageError::Full { .. })));
    drop(large);
    images.pin(NAME, true).unwrap();
    let pinned = upload(&images, &two).replace(None, &first, &none);
    assert!(matches!(pinned, Err(ImageError::Changed(_))), "{pinned:?}");
    images.pin(NAME, false).unwrap();
    images.remove(NAME, &none).unwrap();
    let again = add(&images, NAME, &one).unwrap();
    let gone = upload(&images, &two).replace(None, &first, &none);
    assert!(matches!(gone, Err(ImageError::Changed(_))), "{gone:?}");
    assert_eq!(images.get(NAME), Some(again));
    assert!(artifacts.get(&first.sha256).is_some() && artifacts.get(&digest(&two)).is_none());
    assert_eq!(files(folder.path()), [format!("{NAME}.image"), format!("{NAME}.json")]);
}

#[test]
fn a_swap_that_a_power_cut_ended_leaves_the_one_that_the_record_names() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (raw(10, 1), raw(20, 2));
    let first = {
        let (images, _) = open(folder.path(), ROOM);
        add(&images, NAME, &one).unwrap()
    };
    // Before the record: the new one lies beside, and the old one is held already.
    let old = folder.path().join(format!("{NAME}.image"));
    std::fs::write(folder.path().join(format!("{NAME}@{}.image", digest(&two))), &two).unwrap();
    std::fs::hard_link(&old, folder.path().join(format!("{NAME}@{}.image", digest(&one)))).unwrap();
    let held = serde_json::to_vec(&*first).unwrap();
    std::fs::write(folder.path().join(format!("{NAME}@{}.held", digest(&one))), held).unwrap();
    let (images, artifacts) = open(folder.path(), ROOM);
    images.settle();
    images.release(&HashSet::new());
    assert_eq!(images.get(NAME), Some(first.clone()));
    assert!(images.problems().is_empty() && artifacts.get(&first.sha256).is_some());
    assert_eq!(files(folder.path()).len(), 2, "{:?}", files(folder.path()));
    assert_eq!(images.source(NAME).unwrap().1.metadata().unwrap().len(), 10 * 512);
}

#[test]
fn where_an_entry_is_had_from_and_that_it_is_pinned_outlive_a_restart_and_go_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let content = raw(10, 1);
    {
        let (images, _) = open(folder.path(), ROOM);
        assert!(matches!(images.pin(NAME, true), Err(ImageError::Unknown(_))));
        add(&images, NAME, &content).unwrap();
        images.set_upstream(NAME, upstream("http://a/SUMS")).unwrap();
        images.note_refreshed(NAME, refreshed(digest(&content))).unwrap();
        images.pin(NAME, true).unwrap();
        assert!(matches!(
            images.set_upstream(NAME, upstream("http://b/SUMS")),
            Err(ImageError::Pinned(_))
        ));
    }
    let (images, _) = open(folder.path(), ROOM);
    let kept = images.upkeep(NAME);
    assert_eq!(kept.upstream, Some(upstream("http://a/SUMS")));
    assert!(kept.pinned.is_some() && kept.refreshed.is_some());
    images.pin(NAME, false).unwrap();
    // What was accepted from one place says nothing of another.
    images.set_upstream(NAME, upstream("http://b/SUMS")).unwrap();
    assert_eq!(images.upkeep(NAME).refreshed, None);
    images.remove(NAME, &HashSet::new()).unwrap();
    assert_eq!(images.upkeep(NAME), Upkeep::default());
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_record_of_a_pin_that_makes_no_sense_leaves_the_entry_pinned() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (images, _) = open(folder.path(), ROOM);
        add(&images, NAME, &raw(10, 1)).unwrap();
    }
    std::fs::write(folder.path().join(format!("{NAME}.upkeep")), "{").unwrap();
    let (images, _) = open(folder.path(), ROOM);
    assert!(images.upkeep(NAME).pinned.is_some());
    assert!(
        images.problems()[0].contains("pin debian-12 --undo"),
        "{:?}",
        images.problems()
    );
}

#[test]
fn a_swapped_image_whose_record_is_damaged_is_put_aside_and_not_deleted() {
    // In whatever way the record is wrong: it makes no sense, or says another size than the file has.
    for damage in ["{", "size"] {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (raw(10, 1), raw(20, 2));
        let used = HashSet::from([digest(&one)]);
        {
            let (images, _) = open(folder.path(), ROOM);
            let first = add(&images, NAME, &one).unwrap();
            upload(&images, &two).replace(None, &first, &used).unwrap();
            add(&images, "debian-12-other", &one).unwrap();
        }
        let record = folder.path().join(format!("{NAME}.json"));
        let text = std::fs::read_to_string(&record).unwrap();
        let wrong = text.replace(&(20 * 512).to_string(), "7");
        std::fs::write(&record, if damage == "size" { &wrong } else { damage }).unwrap();
        let (images, artifacts) = open(folder.path(), ROOM);
        images.settle();
        let image = format!("{NAME}@{}.image", digest(&two));
        let aside = folder.path().join("broken").join(&image);
        assert_eq!(std::fs::read(&aside).unwrap(), two, "{damage}");
        let problems = images.problems().join(" ");
        assert!(problems.contains(&aside.display().to_string()), "{problems}");
        assert!(!record.exists() && images.get(NAME).is_none());
        // What a run needs goes on, and so does whoever has a similar name.
        assert!(images.exact(NAME, digest(&one)).is_some() && artifacts.get(&digest(&one)).is_some());
        assert!(images.get("debian-12-other").is_some());
    }
}

#[test]
fn what_cannot_be_put_aside_stays_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (images, _) = open(folder.path(), ROOM);
        add(&images, NAME, &raw(10, 1)).unwrap();
    }
    std::fs::write(folder.path().join(format!("{NAME}.json")), "{").unwrap();
    // In the way of the folder for what is broken.
    std::fs::write(folder.path().join("broken"), "").unwrap();
    for _ in 0..2 {
        let (images, _) = open(folder.path(), ROOM);
        assert!(
            images.problems()[0].contains("cannot be moved"),
            "{:?}",
            images.problems()
        );
        assert!(folder.path().join(format!("{NAME}.image")).exists());
    }
}

#[test]
fn what_was_said_of_an_image_whose_removal_was_cut_short_is_said_of_no_later_one() {
    // The power went after the record, after the image itself, and after the word that it is retired.
    let gone = ["json", "image", "standing"];
    for cut in 1..=gone.len() {
        let folder = tempfile::tempdir().unwrap();
        let there = |ending: &str| folder.path().join(format!("{NAME}.{ending}")).exists();
        {
            let (images, _) = open(folder.path(), ROOM);
            add(&images, NAME, &raw(10, 1)).unwrap();
            images.set_upstream(NAME, upstream("http://a/SUMS")).unwrap();
            images.pin(NAME, true).unwrap();
            images.retire(NAME, None).unwrap();
        }
        for ending in gone.iter().take(cut) {
            std::fs::remove_file(folder.path().join(format!("{NAME}.{ending}"))).unwrap();
        }
        {
            let (images, _) = open(folder.path(), ROOM);
            assert!(images.upkeep(NAME) == Upkeep::default() && !there("upkeep"), "{cut}");
            add(&images, NAME, &raw(10, 2)).unwrap();
            assert!(images.retired().is_empty() && !there("standing"), "{cut}");
        }
        let (images, _) = open(folder.path(), ROOM);
        assert!(
            images.get(NAME).is_some() && images.retired().is_empty() && images.problems().is_empty(),
            "{cut}"
        );
        assert_eq!(images.upkeep(NAME), Upkeep::default(), "{cut}");
    }
}

#[test]
fn a_damaged_image_whose_place_another_takes_says_nothing_of_that() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = open(folder.path(), ROOM);
    add(&images, NAME, &raw(10, 1)).unwrap();
    images.pin(NAME, true).unwrap();
    images.retire(NAME, None).unwrap();
    images.shared.quarantine(NAME, "damaged");
    add(&images, NAME, &raw(10, 2)).unwrap();
    assert_eq!(images.upkeep(NAME), Upkeep::default());
    assert!(images.retired().is_empty());
}

#[test]
fn an_image_in_a_pack_stays_retired_across_a_restart_and_an_entry_of_our_own() {
    let folder = tempfile::tempdir().unwrap();
    let content = raw(10, 1);
    let mount = |images: &Images| {
        let silent: Complaint = Arc::new(|why| panic!("{why}"));
        let packed = pack(folder.path(), NAME, &content);
        images.mount("base", vec![packed], &silent).unwrap();
    };
    let images_in = folder.path().join("images");
    {
        let (images, _) = open(&images_in, ROOM);
        mount(&images);
        images.retire(NAME, None).unwrap();
    }
    let (images, _) = open(&images_in, ROOM);
    assert!(images.retired().contains_key(NAME), "its stick may come later");
    mount(&images);
    add(&images, NAME, &raw(10, 2)).unwrap();
    assert!(images.retired().contains_key(NAME));
}
