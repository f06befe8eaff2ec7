//! The loader against stores that break off, stall, lie and count: resolve and fetch, from HTTP, S3, a hub, a claim.

mod cache;
mod claim;
mod fetch;
#[path = "../../src/onnx/fixture.rs"]
mod fixture;
mod http;
mod hub;
mod s3;
mod server;
mod sparse;

use std::path::{Path, PathBuf};

use modelwright::formats::{Assignment, Assignments, LoadPhase, LoadStatus, PinnedSource, SourceRequest};
use modelwright::loader::{Env, Folders, digest_of, resolve};
use server::{Body, File, Files, Reply, Server};
use sha2::{Digest, Sha256};
use sparse::{Sparse, inline_model, with_external_data};
use tempfile::TempDir;

fn request(uri: &str) -> SourceRequest {
    SourceRequest {
        uri: uri.into(),
        digest: None,
        s3: None,
        hf: None,
        insecure_http: true,
        secret_name: None,
        ca_bundle_name: None,
    }
}

/// A whole model of one file.
fn small() -> Vec<u8> {
    let model = inline_model(2, 1);
    model.read(0..model.len())
}

/// An environment whose mounts are folders below `root`, and which may talk to this machine.
fn env(root: &Path) -> Env {
    // As the binary does; the second time it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Env {
        secret: root.join("secret"),
        ca: root.join("ca"),
        claim: root.join("claim"),
        allow_loopback: true,
        ..Env::default()
    }
}

/// For servers that stall: any other may be as slow as the machine is.
fn hasty(root: &Path) -> Env {
    Env { stall: std::time::Duration::from_millis(700), ..env(root) }
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// As the kubelet does it: never half a file.
fn assign(path: &Path, revisions: &[(&str, &PinnedSource)]) {
    let assignments = revisions.iter().map(|(revision, source)| Assignment {
        deployment: "fraud".into(),
        revision: (*revision).into(),
        model_version: "1".into(),
        port: 9000,
        source: (*source).clone(),
    });
    let mut document = Assignments::new(assignments.collect());
    // The loader has no part in who runs what.
    document.fetch_only = document.assignments.split_off(document.assignments.len().min(1));
    let json = serde_json::to_vec(&document).unwrap();
    write(&path.with_extension("next"), json);
    std::fs::rename(path.with_extension("next"), path).unwrap();
}

/// Waits for a load status that fits, and gives up with the last one seen.
async fn status(models: &Path, revision: &str, fits: impl Fn(&LoadStatus) -> bool) -> LoadStatus {
    let path = models.join("status").join(format!("{revision}.json"));
    let mut last = None;
    for _ in 0..15_000 {
        if let Ok(bytes) = std::fs::read(&path) {
            // Written by rename: whatever is there is whole.
            let status: LoadStatus = serde_json::from_slice(&bytes).unwrap();
            if fits(&status) {
                return status;
            }
            last = Some(status);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{revision} never got there: {last:?}");
}

/// A pod: its mounts, its folders, and the loader at work in it.
struct Pod {
    root: TempDir,
    folders: Folders,
    agent: tokio::task::JoinHandle<()>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

impl Pod {
    fn start(root: TempDir) -> Self {
        let env = env(root.path());
        Self::start_in(root, env)
    }

    fn start_in(root: TempDir, env: Env) -> Self {
        let folders =
            Folders { assignment: root.path().join("pod/assignment"), models: root.path().join("models") };
        let agent = tokio::spawn(modelwright::loader::fetch(folders.clone(), env));
        Self { root, folders, agent }
    }

    fn assign(&self, revisions: &[(&str, &PinnedSource)]) {
        assign(&self.folders.assignment, revisions);
    }

    fn file(&self, path: &str) -> PathBuf {
        self.folders.models.join(path)
    }

    async fn fetched(&self, revision: &str) -> LoadStatus {
        status(&self.folders.models, revision, |s| s.phase == LoadPhase::Fetched).await
    }

    /// Reason and message of the next failure.
    async fn failed(&self, revision: &str) -> (String, String) {
        let status = status(&self.folders.models, revision, |s| s.phase == LoadPhase::Failed).await;
        (status.reason.unwrap(), status.message.unwrap())
    }
}

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    digest_of(&[(String::new(), hex)])
}

async fn serve(files: &Files) -> Server {
    let files = files.clone();
    Server::start(move |asked| files.serve(asked)).await
}

async fn pinned(request: &SourceRequest, env: &Env) -> PinnedSource {
    resolve(request, env).await.unwrap().resolved.source
}

async fn refused(request: &SourceRequest, env: &Env, reason: &str, text: &str) {
    let error = resolve(request, env).await.unwrap_err();
    assert_eq!(error.reason(), reason, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}
