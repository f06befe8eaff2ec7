//! Rollouts told as stories: the real plan and status against a small model of the API server and its controllers,
//! in the usual order and in many seeded ones, with a crash after every write. The transcripts in
//! `tests/golden` are what a reviewer reads; `UPDATE_GOLDEN=1 cargo test --test rollouts` writes them anew.

mod sim;

use sim::{Rng, Sim};

type Story = fn(&mut Sim);

const STORIES: &[(&str, Story)] = &[
    ("a_model_is_served", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
    }),
    ("a_new_model_takes_over_and_is_rolled_back", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
    }),
    ("a_broken_model_leaves_the_old_one_serving_until_the_spec_is_mended", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/crashes.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/3.onnx", 2);
        sim.settle();
    }),
    ("a_missing_source_is_named_and_found_again", |sim| {
        sim.apply("s3://models/fraud/missing.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
    ("a_resolve_pod_that_is_evicted_is_made_again_after_a_pause", |sim| {
        sim.evictions = 2;
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
    ("a_quota_that_refuses_the_resolve_pod_holds_up_nothing_else", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.refusal = Some(
            "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4",
        );
        sim.apply("s3://models/fraud/2.onnx", 3);
        sim.settle();
        sim.refusal = None;
        sim.settle();
    }),
    ("a_spec_that_changes_mid_rollout_drops_the_candidate", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/crashes.onnx", 1);
        sim.steps(4);
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
    }),
    ("replicas_follow_the_spec_without_a_new_revision", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 3);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 0);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
    ("resolve_at_finds_the_same_bytes_and_then_others", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.annotate("modelwright.dev/resolve-at", "monday");
        sim.settle();
        sim.etag = "other".into();
        sim.annotate("modelwright.dev/resolve-at", "tuesday");
        sim.settle();
    }),
    ("the_last_gpu_is_taken_from_a_model_that_never_served", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/crashes.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
];

#[test]
fn the_stories_read_as_they_did() {
    for (name, story) in STORIES {
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
    for (name, story) in STORIES {
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
    for (name, story) in STORIES {
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
