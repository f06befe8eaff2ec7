//! A crash at every write of the operator, in each moment, under load: `make bench ONLY=crash`, with SEED=, JOURNEYS= and
//! PARALLEL=.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/crash_traffic/mod.rs"]
mod journeys;
#[path = "../tests/ledger/mod.rs"]
mod ledger;
mod report;

use std::time::Instant;

use report::{Goal, figure, number, say};

#[tokio::main(worker_threads = 2)]
async fn main() {
    let start = Instant::now();
    let seed = number("SEED", 1);
    let journeys = std::env::var_os("JOURNEYS").map(|_| number("JOURNEYS", 0));
    let outcome = journeys::run(seed, journeys, number("PARALLEL", 4)).await;
    outcome.failures.iter().for_each(|failure| say(failure));
    let how = format!(
        "seed {seed}, {} of them reached their write, {} s; rollouts of every kind, at each write before it was sent, \
         after, and after the answer",
        outcome.crashed,
        start.elapsed().as_secs(),
    );
    figure("crash.plans", outcome.plans as f64, "crashes", None, &how);
    let how = "another end than without a crash, or a request that was lost or wrong";
    figure("crash.failed", outcome.failures.len() as f64, "crashes", Some(Goal::AtMost(0.0)), how);
    figure(
        "crash.requests",
        outcome.requests as f64,
        "requests",
        None,
        "REST and gRPC, new and kept connections",
    );
    figure("crash.lost", outcome.lost as f64, "requests", Some(Goal::AtMost(0.0)), "lost, or answered twice");
    let how = "another request's answer, or by a model that was not asked for";
    figure("crash.wrong", outcome.wrong as f64, "requests", Some(Goal::AtMost(0.0)), how);
    if !outcome.failures.is_empty() {
        std::process::exit(1);
    }
}
