//! From the sockets to the threads that run the model: one bounded queue, several takers.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::sync::oneshot;

use super::engine::{RunError, Runner};
use super::metrics::Metrics;
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

/// One run, checked against the model's signature.
struct Job {
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
    deadline: Deadline,
    reply: oneshot::Sender<Result<Vec<Tensor>, RunError>>,
}

/// The sending side. Dropping it ends the threads, once the queue is empty.
pub struct Queue {
    jobs: Sender<Job>,
    metrics: Metrics,
}

impl Queue {
    /// Starts one thread a runner. ONNX Runtime blocks its thread, so these are never tokio's.
    pub fn start(runners: Vec<Box<dyn Runner>>, capacity: usize, metrics: Metrics) -> std::io::Result<Self> {
        let (jobs, taken) = crossbeam_channel::bounded(capacity);
        for (index, runner) in runners.into_iter().enumerate() {
            let (taken, metrics) = (taken.clone(), metrics.clone());
            thread::Builder::new()
                .name(format!("onnxruntime-{index}"))
                .spawn(move || take(&taken, runner, &metrics))?;
        }
        Ok(Self { jobs, metrics })
    }

    /// Runs the model. Dropping the future takes the job out of the queue; a run that has begun is finished.
    ///
    /// # Errors
    /// `Ok(Err(_))`: the model's answer. `Err`: the queue is full, or `deadline` has passed.
    pub async fn run(
        &self,
        inputs: Vec<Tensor>,
        outputs: Vec<usize>,
        deadline: Deadline,
    ) -> Result<Result<Vec<Tensor>, RunError>, Error> {
        let (reply, answer) = oneshot::channel();
        let job = Job { inputs, outputs, deadline, reply };
        self.jobs.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => Error::new(Kind::Unavailable, "the queue is full"),
            TrySendError::Disconnected(_) => Error::new(Kind::Unavailable, "the model has stopped"),
        })?;
        self.metrics.queue_depth.set(self.jobs.len() as i64);
        match tokio::time::timeout_at(deadline.at.into(), answer).await {
            Ok(Ok(result)) => Ok(result),
            // The thread dropped the reply: the deadline passed while the job waited, or the runner panicked.
            Ok(Err(_)) if !deadline.has_passed() => {
                Err(Error::new(Kind::Internal, "the model did not answer"))
            }
            Ok(Err(_)) | Err(_) => Err(Error::timed_out(deadline.allowed)),
        }
    }
}

fn take(jobs: &Receiver<Job>, mut runner: Box<dyn Runner>, metrics: &Metrics) {
    for job in jobs {
        metrics.queue_depth.set(jobs.len() as i64);
        // Nobody waits any more: the client has gone, or was told that it took too long.
        if job.reply.is_closed() || job.deadline.has_passed() {
            continue;
        }
        let started = Instant::now();
        let result = runner.run(&job.inputs, &job.outputs);
        metrics.compute(started.elapsed());
        // A receiver that has gone meanwhile does not want the answer.
        let _ = job.reply.send(result);
    }
}

/// What a full queue asks clients to wait.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
