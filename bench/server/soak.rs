//! `make bench ONLY=soak`: whether memory or file descriptors grow under mixed load.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::Target;
use crate::load::{self, Times};
use crate::model::{Form, Model};
use crate::process::{self, Server, free_port, until_answered};
use crate::raw::Raw;
use crate::report::{self, Goal, figure, number, say};

/// New connections after so long.
const TURN: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_secs(5);

pub fn run() {
    let minutes = number("SOAK_MINUTES", 30);
    let whole = Duration::from_secs(60 * minutes as u64);
    // Arenas and pools reach their size: not counted.
    let warm_up = whole / 5;
    let expected = [Model::Real, Model::Tiny].map(|m| Arc::new(Raw::start(m, 1, 1, 1).expected.clone()));
    let ports = [free_port(), free_port()];
    let server = Server::supervise(&[
        ("real", &Model::Real.path(), ports[0]),
        ("tiny", &Model::Tiny.path(), ports[1]),
    ]);
    let pid = server.pid();
    let target = |model: Model, form| Target {
        port: ports[model as usize],
        name: model.name(),
        model,
        form,
        expected: expected[model as usize].clone(),
    };
    let load = |model, form, connections, time: Duration| {
        let target = target(model, form);
        move || {
            let (started, mut answered) = (Instant::now(), 0);
            while started.elapsed() < time {
                let times = Times { ramp: Duration::ZERO, measured: TURN.min(time) };
                answered += load::closed(&target, pid, connections, times).answered;
            }
            answered
        }
    };
    let loads = |time| {
        [
            load(Model::Real, Form::Binary, 8, time),
            load(Model::Real, Form::Grpc, 4, time),
            load(Model::Tiny, Form::Json, 2, time),
            load(Model::Tiny, Form::Grpc, 2, time),
            load(Model::Tiny, Form::Binary, 1, time),
        ]
    };
    for (model, form) in [(Model::Real, Form::Binary), (Model::Tiny, Form::Binary)] {
        until_answered(&target(model, form));
    }

    say(&format!("soak: {} s of warm-up", warm_up.as_secs()));
    run_all(loads(warm_up), &mut |_| {});
    let before = settled(pid);
    say(&format!("soak: {} s", (whole - warm_up).as_secs()));
    let mut samples = Vec::new();
    let answered = run_all(loads(whole - warm_up), &mut |seconds| {
        let rss = rss_mb(pid);
        say(&format!("soak: {seconds:.0} s, {rss:.1} MiB, {} file descriptors", descriptors(pid)));
        samples.push((seconds / 3600.0, rss));
    });
    let after = settled(pid);

    let how = format!(
        "least squares over {} samples of the processes' VmRSS under mixed load, {answered} answers in {} s after \
         {} s of warm-up",
        samples.len(),
        (whole - warm_up).as_secs(),
        warm_up.as_secs(),
    );
    figure("soak.rss_slope", slope(&samples), "MiB/h", Some(Goal::AtMost(4.0)), &how);
    let how = format!("{after} at rest after the load, {before} after the warm-up");
    figure("soak.fd_growth", after as f64 - before as f64, "descriptors", Some(Goal::AtMost(0.0)), &how);
}

/// Runs the loads beside each other; meanwhile `sample` gets the seconds since the start. All answers.
fn run_all<F>(loads: [F; 5], sample: &mut dyn FnMut(f64)) -> usize
where
    F: FnOnce() -> usize + Send,
{
    let started = Instant::now();
    thread::scope(|scope| {
        let loads = loads.map(|load| scope.spawn(load));
        let mut next = EVERY;
        while !loads.iter().all(|l| l.is_finished()) {
            thread::sleep(Duration::from_millis(200));
            if started.elapsed() >= next {
                sample(started.elapsed().as_secs_f64());
                next += EVERY;
            }
        }
        loads.into_iter().map(|l| l.join().expect("right answers")).sum()
    })
}

fn rss_mb(pid: u32) -> f64 {
    process::tree(pid).into_iter().map(|pid| report::proc_mb(pid, "status", "VmRSS:")).sum()
}

fn descriptors(pid: u32) -> usize {
    let count = |pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    process::tree(pid).into_iter().map(count).sum()
}

/// The descriptors at rest: the count once it has not fallen for two seconds.
fn settled(pid: u32) -> usize {
    let (mut least, mut since) = (descriptors(pid), Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(100));
        let now = descriptors(pid);
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
    least
}

/// Of the line that fits best.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0 / n, sum.1 + p.1 / n));
    let covariance: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    covariance / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}
