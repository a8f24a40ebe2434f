//! What becomes of an object that is let go of, or found to be damaged, at the moment when another has need of it; and room.

use super::*;

pub(crate) fn store(folder: &Path) -> Arc<Store> {
    let store = Store::open(folder, 1 << 20, 1 << 20, Arc::new(|_, _| {}));
    Arc::new(store.unwrap())
}

pub(crate) fn sealed(store: &Arc<Store>, key: &str, content: &[u8]) -> (Record, Held) {
    let mut spool = Spool::begin(store, Some(content.len() as u64)).unwrap();
    spool.write(content).unwrap();
    let digest = spool.digest();
    let record = Record {
        key: key.into(),
        selecting: Vec::new(),
        status: 200,
        headers: Vec::new(),
        request_time: 1,
        response_time: 1,
        digest,
        size: content.len() as u64,
    };
    (record, spool.seal(digest).unwrap())
}

#[test]
fn a_content_that_came_again_outlives_the_entry_that_had_it_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (first, held) = sealed(&store, "http://a/1", b"same");
    let path = store.object_path(&first.digest);
    store.insert(first, held.object.clone()).unwrap();
    drop(held);
    let (second, held) = sealed(&store, "http://a/2", b"same");
    store.invalidate("http://a/1", false);
    assert_eq!((std::fs::read(&path).unwrap(), store.usage().0), (b"same".to_vec(), 4));
    store.insert(second, held.object.clone()).unwrap();
    drop(held);
    assert_eq!((std::fs::read(&path).unwrap(), store.usage().0), (b"same".to_vec(), 4));
    store.invalidate("http://a/2", false);
    assert_eq!((path.exists(), store.usage().0, store.counts()), (false, 0, (0, 0)));
    // What is never made an entry's goes too.
    drop(sealed(&store, "http://a/3", b"other"));
    assert_eq!((store.usage().0, store.counts()), (0, (0, 0)));
}

#[test]
fn an_entry_that_was_let_go_is_not_stored_again_when_the_origin_says_that_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (record, held) = sealed(&store, "http://a/1", b"content");
    let entry = store.insert(record.clone(), held.object.clone()).unwrap();
    drop(held);
    let later = |time| Record {
        response_time: time,
        ..record.clone()
    };
    let renewed = store.renew(&entry, later(2)).unwrap().unwrap();
    assert_eq!((store.counts(), store.usage().0), ((1, 1), 7));
    store.invalidate("http://a/1", false);
    assert!(store.renew(&renewed, later(3)).unwrap().is_none());
    assert_eq!((store.counts(), store.usage().0), ((0, 0), 0));
    assert!(!store.entry_path(&record).exists() && !store.object_path(&record.digest).exists());
}

/// Often enough to see two threads meet in between.
const ROUNDS: usize = 3000;

/// An entry without a file, as if it had been used at that time.
fn bare(store: &Store, number: u64, size: u64) -> Arc<Entry> {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    let digest = Digest(digest);
    let record = Record {
        key: format!("http://a/{number}"),
        selecting: Vec::new(),
        status: 200,
        headers: Vec::new(),
        request_time: 1,
        response_time: 1,
        digest,
        size,
    };
    let object = Object::new(digest, size, Place::Own(store.object_path(&digest)));
    let entry = Arc::new(Entry::new(record, Arc::new(object), None));
    entry.used.store(number, Ordering::Relaxed);
    store.put(entry.clone());
    entry
}

#[test]
fn room_is_made_while_what_is_stored_is_being_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let all: Vec<_> = (0..5000).map(|number| bare(&store, number, 1)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for start in 0..2 {
            let (all, done) = (&all, &done);
            scope.spawn(move || {
                let mut turn: u64 = start;
                while !done.load(Ordering::Relaxed) {
                    // Anything but in order, and each time another: the clock's numbers go both ways here.
                    turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let at = usize::try_from(turn >> 40).unwrap() % all.len();
                    all[at].used.store(turn >> 20, Ordering::Relaxed);
                }
            });
        }
        let sorting = scope.spawn(|| (0..200).for_each(|_| drop(evict::may_go(&store.state()))));
        let worked = sorting.join();
        done.store(true, Ordering::Relaxed);
        assert!(worked.is_ok(), "an order that changes meanwhile stopped it");
    });
}

#[test]
fn a_full_store_makes_room_for_more_than_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (budget, each) = (1 << 20, 1 << 10);
    (0..budget / each).for_each(|number| drop(bare(&store, number, each)));
    assert_eq!(store.usage().0, budget);
    drop(store.reserve(each).unwrap());
    let left: Vec<u64> = store.entries().iter().map(|entry| entry.used()).collect();
    let gone = budget / each - left.len() as u64;
    assert_eq!(
        (gone, left.iter().min()),
        (64, Some(&gone)),
        "a sixteenth, the oldest of all"
    );
}

#[test]
fn room_that_was_made_for_one_is_no_room_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let each = 300 << 10;
    (0..2).for_each(|number| drop(bare(&store, number, each)));
    let first = store.reserve(each).unwrap();
    assert_eq!(store.usage().0, 2 * each, "there is room without that");
    let second = store.reserve(each).unwrap();
    assert_eq!(store.usage().0, each, "one had to go");
    assert_eq!(store.reserve(3 * each).err().map(|none| none.used), Some(3 * each));
    drop((first, second));
    assert!(store.reserve(3 * each).is_ok());
}

fn rot(store: &Store, record: &Record) -> PathBuf {
    let path = store.object_path(&record.digest);
    std::fs::write(&path, vec![0; usize::try_from(record.size).unwrap()]).unwrap();
    path
}

#[test]
fn what_came_again_outlives_whoever_finds_out_late_that_the_old_one_was_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (record, held) = sealed(&store, "http://a/1", b"content");
    let old = store.insert(record.clone(), held.object.clone()).unwrap();
    drop(held);
    rot(&store, &record);
    assert!(store.check(&old.object).is_err());
    assert_eq!((store.counts(), store.usage().0), ((0, 0), 0));
    store.pin("http://a/1", true).unwrap();
    let (record, held) = sealed(&store, "http://a/1", b"content");
    store.insert(record.clone(), held.object.clone()).unwrap();
    drop(held);
    // Who read the old one at the same time comes to its end only now.
    store.damaged(&old.object);
    let path = store.object_path(&record.digest);
    assert_eq!((store.counts(), store.usage().0), ((1, 1), 7));
    assert_eq!(std::fs::read(path).unwrap(), b"content");
    assert!(store.entry_path(&record).exists());
}

#[test]
fn an_entry_of_what_was_found_to_be_damaged_goes_with_its_next_use() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (record, held) = sealed(&store, "http://a/1", b"content");
    store.insert(record.clone(), held.object.clone()).unwrap();
    drop(held);
    let path = rot(&store, &record);
    let store = Arc::new(Store::open(folder.path(), 1 << 20, 1 << 20, Arc::new(|_, _| {})).unwrap());
    let old = store.find("http://a/1", &HeaderMap::new()).0.unwrap();
    let threads = tokio::runtime::Runtime::new().unwrap();
    assert!(threads.block_on(store.reading(&old.object)).is_err());
    assert!(!path.exists());
    // An origin was asked whether it holds, meanwhile, and said so.
    store.insert(record.clone(), old.object.clone()).unwrap();
    assert!(threads.block_on(store.reading(&old.object)).is_err());
    assert_eq!((store.counts(), store.usage().0), ((0, 0), 0));
    assert!(!store.entry_path(&record).exists());
}

#[test]
fn an_answer_that_comes_while_an_older_one_goes_is_as_much_on_disk_as_in_memory() {
    let folder = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let store = store(folder.path());
    let (record, held) = sealed(&store, "http://a/1", b"content");
    let turn = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                turn.wait();
                (0..round * 7 % 4000).for_each(|_| std::hint::spin_loop());
                store.invalidate("http://a/1", false);
                turn.wait();
            }
        });
        let mut wrong = Vec::new();
        for round in 0..ROUNDS {
            store.insert(record.clone(), held.object.clone()).unwrap();
            turn.wait();
            store.insert(record.clone(), held.object.clone()).unwrap();
            turn.wait();
            let there = store.find("http://a/1", &HeaderMap::new()).0.is_some();
            if there != store.entry_path(&record).exists() {
                wrong.push(round);
            }
        }
        assert_eq!(wrong, [0; 0], "rounds after which these differ");
    });
}

#[test]
fn what_a_client_asks_for_pins_no_more_than_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    assert!(!store.note_pin("http://a/*") && store.note_pin("http://a/b"));
    store.pin_noted().unwrap();
    assert_eq!(store.pins(), ["http://a/b"]);
}
