//! `server.mixed`: what a neighbour in the same pod does to a model's tail.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::connection::Target;
use crate::figures::{middle, seconds, wanted};
use crate::load::{self, Times};
use crate::model::{Form, Model};
use crate::process::{Server, free_port, until_answered};
use crate::raw::Raw;
use crate::report::{Goal, figure, number, say};

pub fn run() {
    let name = "server.mixed";
    if !wanted(name) {
        return;
    }
    let expected = Arc::new(Raw::start(Model::Real, 1, 1, 1).expected.clone());
    let (path, a, b) = (Model::Real.path(), free_port(), free_port());
    let server = Server::supervise(&[("a", &path, a), ("b", &path, b)]);
    let pid = server.pid();
    let target = |name, port| Target {
        port,
        name,
        model: Model::Real,
        form: Form::Binary,
        expected: expected.clone(),
    };
    let (a, b) = (target("a", a), target("b", b));
    for target in [&a, &b] {
        until_answered(target);
    }
    let times = |measured| Times { ramp: Duration::from_millis(500), measured };
    let peak = |target| load::closed(target, pid, 8, times(seconds())).per_second;
    let (peak_a, peak_b) = (peak(&a), peak(&b));
    say(&format!("{name}: peaks of {peak_a:.0}/s and {peak_b:.0}/s"));

    // Long enough for a p99 of a few hundred requests.
    let long = seconds() * 2;
    let measure = |neighbour: &(dyn Fn() + Sync)| {
        thread::scope(|scope| {
            scope.spawn(neighbour);
            // The neighbour is there when the counting begins, and until it has ended.
            let times = Times { ramp: Duration::from_secs(1), measured: long };
            load::open(&b, pid, peak_b / 4.0, times)
        })
    };
    let around = Times { ramp: Duration::ZERO, measured: long + Duration::from_millis(1500) };
    let mut ratios = Vec::new();
    for _ in 0..number("ROUNDS", 7).div_ceil(2) {
        let calm = measure(&|| drop(load::open(&a, pid, peak_a / 4.0, around)));
        let flooded = measure(&|| drop(load::closed(&a, pid, 64, around)));
        let (calm, flooded) = (calm.percentile(99.0), flooded.percentile(99.0));
        say(&format!(
            "{name}: p99 {calm:.1} ms beside a quarter of A's peak, {flooded:.1} ms beside the flood"
        ));
        ratios.push(flooded / calm);
    }
    ratios.sort_by(f64::total_cmp);
    let how = format!(
        "two assignments; B in open loop at 25 % of its peak alone ({peak_b:.0}/s): p99 with A flooded by 64 \
         connections ÷ with A at 25 % of its own; median of {} rounds, {:.2} to {:.2}",
        ratios.len(),
        ratios[0],
        ratios[ratios.len() - 1]
    );
    figure(name, middle(&ratios), "ratio", Some(Goal::AtMost(2.0)), &how);
}
