//! The pod's main process: one worker a revision, started, watched, replaced and drained.
//!
//! ```text
//! assignment file, load status ──> slots (one a revision) ──> workers
//! workers' reports, exits ───────────^        └──> PodState ──> admin port; gateways, once
//! ```
//! One task owns everything; it looks at the files every `TICK`, so that no event can be lost.

mod admin;
mod announce;
mod memory;
mod metrics;
mod process;
mod slot;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

pub use self::announce::Announcer;
use self::memory::Memory;
use self::process::{Event, Exit, Launcher};
use self::slot::Slot;
use crate::cgroup::Cgroup;
use crate::formats::{Assignment, Assignments, FORMAT_VERSION, LoadStatus, PodState, RevisionState};
use crate::listen::{self, Patience, Phase};

#[derive(Clone, Debug)]
pub struct SupervisorOptions {
    pub assignment: PathBuf,
    pub models: PathBuf,
    pub admin_port: u16,
    pub startup_timeout: Duration,
    pub hang_timeout: Duration,
    pub grace: Duration,
    /// Workers on a GPU are not capped: CUDA maps more than it uses.
    pub cap_memory: bool,
    /// None: nobody is told when the pod is ready.
    pub announcer: Option<Announcer>,
    /// Passed on to every worker.
    pub worker_arguments: Vec<String>,
}

/// The kubelet shows a changed annotation after 0.1 to 0.8 s; this adds a fifth of a second.
const TICK: Duration = Duration::from_millis(200);
/// While the loader is at work: requests may be waiting for this very pod.
const FETCHING: Duration = Duration::from_millis(10);

/// Runs until SIGTERM or SIGINT and the last worker's end; the exit code.
pub async fn run(options: SupervisorOptions) -> std::io::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut child = signal(SignalKind::child())?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);

    let (mut supervisor, mut events, states) = Supervisor::new(options)?;
    let listener: TcpListener = listen::bind(supervisor.options.admin_port).await?;
    if let Some(announcer) = supervisor.options.announcer.clone() {
        tokio::spawn(announce::run(announcer, states.clone()));
    }
    let (phase, phases) = watch::channel(Phase::Serving);
    let admin = tokio::spawn(listen::serve(listener, admin::router(states), phases, Patience::default()));

    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = tokio::time::sleep(FETCHING), if supervisor.is_fetching() => {}
            _ = child.recv() => {}
            Some(event) = events.recv() => supervisor.told(event),
            _ = terminate.recv() => supervisor.drain(Instant::now()),
            _ = interrupt.recv() => supervisor.drain(Instant::now()),
        }
        supervisor.step(Instant::now());
        if supervisor.is_over() {
            break;
        }
    }
    let _ = phase.send(Phase::Closing);
    // Whoever still reads the admin port gets a moment.
    let _ = tokio::time::timeout(Duration::from_millis(200), admin).await;
    Ok(0)
}

/// What the admin port shows.
#[derive(Clone, Debug)]
struct View {
    state: PodState,
    /// Of workers that listen.
    metric_ports: Vec<u16>,
    /// When the loop last went round: a supervisor that stopped is not alive.
    seen: Instant,
}

struct Supervisor {
    options: SupervisorOptions,
    launcher: Launcher,
    memory: Memory,
    slots: Vec<Slot>,
    /// The last text of the assignment file that was complained about.
    complaint: Option<String>,
    /// When everything must be over.
    draining: Option<Instant>,
    view: watch::Sender<View>,
}

impl Supervisor {
    fn new(
        options: SupervisorOptions,
    ) -> std::io::Result<(Self, mpsc::Receiver<Event>, watch::Receiver<View>)> {
        let (told, events) = mpsc::channel(64);
        let state = pod_state(false, Vec::new());
        let (view, states) = watch::channel(View { state, metric_ports: Vec::new(), seen: Instant::now() });
        let supervisor = Self {
            launcher: Launcher::new(told, options.worker_arguments.clone())?,
            memory: Memory::new(Cgroup::default(), options.cap_memory),
            slots: Vec::new(),
            complaint: None,
            draining: None,
            view,
            options,
        };
        Ok((supervisor, events, states))
    }

    fn told(&mut self, event: Event) {
        if let Some(slot) = self.slots.iter_mut().find(|s| s.pid() == Some(event.pid)) {
            slot.told(event.news, Instant::now(), &self.memory);
        }
    }

    fn drain(&mut self, now: Instant) {
        if self.draining.is_none() {
            tracing::info!(grace_seconds = self.options.grace.as_secs(), "draining");
            self.draining = Some(now + self.options.grace);
        }
    }

    fn is_fetching(&self) -> bool {
        self.draining.is_none() && self.slots.iter().any(|slot| !slot.is_fetched())
    }

    fn is_over(&self) -> bool {
        self.draining.is_some() && self.slots.iter().all(|slot| slot.pid().is_none())
    }

    /// Brings the workers to what the files say, as far as can be done now.
    fn step(&mut self, now: Instant) {
        for (pid, exit) in process::reap() {
            self.exited(pid, exit, now);
        }
        if self.draining.is_none() {
            self.assign();
        }
        // One loads at a time, and after what leaves: else a cap would not count what the others take, nor a port be free.
        let is_running = |slot: &&Slot| slot.pid().is_some();
        let mut is_busy = self.slots.iter().filter(is_running).any(|s| s.is_leaving() || !s.is_proven());
        let beside = self.slots.iter().filter(is_running).count() > 0;
        // One that served does not wait for one that has not yet, which may load for long; nor for the memory it leaves.
        let returning = self.slots.iter().any(|slot| slot.returns(now));
        for slot in &mut self.slots {
            if !slot.is_fetched() {
                slot.fetched(read_load_status(&self.options.models, slot.assignment()));
            }
            if self.draining.is_some() || slot.is_leaving() {
                slot.stop(now, self.draining.unwrap_or(now + self.options.grace));
                continue;
            }
            if returning {
                slot.give_way(now);
            }
            slot.watch(now, self.options.startup_timeout, self.options.hang_timeout);
            let may_start = !is_busy && (!returning || slot.returns(now));
            if let Some(load) = slot.wants_start(now).filter(|_| may_start) {
                is_busy = true;
                let cap = self.memory.cap(beside);
                let started = self.launcher.start(slot.assignment(), load, &self.options.models, cap);
                slot.started(started, now, cap);
            }
        }
        self.slots.retain(|slot| !(slot.is_removed() && slot.pid().is_none()));
        self.publish(now);
    }

    fn exited(&mut self, pid: process::Pid, exit: Exit, now: Instant) {
        // Others are orphans that PID 1 inherited (a `kubectl exec` that was cut off): reaped, and no more.
        if let Some(slot) = self.slots.iter_mut().find(|s| s.pid() == Some(pid)) {
            slot.exited(exit, now, &self.memory);
        }
    }

    /// Takes the assignment file over. One that can't be read changes nothing.
    fn assign(&mut self) {
        let assignments = match read_assignments(&self.options.assignment) {
            Ok(assignments) => assignments,
            Err(complaint) => {
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!("{complaint}");
                    self.complaint = Some(complaint);
                }
                return;
            }
        };
        self.complaint = None;
        for slot in &mut self.slots {
            match assignments.iter().find(|(assignment, _)| slot.serves(assignment)) {
                Some((_, fetch_only)) => slot.fetch_only(*fetch_only),
                None => slot.remove(),
            }
        }
        for (assignment, fetch_only) in assignments {
            if !self.slots.iter().any(|s| s.serves(&assignment) && !s.is_removed()) {
                // The same revision under other settings waits for its old worker's end.
                if !self.slots.iter().any(|s| s.assignment().revision == assignment.revision) {
                    tracing::info!(revision = %assignment.revision, port = assignment.port, fetch_only, "assigned");
                    self.slots.push(Slot::new(assignment, fetch_only));
                }
            }
        }
    }

    fn publish(&self, now: Instant) {
        let draining = self.draining.is_some();
        let assigned = || self.slots.iter().filter(|s| !s.is_removed());
        // A candidate that loads, or fails, beside what serves takes no request from it.
        let ready = !draining && assigned().any(Slot::is_proven);
        let revisions = self.slots.iter().map(|slot| slot.state(draining)).collect();
        let state = pod_state(ready, revisions);
        let metric_ports =
            self.slots.iter().filter(|s| s.pid().is_some()).map(|s| s.assignment().port).collect();
        self.view.send_replace(View { state, metric_ports, seen: now });
    }
}

fn pod_state(ready: bool, revisions: Vec<RevisionState>) -> PodState {
    PodState { format_version: FORMAT_VERSION, ready, fetches_only: true, revisions }
}

/// Each with whether only its files are wanted.
fn read_assignments(path: &Path) -> Result<Vec<(Assignment, bool)>, String> {
    let text = std::fs::read(path).map_err(|e| format!("the assignment file can't be read: {e}"))?;
    let read: Assignments =
        serde_json::from_slice(&text).map_err(|e| format!("the assignment file is not understood: {e}"))?;
    let run = read.assignments.into_iter().map(|assignment| (assignment, false));
    let all: Vec<_> = run.chain(read.fetch_only.into_iter().map(|assignment| (assignment, true))).collect();
    // The name becomes a path.
    match all.iter().find(|(a, _)| a.revision.starts_with('.') || a.revision.contains('/')) {
        Some((bad, _)) => Err(format!("the assignment file names a revision {:?}", bad.revision)),
        None => Ok(all),
    }
}

/// None: the loader has not begun, or is just replacing the file.
fn read_load_status(models: &Path, assignment: &Assignment) -> Option<LoadStatus> {
    let path = models.join("status").join(format!("{}.json", assignment.revision));
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
