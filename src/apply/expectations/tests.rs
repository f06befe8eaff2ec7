use super::*;

fn seen(uid: &str, resource_version: u64, deleting: bool) -> Option<Meta> {
    Some(Meta {
        family: key(),
        name: "it".into(),
        uid: uid.into(),
        resource_version,
        owner_uid: None,
        created: Timestamp::UNIX_EPOCH,
        deleting,
    })
}

fn key() -> Key {
    ("team".into(), String::new())
}

fn written() -> Written {
    Written { uid: "a".into(), resource_version: 7 }
}

#[test]
fn what_was_written_counts_once_the_watch_shows_it() {
    let create = Write::Create { kind: Kind::Deployment, name: "it".into(), body: Default::default() };
    let delete =
        Write::Delete { kind: Kind::Deployment, name: "it".into(), uid: "a".into(), resource_version: 6 };
    for (write, found, met) in [
        (&create, None, false),
        (&create, seen("a", 6, false), false),
        (&create, seen("a", 7, false), true),
        (&create, seen("a", 8, true), true),
        (&delete, seen("a", 6, false), false),
        (&delete, seen("a", 8, true), true),
        (&delete, seen("b", 9, false), true),
        (&delete, None, true),
    ] {
        let expectations = Expectations::default();
        let now = Timestamp::UNIX_EPOCH;
        expectations.expect(key(), write, written());
        let said = expectations.met(&key(), now, |_, _| found.clone());
        assert_eq!(said, met, "{write:?} {found:?}");
        assert!(expectations.met(&("another".into(), String::new()), now, |_, _| None));
        assert!(expectations.met(&key(), now + PATIENCE, |_, _| found.clone()), "it waits for ever");
    }
}

#[test]
fn one_that_is_missing_holds_up_the_others() {
    let expectations = Expectations::default();
    for kind in [Kind::Role, Kind::Deployment] {
        let write = Write::Create { kind, name: "it".into(), body: Default::default() };
        expectations.expect(key(), &write, written());
    }
    let now = Timestamp::UNIX_EPOCH;
    let only = |wanted| move |kind, _: &str| if kind == wanted { seen("a", 7, false) } else { None };
    assert!(!expectations.met(&key(), now, only(Kind::Role)));
    // The one that was seen is gone again: it is not waited for twice.
    assert!(expectations.met(&key(), now, only(Kind::Deployment)));
}
