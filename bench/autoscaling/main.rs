//! The operator's scaling decision against Knative's, simulated: `make bench ONLY=autoscaling [TRACE=file]`.

mod kpa;
mod ours;
mod plot;
#[path = "../report.rs"]
mod report;
mod sim;
mod traces;

use kpa::{Kpa, Setting};
use modelwright::plan::scale::{Settings, Target, Tuning};
use ours::Ours;
use report::{Goal, figure, number, say};
use sim::{KNEE, MAX_REPLICAS, Model, Outcome, Simulation};
use traces::Trace;

const COLD_STARTS: [f64; 3] = [1.0, 10.0, 60.0];
const SERVICE_TIMES: [f64; 2] = [0.02, 0.2];
const UTILIZATIONS: [f64; 4] = [0.3, 0.5, 0.7, 0.9];
const WINDOWS: [f64; 7] = [6.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// min-scale and scale-to-zero grace; the first is Knative's default.
const ZERO: [(usize, f64); 3] = [(0, 30.0), (0, 0.0), (1, 0.0)];
const DEFAULT: Setting =
    Setting { target: KNEE * 0.7, capacity: KNEE, window: 60.0, min_scale: 0, grace: 30.0 };

/// The table's seed.
const SEED: u64 = 1;

#[derive(Default)]
struct Totals {
    scenarios: f64,
    log_default: f64,
    log_best: f64,
    worst: f64,
    slower: u32,
    refused: u64,
}

fn main() {
    let seed = number("SEED", SEED as usize) as u64;
    let mut traces = traces::synthetic(seed);
    if seed != SEED {
        traces.extend(traces::held_out(seed));
    }
    match std::env::var("TRACE").ok().filter(|path| !path.is_empty()).map(|path| traces::file(&path)) {
        None => say("no TRACE=file of arrival times: the synthetic ones only"),
        Some(Ok(trace)) => traces.insert(0, trace),
        Some(Err(error)) => {
            say(&error);
            std::process::exit(2);
        }
    }
    let plots = std::env::var("PLOTS").ok().filter(|folder| !folder.is_empty());
    eprintln!(
        "| trace | cold start s | service ms | ours: replica-s | p50 ms | p99 ms | refused | KPA default: replica-s | p50 ms | p99 ms | refused | ÷ default | best KPA: replica-s | p99 ms | setting | ÷ best |"
    );
    eprintln!("|{}", "-|".repeat(16));
    let mut totals = Totals::default();
    for trace in &traces {
        for cold_start in COLD_STARTS {
            for service in SERVICE_TIMES {
                scenario(trace, Model { service, cold_start }, &mut totals);
            }
        }
        if let Some(folder) = &plots {
            draw(trace, folder);
        }
    }
    totals.print(traces.len());
}

fn ours(trace: &Trace, model: Model, record: bool) -> Outcome {
    let settings = Settings {
        min: 0,
        max: MAX_REPLICAS as u32,
        target: Target::Measured { concurrency: KNEE, per_second: model.rate() },
        cold_start: Some(model.cold_start),
        stabilization_window: None,
        scale_to_zero_after: None,
        is_measured: true,
        proven: true,
        tuning: Tuning::default(),
    };
    Simulation::new(&trace.arrivals, model, record).run(&mut Ours::new(settings), trace.duration)
}

fn kpa(trace: &Trace, model: Model, setting: Setting, record: bool) -> Outcome {
    Simulation::new(&trace.arrivals, model, record).run(&mut Kpa::new(setting), trace.duration)
}

/// Waits are compared as they are printed, in milliseconds.
fn ms(seconds: f64) -> f64 {
    (seconds * 1000.0).round()
}

fn scenario(trace: &Trace, model: Model, totals: &mut Totals) {
    let ours = ours(trace, model, false);
    let default = kpa(trace, model, DEFAULT, false);
    let mut all = Vec::new();
    for utilization in UTILIZATIONS {
        for window in WINDOWS {
            for (min_scale, grace) in ZERO {
                let setting = Setting { target: KNEE * utilization, window, min_scale, grace, ..DEFAULT };
                all.push((kpa(trace, model, setting, false), setting));
            }
        }
    }
    let cost = |a: &&(Outcome, Setting), b: &&(Outcome, Setting)| {
        a.0.replica_seconds.total_cmp(&b.0.replica_seconds)
    };
    let as_fast = all.iter().filter(|(o, _)| ms(o.p99) <= ms(ours.p99)).min_by(cost);
    let fastest = || all.iter().min_by(|a, b| ms(a.0.p99).total_cmp(&ms(b.0.p99)).then(cost(a, b)));
    let (best, setting) = as_fast.or_else(fastest).expect("a grid");
    let slower = ms(ours.p99) > ms(default.p99);
    let by_default = ours.replica_seconds / default.replica_seconds;
    let by_best = ours.replica_seconds / best.replica_seconds;
    eprintln!(
        "| {} | {} | {} | {:.0} | {} | {} | {} | {:.0} | {} | {} | {} | {by_default:.2}{} | {:.0} | {} | {:.0} % {} s min {} grace {} | {by_best:.2} |",
        trace.name,
        model.cold_start,
        model.service * 1000.0,
        ours.replica_seconds,
        ms(ours.p50),
        ms(ours.p99),
        ours.refused,
        default.replica_seconds,
        ms(default.p50),
        ms(default.p99),
        default.refused,
        if slower { ", slower" } else { "" },
        best.replica_seconds,
        ms(best.p99),
        setting.target / KNEE * 100.0,
        setting.window,
        setting.min_scale,
        setting.grace,
    );
    totals.scenarios += 1.0;
    totals.log_default += by_default.ln();
    totals.log_best += by_best.ln();
    totals.worst = totals.worst.max(by_best);
    totals.slower += u32::from(slower);
    totals.refused += ours.refused;
}

impl Totals {
    fn print(&self, traces: usize) {
        let how = format!(
            "{traces} traces × cold starts of 1, 10, 60 s × service times of 20, 200 ms, simulated; geometric mean"
        );
        let mean = |log: f64| (log / self.scenarios).exp();
        let goal = |most| Some(Goal::AtMost(most));
        figure("autoscaling.vs_default", mean(self.log_default), "ratio", goal(0.8), &how);
        let how = "scenarios whose p99 wait is above that of KPA's defaults";
        figure("autoscaling.vs_default.slower", f64::from(self.slower), "scenarios", goal(0.0), how);
        let how =
            "replica-seconds ÷ the least of a KPA setting whose p99 wait is not above ours; geometric mean";
        figure("autoscaling.vs_best", mean(self.log_best), "ratio", goal(1.0), how);
        figure("autoscaling.vs_best.worst", self.worst, "ratio", goal(1.1), "the highest of these");
        figure("autoscaling.refused", self.refused as f64, "requests", None, "ours; over 10,000 would wait");
    }
}

/// Of the scenario in the middle: a start of 10 s, 200 ms a request.
fn draw(trace: &Trace, folder: &str) {
    let model = Model { service: 0.2, cold_start: 10.0 };
    let (ours, kpa) = (ours(trace, model, true), kpa(trace, model, DEFAULT, true));
    let picture = plot::picture(&trace.name, &ours.seconds, &kpa.seconds);
    let path = format!("{folder}/{}.svg", trace.name);
    if let Err(error) = std::fs::write(&path, picture) {
        say(&format!("{path}: {error}"));
        std::process::exit(2);
    }
}
