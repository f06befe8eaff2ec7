//! The pod's main process: one worker a revision, started, watched, replaced and drained.
//!
//! ```text
//! assignment file, load status ──> slots (one a revision) ──> workers
//! workers' reports, exits ───────────^        └──> PodState ──> admin port
//! ```
//! One task owns everything; it looks at the files every `TICK`, so that no event can be lost.

mod admin;
mod memory;
mod metrics;
mod process;
mod slot;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::memory::Memory;
use self::process::{Event, Exit, Launcher};
use self::slot::Slot;
use super::cgroup::Cgroup;
use super::listen::{self, Phase};
use crate::formats::{Assignment, Assignments, FORMAT_VERSION, LoadStatus, PodState};

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
    /// Passed on to every worker.
    pub worker_arguments: Vec<String>,
}

/// The kubelet shows a changed annotation after 0.1 to 0.8 s; this adds a fifth of a second.
const TICK: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT and the last worker's end; the exit code.
pub async fn run(options: SupervisorOptions) -> std::io::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut child = signal(SignalKind::child())?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);

    let (mut supervisor, mut events, states) = Supervisor::new(options)?;
    let listener: TcpListener = listen::bind(supervisor.options.admin_port).await?;
    let (phase, phases) = watch::channel(Phase::Serving);
    let admin = tokio::spawn(listen::serve(listener, admin::router(states), phases));

    loop {
        tokio::select! {
            _ = tick.tick() => {}
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
        let state = PodState { format_version: FORMAT_VERSION, ready: false, revisions: Vec::new() };
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
        for slot in &mut self.slots {
            let leaves = self.draining.is_some() || slot.is_removed();
            if leaves {
                slot.stop(now, self.draining.unwrap_or(now + self.options.grace));
                continue;
            }
            if !slot.is_fetched() {
                slot.fetched(read_load_status(&self.options.models, slot.assignment()));
            }
            slot.watch(now, self.options.startup_timeout, self.options.hang_timeout);
            if let Some(load) = slot.wants_start(now) {
                let cap = self.memory.cap();
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
            if !assignments.iter().any(|a| slot.serves(a)) {
                slot.remove();
            }
        }
        for assignment in assignments {
            if !self.slots.iter().any(|s| s.serves(&assignment) && !s.is_removed()) {
                // The same revision under other settings waits for its old worker's end: they share a port.
                if !self.slots.iter().any(|s| s.assignment().revision == assignment.revision) {
                    tracing::info!(revision = %assignment.revision, port = assignment.port, "assigned");
                    self.slots.push(Slot::new(assignment));
                }
            }
        }
    }

    fn publish(&self, now: Instant) {
        let draining = self.draining.is_some();
        let assigned = || self.slots.iter().filter(|s| !s.is_removed());
        let ready = !draining && assigned().count() > 0 && assigned().all(Slot::is_proven);
        let revisions = self.slots.iter().map(|slot| slot.state(draining)).collect();
        let state = PodState { format_version: FORMAT_VERSION, ready, revisions };
        let metric_ports =
            self.slots.iter().filter(|s| s.pid().is_some()).map(|s| s.assignment().port).collect();
        self.view.send_replace(View { state, metric_ports, seen: now });
    }
}

fn read_assignments(path: &Path) -> Result<Vec<Assignment>, String> {
    let text = std::fs::read(path).map_err(|e| format!("the assignment file can't be read: {e}"))?;
    let read: Assignments =
        serde_json::from_slice(&text).map_err(|e| format!("the assignment file is not understood: {e}"))?;
    // The name becomes a path.
    match read.assignments.iter().find(|a| a.revision.starts_with('.') || a.revision.contains('/')) {
        Some(bad) => Err(format!("the assignment file names a revision {:?}", bad.revision)),
        None => Ok(read.assignments),
    }
}

/// None: the loader has not begun, or is just replacing the file.
fn read_load_status(models: &Path, assignment: &Assignment) -> Option<LoadStatus> {
    let path = models.join("status").join(format!("{}.json", assignment.revision));
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
