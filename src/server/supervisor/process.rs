//! Starting workers, hearing from them, and reaping them.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{WaitOptions, kill_process, wait};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

pub use rustix::process::{Pid, Signal};

use crate::formats::{Assignment, LoadStatus};
use crate::server::report::Report;

pub(super) struct Event {
    pub pid: Pid,
    pub news: News,
}

pub(super) enum News {
    Report(Report),
    Alive,
    /// The worker has closed its end: no report will follow.
    Closed,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
}

pub(super) struct Launcher {
    binary: PathBuf,
    arguments: Vec<String>,
    told: mpsc::Sender<Event>,
}

impl Launcher {
    pub fn new(told: mpsc::Sender<Event>, arguments: Vec<String>) -> std::io::Result<Self> {
        Ok(Self { binary: std::env::current_exe()?, arguments, told })
    }

    /// Starts the worker of a fetched revision.
    pub fn start(
        &self,
        assignment: &Assignment,
        load: &LoadStatus,
        models: &Path,
        memory_cap: Option<u64>,
    ) -> Result<Pid, String> {
        let file = Path::new(load.model_file.as_deref().ok_or("the loader named no model file")?);
        if !file.components().all(|c| matches!(c, Component::Normal(_))) {
            return Err("the loader named a model file outside of the revision's folder".into());
        }
        let model = models.join("revisions").join(&assignment.revision).join(file);

        let mut command = Command::new(&self.binary);
        command.arg("worker").arg("--model").arg(model);
        command.args(["--name", &assignment.deployment, "--model-version", &assignment.model_version]);
        command.args(["--revision", &assignment.revision, "--port", &assignment.port.to_string()]);
        if let Some(digest) = load.digest.as_ref().or(assignment.source.sha256.as_ref()) {
            command.args(["--digest", digest]);
        }
        if let Some(cap) = memory_cap {
            command.args(["--memory-limit", &cap.to_string()]);
        }
        command.args(&self.arguments);

        let failed = |e: std::io::Error| format!("the worker can't be started: {e}");
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn().map_err(failed)?;
        // Reaped by `reap`; dropping the handle neither waits nor kills.
        let pid =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("the worker has no process id")?;
        self.listen(pid, ours).map_err(failed)?;
        tracing::info!(revision = %assignment.revision, pid = pid.as_raw_nonzero(), memory_cap, "worker started");
        Ok(pid)
    }

    fn listen(&self, pid: Pid, stream: UnixStream) -> std::io::Result<()> {
        stream.set_nonblocking(true)?;
        let mut lines = BufReader::new(tokio::net::UnixStream::from_std(stream)?).lines();
        let told = self.told.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let news = match serde_json::from_str(&line) {
                    _ if line.is_empty() => News::Alive,
                    Ok(report) => News::Report(report),
                    Err(error) => {
                        tracing::warn!(%error, "a worker's report is not understood");
                        continue;
                    }
                };
                if told.send(Event { pid, news }).await.is_err() {
                    return;
                }
            }
            let _ = told.send(Event { pid, news: News::Closed }).await;
        });
        Ok(())
    }
}

/// Sends a signal to a child that has not been reaped.
pub(super) fn signal(pid: Pid, signal: Signal) {
    if let Err(error) = kill_process(pid, signal) {
        tracing::warn!(%error, pid = pid.as_raw_nonzero(), "signal not delivered");
    }
}

/// The children that have ended: ours, and orphans that were handed to PID 1.
pub(super) fn reap() -> Vec<(Pid, Exit)> {
    let mut ended = Vec::new();
    // An error means that there are no children.
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let exit = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => continue, // stopped or continued
        };
        ended.push((pid, exit));
    }
    ended
}

/// Bytes of data (as RLIMIT_DATA counts them) of a process.
pub(super) fn data_size(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmData:"))?;
    Some(kilobytes.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}
