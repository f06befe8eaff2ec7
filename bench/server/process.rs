//! The server under test, as a process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::connection::{Connection, Failure, Target};
use crate::load::runtime;
use crate::model::onnxruntime;
use crate::report;

pub struct Server {
    child: Child,
    _folder: Option<TempDir>,
}

impl Server {
    /// On `port`; not yet ready.
    pub fn serve(model: &Path, port: u16, arguments: &[&str]) -> Self {
        let mut command = command();
        command.args(["--name", "m", "--port", &port.to_string(), "--model"]).arg(model).args(arguments);
        Self::start(command, None)
    }

    /// `supervise`, with an assignment for each model: name, file, port.
    pub fn supervise(models: &[(&str, &Path, u16)]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let mut assignments = Vec::new();
        std::fs::create_dir_all(path("models/status")).expect("a folder");
        for (name, model, port) in models {
            let revision = format!("{name}-r1");
            let place = path("models/revisions").join(&revision);
            std::fs::create_dir_all(&place).expect("a folder");
            std::os::unix::fs::symlink(model, place.join("model.onnx")).expect("a link");
            let bytes = model.metadata().expect("the model").len();
            let status = json!({
                "formatVersion": 1, "phase": "Fetched", "modelFile": "model.onnx", "digest": "sha256:0",
                "bytes": bytes, "totalBytes": bytes, "seconds": 0.0,
            });
            write(&path(&format!("models/status/{revision}.json")), &status);
            assignments.push(json!({
                "deployment": name, "revision": revision, "modelVersion": "1", "port": port,
                "source": {"uri": "s3://bench/model.onnx", "immutable": true, "files": []},
            }));
        }
        write(&path("assignment"), &json!({"formatVersion": 1, "assignments": assignments}));
        let mut command = command();
        command
            .arg("supervise")
            .arg("--assignment")
            .arg(path("assignment"))
            .arg("--models")
            .arg(path("models"));
        command.args([
            "--admin-port",
            &free_port().to_string(),
            "--drain-seconds",
            "0",
            "--grace-seconds",
            "5",
        ]);
        Self::start(command, Some(folder))
    }

    fn start(mut command: Command, folder: Option<TempDir>) -> Self {
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, _folder: folder }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Pid::from_raw(self.pid() as i32).map(|pid| kill_process(pid, Signal::TERM));
        let asked = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if asked.elapsed() > Duration::from_secs(15) {
                report::say("the server does not stop: killing it");
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// SERVER= is another binary than the one built with this bench.
fn command() -> Command {
    let binary =
        std::env::var_os("SERVER").unwrap_or_else(|| env!("CARGO_BIN_EXE_modelwright-server").into());
    let mut command = Command::new(PathBuf::from(binary));
    command.env("ORT_DYLIB_PATH", onnxruntime()).env("RUST_LOG", "warn");
    command
}

/// Asks until the first right answer.
pub fn until_answered(target: &Target) {
    let started = Instant::now();
    runtime().block_on(async {
        loop {
            assert!(started.elapsed() < Duration::from_secs(120), "{} is not ready", target.name);
            // Short, since it is part of what is measured.
            let pause = || tokio::time::sleep(Duration::from_millis(1));
            let Ok(mut connection) = Connection::open(target, 0).await else {
                pause().await;
                continue;
            };
            loop {
                match connection.exchange().await {
                    Ok(()) => return,
                    Err(Failure::Status(503)) => pause().await,
                    Err(Failure::Broken(_)) => break,
                    Err(other) => panic!("{}: {other}", target.name),
                }
            }
        }
    });
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

/// A process and all that it started.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        }
    }
    found
}

pub fn cpu_seconds_of_tree(pid: u32) -> f64 {
    tree(pid).into_iter().map(report::cpu_seconds).sum()
}

/// What the rest of the machine takes while something is measured: no figure is worth much beside a compiler.
pub struct Neighbours {
    at: Instant,
    busy: f64,
    stolen: f64,
    own: f64,
}

impl Neighbours {
    pub fn watch() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
        let fields: Vec<f64> =
            stat.lines().next().expect("a line").split_whitespace().filter_map(|f| f.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let busy = (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / 100.0;
        Self {
            at: Instant::now(),
            busy,
            stolen: fields[7] / 100.0,
            own: cpu_seconds_of_tree(std::process::id()),
        }
    }

    /// Cores that other processes took, and that the hypervisor did not give, since `before`. Children that have ended
    /// meanwhile count as others.
    pub fn since(&self, before: &Neighbours) -> (f64, f64) {
        let seconds = (self.at - before.at).as_secs_f64();
        let others = (self.busy - before.busy) - (self.own - before.own);
        (others / seconds, (self.stolen - before.stolen) / seconds)
    }
}

fn write(path: &Path, document: &Value) {
    std::fs::write(path, document.to_string()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
