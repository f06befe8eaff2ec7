//! One JSON object a line and request. No query strings, no headers, no bodies: they may hold what nobody should read.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::trace::TraceId;
use serde::Serialize;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::{Notes, Trail};

/// Lines that wait for whoever reads the log. More are left out and counted: a slow reader must not hold up requests.
const WAITING: usize = 4096;

pub(super) struct AccessLog {
    lines: SyncSender<Message>,
    left_out: AtomicU64,
}

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    protocol: &'static str,
    method: &'a str,
    path: &'a str,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
    /// HTTP's, or gRPC's.
    status: i32,
    ms: f64,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl AccessLog {
    pub fn to_standard_output() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    pub fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, received) = sync_channel(WAITING);
        thread::Builder::new().name("access-log".into()).spawn(move || write(received, out))?;
        Ok(Self { lines, left_out: AtomicU64::new(0) })
    }

    pub fn tell(&self, trail: &Trail, notes: &Notes, ended: Instant, trace_id: Option<TraceId>) {
        let micros = ended.saturating_duration_since(trail.started).as_micros();
        let identity = &trail.observer.identity;
        let line = Line {
            time: now(),
            protocol: trail.protocol.name(),
            method: trail.method.as_str(),
            path: &trail.path,
            model: &identity.name,
            revision: identity.revision.as_deref(),
            status: trail.code(),
            ms: micros as f64 / 1000.0,
            bytes_in: trail.received(),
            bytes_out: trail.sent,
            request_id: &notes.request_id,
            trace_id: trace_id.map(|id| id.to_string()),
        };
        let Ok(line) = serde_json::to_string(&line) else { return };
        if self.lines.try_send(Message::Line(line)).is_err() {
            // One word at the first, and at each power of two.
            let count = self.left_out.fetch_add(1, Ordering::Relaxed) + 1;
            if count.is_power_of_two() {
                tracing::warn!(left_out = count, "the access log is read too slowly, or not at all");
            }
        }
    }

    /// Waits until everything so far is written.
    pub fn flush(&self, deadline: Duration) {
        let (written, wait) = sync_channel(1);
        if self.lines.try_send(Message::Flush(written)).is_ok() {
            let _ = wait.recv_timeout(deadline);
        }
    }
}

/// RFC 3339, in UTC.
fn now() -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// The thread's life: it ends with the log, or with its reader.
fn write(messages: Receiver<Message>, out: impl Write) {
    let mut out = BufWriter::new(out);
    let mut next = messages.recv().ok();
    while let Some(message) = next {
        let written = match message {
            Message::Line(line) => out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")),
            Message::Flush(done) => out.flush().map(|()| done.try_send(()).unwrap_or_default()),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the access log can't be written any more");
            return;
        }
        next = match messages.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Disconnected) => None,
            // Nothing to do: whoever reads along gets what there is.
            Err(TryRecvError::Empty) => out.flush().ok().and_then(|()| messages.recv().ok()),
        };
    }
    let _ = out.flush();
}

#[cfg(test)]
mod tests;
