//! One assignment: where it stands, and what to do next.

use std::time::{Duration, Instant};

use super::memory::Memory;
use super::process::{self, Exit, News, Pid, Signal};
use crate::formats::{Assignment, LoadPhase, LoadStatus, RevisionPhase, RevisionState};
use crate::server::engine::Reason;
use crate::server::report::Report;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A worker that served this long has earned a fresh start.
const PROVEN_FOR: Duration = Duration::from_secs(60);

pub(super) struct Slot {
    assignment: Assignment,
    load: Option<LoadStatus>,
    worker: Option<Worker>,
    /// Why it does not serve, until it does again.
    failure: Option<Failure>,
    failures: u32,
    retry_at: Option<Instant>,
    removed: bool,
    /// Its files are wanted, and no worker.
    fetch_only: bool,
    /// It has been proven before.
    served: bool,
    /// Its worker was ended for another's.
    gave_way: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    reason: String,
    message: String,
}

struct Worker {
    pid: Pid,
    started: Instant,
    memory_cap: Option<u64>,
    /// The most that was seen, bytes: tells a crash for want of memory from one for want of sense.
    data_peak: u64,
    report: Report,
    proven_at: Option<Instant>,
    /// How long nothing has been heard of it, as far as this process was awake itself: a frozen pod blames nobody.
    silence: Duration,
    watched_at: Instant,
    /// It was told to stop, and is killed at this time.
    stop_by: Option<Instant>,
    killed: bool,
    exit: Option<Exit>,
    closed: bool,
}

impl Slot {
    pub fn new(assignment: Assignment, fetch_only: bool) -> Self {
        Self {
            assignment,
            load: None,
            worker: None,
            failure: None,
            failures: 0,
            retry_at: None,
            removed: false,
            fetch_only,
            served: false,
            gave_way: false,
        }
    }

    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    pub fn serves(&self, assignment: &Assignment) -> bool {
        let ours = &self.assignment;
        ours.revision == assignment.revision
            && ours.port == assignment.port
            && ours.deployment == assignment.deployment
            && ours.model_version == assignment.model_version
    }

    pub fn remove(&mut self) {
        self.removed = true;
    }

    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// What went wrong before is of another attempt.
    pub fn fetch_only(&mut self, fetch_only: bool) {
        if self.fetch_only != fetch_only {
            tracing::info!(revision = %self.assignment.revision, fetch_only, "assigned");
            self.fetch_only = fetch_only;
            (self.failure, self.failures, self.retry_at) = (None, 0, None);
        }
    }

    /// Its worker, if there is one, is to end; another may follow.
    pub fn is_leaving(&self) -> bool {
        self.removed || self.fetch_only || self.worker.as_ref().is_some_and(|w| w.stop_by.is_some())
    }

    pub fn pid(&self) -> Option<Pid> {
        self.worker.as_ref().map(|w| w.pid)
    }

    pub fn is_proven(&self) -> bool {
        let serves =
            |w: &Worker| w.report.phase == RevisionPhase::Proven && w.exit.is_none() && w.stop_by.is_none();
        self.worker.as_ref().is_some_and(serves)
    }

    pub fn is_fetched(&self) -> bool {
        self.load.as_ref().is_some_and(|load| load.phase == LoadPhase::Fetched)
    }

    /// What the loader says.
    pub fn fetched(&mut self, load: Option<LoadStatus>) {
        if load.is_some() {
            self.load = load;
        }
    }

    /// The fetched model of a worker that should start now.
    pub fn wants_start(&self, now: Instant) -> Option<&LoadStatus> {
        let due = self.worker.is_none() && !self.is_leaving() && self.retry_at.is_none_or(|at| at <= now);
        self.load.as_ref().filter(|load| due && load.phase == LoadPhase::Fetched)
    }

    /// It served before, and wants to again.
    pub fn returns(&self, now: Instant) -> bool {
        self.served && self.wants_start(now).is_some()
    }

    /// Ends a worker that has not served yet; it is started again later. Once: beside one that fails time after time, what
    /// is to take its place would never be loaded.
    pub fn give_way(&mut self, now: Instant) {
        let is_alive = |w: &&mut Worker| w.exit.is_none() && w.stop_by.is_none() && !w.killed;
        let may = !self.served && !self.gave_way;
        let Some(worker) = self.worker.as_mut().filter(is_alive).filter(|_| may) else { return };
        self.gave_way = true;
        (worker.stop_by, worker.killed) = (Some(now), true);
        tracing::info!(revision = %self.assignment.revision, "worker killed while loading: another is to serve again");
        process::signal(worker.pid, Signal::KILL);
    }

    pub fn started(&mut self, pid: Result<Pid, String>, now: Instant, memory_cap: Option<u64>) {
        match pid {
            Ok(pid) => {
                self.retry_at = None;
                self.worker = Some(Worker {
                    pid,
                    started: now,
                    memory_cap,
                    data_peak: 0,
                    report: Report::new(RevisionPhase::Loading),
                    proven_at: None,
                    silence: Duration::ZERO,
                    watched_at: now,
                    stop_by: None,
                    killed: false,
                    exit: None,
                    closed: false,
                });
            }
            Err(message) => self.fail(Reason::CrashLooping.name(), message, now),
        }
    }

    pub fn told(&mut self, news: News, now: Instant, memory: &Memory) {
        let Some(worker) = &mut self.worker else { return };
        worker.silence = Duration::ZERO;
        match news {
            News::Alive => {}
            // Too late: it is dead, and `watch` has said why.
            News::Report(report) if worker.killed && report.phase == RevisionPhase::Proven => {}
            News::Report(mut report) => {
                if report.phase == RevisionPhase::Proven {
                    worker.proven_at = Some(now);
                    self.failure = None;
                    self.served = true;
                }
                if report.reason.as_deref() == Some(Reason::OutOfMemory.name()) {
                    let said = report.message.unwrap_or_default();
                    report.message = Some(format!("{said}; {}", memory.advice(worker.memory_cap)));
                }
                worker.report = report;
            }
            News::Closed => worker.closed = true,
        }
        self.bury(now, memory);
    }

    pub fn exited(&mut self, exit: Exit, now: Instant, memory: &Memory) {
        if let Some(worker) = &mut self.worker {
            worker.exit = Some(exit);
        }
        self.bury(now, memory);
    }

    /// Once a worker has ended *and* its last words were heard: notes why, and when to try again.
    fn bury(&mut self, now: Instant, memory: &Memory) {
        let Some(worker) = self.worker.take_if(|w| w.closed && w.exit.is_some()) else { return };
        let Some(exit) = worker.exit else { return };
        if worker.stop_by.is_some() {
            tracing::info!(revision = %self.assignment.revision, ?exit, "worker stopped");
            return;
        }
        if worker.proven_at.is_some_and(|at| now.duration_since(at) >= PROVEN_FOR) {
            self.failures = 0;
        }
        let (reason, message) = match (&worker.report.reason, worker.killed) {
            (Some(reason), _) => (reason.clone(), worker.report.message.clone().unwrap_or_default()),
            // Killed by us; `watch` has said why.
            (None, true) => match self.failure.take() {
                Some(failure) => (failure.reason, failure.message),
                None => return,
            },
            (None, false) => {
                let model_bytes = self.load.as_ref().map_or(0, |l| l.bytes);
                let near_limit = worker
                    .memory_cap
                    .is_some_and(|cap| worker.data_peak >= cap / 4 * 3 || model_bytes >= cap / 2);
                let advice = memory.advice(worker.memory_cap);
                let (reason, message) = explain_exit(exit, worker.proven_at.is_some(), near_limit, &advice);
                (reason.name().into(), message)
            }
        };
        self.fail(&reason, message, now);
    }

    fn fail(&mut self, reason: &str, message: String, now: Instant) {
        let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(5)).min(LONGEST_BACKOFF);
        tracing::warn!(revision = %self.assignment.revision, reason, backoff_seconds = backoff.as_secs(), "{message}");
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + backoff);
        self.failure = Some(Failure { reason: reason.into(), message });
    }

    /// Looks after a worker: that it gets ready in time, and stirs from then on. One that does not is killed.
    pub fn watch(&mut self, now: Instant, startup_timeout: Duration, hang_timeout: Duration) {
        /// Longer between two looks: it was this process that slept.
        const AWAKE: Duration = Duration::from_secs(1);
        let Some(worker) = self.worker.as_mut().filter(|w| w.exit.is_none() && !w.killed) else { return };
        worker.silence += now.duration_since(worker.watched_at).min(AWAKE);
        worker.watched_at = now;
        let message = if worker.silence > hang_timeout {
            let doing = if worker.proven_at.is_some() { "serving" } else { "loading the model" };
            let seconds = hang_timeout.as_secs();
            format!("the worker gave no sign of life for {seconds} s while {doing}, and was replaced")
        } else if worker.proven_at.is_none() {
            worker.data_peak = worker.data_peak.max(process::data_size(worker.pid).unwrap_or(0));
            if now.duration_since(worker.started) <= startup_timeout {
                return;
            }
            format!("not ready within {} s (runtime.startupTimeoutSeconds)", startup_timeout.as_secs())
        } else {
            return;
        };
        worker.killed = true;
        self.failure = Some(Failure { reason: Reason::CrashLooping.name().into(), message });
        process::signal(worker.pid, Signal::KILL);
    }

    /// Lets the worker finish what it has, and kills it at `by`. Another waits for the place of one whose files stay, and
    /// no gateway sends it anything: it accepts no more.
    pub fn stop(&mut self, now: Instant, by: Instant) {
        let ask = if self.fetch_only { Signal::INT } else { Signal::TERM };
        let Some(worker) = self.worker.as_mut().filter(|w| w.exit.is_none()) else { return };
        match worker.stop_by {
            None => {
                worker.stop_by = Some(by);
                process::signal(worker.pid, ask);
            }
            Some(by) if now >= by && !worker.killed => {
                worker.killed = true;
                tracing::warn!(revision = %self.assignment.revision, "worker killed at the end of its grace period");
                process::signal(worker.pid, Signal::KILL);
            }
            Some(_) => {}
        }
    }

    pub fn state(&self, draining: bool) -> RevisionState {
        let worker = self.worker.as_ref();
        let report = worker.map(|w| &w.report);
        let load_failure = self.load.as_ref().filter(|l| l.phase == LoadPhase::Failed).map(|l| Failure {
            reason: l.reason.clone().unwrap_or_else(|| "SourceUnavailable".into()),
            message: l.message.clone().unwrap_or_default(),
        });
        let mut note = None;
        let phase = match report {
            _ if draining || self.removed => RevisionPhase::Draining,
            // A reported failure is already one; the process is about to end.
            Some(report) => {
                note = report.message.clone();
                report.phase
            }
            None if self.failure.is_some() || load_failure.is_some() => RevisionPhase::Failed,
            None if self.is_fetched() && self.fetch_only => RevisionPhase::Fetched,
            None if self.is_fetched() => RevisionPhase::Loading,
            None => RevisionPhase::Fetching,
        };
        let reported = report.and_then(|r| {
            Some(Failure { reason: r.reason.clone()?, message: r.message.clone().unwrap_or_default() })
        });
        // A worker that tries again does not erase what went wrong: else status would flap.
        let failure = reported.or_else(|| self.failure.clone()).or(load_failure);
        let (reason, message) = failure.map_or((None, note), |f| (Some(f.reason), Some(f.message)));
        let mut seconds = report.map(|r| r.seconds.clone()).unwrap_or_default();
        if let Some(load) = &self.load {
            seconds.insert("fetch".into(), load.seconds);
        }
        RevisionState {
            deployment: self.assignment.deployment.clone(),
            revision: self.assignment.revision.clone(),
            port: worker.map(|_| self.assignment.port),
            phase,
            reason,
            message,
            digest: self
                .load
                .as_ref()
                .and_then(|l| l.digest.clone())
                .or_else(|| self.assignment.source.sha256.clone()),
            device: report.and_then(|r| r.device.clone()),
            graph_nodes: report.map(|r| r.graph_nodes.clone()).unwrap_or_default(),
            batching: report.and_then(|r| r.batching.clone()),
            capacity: report.and_then(|r| r.capacity),
            seconds,
        }
    }
}

/// Why a worker ended that did not say so itself. `advice` speaks of memory.
fn explain_exit(exit: Exit, proven: bool, near_limit: bool, advice: &str) -> (Reason, String) {
    const SIGKILL: i32 = 9;
    let doing = if proven { "serving" } else { "loading the model" };
    match exit {
        Exit::Signal(SIGKILL) => (
            Reason::OutOfMemory,
            format!(
                "the worker was killed while {doing}, most likely by the kernel for want of memory; {advice}"
            ),
        ),
        Exit::Signal(signal) if near_limit && !proven => (
            Reason::OutOfMemory,
            format!("ONNX Runtime ended for want of memory while {doing} (signal {signal}); {advice}"),
        ),
        Exit::Signal(signal) if !proven => {
            (Reason::ModelInvalid, format!("ONNX Runtime crashed on this model: signal {signal}"))
        }
        Exit::Signal(signal) => {
            (Reason::CrashLooping, format!("ONNX Runtime crashed while serving: signal {signal}"))
        }
        Exit::Code(code) => {
            (Reason::CrashLooping, format!("the worker ended with code {code} while {doing}"))
        }
    }
}

#[cfg(test)]
mod tests;
