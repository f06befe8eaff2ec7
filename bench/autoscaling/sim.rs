//! Arrivals → gateway → decision → pods, event by event.
//!
//! The gateway holds requests in one queue, first in, first out. A pod is two workers; a free worker takes up to eight
//! of what waits. A pod counts from its creation until its last request is answered.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The longest run of the model, in rows, and the threads that run it.
const MAX_ROWS: usize = 8;
const WORKERS: u32 = 2;
/// Requests that wait; more are refused. Knative's activator has the same limit.
const QUEUE: usize = 10_000;
/// `maxReplicas`, for both sides: more than twice what any trace needs.
pub const MAX_REPLICAS: usize = 50;
/// Concurrency of a pod at the knee of its batching curve, as the server finds it: every worker with a full run.
pub const KNEE: f64 = (MAX_ROWS as u32 * WORKERS) as f64;

#[derive(Clone, Copy)]
pub struct Model {
    /// Seconds of a run of one row.
    pub service: f64,
    /// Seconds from a pod's creation until it is proven.
    pub cold_start: f64,
}

impl Model {
    fn run(&self, rows: usize) -> f64 {
        self.service * (0.16 + 0.84 * rows as f64)
    }

    /// Requests a second of a pod at the knee.
    pub fn rate(&self) -> f64 {
        KNEE / self.run(MAX_ROWS)
    }
}

/// What an autoscaler can see. The sums are since the start: who wants a mean, subtracts.
#[derive(Clone, Copy, Default)]
pub struct View {
    pub now: f64,
    pub arrivals: u64,
    /// Integral of in flight + held.
    pub request_seconds: f64,
    pub in_flight: usize,
    pub held: usize,
    pub ready: usize,
    pub starting: usize,
    pub draining: usize,
}

pub trait Autoscaler {
    /// Seconds between two looks.
    fn period(&self) -> f64;
    /// `woken`: the first request that finds no pod at all.
    fn look(&mut self, view: &View, woken: bool) -> Option<usize>;
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Starting,
    Ready,
    Gone,
}

struct Pod {
    created: f64,
    state: State,
    busy: u32,
}

/// One second of a run, for the plots.
#[derive(Clone, Copy, Default)]
pub struct Second {
    pub arrivals: u32,
    pub pods: u32,
    pub wait: f32,
}

#[derive(Default)]
pub struct Outcome {
    pub replica_seconds: f64,
    pub p50: f64,
    pub p99: f64,
    pub refused: u64,
    pub seconds: Vec<Second>,
}

pub struct Simulation<'a> {
    arrivals: &'a [f64],
    model: Model,
    now: f64,
    next: usize,
    pods: Vec<Pod>,
    view: View,
    /// (time, pod, rows), sorted by time. Times are positive, so their bits sort as they do.
    runs: BinaryHeap<Reverse<(u64, usize, usize)>>,
    starts: VecDeque<(f64, usize)>,
    /// Pods with a free worker, once for each; stale entries are skipped.
    free: Vec<usize>,
    queue: VecDeque<usize>,
    waits: Vec<f32>,
    outcome: Outcome,
    record: bool,
}

impl<'a> Simulation<'a> {
    pub fn new(arrivals: &'a [f64], model: Model, record: bool) -> Self {
        Self {
            arrivals,
            model,
            now: 0.0,
            next: 0,
            pods: Vec::new(),
            view: View::default(),
            runs: BinaryHeap::new(),
            starts: VecDeque::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            waits: Vec::with_capacity(arrivals.len()),
            outcome: Outcome::default(),
            record,
        }
    }

    /// From one ready pod, until `duration` has passed and the last request was answered.
    pub fn run(mut self, autoscaler: &mut dyn Autoscaler, duration: f64) -> Outcome {
        self.create();
        self.starts[0].0 = 0.0;
        self.pods[0].created = 0.0;
        let mut tick = 0.0;
        // A scaler that never comes back would go on for ever: an hour more is enough for any queue.
        while self.now < duration + 3600.0 {
            let arrival = self.arrivals.get(self.next).copied().unwrap_or(f64::INFINITY);
            let run = self.runs.peek().map_or(f64::INFINITY, |Reverse((bits, ..))| f64::from_bits(*bits));
            let start = self.starts.front().map_or(f64::INFINITY, |s| s.0);
            if arrival == f64::INFINITY && self.queue.is_empty() && run == f64::INFINITY && tick >= duration {
                break;
            }
            let first = arrival.min(run).min(start).min(tick);
            self.advance(first);
            let mut woken = false;
            if first == start {
                let (_, pod) = self.starts.pop_front().expect("a start");
                self.started(pod);
            } else if first == run {
                let Reverse((_, pod, rows)) = self.runs.pop().expect("a run");
                self.finished(pod, rows);
            } else if first == arrival {
                woken = self.arrived();
            }
            self.dispatch();
            if first == tick || woken {
                if first == tick {
                    tick += autoscaler.period();
                }
                if let Some(desired) = autoscaler.look(&self.view, woken) {
                    self.scale(desired);
                }
            }
        }
        self.finish(duration)
    }

    fn advance(&mut self, to: f64) {
        let elapsed = to - self.now;
        self.view.request_seconds += elapsed * (self.view.in_flight + self.view.held) as f64;
        if self.record && to.floor() > self.now.floor() {
            self.second(to as usize);
        }
        self.now = to;
        self.view.now = to;
    }

    fn second(&mut self, until: usize) {
        let pods = (self.view.ready + self.view.starting) as u32;
        while self.outcome.seconds.len() < until {
            self.outcome.seconds.push(Second { pods, ..Second::default() });
        }
    }

    fn arrived(&mut self) -> bool {
        let id = self.next;
        self.next += 1;
        self.view.arrivals += 1;
        if self.queue.len() >= QUEUE {
            self.outcome.refused += 1;
            self.waits.push(f32::INFINITY);
            return false;
        }
        self.queue.push_back(id);
        self.view.held += 1;
        self.view.ready + self.view.starting == 0
    }

    fn create(&mut self) {
        let ready_at = self.now + self.model.cold_start;
        self.starts.push_back((ready_at, self.pods.len()));
        self.pods.push(Pod { created: self.now, state: State::Starting, busy: 0 });
        self.view.starting += 1;
    }

    fn started(&mut self, pod: usize) {
        self.view.starting -= 1;
        self.view.ready += 1;
        self.pods[pod].state = State::Ready;
        self.free.extend(std::iter::repeat_n(pod, WORKERS as usize));
    }

    fn finished(&mut self, id: usize, rows: usize) {
        self.view.in_flight -= rows;
        let pod = &mut self.pods[id];
        pod.busy -= 1;
        if pod.state == State::Ready {
            self.free.push(id);
        } else if pod.busy == 0 {
            self.view.draining -= 1;
            self.gone(id);
        }
    }

    fn gone(&mut self, id: usize) {
        self.outcome.replica_seconds += self.now - self.pods[id].created;
    }

    fn dispatch(&mut self) {
        while !self.queue.is_empty() {
            let Some(id) = self.free.pop() else { return };
            if self.pods[id].state != State::Ready {
                continue;
            }
            let rows = self.queue.len().min(MAX_ROWS);
            for request in self.queue.drain(..rows) {
                let wait = (self.now - self.arrivals[request]) as f32;
                self.waits.push(wait);
                if self.record {
                    let second = self.arrivals[request] as usize;
                    if let Some(second) = self.outcome.seconds.get_mut(second) {
                        second.wait = second.wait.max(wait);
                    }
                }
            }
            self.view.held -= rows;
            self.view.in_flight += rows;
            self.pods[id].busy += 1;
            let end = self.now + self.model.run(rows);
            self.runs.push(Reverse((end.to_bits(), id, rows)));
        }
    }

    /// Pods that start go first, then idle ones, then the least busy: as the operator and a ReplicaSet do.
    fn scale(&mut self, desired: usize) {
        let desired = desired.min(MAX_REPLICAS);
        for _ in self.view.ready + self.view.starting..desired {
            self.create();
        }
        for _ in desired..self.view.ready + self.view.starting {
            if let Some((_, id)) = self.starts.pop_back() {
                self.view.starting -= 1;
                self.pods[id].state = State::Gone;
                self.gone(id);
                continue;
            }
            let ready = self.pods.iter().enumerate().rev().filter(|(_, p)| p.state == State::Ready);
            let Some((id, _)) = ready.min_by_key(|(_, p)| p.busy) else { return };
            self.view.ready -= 1;
            self.pods[id].state = State::Gone;
            match self.pods[id].busy {
                0 => self.gone(id),
                _ => self.view.draining += 1,
            }
        }
    }

    fn finish(mut self, duration: f64) -> Outcome {
        self.now = self.now.max(duration);
        for id in 0..self.pods.len() {
            if self.pods[id].state != State::Gone || self.pods[id].busy > 0 {
                self.gone(id);
            }
        }
        // Who still waits, was never answered.
        self.outcome.refused += self.queue.len() as u64;
        self.waits.resize(self.waits.len() + self.queue.len(), f32::INFINITY);
        for arrival in self.arrivals {
            if let Some(second) = self.outcome.seconds.get_mut(*arrival as usize) {
                second.arrivals += 1;
            }
        }
        self.outcome.p50 = quantile(&mut self.waits, 0.5);
        self.outcome.p99 = quantile(&mut self.waits, 0.99);
        self.outcome
    }
}

/// The nearest rank.
fn quantile(values: &mut [f32], q: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let rank = ((values.len() as f64 * q).ceil() as usize).clamp(1, values.len());
    *values.select_nth_unstable_by(rank - 1, f32::total_cmp).1 as f64
}
