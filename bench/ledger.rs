//! The ledger for a million requests: `make bench ONLY=ledger`, with REQUESTS=, ROLLOUTS= and RATE=.
//!
//! One ModelDeployment of two replicas on the local cluster; new models and rollbacks in turn, for as long as requests
//! come. Every answer is checked, and every one that is missing is printed.

#[path = "../tests/ledger/mod.rs"]
mod ledger;
mod report;
#[path = "../tests/e2e/traffic/mod.rs"]
#[allow(dead_code, unused_imports)]
mod scenes;
#[path = "../tests/e2e/support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod support;

use report::{Goal, figure, number, say};
use scenes::Marathon;

#[tokio::main(worker_threads = 1)]
async fn main() {
    let marathon = Marathon {
        requests: number("REQUESTS", 1_000_000),
        rollouts: number("ROLLOUTS", 100),
        per_second: number("RATE", 500) as f64,
    };
    let (rollouts, verdict) = marathon.run(say).await;
    say(&verdict.to_string());
    let failed = verdict.lost.len() + verdict.twice.len();
    let wrong = verdict.wrong.len() + verdict.undeclared.len();
    let how = format!(
        "REST and gRPC, new and kept connections in turn, {} a second; p99 {:.1} ms, longest {:.0} ms; {} of them \
         were sent again on another connection, since theirs had been closed before",
        marathon.per_second,
        verdict.p99.as_secs_f64() * 1000.0,
        verdict.longest.as_secs_f64() * 1000.0,
        verdict.resent,
    );
    figure("ledger.requests", verdict.requests as f64, "requests", Some(Goal::AtLeast(1e6)), &how);
    let how = "new models and rollbacks in turn, two replicas";
    figure("ledger.rollouts", rollouts as f64, "rollouts", Some(Goal::AtLeast(100.0)), how);
    figure("ledger.failed", failed as f64, "requests", Some(Goal::AtMost(0.0)), "lost, or answered twice");
    let how = "another request's answer, or by a model that was not asked for";
    figure("ledger.wrong", wrong as f64, "requests", Some(Goal::AtMost(0.0)), how);
}
