//! A table of bad requests, and what holds for every line of it.

use std::fmt::Debug;
use std::fs;

use serde_json::json;
use tempfile::TempDir;

use crate::support::onnx::{identity, types};
use crate::support::{Process, infer, serve};

/// The largest request body of these tests.
pub const LIMIT: usize = 4 << 20;
/// What a whole table may cost the server at its worst moment: sixteen bodies.
const GROWTH: u64 = 64 << 20;
/// No message repeats more of a request than this, bytes.
const LONGEST_MESSAGE: usize = 1200;

/// A server of the model `m`: `x`, FP32 [-1,2], comes back as `y`.
pub struct Target {
    pub process: Process,
    folder: TempDir,
}

/// What a client got. A status of 0: the connection was closed without an answer.
#[derive(Debug)]
pub struct Answer<S> {
    pub status: S,
    pub text: String,
}

impl Target {
    pub async fn new(arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.onnx");
        fs::write(&path, identity(types::FLOAT, &[-1, 2])).unwrap();
        let limit = LIMIT.to_string();
        let arguments = [&["--max-request-bytes", &limit], arguments].concat();
        let target = Self { process: serve(&path, &arguments).await, folder };
        assert!(target.answers().await);
        target
    }

    pub fn port(&self) -> u16 {
        self.process.port
    }

    pub async fn answers(&self) -> bool {
        let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]});
        let (status, answer) = infer(self.port(), &json!({"inputs": [input]})).await;
        status == 200 && answer["outputs"][0]["data"] == json!([1.0, 2.5])
    }

    /// The most memory that the process has held, bytes.
    pub fn peak(&self) -> u64 {
        status_field(self.process.pid(), "VmHWM:")
    }

    /// What the text tells of this machine or of the program's inside.
    pub fn indiscretion(&self, text: &str) -> Option<String> {
        let folder = self.folder.path().display().to_string();
        indiscretion(text).or_else(|| text.contains(&folder).then_some(folder))
    }
}

/// A line of `/proc/<pid>/status`, bytes.
pub fn status_field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

pub fn indiscretion(text: &str) -> Option<String> {
    const SECRETS: [&str; 12] = [
        "/tmp/",
        "/root/",
        "/home/",
        "/usr/",
        "/proc/",
        "_src/",
        ".rs:",
        ".cc:",
        "127.0.0.1",
        "::1",
        "panicked",
        "struct ",
    ];
    let address = text.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| {
        word.strip_prefix("0x")
            .is_some_and(|hex| hex.len() >= 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    let secret = SECRETS.into_iter().find(|secret| text.contains(secret));
    secret.or(address).map(str::to_string)
}

/// Sends every case: its name, the request, the status, a part of the text.
pub async fn refuses<R, S: Copy + Debug + PartialEq>(
    target: &Target,
    cases: Vec<(&str, R, S, &str)>,
    send: impl AsyncFn(u16, R) -> Answer<S>,
) {
    let before = target.peak();
    let mut wrong = Vec::new();
    for (name, request, status, text) in cases {
        let answer = send(target.port(), request).await;
        let shown: String = answer.text.chars().take(300).collect();
        let mut blame =
            |what: String| wrong.push(format!("{name}: {what}\n  it said {:?} {shown:?}", answer.status));
        if answer.status != status || !answer.text.contains(text) {
            blame(format!("not {status:?} {text:?}"));
        }
        if let Some(secret) = target.indiscretion(&answer.text) {
            blame(format!("tells {secret:?}"));
        }
        if answer.text.len() > LONGEST_MESSAGE {
            blame(format!("{} bytes of message", answer.text.len()));
        }
        let grown = target.peak().saturating_sub(before) >> 20;
        if grown > GROWTH >> 20 {
            blame(format!("the table has cost {grown} MiB so far"));
        }
        assert!(target.answers().await, "{name}: the server does not answer any more");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
