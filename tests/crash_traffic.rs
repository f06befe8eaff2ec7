//! The operator dies at its API writes while requests come, in rollouts of every kind: the end is that of a run without a
//! crash, and no request is lost, answered twice, wrongly or by a version that nobody asked for. Gateways, servers and
//! loaders are real processes. `make test-operator` makes 2 journeys of 13 crashes; `SEED=7 JOURNEYS=20 PARALLEL=4` others, and
//! `make bench ONLY=crash` all that there are.

mod common;
#[path = "crash_traffic/mod.rs"]
mod journeys;
mod ledger;

use std::time::Instant;

use common::number;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_loses_no_request() {
    let start = Instant::now();
    let seed = number("SEED", 1);
    let outcome = journeys::run(seed, Some(number("JOURNEYS", 2)), number("PARALLEL", 2)).await;
    println!(
        "seed {seed}: {} plans of which {} reached their write, {} requests, {} lost, {} wrong, {} s",
        outcome.plans,
        outcome.crashed,
        outcome.requests,
        outcome.lost,
        outcome.wrong,
        start.elapsed().as_secs(),
    );
    assert!(
        outcome.failures.is_empty(),
        "{} failed:\n{}",
        outcome.failures.len(),
        outcome.failures.join("\n")
    );
    assert!(outcome.crashed * 2 >= outcome.plans, "only {} plans crashed", outcome.crashed);
}
