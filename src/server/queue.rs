//! From the sockets to the threads that run the model: one bounded queue, several takers, who share runs.

mod learnt;

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::batch::{
    BatchAxes, Curve, Entry, Former, Gather, Limits, MAX_ROWS, Shape, Take, Threads, Ticket, join, split,
};
use super::engine::{Brake, RunError, Runner};
use super::metrics::Metrics;
use super::trail::{self, Run};
use crate::protocol::{Error, Kind, Tensor};

/// Until when an answer is of use.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    /// What the request was allowed: said when it has passed.
    allowed: Duration,
}

impl Deadline {
    pub fn new(started: Instant, allowed: Duration) -> Self {
        Self { at: started + allowed, allowed }
    }

    fn has_passed(&self) -> bool {
        Instant::now() >= self.at
    }
}

/// How requests share runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Batching {
    pub axes: BatchAxes,
    /// Rows of one run at most; None: as the measured curve says.
    pub max_rows: Option<usize>,
    /// How long an idle thread waits for a fuller batch.
    pub delay: Duration,
}

/// One request, checked against the model's signature.
pub struct Request {
    pub inputs: Vec<Tensor>,
    /// Indices of the model's outputs.
    pub outputs: Vec<usize>,
    /// Lower comes first.
    pub priority: u8,
    pub deadline: Deadline,
}

struct Job {
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
    reply: oneshot::Sender<Answered>,
}

struct Answered {
    result: Result<Vec<Tensor>, RunError>,
    run: Run,
}

/// The sending side. Dropping it ends the threads, once the queue is empty.
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    batching: Option<Batching>,
    /// One a thread.
    brakes: Vec<Option<Arc<dyn Brake>>>,
    metrics: Metrics,
}

struct State {
    former: Former<Job>,
    /// By shape: a sentence of 8 tokens costs less than one of 512.
    curves: HashMap<Shape, Curve>,
    /// Of runs that nothing shares.
    alone: Curve,
    /// Of a request, on average.
    rows: f64,
    /// Rows that threads work on.
    running: usize,
    /// By thread: the run that it is at.
    runs: Vec<Option<Current>>,
    /// Threads that sleep. The last is woken first: its core's caches still hold the weights, and two threads that take
    /// turns at one client's requests took a fifth longer.
    idle: Vec<Thread>,
    /// A thread looks for a request, awake.
    watched: bool,
    closed: bool,
    /// An output did not follow its inputs: no run is shared any more.
    unbatched: bool,
}

struct Current {
    /// The latest deadline of its requests.
    until: Instant,
    ended: bool,
}

/// Shapes whose curves are kept; a client that sends another each time must not fill the memory.
const MAX_CURVES: usize = 256;

/// Requests whose rows are remembered.
const RECENT: f64 = 64.0;

/// The moment after a shared run, as a part of its time: a twentieth is what the larger batch saves at least.
const MOMENT: u32 = 20;

/// After one request alone, a thread looks for the next for so long, and no longer than that moment, before it sleeps:
/// to be woken takes a tenth of a millisecond on a virtual machine.
const WATCH: Duration = Duration::from_micros(400);

impl Queue {
    /// Starts one thread a runner. ONNX Runtime blocks its thread, so these are never tokio's.
    pub fn start(
        runners: Vec<Box<dyn Runner>>,
        batching: Option<Batching>,
        limits: Limits,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let delay = batching.as_ref().map_or(Duration::ZERO, |b| b.delay);
        let state = State {
            former: Former::new(limits, delay),
            curves: HashMap::new(),
            alone: Curve::default(),
            rows: 1.0,
            running: 0,
            runs: runners.iter().map(|_| None).collect(),
            idle: Vec::new(),
            watched: false,
            closed: false,
            unbatched: false,
        };
        let brakes = runners.iter().map(|runner| runner.brake()).collect();
        let shared = Arc::new(Shared { state: Mutex::new(state), batching, brakes, metrics });
        let queue = Self { shared };
        for (index, runner) in runners.into_iter().enumerate() {
            let shared = queue.shared.clone();
            thread::Builder::new()
                .name(format!("onnxruntime-{index}"))
                .spawn(move || shared.work(index, runner))?;
        }
        Ok(queue)
    }

    /// Runs the model. Dropping the future takes the request out of the queue; a run that has begun goes on: see `end_overlong`.
    ///
    /// # Errors
    /// `Ok(Err(_))`: the model's answer. `Err`: the queue is full, or the deadline has passed or can't be met.
    pub async fn run(&self, request: Request) -> Result<Result<Vec<Tensor>, RunError>, Error> {
        let deadline = request.deadline;
        trail::queued(); // before a thread can take it
        let (mut place, answer) = self.shared.enqueue(request)?;
        let answered = tokio::time::timeout_at(deadline.at.into(), answer).await;
        if let Ok(Ok(Answered { result, run })) = answered {
            place.ticket = None;
            trail::ran(run);
            // A run that was ended fails with an error that is no answer: its time was over.
            return match result.is_err() && deadline.has_passed() {
                true => Err(Error::timed_out(deadline.allowed)),
                false => Ok(result),
            };
        }
        match deadline.has_passed() {
            true => Err(Error::timed_out(deadline.allowed)),
            // The thread dropped the reply: it has ended.
            false => Err(Error::new(Kind::Internal, "the model did not answer")),
        }
    }

    /// Ends runs that nobody waits for any more: all of their requests have passed their deadlines. Asked now and then,
    /// so that a model that loops for ever has its thread for a while, and not for good.
    pub fn end_overlong(&self) {
        let now = Instant::now();
        let mut state = self.shared.lock();
        for (run, brake) in state.runs.iter_mut().zip(&self.shared.brakes) {
            if let Some((run, brake)) = run.as_mut().zip(brake.as_ref())
                && run.until < now
                && !run.ended
            {
                run.ended = true;
                // Under the lock, so that it is this run that ends, and not the next.
                brake.put_on();
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        for thread in state.idle.drain(..) {
            thread.unpark();
        }
    }
}

/// Gives the place in the queue back when the client goes.
struct Place<'a> {
    shared: &'a Shared,
    ticket: Option<Ticket>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.shared.lock();
        let _gone = state.former.remove(ticket); // megabytes, maybe: not dropped under the lock
        self.shared.count(&state);
        drop(state);
    }
}

type Answer = oneshot::Receiver<Answered>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, state: &State) {
        self.metrics.queued(state.former.len(), state.former.bytes());
    }

    fn enqueue(&self, request: Request) -> Result<(Place<'_>, Answer), Error> {
        let Request { inputs, outputs, priority, deadline } = request;
        let (shape, rows) = self.shape(&inputs, &outputs);
        let (reply, answer) = oneshot::channel();
        let now = Instant::now();
        let entry = Entry {
            shape,
            rows,
            bytes: inputs.iter().map(|t| t.data().len()).sum(),
            priority,
            queued_at: now,
            deadline: deadline.at,
            item: Job { inputs, outputs, reply },
        };
        let mut state = self.lock();
        if state.closed {
            return Err(Error::new(Kind::Unavailable, "the model has stopped"));
        }
        if let Some(wait) = self.least_wait(&state, &entry).filter(|wait| now + *wait > deadline.at) {
            return Err(Error::new(
                Kind::DeadlineExceeded,
                format!(
                    "the requests before this one take {:.3} s at least, it allows {:.3} s",
                    wait.as_secs_f64(),
                    deadline.at.saturating_duration_since(now).as_secs_f64()
                ),
            ));
        }
        let ticket = match state.former.push(entry) {
            Ok(ticket) => ticket,
            Err(_) => return Err(Error::new(Kind::Unavailable, "the queue is full")),
        };
        state.rows += (rows as f64 - state.rows) / RECENT;
        self.count(&state);
        let wake = if state.former.len() > usize::from(state.watched) { state.idle.pop() } else { None };
        drop(state);
        if let Some(thread) = wake {
            thread.unpark();
        }
        Ok((Place { shared: self, ticket: Some(ticket) }, answer))
    }

    /// What the request can share a run with, and its rows.
    fn shape(&self, inputs: &[Tensor], outputs: &[usize]) -> (Shape, usize) {
        let Some(batching) = &self.batching else { return (Shape::Alone, 1) };
        let rows = inputs.first().zip(batching.axes.inputs.first()).and_then(|(t, axis)| t.shape.get(*axis));
        let Some(rows) = rows.copied().filter(|rows| *rows > 0) else { return (Shape::Alone, 1) };
        let mut key = Vec::with_capacity(outputs.len() + 4 * inputs.len());
        for (tensor, axis) in inputs.iter().zip(&batching.axes.inputs) {
            for (index, length) in tensor.shape.iter().enumerate() {
                match index == *axis {
                    true if *length != rows => return (Shape::Alone, 1), // broadcast, maybe: its own business
                    true => {}
                    false => key.push(*length),
                }
            }
        }
        key.push(-1);
        key.extend(outputs.iter().map(|index| *index as i64));
        (Shape::Of(key.into()), usize::try_from(rows).unwrap_or(1))
    }

    /// How long the requests before this one take when nothing disturbs them, and the request itself. None: not known.
    fn least_wait(&self, state: &State, entry: &Entry<Job>) -> Option<Duration> {
        let curve = state.curves.get(&entry.shape)?;
        let own = curve.seconds(entry.rows)?;
        let per_row = curve.seconds(MAX_ROWS)? / MAX_ROWS as f64;
        // Those of lower priority wait behind it.
        let before = state.former.rows_before(entry.priority);
        let seconds = before as f64 * per_row / self.brakes.len() as f64 + own;
        Duration::try_from_secs_f64(seconds).ok()
    }

    fn work(&self, index: usize, mut runner: Box<dyn Runner>) {
        let mut expired = Vec::new();
        let mut gather = Gather { rows: 0, until: Instant::now() };
        loop {
            let Some(batch) = self.take(index, gather, &mut expired) else { return };
            expired.clear(); // dropping the reply tells whoever waits
            let begin = Instant::now();
            let rows: usize = batch.iter().map(|entry| entry.rows).sum();
            let alone = batch.len() == 1;
            self.run(runner.as_mut(), batch);
            self.finish(index, rows);
            let end = Instant::now();
            gather = Gather { rows: if alone { 0 } else { rows }, until: end + (end - begin) / MOMENT };
        }
    }

    fn finish(&self, index: usize, rows: usize) {
        let mut state = self.lock();
        state.running -= rows;
        let run = state.runs.get_mut(index).and_then(Option::take);
        drop(state);
        if run.is_some_and(|run| run.ended) {
            tracing::warn!("a run was ended: the deadlines of all its requests had passed");
            if let Some(Some(brake)) = self.brakes.get(index) {
                brake.release();
            }
        }
    }

    /// Waits for the next batch. None: the end.
    fn take(&self, index: usize, gather: Gather, expired: &mut Vec<Entry<Job>>) -> Option<Vec<Entry<Job>>> {
        let watched_until = gather.until.min(Instant::now() + WATCH);
        // Where several clients take turns, their sockets need the core more.
        let is_alone = |state: &State| gather.rows == 0 && state.running == 0 && !state.watched;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let State { former, curves, running, unbatched, .. } = &mut *state;
            let limit = self.batching.as_ref().and_then(|b| b.max_rows);
            let cap = |shape: &Shape| match *unbatched {
                true => 1,
                false => {
                    let learnt = || curves.get(shape).map_or_else(|| Curve::default().cap(), Curve::cap);
                    limit.unwrap_or_else(learnt)
                }
            };
            let threads = Threads { count: self.brakes.len(), busy_with: *running };
            let taken = former.take(now, threads, cap, gather, expired);
            let until = match taken {
                Take::Batch(batch) => {
                    let until = batch.iter().map(|entry| entry.deadline).max();
                    if let Some(run) = state.runs.get_mut(index) {
                        *run = until.map(|until| Current { until, ended: false });
                    }
                    state.running += batch.iter().map(|entry| entry.rows).sum::<usize>();
                    self.count(&state);
                    return Some(batch);
                }
                Take::Nothing if state.closed => return None,
                Take::Nothing if is_alone(&state) && now < watched_until => {
                    state.watched = true;
                    drop(state);
                    while self.metrics.queue_depth.get() == 0 && Instant::now() < watched_until {
                        std::hint::spin_loop();
                    }
                    state = self.lock();
                    state.watched = false;
                    continue;
                }
                Take::Nothing => None,
                Take::Wait(until) => Some(until),
            };
            state.idle.push(thread::current());
            drop(state);
            match until {
                None => thread::park(),
                Some(until) => thread::park_timeout(until.saturating_duration_since(now)),
            }
            state = self.lock();
            // Woken by the clock, it is still there.
            state.idle.retain(|thread| thread.id() != thread::current().id());
        }
    }

    fn run(&self, runner: &mut dyn Runner, batch: Vec<Entry<Job>>) {
        let now = Instant::now();
        for entry in &batch {
            self.metrics.waited(now.saturating_duration_since(entry.queued_at));
        }
        let Some((batching, [first, ..])) = self.batching.as_ref().zip(batch.get(..)) else {
            return self.run_each(runner, batch);
        };
        if batch.len() == 1 {
            return self.run_each(runner, batch);
        }
        let rows: Vec<usize> = batch.iter().map(|entry| entry.rows).collect();
        let outputs = first.item.outputs.clone();
        match self.run_together(runner, batching, &batch, &outputs, &rows) {
            Ok((answers, run)) => {
                for (entry, answer) in batch.into_iter().zip(answers) {
                    // A receiver that has gone meanwhile does not want the answer.
                    let _ = entry.item.reply.send(Answered { result: Ok(answer), run: run.clone() });
                }
            }
            // One bad request must not spoil its neighbours'.
            Err(_) => self.run_each(runner, batch),
        }
    }

    /// One run for all of `batch`: the outputs of each.
    fn run_together(
        &self,
        runner: &mut dyn Runner,
        batching: &Batching,
        batch: &[Entry<Job>],
        outputs: &[usize],
        rows: &[usize],
    ) -> Result<(Vec<Vec<Tensor>>, Run), String> {
        let taken = Instant::now();
        let joined = batching.axes.inputs.iter().enumerate().map(|(input, axis)| {
            let parts: Option<Vec<&Tensor>> = batch.iter().map(|e| e.item.inputs.get(input)).collect();
            join(&parts.ok_or("an input is missing")?, *axis)
        });
        let joined = joined.collect::<Result<Vec<_>, _>>()?;
        let total = rows.iter().sum();
        let (results, computed) = self.timed(runner, &joined, outputs, &batch[0].shape, total, batch.len());
        let results = results.map_err(|e| e.to_string())?;
        let mut answers: Vec<Vec<Tensor>> = vec![Vec::with_capacity(outputs.len()); batch.len()];
        for (whole, output) in results.into_iter().zip(outputs) {
            let axis = batching.axes.outputs.get(*output).copied().unwrap_or(0);
            let parts = split(whole, axis, rows).inspect_err(|why| {
                tracing::warn!(why, "requests share no run any more: an output does not follow its inputs");
                self.lock().unbatched = true;
            })?;
            for (answer, part) in answers.iter_mut().zip(parts) {
                answer.push(part);
            }
        }
        Ok((answers, Run { taken, computed, requests: batch.len(), rows: total }))
    }

    fn run_each(&self, runner: &mut dyn Runner, batch: Vec<Entry<Job>>) {
        for Entry { shape, rows, item, .. } in batch {
            if item.reply.is_closed() {
                continue; // the client has gone
            }
            let taken = Instant::now();
            let (result, computed) = self.timed(runner, &item.inputs, &item.outputs, &shape, rows, 1);
            let _ = item.reply.send(Answered { result, run: Run { taken, computed, requests: 1, rows } });
        }
    }

    fn timed(
        &self,
        runner: &mut dyn Runner,
        inputs: &[Tensor],
        outputs: &[usize],
        shape: &Shape,
        rows: usize,
        requests: usize,
    ) -> (Result<Vec<Tensor>, RunError>, Range<Instant>) {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| runner.run(inputs, outputs)))
            .unwrap_or_else(|_| Err(RunError::Failed("the run panicked: this is a bug".into())));
        let ended = Instant::now();
        let took = ended - started;
        self.metrics.computed(rows, took);
        if result.is_ok() {
            self.metrics.statistics.executed(requests, rows, took);
        }
        if result.is_ok() && *shape == Shape::Alone {
            self.lock().alone.observe(1, took.as_secs_f64());
        } else if result.is_ok() {
            let mut state = self.lock();
            if state.curves.len() >= MAX_CURVES && !state.curves.contains_key(shape) {
                state.curves.clear();
            }
            state.curves.entry(shape.clone()).or_default().observe(rows, took.as_secs_f64());
        }
        (result, started..ended)
    }
}

/// What a full queue asks clients to wait.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
