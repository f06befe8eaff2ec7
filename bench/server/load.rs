//! Load from one thread: closed loop (each connection asks again when it has its answer) and open loop (at set times).

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::connection::{Connection, Failure, Target};
use crate::model::Random;
use crate::process;

#[derive(Clone, Copy)]
pub struct Times {
    /// Load that is not counted, before.
    pub ramp: Duration,
    pub measured: Duration,
}

pub struct Measured {
    pub answered: usize,
    pub per_second: f64,
    /// Of the server's processes, and of this thread, for each answer.
    pub server_cpu_ms: f64,
    pub client_cpu_ms: f64,
    /// Microseconds, sorted.
    pub latencies: Vec<u32>,
}

impl Measured {
    /// In milliseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        let index = ((self.latencies.len() as f64 * percent / 100.0).ceil() as usize).max(1) - 1;
        f64::from(self.latencies[index]) / 1000.0
    }
}

const RAMP: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// An answer that takes longer is the end of the bench.
const PATIENCE: Duration = Duration::from_secs(30);

/// As many answers as `connections` get, one after the other. Any error, and any wrong answer, is the bench's end.
pub fn closed(target: &Target, pid: u32, connections: usize, times: Times) -> Measured {
    let measured = runtime().block_on(async {
        let phase = Arc::new(AtomicU8::new(RAMP));
        let mut running = JoinSet::new();
        for variant in 0..connections {
            let (target, phase) = (target.clone(), phase.clone());
            running.spawn(async move {
                let mut connection = Connection::open(&target, variant).await.map_err(Failure::Broken)?;
                let mut latencies = Vec::new();
                while phase.load(Ordering::Relaxed) != OVER {
                    let asked = Instant::now();
                    connection.exchange().await?;
                    if phase.load(Ordering::Relaxed) == MEASURED {
                        latencies.push(asked.elapsed().as_micros() as u32);
                    }
                }
                Ok::<_, Failure>(latencies)
            });
        }
        tokio::time::sleep(times.ramp).await;
        let before = Clock::now(pid);
        phase.store(MEASURED, Ordering::Relaxed);
        tokio::time::sleep(times.measured).await;
        phase.store(OVER, Ordering::Relaxed);
        let after = Clock::now(pid);
        let ends =
            tokio::time::timeout(PATIENCE, running.join_all()).await.map_err(|_| "no answer in time")?;
        let mut latencies = Vec::new();
        for end in ends {
            latencies.extend(end.map_err(|e| e.to_string())?);
        }
        Ok::<_, String>(after.since(&before, latencies))
    });
    measured.unwrap_or_else(|e| panic!("{} {:?} at {connections} connections: {e}", target.name, target.form))
}

/// Requests at random times (Poisson), `per_second` of them, whatever becomes of the ones before. Latency counts from
/// the set time.
pub fn open(target: &Target, pid: u32, per_second: f64, times: Times) -> Measured {
    let measured = runtime().block_on(async {
        let idle: Arc<Mutex<Vec<Connection>>> = Arc::default();
        let latencies: Arc<Mutex<Vec<u32>>> = Arc::default();
        let mut random = Random::new(7);
        let mut running = JoinSet::new();
        let started = tokio::time::Instant::now();
        let mut at = Duration::ZERO;
        let (mut before, mut variant) = (None, 0);
        while at < times.ramp + times.measured {
            tokio::time::sleep_until(started + at).await;
            if at >= times.ramp && before.is_none() {
                before = Some(Clock::now(pid));
            }
            let counts = at >= times.ramp;
            let (asked, target) = (started + at, target.clone());
            let (idle, latencies) = (idle.clone(), latencies.clone());
            variant += 1;
            running.spawn(async move {
                let waiting = idle.lock().expect("no panic").pop();
                let mut connection = match waiting {
                    Some(connection) => connection,
                    None => Connection::open(&target, variant).await.map_err(Failure::Broken)?,
                };
                connection.exchange().await?;
                if counts {
                    latencies.lock().expect("no panic").push(asked.elapsed().as_micros() as u32);
                }
                idle.lock().expect("no panic").push(connection);
                Ok::<_, Failure>(())
            });
            at += Duration::from_secs_f64(-random.unit().ln() / per_second);
        }
        let ends =
            tokio::time::timeout(PATIENCE, running.join_all()).await.map_err(|_| "no answer in time")?;
        ends.into_iter().collect::<Result<(), _>>().map_err(|e| e.to_string())?;
        let latencies = std::mem::take(&mut *latencies.lock().expect("no panic"));
        let before = before.ok_or("no request in the time")?;
        Ok::<_, String>(Clock::now(pid).since(&before, latencies))
    });
    measured.unwrap_or_else(|e| panic!("{} {:?} at {per_second:.0}/s: {e}", target.name, target.form))
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

struct Clock {
    at: Instant,
    server: f64,
    client: f64,
}

impl Clock {
    fn now(pid: u32) -> Self {
        // The first field: nanoseconds on a CPU.
        let scheduled = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
        let client = scheduled.split(' ').next().and_then(|n| n.parse::<f64>().ok()).expect("a number") / 1e9;
        Self { at: Instant::now(), server: process::cpu_seconds_of_tree(pid), client }
    }

    fn since(&self, before: &Clock, mut latencies: Vec<u32>) -> Measured {
        latencies.sort_unstable();
        let answered = latencies.len();
        assert!(answered > 0, "nothing was answered");
        Measured {
            answered,
            per_second: answered as f64 / (self.at - before.at).as_secs_f64(),
            server_cpu_ms: 1000.0 * (self.server - before.server) / answered as f64,
            client_cpu_ms: 1000.0 * (self.client - before.client) / answered as f64,
            latencies,
        }
    }
}
