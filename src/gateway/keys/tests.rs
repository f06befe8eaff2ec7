use super::*;

const ALICE: &str = "alice-alice-alice-alice";
const BOB: &str = "bob-bob-bob-bob-bob-bob";

fn mk_keys(entries: &[(&str, &str)]) -> Keys {
    Keys::of(entries.iter().map(|(name, key)| (name.to_string(), key.as_bytes().to_vec())))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn checked(keys: &Keys, pairs: &[(&'static str, &str)], deployment: &str) -> Result<(), Kind> {
    keys.check(&headers(pairs), deployment).map_err(|error| error.kind)
}

#[test]
fn an_entry_without_a_dot_is_for_every_model_and_one_with_a_dot_for_the_model_behind_it() {
    let keys = mk_keys(&[("alice", ALICE), ("team.bob.fraud", BOB), ("bob.churn", BOB)]);
    let asks = |key: &str, deployment| checked(&keys, &[("x-api-key", key)], deployment);
    assert_eq!(asks(ALICE, "fraud"), Ok(()));
    assert_eq!(asks(ALICE, "other"), Ok(()));
    assert_eq!(asks(BOB, "fraud"), Ok(()));
    assert_eq!(asks(BOB, "churn"), Ok(()), "a key may stand twice");
    assert_eq!(asks(BOB, "other"), Err(Kind::PermissionDenied));
    assert_eq!(asks(&ALICE[1..], "fraud"), Err(Kind::Unauthenticated));
}

#[test]
fn a_key_comes_as_a_bearer_token_or_in_a_header_of_its_own() {
    let keys = mk_keys(&[("alice", ALICE)]);
    let asks = |pairs: &[(&'static str, &str)]| checked(&keys, pairs, "fraud");
    for scheme in ["Bearer", "bearer", "BEARER "] {
        assert_eq!(asks(&[("authorization", &format!("{scheme} {ALICE}"))]), Ok(()), "{scheme}");
    }
    assert_eq!(asks(&[("authorization", "Basic YTpi"), ("x-api-key", ALICE)]), Ok(()));
    for pairs in [
        &[][..],
        &[("authorization", ALICE)],
        &[("authorization", "Bearer ")],
        &[("authorization", "Basic YTpi")],
        &[("x-api-key", "")],
        &[("x-api-key", "alice")],
        // The bearer token is the one that counts.
        &[("authorization", "Bearer wrong-wrong-wrong-wrong"), ("x-api-key", ALICE)],
    ] {
        assert_eq!(asks(pairs), Err(Kind::Unauthenticated), "{pairs:?}");
    }
}

#[test]
fn a_key_that_was_written_with_a_line_s_end_counts_and_a_short_one_does_not() {
    let keys = mk_keys(&[("alice", &format!("{ALICE}\n")), ("carol", "short"), ("dave", "\n")]);
    assert_eq!(checked(&keys, &[("x-api-key", ALICE)], "fraud"), Ok(()));
    assert_eq!(checked(&keys, &[("x-api-key", "short")], "fraud"), Err(Kind::Unauthenticated));
}

#[test]
fn the_answer_says_what_is_missing_and_never_the_key() {
    let said = |keys: &Keys, pairs: &[(&'static str, &str)]| {
        keys.check(&headers(pairs), "fraud").map_err(|error| error.message).unwrap_err()
    };
    let keys = mk_keys(&[("alice.other", ALICE)]);
    assert!(said(&Keys::default(), &[("x-api-key", ALICE)]).contains("Secret modelwright-api-keys"));
    assert!(said(&keys, &[]).contains("authorization: Bearer KEY"));
    for key in [ALICE, BOB] {
        assert!(!said(&keys, &[("x-api-key", key)]).contains(key));
    }
}
