//! Rollouts told as stories: the real plan and status against a small model of the API server and its controllers,
//! in the usual order and in many seeded ones, with a crash after every write. The transcripts in
//! `tests/golden` are what a reviewer reads; `UPDATE_GOLDEN=1 cargo test --test rollouts` writes them anew.

mod histories;
mod sim;
mod stories;

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
