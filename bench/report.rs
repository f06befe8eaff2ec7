//! What every bench prints: figures on stdout, one JSON object a line; everything else on stderr.
#![allow(dead_code)] // each bench uses its part

use serde_json::json;

#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

pub fn figure(name: &str, value: f64, unit: &str, goal: Option<Goal>, how: &str) {
    let value = (value * 1000.0).round() / 1000.0;
    let (goal, ok) = match goal {
        None => (None, true),
        Some(Goal::AtMost(most)) => (Some(format!("<={most}")), value <= most),
        Some(Goal::AtLeast(least)) => (Some(format!(">={least}")), value >= least),
    };
    println!(
        "{}",
        json!({ "figure": name, "value": value, "unit": unit, "goal": goal, "ok": ok, "how": how })
    );
}

pub fn say(text: &str) {
    eprintln!("bench: {text}");
}

/// A number from the environment.
pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: want a number")))
}

/// User and system time of one process; a tick is 10 ms on every Linux that runs this.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks = |i: usize| fields[i].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / 100.0
}

/// A value in kB of a file of /proc, in MB.
pub fn proc_mb(pid: u32, file: &str, field: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process runs");
    let line = text.lines().find(|l| l.starts_with(field)).unwrap_or_else(|| panic!("no {field} in {file}"));
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("kB") / 1024.0
}
