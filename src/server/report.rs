//! What a worker tells its supervisor: JSON lines over a socket pair, the worker's standard input; an empty line is a
//! sign of life.
//!
//! The socket also says when the other end has gone: a worker without its supervisor drains and exits.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use super::console::Console;
use super::model::Server;
use crate::formats::{BatchingState, Capacity, RevisionPhase};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub phase: RevisionPhase,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Nodes of the graph by execution provider.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub graph_nodes: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching: Option<BatchingState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// So far: `load`, `warmup`.
    #[serde(default)]
    pub seconds: BTreeMap<String, f64>,
}

impl Report {
    pub fn new(phase: RevisionPhase) -> Self {
        Self {
            phase,
            reason: None,
            message: None,
            device: None,
            graph_nodes: BTreeMap::new(),
            batching: None,
            capacity: None,
            seconds: BTreeMap::new(),
        }
    }
}

/// Where reports go.
pub enum Reporter {
    Supervisor(UnixStream),
    /// A person at a terminal.
    Console(Console),
    /// Whoever started the process by hand, and reads its log.
    Log,
}

impl Reporter {
    /// The socket that the supervisor made this process's standard input.
    pub fn supervisor() -> std::io::Result<Self> {
        Ok(Self::Supervisor(std::io::stdin().as_fd().try_clone_to_owned()?.into()))
    }

    /// The model answers from now on.
    pub fn serving(&self, server: &Server, report: &Report) {
        if let (Self::Console(console), Ok(model)) = (self, server.model()) {
            console.serving(server, model, report.device.as_deref().unwrap_or_default());
        }
        self.send(report);
    }

    pub fn send(&self, report: &Report) {
        if let Self::Console(console) = self
            && !matches!(report.phase, RevisionPhase::Loading | RevisionPhase::WarmingUp)
        {
            console.loaded();
        }
        let load = report.seconds.get("load");
        let message = report.message.as_deref().unwrap_or_default();
        match report.phase {
            RevisionPhase::Failed => tracing::error!(reason = report.reason, "{message}"),
            phase => {
                let batch_rows = report.batching.as_ref().and_then(|b| b.max_rows);
                let unbatched = report.batching.as_ref().and_then(|b| b.reason.as_ref());
                let warmup = report.seconds.get("warmup");
                tracing::info!(?phase, load, warmup, batch_rows, unbatched, message, "model");
            }
        }
        if let Self::Supervisor(stream) = self {
            let sent = serde_json::to_vec(report).map_err(std::io::Error::from).and_then(|mut line| {
                line.push(b'\n');
                let mut stream: &UnixStream = stream;
                stream.write_all(&line)
            });
            if let Err(error) = sent {
                tracing::warn!(%error, "the supervisor does not listen");
            }
        }
    }

    /// A sign of life: an empty line.
    pub fn stir(&self) {
        if let Self::Supervisor(stream) = self {
            let mut stream: &UnixStream = stream;
            // A supervisor that reads nothing misses none.
            let _ = stream.write_all(b"\n");
        }
    }

    /// Completes when the supervisor has gone; never for a person.
    pub async fn gone(&self) -> std::io::Result<()> {
        let Self::Supervisor(stream) = self else { return std::future::pending().await };
        let stream = stream.try_clone()?;
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        loop {
            stream.readable().await?;
            match stream.try_read(&mut [0; 16]) {
                Ok(0) => return Ok(()),
                Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => return Err(e),
                _ => {}
            }
        }
    }
}
