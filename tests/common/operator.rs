//! The operator as a process.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ports::free_port;
use super::wait;

#[derive(Clone, Debug)]
pub struct OperatorOptions {
    pub kubeconfig: PathBuf,
    pub identity: String,
    /// Absent: the whole cluster.
    pub namespace: Option<String>,
    pub lease_namespace: String,
    pub lease_seconds: u64,
    pub loader_image: String,
    pub server_image: String,
    pub runtime_version: String,
    /// `<moment>:<number>`, for a build with the feature `faults`.
    pub crash: Option<String>,
    /// Where its log goes; appended to.
    pub log: PathBuf,
}

impl OperatorOptions {
    /// Of one namespace, with its own lease there: several stand side by side.
    pub fn of(kubeconfig: PathBuf, namespace: &str) -> Self {
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("operator-{namespace}.log"));
        Self {
            kubeconfig,
            identity: "first".into(),
            namespace: Some(namespace.into()),
            lease_namespace: namespace.into(),
            lease_seconds: 2,
            loader_image: "example.test/modelwright:1".into(),
            server_image: "example.test/modelwright-server".into(),
            runtime_version: "1.0.0".into(),
            crash: None,
            log,
        }
    }
}

/// Ends with its value.
pub struct Operator {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Operator {
    pub fn start(options: &OperatorOptions) -> Self {
        let port = free_port();
        let log = File::options().create(true).append(true).open(&options.log).expect("log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_modelwright-operator"));
        command
            .env("KUBECONFIG", &options.kubeconfig)
            // As the chart does.
            .env("MALLOC_ARENA_MAX", "1")
            .args(["--loader-image", &options.loader_image])
            .args(["--server-image", &options.server_image])
            .args(["--runtime-version", &options.runtime_version])
            .args(["--lease-namespace", &options.lease_namespace])
            .args(["--lease-seconds", &options.lease_seconds.to_string()])
            .args(["--identity", &options.identity])
            .args(["--address", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log);
        if let Some(namespace) = &options.namespace {
            command.args(["--namespace", namespace]);
        }
        if let Some(crash) = &options.crash {
            command.env("MODELWRIGHT_CRASH", crash);
        }
        let child = command.spawn().expect("the operator starts");
        Self { child, port, log: options.log.clone() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its counters and gauges by the name and labels that `/metrics` prints. None: it does not listen (any more).
    pub async fn metrics(&self) -> Option<BTreeMap<String, f64>> {
        let text = tokio::time::timeout(Duration::from_secs(30), get(self.port, "/metrics")).await.ok()??;
        let numbers = text.lines().filter(|line| !line.starts_with('#'));
        let numbers = numbers.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_string(), value.parse().ok()?))
        });
        Some(numbers.collect())
    }

    /// How many API writes it has made. None: it does not say.
    pub async fn writes(&self) -> Option<usize> {
        let metrics = self.metrics().await?;
        let writes = metrics.iter().filter(|(name, _)| name.starts_with("modelwright_operator_writes_total"));
        Some(writes.map(|(_, value)| *value).sum::<f64>() as usize)
    }

    /// What `/readyz` says: `leading`, `standing by`, or that it is not ready.
    pub async fn readiness(&self) -> Option<String> {
        tokio::time::timeout(Duration::from_secs(30), get(self.port, "/readyz")).await.ok()?
    }

    pub async fn leads(&self) -> bool {
        let metrics = self.metrics().await.unwrap_or_default();
        metrics.get("modelwright_operator_leader") == Some(&1.0)
    }

    pub async fn until_leading(&mut self) {
        let log = self.log.clone();
        wait("leader", async || {
            match self.readiness().await.as_deref() {
                Some("leading\n") => Ok(()), // with full caches
                other => Err(format!("{other:?}, see {}", log.display())),
            }
        })
        .await
    }

    /// Some: it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    pub async fn until_ended(&mut self) -> ExitStatus {
        wait("end of the operator", async || self.ended().ok_or_else(|| "it runs".to_string())).await
    }

    /// `KILL`, `TERM`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(status.success(), "kill -s {name} {pid}");
    }

    pub async fn kill(mut self) {
        self.signal("KILL");
        self.until_ended().await;
    }

    /// As a Deployment's rollout ends a replica.
    pub async fn terminate(mut self) {
        self.signal("TERM");
        self.until_ended().await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: operator\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string())
}
