//! Models without their zeros, and a store that does exactly what a test says.
#![allow(dead_code, unused_imports)] // each test takes its part

#[path = "../../src/onnx/fixture.rs"]
pub mod fixture;
mod server;
mod sparse;

use std::path::Path;

use modelwright::formats::{Assignment, Assignments, LoadStatus, PinnedSource, SourceRequest};
use modelwright::loader::Env;
pub use server::{Asked, Body, File, Files, Reply, Server};
pub use sparse::{Sparse, inline_model, with_external_data};

pub fn request(uri: &str) -> SourceRequest {
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
pub fn small() -> Vec<u8> {
    let model = inline_model(2, 1);
    model.read(0..model.len())
}

/// An environment whose mounts are folders below `root`, and which may talk to this machine.
pub fn env(root: &Path) -> Env {
    // As the binary does; the second time it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Env {
        secret: root.join("secret"),
        ca: root.join("ca"),
        claim: root.join("claim"),
        allow_loopback: true,
        stall: std::time::Duration::from_millis(700),
        ..Env::default()
    }
}

pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// As the kubelet does it: never half a file.
pub fn assign(path: &Path, revisions: &[(&str, &PinnedSource)]) {
    let assignments = revisions.iter().map(|(revision, source)| Assignment {
        deployment: "fraud".into(),
        revision: (*revision).into(),
        model_version: "1".into(),
        port: 9000,
        source: (*source).clone(),
    });
    let json = serde_json::to_vec(&Assignments::new(assignments.collect())).unwrap();
    write(&path.with_extension("next"), json);
    std::fs::rename(path.with_extension("next"), path).unwrap();
}

/// Waits for a load status that fits, and gives up with the last one seen.
pub async fn status(models: &Path, revision: &str, fits: impl Fn(&LoadStatus) -> bool) -> LoadStatus {
    let path = models.join("status").join(format!("{revision}.json"));
    let mut last = None;
    for _ in 0..1000 {
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
