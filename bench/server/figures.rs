//! `server.*`: all figures of one server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::Target;
use crate::load::{self, Measured, Times};
use crate::mixed;
use crate::model::{Form, Model};
use crate::process::{self, Neighbours, Server, free_port, until_answered};
use crate::raw::{Raw, Reference};
use crate::report::{self, Goal, figure, number, say};

/// One load that is measured, round for round.
struct Point {
    name: &'static str,
    form: Form,
    connections: usize,
}

/// A round's outcome at one point.
struct Sample {
    measured: Measured,
    reference: Reference,
}

impl Sample {
    fn ratio(&self) -> f64 {
        self.measured.per_second / self.reference.per_second
    }

    fn cpu_above(&self) -> f64 {
        self.measured.server_cpu_ms - self.reference.cpu_ms
    }

    fn tail(&self) -> f64 {
        self.measured.percentile(99.0) / self.measured.percentile(50.0)
    }
}

pub fn run() {
    first_answer();
    real_one_client();
    real_all_cores();
    real_many();
    tiny();
    memory();
    mixed::run();
}

fn point(name: &'static str, form: Form, connections: usize) -> Point {
    Point { name, form, connections }
}

/// Whether FIGURE= asks for a figure of this name.
pub fn wanted(name: &str) -> bool {
    std::env::var("FIGURE").map_or(true, |prefix| name.starts_with(&prefix) || prefix.starts_with(name))
}

pub fn seconds() -> Duration {
    Duration::from_secs(number("SECONDS", 2) as u64)
}

fn real_one_client() {
    let points = [point("server.real.c1.http", Form::Binary, 1), point("server.real.c1.grpc", Form::Grpc, 1)];
    rounds(Model::Real, &[], (1, 1, 1), number("ROUNDS", 7), &points, |name, samples| {
        let how = "÷ raw with 1 thread, batch 1";
        ratio(name, samples, 0.93, how);
    });
}

fn real_all_cores() {
    let points = [point("server.real.c1.latency", Form::Binary, 1)];
    let arguments = ["--session-option", "intra_op_num_threads=0"];
    rounds(Model::Real, &arguments, (1, 1, 0), number("ROUNDS", 7), &points, |name, samples| {
        let how = "÷ raw with all cores for a run, batch 1, ONNX Runtime's own defaults; HTTP";
        ratio(name, samples, 0.93, how);
    });
}

fn real_many() {
    let points = [
        point("server.real.c8.http", Form::Binary, 8),
        point("server.real.c8.grpc", Form::Grpc, 8),
        point("server.real.c32.http", Form::Binary, 32),
        point("server.real.c32.grpc", Form::Grpc, 32),
    ];
    rounds(Model::Real, &[], (2, 8, 1), number("ROUNDS", 7), &points, |name, samples| {
        ratio(name, samples, 0.96, "÷ raw with 2 threads, batch 8");
        let (value, spread) = median(samples, Sample::tail);
        figure(&format!("{name}.tail"), value, "p99/p50", Some(Goal::AtMost(1.5)), &spread);
    });
}

fn tiny() {
    let points = [
        point("server.tiny.c8.http.cpu_ms", Form::Binary, 8),
        point("server.tiny.c8.grpc.cpu_ms", Form::Grpc, 8),
        point("server.tiny.c32.http.rps", Form::Binary, 32),
        point("server.json.c8.cpu_ms", Form::Json, 8),
    ];
    rounds(Model::Tiny, &["--max-batch-size=1"], (2, 1, 1), number("ROUNDS", 7), &points, |name, samples| {
        match name {
            "server.tiny.c32.http.rps" => ratio(name, samples, 0.65, "÷ raw with 2 threads, batch 1"),
            _ => {
                let most = match name {
                    "server.tiny.c8.http.cpu_ms" => 0.05,
                    "server.tiny.c8.grpc.cpu_ms" => 0.08,
                    _ => 0.09,
                };
                let (value, spread) = median(samples, Sample::cpu_above);
                let (reference, _) = median(samples, |s| s.reference.cpu_ms);
                let how =
                    format!("CPU of the server's processes an answer, less raw's {reference:.3}; {spread}");
                figure(name, value, "ms", Some(Goal::AtMost(most)), &how);
            }
        }
    });
}

fn ratio(name: &str, samples: &[Sample], least: f64, how: &str) {
    let (value, spread) = median(samples, Sample::ratio);
    figure(name, value, "ratio", Some(Goal::AtLeast(least)), &format!("requests/s {how}; {spread}"));
}

/// The median, and how far apart the rounds were.
fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> (f64, String) {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[0], values[values.len() - 1]);
    (middle(&values), format!("median of {} rounds, {low:.3} to {high:.3}", values.len()))
}

pub fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// Measures the points that are wanted in turn, with the reference (threads, batch, intra) before and after every two.
fn rounds(
    model: Model,
    arguments: &[&str],
    (threads, batch, intra): (usize, usize, usize),
    rounds: usize,
    points: &[Point],
    print: impl Fn(&str, &[Sample]),
) {
    let points: Vec<&Point> = points.iter().filter(|p| wanted(p.name)).collect();
    if points.is_empty() {
        return;
    }
    let mut raw = Raw::start(model, threads, batch, intra);
    let port = free_port();
    let server = Server::serve(&model.path(), port, arguments);
    let expected = Arc::new(raw.expected.clone());
    let target = |form| Target { port, name: "m", model, form, expected: expected.clone() };
    until_answered(&target(Form::Binary));
    let times = Times { ramp: Duration::from_millis(200), measured: seconds() };
    for point in &points {
        let warm_up = Times { ramp: Duration::from_secs(1), measured: Duration::from_millis(200) };
        load::closed(&target(point.form), server.pid(), point.connections, warm_up);
    }

    let watch = Neighbours::watch();
    let mut samples: Vec<Vec<Sample>> = points.iter().map(|_| Vec::new()).collect();
    let mut before = raw.run(times.measured);
    for _ in 0..rounds {
        for (pair, samples) in points.chunks(2).zip(samples.chunks_mut(2)) {
            let measured: Vec<Measured> = pair
                .iter()
                .map(|p| load::closed(&target(p.form), server.pid(), p.connections, times))
                .collect();
            let after = raw.run(times.measured);
            let reference = Reference {
                per_second: (before.per_second + after.per_second) / 2.0,
                cpu_ms: (before.cpu_ms + after.cpu_ms) / 2.0,
            };
            before = after;
            for (measured, samples) in measured.into_iter().zip(samples) {
                samples.push(Sample { measured, reference });
            }
        }
    }
    let (others, stolen) = Neighbours::watch().since(&watch);
    say(&format!(
        "meanwhile other processes took {others:.2} cores, and {stolen:.2} were not given to this machine"
    ));
    for (point, samples) in points.iter().zip(&samples) {
        let of = |what: &dyn Fn(&Sample) -> f64| median(samples, what).0;
        say(&format!(
            "{}: {:.0}/s, p50 {:.3} ms, p99 {:.3} ms, server {:.4} CPU ms an answer; raw {:.0}/s, {:.4} CPU ms; \
             client {:.4} CPU ms",
            point.name,
            of(&|s| s.measured.per_second),
            of(&|s| s.measured.percentile(50.0)),
            of(&|s| s.measured.percentile(99.0)),
            of(&|s| s.measured.server_cpu_ms),
            of(&|s| s.reference.per_second),
            of(&|s| s.reference.cpu_ms),
            of(&|s| s.measured.client_cpu_ms),
        ));
        print(point.name, samples);
    }
}

/// From exec until the first right answer.
fn first_answer() {
    let name = "server.real.first_answer_s";
    if !wanted(name) {
        return;
    }
    let expected = Arc::new(Raw::start(Model::Real, 1, 1, 1).expected.clone());
    let path = Model::Real.path();
    let mut values: Vec<f64> = (0..10)
        .map(|_| {
            let port = free_port();
            let started = Instant::now();
            let _server = Server::serve(&path, port, &[]);
            until_answered(&Target {
                port,
                name: "m",
                model: Model::Real,
                form: Form::Binary,
                expected: expected.clone(),
            });
            started.elapsed().as_secs_f64()
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let how = format!(
        "exec to the first right answer, asked every ms; median of 10, {:.3} to {:.3}",
        values[0], values[9]
    );
    figure(name, middle(&values), "s", Some(Goal::AtMost(0.15)), &how);
}

fn memory() {
    let name = "server.real.pss_mb";
    if !wanted(name) {
        return;
    }
    // Ended before: pages that it shares with the server would count half.
    let expected = Arc::new(Raw::start(Model::Real, 1, 1, 1).expected.clone());
    let port = free_port();
    let server = Server::serve(&Model::Real.path(), port, &[]);
    let times = Times { ramp: Duration::from_millis(200), measured: seconds() };
    for form in [Form::Binary, Form::Grpc] {
        let target = Target { port, name: "m", model: Model::Real, form, expected: expected.clone() };
        until_answered(&target);
        let measured = load::closed(&target, server.pid(), 32, times);
        say(&format!("{name}: {} answers", measured.answered));
    }
    let pss =
        process::tree(server.pid()).into_iter().map(|pid| report::proc_mb(pid, "smaps_rollup", "Pss:")).sum();
    let how = "after load from 32 connections over HTTP and then gRPC; nothing else has the library loaded";
    figure(name, pss, "MB", Some(Goal::AtMost(150.0)), how);
}
