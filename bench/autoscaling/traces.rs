//! Arrival times: a file's, or made from a rate over time and a seed.

use std::f64::consts::PI;

pub struct Trace {
    pub name: String,
    pub arrivals: Vec<f64>,
    pub duration: f64,
}

/// splitmix64: the same numbers on every machine.
pub struct Random(pub u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1].
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }
}

/// Poisson arrivals at a rate that changes: those of its maximum, thinned.
fn poisson(name: &str, seed: u64, duration: f64, most: f64, rate: impl Fn(f64) -> f64) -> Trace {
    let mut random = Random(seed);
    let mut arrivals = Vec::new();
    let mut now = 0.0;
    loop {
        now += random.exponential(1.0 / most);
        if now >= duration {
            return Trace { name: name.into(), arrivals, duration };
        }
        if random.unit() * most <= rate(now) {
            arrivals.push(now);
        }
    }
}

fn steps(name: &str, seed: u64, each: f64, levels: &[f64]) -> Trace {
    let most = levels.iter().copied().fold(0.0, f64::max);
    poisson(name, seed, each * levels.len() as f64, most, |t| levels[(t / each) as usize])
}

fn ramps(name: &str, seed: u64, period: f64, count: f64, most: f64) -> Trace {
    poisson(name, seed, period * count, most, |t| most * (1.0 - (2.0 * (t / period).fract() - 1.0).abs()))
}

fn diurnal(name: &str, seed: u64, period: f64, count: f64, most: f64) -> Trace {
    poisson(name, seed, period * count, most, |t| most * (0.5 - 0.5 * (2.0 * PI * t / period).cos()).powi(2))
}

fn on_off(name: &str, seed: u64, duration: f64, on: f64, off: f64, rate: f64) -> Trace {
    let mut random = Random(seed ^ 0x6f6e);
    let mut changes = vec![0.0];
    while *changes.last().expect("one") < duration {
        let mean = if changes.len() % 2 == 1 { on } else { off };
        changes.push(changes.last().expect("one") + random.exponential(mean));
    }
    poisson(name, seed, duration, rate, |t| {
        if changes.partition_point(|c| *c <= t) % 2 == 1 { rate } else { 0.0 }
    })
}

/// The table's. Another seed gives others of the same kinds, which nothing was chosen by.
pub fn synthetic(seed: u64) -> Vec<Trace> {
    let s = seed * 1000;
    vec![
        steps("steps", s + 1, 300.0, &[5.0, 60.0, 20.0, 120.0, 10.0, 0.0]),
        ramps("ramps", s + 2, 600.0, 3.0, 100.0),
        diurnal("diurnal", s + 3, 3600.0, 1.0, 80.0),
        on_off("on-off", s + 4, 3600.0, 60.0, 120.0, 40.0),
        on_off("on-off-rare", s + 5, 7200.0, 60.0, 600.0, 40.0),
        on_off("on-off-fast", s + 6, 1800.0, 5.0, 15.0, 60.0),
    ]
}

/// Other kinds and other sizes.
pub fn held_out(seed: u64) -> Vec<Trace> {
    let s = seed * 1000 + 500;
    vec![
        steps("steps-up", s + 1, 200.0, &[10.0, 20.0, 40.0, 80.0, 160.0, 80.0, 40.0, 0.0, 40.0]),
        ramps("ramps-fast", s + 2, 120.0, 10.0, 60.0),
        diurnal("diurnal-two", s + 3, 1800.0, 2.0, 120.0),
        on_off("on-off-medium", s + 4, 3600.0, 120.0, 300.0, 25.0),
        on_off("on-off-bursts", s + 5, 3600.0, 10.0, 60.0, 100.0),
        poisson("sparse", s + 6, 14400.0, 0.02, |_| 0.02),
        poisson("constant", s + 7, 1200.0, 40.0, |_| 40.0),
    ]
}

pub fn file(path: &str) -> Result<Trace, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("TRACE={path}: {e}"))?;
    let mut arrivals = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let time: f64 =
            line.parse().map_err(|_| format!("{path}:{}: {line:?} is not a number", number + 1))?;
        if !(time.is_finite() && time >= 0.0) {
            return Err(format!("{path}:{}: want seconds from the start, not {line}", number + 1));
        }
        arrivals.push(time);
    }
    arrivals.sort_by(f64::total_cmp);
    let Some(last) = arrivals.last() else { return Err(format!("{path}: no arrival times, one a line")) };
    let name =
        std::path::Path::new(path).file_stem().map_or(path.into(), |n| n.to_string_lossy().into_owned());
    Ok(Trace { name, duration: last.ceil(), arrivals })
}
