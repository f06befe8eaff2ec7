//! Rollouts told as stories: the real plan and status against a small model of the API server and its controllers,
//! in the usual order and in many seeded ones, with a crash after every write. The transcripts in
//! `tests/golden` are what a reviewer reads; `UPDATE_GOLDEN=1 cargo test --test rollouts` writes them anew.

mod histories;
mod sim;
mod stories;

use serde_json::json;
use sim::{Rng, Sim};

#[test]
fn the_stories_read_as_they_did() {
    for (name, story) in stories::all() {
        let mut sim = Sim::new();
        story(&mut sim);
        let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, sim.transcript()).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(sim.transcript(), golden, "{name}: see {path}");
    }
}

/// The invariants (see `sim`) are checked after every single write, and the end is the same.
#[test]
fn every_order_of_controllers_ends_the_same() {
    for (name, story) in stories::all() {
        let mut reference = Sim::new();
        story(&mut reference);
        for seed in 1..=10 {
            let mut sim = Sim::new();
            sim.shuffle = Some(Rng(seed));
            story(&mut sim);
            assert_eq!(sim.end_state(), reference.end_state(), "{name}, seed {seed}\n{}", sim.transcript());
        }
    }
}

#[test]
fn a_crash_after_every_write_ends_the_same() {
    for (name, story) in stories::all() {
        let mut reference = Sim::new();
        story(&mut reference);
        for n in 1..=reference.writes {
            let mut sim = Sim::new();
            sim.crash_after = Some(n);
            story(&mut sim);
            assert_eq!(
                sim.end_state(),
                reference.end_state(),
                "{name}, crash after write {n}\n{}",
                sim.transcript()
            );
        }
    }
}

#[test]
fn the_status_says_which_verb_was_obeyed_last_or_why_one_is_not() {
    let mut sim = Sim::new();
    sim.apply("s3://models/fraud/1.onnx", 2);
    sim.settle();
    sim.set("strategy", json!({ "canary": { "steps": [{ "setWeight": 5 }, { "pause": {} }] } }));
    sim.apply("s3://models/fraud/2.onnx", 2);
    sim.settle();
    assert_eq!(sim.last_verb(), None);
    for (verb, value, told) in [
        ("abort", "fraud-r2.9", "abort=fraud-r2.9 is ignored: the rollout is fraud-r2.1"),
        ("abort", "fraud-r2.1", "abort=fraud-r2.1"),
        ("promote", "fraud-r2.1/full", "promote=fraud-r2.1/full is ignored: fraud-r2.1 was aborted"),
        ("promote", "", "abort=fraud-r2.1"),
        ("retry", "fraud-r2.1", "retry=fraud-r2.1"),
        (
            "promote",
            "fraud-r2.2/0",
            "promote=fraud-r2.2/0 is ignored: the rollout is fraud-r2.2, at step index 1",
        ),
        ("promote", "fraud-r2.2/full", "promote=fraud-r2.2/full"),
        ("abort", "fraud-r2.2", "abort=fraud-r2.2 is ignored: there is no rollout"),
    ] {
        sim.annotate(&format!("modelwright.dev/{verb}"), value);
        sim.settle();
        assert_eq!(sim.last_verb().as_deref(), Some(told), "{}", sim.transcript());
    }
}
