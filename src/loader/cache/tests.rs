use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::serve::{parse_repr_digest, repr_digest};
use super::store::{Disk, Key, Store};

const A: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

fn key(namespace: &str, n: u8) -> Key {
    Key::new(namespace, &format!("{n:064x}")).unwrap()
}

fn put(store: &Arc<Store>, key: Key, bytes: &[u8]) {
    let room = store.room(bytes.len() as u64).expect("room");
    std::fs::write(&room.path, bytes).unwrap();
    store.keep(room, key, A.into()).unwrap();
}

fn content(store: &Store, key: &Key) -> Option<Vec<u8>> {
    let (mut file, entry) = store.get(key)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!((entry.size, entry.sha256.as_str()), (bytes.len() as u64, A));
    Some(bytes)
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

#[test]
fn a_key_names_a_file_of_its_own_namespace_only() {
    for (namespace, name) in [
        ("", A),
        ("..", A),
        (".incoming", A),
        ("a/b", A),
        ("Upper", A),
        ("team", ""),
        ("team", "../../etc/passwd"),
        ("team", &A[1..]),
        ("team", &A.to_uppercase()),
    ] {
        assert_eq!(Key::new(namespace, name), None, "{namespace:?} {name:?}");
    }
    assert!(Key::new("team-1", A).is_some());
}

#[test]
fn the_least_recently_used_make_room() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(root.path(), 10, 0).unwrap());
    for n in 0..3 {
        put(&store, key("team", n), &[n; 3]);
    }
    assert!(content(&store, &key("team", 0)).is_some());
    put(&store, key("team", 3), &[3; 4]);
    let there: Vec<u8> = (0..4).filter(|n| store.has(&key("team", *n), A)).collect();
    assert_eq!(there, [0, 2, 3], "1 was not asked for since it came");
    assert_eq!(store.counts(), (10, 1));
    assert_eq!(files(root.path()), 3);
    assert!(store.room(11).is_err(), "more than all");
    assert_eq!(store.counts().0, 10, "and nothing went for it");
}

#[test]
fn what_is_being_written_has_its_room() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(root.path(), 10, 0).unwrap());
    let first = store.room(6).unwrap();
    assert!(store.room(6).is_err());
    std::fs::write(&first.path, [0; 2]).unwrap();
    drop(first);
    assert!(store.room(10).is_ok(), "broken off");
    assert_eq!(files(root.path()), 0);
}

#[test]
fn one_that_is_read_can_be_read_to_its_end() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(root.path(), 10, 0).unwrap());
    put(&store, key("team", 1), &[1; 8]);
    let (mut open, _) = store.get(&key("team", 1)).unwrap();
    put(&store, key("team", 2), &[2; 8]);
    assert!(!store.has(&key("team", 1), A));
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [1; 8]);
}

#[test]
fn a_restart_finds_what_was_whole() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(root.path(), 100, 0).unwrap());
    put(&store, key("team", 1), &[1; 5]);
    put(&store, key("other", 1), &[2; 7]);
    let half = store.room(50).unwrap();
    std::fs::write(&half.path, [0; 20]).unwrap();
    // A process that is killed drops nothing.
    std::mem::forget(half);
    std::fs::write(root.path().join("team/stray"), "?").unwrap();

    let store = Arc::new(Store::open(root.path(), 100, 0).unwrap());
    assert_eq!(content(&store, &key("team", 1)), Some(vec![1; 5]));
    assert_eq!(content(&store, &key("other", 1)), Some(vec![2; 7]));
    assert_eq!(store.counts(), (12, 0));
    assert!(store.room(100).is_ok());

    let store = Arc::new(Store::open(root.path(), 10, 0).unwrap());
    assert!(store.counts().0 <= 10, "a lower limit holds at once");
}

#[test]
fn a_file_that_was_taken_away_is_a_miss() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(root.path(), 10, 0).unwrap());
    put(&store, key("team", 1), &[1; 8]);
    std::fs::remove_dir_all(root.path().join("team")).unwrap();
    assert_eq!(content(&store, &key("team", 1)), None);
    put(&store, key("team", 1), &[1; 10]);
    assert_eq!(store.counts().0, 10);
}

#[test]
fn digests_are_rfc_9530s() {
    // The RFC's own example, of {"hello": "world"} and a line's end.
    let field = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
    let hex = "44aff4ab2d7c3250525675a08f0cfa9591168cffe51791c5f5bbc417c15a6c38";
    assert_eq!(parse_repr_digest(field).as_deref(), Some(hex));
    assert_eq!(repr_digest(hex), field);
    for bad in ["", "sha-256=", "sha-256=:AAAA:", "sha-512=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"] {
        assert_eq!(parse_repr_digest(bad), None, "{bad}");
    }
}

#[test]
fn a_disk_that_would_be_too_full_keeps_nothing_and_it_says_so() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(root.path(), 100, 100).unwrap());
    let refused = store.room(1).unwrap_err();
    assert!(refused.contains("and 100 % of it stay so: 1 more have no room"), "{refused}");
    // Sparing nothing is no leave to take what isn't there.
    let store = Arc::new(Store::open(root.path(), u64::MAX, 0).unwrap());
    let refused = store.room(1 << 62).unwrap_err();
    assert!(refused.contains("and 0 % of it stay so"), "{refused}");
    let store = Arc::new(Store::open(root.path(), 100, 0).unwrap());
    let _half = store.room(60).unwrap();
    assert_eq!(store.room(41).unwrap_err(), "41 bytes have no room in 100, 60 of which are being written");
}

#[test]
fn files_make_room_on_a_short_disk_only_where_that_is_enough() {
    /// 1,000 bytes, of which others hold 940.
    fn disk(root: &Path) -> std::io::Result<Disk> {
        let ours: u64 = ["team", ".incoming"].map(|folder| size(&root.join(folder))).iter().sum();
        Ok(Disk { free: 60 - ours, all: 1000 })
    }
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(root.path(), 1000, 2).unwrap().on(disk));
    for n in 0..4 {
        put(&store, key("team", n), &[n; 10]);
    }
    assert_eq!(store.counts(), (40, 0));
    assert!(store.room(41).unwrap_err().contains("20 of 1000 bytes free"), "20 stay free, and 40 are all");
    assert_eq!(store.counts(), (40, 0), "so nothing went");
    put(&store, key("team", 4), &[4; 11]);
    let there: Vec<u8> = (0..5).filter(|n| store.has(&key("team", *n), A)).collect();
    assert_eq!((there, store.counts().1), (vec![2, 3, 4], 2));
}

/// Of a folder's files.
fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}
