//! The supervisor and its workers, as real processes.
#![cfg(feature = "server")]

#[path = "server_support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use modelwright::formats::RevisionPhase::{self, Draining, Failed, Fetched, Fetching, Proven};
use modelwright::formats::{Announcement, PodState};
use modelwright::protocol::grpc::proto::ServerLiveRequest;
use serde_json::{Value, json};
use support::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the operator, the kubelet and the loader do for a pod.
struct Pod {
    folder: TempDir,
    admin: u16,
}

impl Pod {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir_all(folder.path().join("models/status")).unwrap();
        Self { folder, admin: free_port() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn supervise(&self, arguments: &[&str]) -> Process {
        self.supervise_with_drain(1, arguments)
    }

    /// What leaves can be looked at for so long.
    fn supervise_with_drain(&self, seconds: u64, arguments: &[&str]) -> Process {
        let child = command()
            .arg("supervise")
            .arg("--assignment")
            .arg(self.path("assignment"))
            .arg("--models")
            .arg(self.path("models"))
            .args(["--admin-port", &self.admin.to_string(), "--grace-seconds", "20"])
            .args(["--drain-seconds", &seconds.to_string()])
            .args(arguments)
            .spawn()
            .unwrap();
        Process { child, port: self.admin }
    }

    fn assign(&self, revisions: &[(&str, u16)]) {
        self.assign_files(revisions, &[]);
    }

    /// Of some no worker is wanted.
    fn assign_files(&self, revisions: &[(&str, u16)], fetch_only: &[(&str, u16)]) {
        let assignment = |(revision, port): &(&str, u16)| {
            json!({
                "deployment": "m", "revision": revision, "modelVersion": revision.rsplit_once("-r").unwrap().1,
                "port": port, "source": {"uri": "s3://models/m", "immutable": true, "files": []},
            })
        };
        let list = |revisions: &[(&str, u16)]| revisions.iter().map(assignment).collect::<Vec<Value>>();
        let (run, fetch_only) = (list(revisions), list(fetch_only));
        let document = json!({"formatVersion": 1, "assignments": run, "fetchOnly": fetch_only});
        self.replace("assignment", &document);
    }

    fn fetched(&self, revision: &str, model: &[u8]) {
        fs::write(self.model(revision), model).unwrap();
        self.tell_fetched(revision, model.len());
    }

    /// Its file, in a folder that is there.
    fn model(&self, revision: &str) -> std::path::PathBuf {
        let folder = self.path("models/revisions").join(revision);
        fs::create_dir_all(&folder).unwrap();
        folder.join("model.onnx")
    }

    fn tell_fetched(&self, revision: &str, bytes: usize) {
        self.status(
            revision,
            json!({
                "formatVersion": 1, "phase": "Fetched", "modelFile": "model.onnx", "digest": "sha256:feed",
                "bytes": bytes, "totalBytes": bytes, "seconds": 0.25,
            }),
        );
    }

    fn status(&self, revision: &str, status: Value) {
        self.replace(&format!("models/status/{revision}.json"), &status);
    }

    fn replace(&self, name: &str, document: &Value) {
        let next = self.path("next");
        fs::write(&next, document.to_string()).unwrap();
        fs::rename(next, self.path(name)).unwrap();
    }

    async fn is(&self, revision: &str, phase: RevisionPhase) -> modelwright::formats::RevisionState {
        let what = format!("{revision} is {phase:?}");
        let state = state(self.admin, &what, |s| support::phase(s, revision) == Some(phase)).await;
        state.revisions.into_iter().find(|r| r.revision == revision).unwrap()
    }

    /// Its worker has ended while it served. `Failed` may have passed by; why it was stays until it serves again.
    async fn lost_worker(
        &self,
        revision: &str,
        what: &str,
    ) -> (modelwright::formats::RevisionState, PodState) {
        let find = |s: &PodState| s.revisions.iter().find(|r| r.revision == revision).cloned();
        let lost = |s: &PodState| find(s).is_some_and(|r| r.reason.is_some() && r.phase != Proven);
        let state = state(self.admin, what, lost).await;
        (find(&state).unwrap(), state)
    }
}

fn identity() -> Vec<u8> {
    onnx::identity(onnx::types::FLOAT, &[-1])
}

/// The processes that `parent` started.
fn children(parent: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn request() -> Value {
    json!({"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}]})
}

#[tokio::test]
async fn an_assignment_that_appears_is_fetched_loaded_proven_and_answers() {
    let pod = Pod::new();
    let _supervisor = pod.supervise(&[]);
    let (status, body) = until("the admin port answers", async || get(pod.admin, "/readyz").await).await;
    assert_eq!((status, body.as_str()), (503, "nothing is assigned\n"));

    let port = free_port();
    pod.assign(&[("m-r1", port)]);
    pod.is("m-r1", Fetching).await;
    pod.fetched("m-r1", &identity());
    let revision = pod.is("m-r1", Proven).await;

    assert_eq!(revision.device.as_deref(), Some("CPU"));
    assert_eq!(revision.graph_nodes, [("CPU".to_string(), 1)].into());
    assert_eq!(revision.digest.as_deref(), Some("sha256:feed"));
    assert_eq!(revision.seconds.keys().collect::<Vec<_>>(), ["fetch", "load", "warmup"]);
    assert_eq!((revision.reason, revision.message), (None, None));
    assert_eq!(get(pod.admin, "/readyz").await.unwrap().0, 200);
    assert_eq!(get(pod.admin, "/healthz").await.unwrap().0, 200);
    let (status, answer) = infer(port, &request()).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([1.0, 2.5])));
    assert_eq!((&answer["model_version"], &answer["id"]), (&json!("1"), &json!("7")));

    let response = post(port, "/v2/models/m/infer", &[], request().to_string()).await;
    assert_eq!(response.headers()["modelwright-revision"], "m-r1");
    assert_eq!(response.headers()["modelwright-digest"], "sha256:feed");
    let (_, metrics) = get(pod.admin, "/metrics").await.unwrap();
    let wanted = r#"modelwright_requests_total{revision="m-r1",protocol="rest",outcome="ok"} 2"#;
    assert!(metrics.contains(wanted) && metrics.ends_with("# EOF\n"), "{metrics}");
}

#[tokio::test]
async fn gateways_are_told_when_the_pod_is_proven_and_again_until_one_believes_it() {
    let gateway = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pod = Pod::new();
    let port = free_port();
    pod.assign(&[("m-r1", port)]);
    let _supervisor = pod.supervise(&[
        &format!("--gateways=localhost:{}", gateway.local_addr().unwrap().port()),
        "--pod-name=m-r1-x",
        "--pod-uid=u",
        "--pod-ip=127.0.0.1",
    ]);
    pod.is("m-r1", Fetching).await;
    pod.fetched("m-r1", &identity());
    for answer in ["404 Not Found", "204 No Content"] {
        let (mut stream, _) = tokio::time::timeout(DEADLINE, gateway.accept()).await.expect(answer).unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"}") {
            assert!(stream.read_buf(&mut said).await.unwrap() > 0, "{}", String::from_utf8_lossy(&said));
        }
        let text = String::from_utf8(said).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /modelwright/v1/announce HTTP/1.1"), "{head}");
        let said: Announcement = serde_json::from_str(body).unwrap();
        assert_eq!(said, Announcement::new("m-r1-x".into(), "u".into(), "127.0.0.1".parse().unwrap()));
        assert_eq!(get(pod.admin, "/readyz").await.unwrap().0, 200, "it was proven before");
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await; // it does not wait for long
    }
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_the_pod_is_ready_again() {
    let pod = Pod::new();
    let port = free_port();
    pod.assign(&[("m-r1", port)]);
    pod.fetched("m-r1", &identity());
    let supervisor = pod.supervise(&[]);
    pod.is("m-r1", Proven).await;

    let before = children(supervisor.pid());
    kill(before[0], "KILL");
    let (failed, _) = pod.lost_worker("m-r1", "the worker is killed").await;
    assert_eq!(failed.reason.as_deref(), Some("OutOfMemory"));
    assert!(failed.message.unwrap().starts_with("the worker was killed while serving"));

    pod.is("m-r1", Proven).await;
    assert_ne!(children(supervisor.pid()), before);
    assert_eq!(infer(port, &request()).await.0, 200);
}

/// The worker that listens on `port`.
fn worker_of(supervisor: u32, port: u16) -> u32 {
    let is_it = |pid: &u32| {
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.contains(&format!("--port\0{port}\0"))
    };
    children(supervisor).into_iter().find(is_it).expect("a worker")
}

#[tokio::test]
async fn a_worker_that_aborts_is_killed_or_hangs_leaves_the_other_answering() {
    let pod = Pod::new();
    let (lost, kept) = (free_port(), free_port());
    pod.assign(&[("m-r1", lost), ("m-r2", kept)]);
    pod.fetched("m-r1", &identity());
    pod.fetched("m-r2", &identity());
    let supervisor = pod.supervise(&["--hang-timeout-seconds", "5"]); // a busy machine is no hang
    pod.is("m-r1", Proven).await;
    pod.is("m-r2", Proven).await;
    let other = worker_of(supervisor.pid(), kept);
    for (signal, reason, message) in [
        ("ABRT", "CrashLooping", "ONNX Runtime crashed while serving: signal 6"),
        ("KILL", "OutOfMemory", "the worker was killed while serving"),
        ("STOP", "CrashLooping", "the worker gave no sign of life for 5 s while serving"),
    ] {
        kill(worker_of(supervisor.pid(), lost), signal);
        let what = format!("m-r1 has failed after SIG{signal}");
        let (failed, state) = pod.lost_worker("m-r1", &what).await;
        assert_eq!(failed.reason.as_deref(), Some(reason), "{failed:?}");
        assert!(failed.message.as_ref().unwrap().starts_with(message), "{failed:?}");
        assert_eq!((phase(&state, "m-r2"), state.ready), (Some(Proven), true));
        assert_eq!(infer(kept, &request()).await.0, 200, "after SIG{signal}");
        pod.is("m-r1", Proven).await;
        assert_eq!(infer(lost, &request()).await.0, 200, "after SIG{signal}");
    }
    assert_eq!(worker_of(supervisor.pid(), kept), other, "it was never touched");
}

#[tokio::test]
async fn a_failure_of_the_loader_passes_through_and_is_recovered_from() {
    let pod = Pod::new();
    pod.assign(&[("m-r1", free_port())]);
    pod.status(
        "m-r1",
        json!({"formatVersion": 1, "phase": "Failed", "reason": "SourceForbidden", "message": "s3://models/m: 403"}),
    );
    let _supervisor = pod.supervise(&[]);
    let failed = pod.is("m-r1", Failed).await;
    assert_eq!(failed.reason.as_deref(), Some("SourceForbidden"));
    assert_eq!(failed.message.as_deref(), Some("s3://models/m: 403"));
    let (status, body) = get(pod.admin, "/readyz").await.unwrap();
    assert_eq!((status, body.as_str()), (503, "m-r1 is Failed: SourceForbidden: s3://models/m: 403\n"));

    pod.fetched("m-r1", &identity());
    pod.is("m-r1", Proven).await;
}

#[tokio::test]
async fn a_second_revision_is_proven_beside_the_first_which_then_leaves() {
    let pod = Pod::new();
    let (old, new) = (free_port(), free_port());
    pod.assign(&[("m-r1", old)]);
    pod.fetched("m-r1", &identity());
    let _supervisor = pod.supervise_with_drain(10, &[]);
    pod.is("m-r1", Proven).await;

    pod.assign(&[("m-r1", old), ("m-r2", new)]);
    pod.is("m-r2", Fetching).await;
    assert_eq!(get(pod.admin, "/readyz").await.unwrap().0, 200, "the first serves on");
    assert_eq!(infer(old, &request()).await.0, 200);
    pod.fetched("m-r2", &identity());
    assert_eq!(pod.is("m-r2", Proven).await.port, Some(new));
    assert_eq!(get(pod.admin, "/readyz").await.unwrap().0, 200);
    assert_eq!(infer(new, &request()).await.1["model_version"], "2");

    pod.assign(&[("m-r2", new)]);
    pod.is("m-r1", Draining).await;
    assert_eq!(infer(old, &request()).await.0, 200, "a draining worker still answers");
    assert_eq!(get(pod.admin, "/readyz").await.unwrap().0, 200, "what leaves is not waited for");
    state(pod.admin, "m-r1 is gone", |s| phase(s, "m-r1").is_none()).await;
    assert_eq!(infer(new, &request()).await.0, 200);
}

#[tokio::test]
async fn a_candidate_that_loads_makes_way_for_the_stable_worker_and_is_loaded_again() {
    const O_NONBLOCK: i32 = 0o4000;
    let pod = Pod::new();
    let (stable, candidate) = (free_port(), free_port());
    pod.assign(&[("m-r1", stable), ("m-r2", candidate)]);
    pod.fetched("m-r1", &identity());
    let supervisor = pod.supervise(&[]);
    pod.is("m-r1", Proven).await;

    // Nobody writes into the pipe: its model takes for ever to load.
    let model = pod.model("m-r2");
    assert!(std::process::Command::new("mkfifo").arg(&model).status().unwrap().success());
    pod.tell_fetched("m-r2", 1);
    let mut pipe = fs::OpenOptions::new();
    pipe.write(true).custom_flags(O_NONBLOCK);
    let _pipe = until("m-r2 is loaded", async || pipe.open(&model).ok()).await;
    // What is loaded next is a model.
    fs::write(pod.path("next"), identity()).unwrap();
    fs::rename(pod.path("next"), &model).unwrap();

    kill(worker_of(supervisor.pid(), stable), "KILL");
    assert_eq!(pod.is("m-r2", Proven).await.reason, None);
    assert_eq!(pod.is("m-r1", Proven).await.reason, None);
    assert_eq!(infer(stable, &request()).await.0, 200);
    assert_eq!(infer(candidate, &request()).await.1["model_version"], "2");
}

/// As on a GPU that has room for one.
#[tokio::test]
async fn a_revision_takes_the_place_of_another_and_gives_it_back() {
    let pod = Pod::new();
    let (old, new) = (free_port(), free_port());
    pod.assign(&[("m-r1", old)]);
    pod.fetched("m-r1", &identity());
    let supervisor = pod.supervise(&[]);
    pod.is("m-r1", Proven).await;

    pod.assign_files(&[("m-r1", old)], &[("m-r2", new)]);
    pod.is("m-r2", Fetching).await;
    pod.fetched("m-r2", b"<html>404</html>");
    pod.is("m-r2", Fetched).await;
    assert_eq!(children(supervisor.pid()).len(), 1, "nobody runs it");
    assert_eq!(infer(old, &request()).await.0, 200);

    pod.assign_files(&[("m-r2", new)], &[("m-r1", old)]);
    let failed = pod.is("m-r2", Failed).await;
    assert_eq!(failed.reason.as_deref(), Some("ModelInvalid"), "{failed:?}");
    pod.is("m-r1", Fetched).await;
    assert_eq!(get(pod.admin, "/readyz").await.unwrap().0, 503, "the one that leaves is not counted");

    pod.assign_files(&[("m-r1", old)], &[("m-r2", new)]);
    assert_eq!(pod.is("m-r1", Proven).await.reason, None);
    assert_eq!(pod.is("m-r2", Fetched).await.reason, None, "what it was is of another attempt");
    assert_eq!(get(pod.admin, "/readyz").await.unwrap().0, 200);
    assert_eq!(infer(old, &request()).await.1["model_version"], "1");

    pod.fetched("m-r2", &identity());
    pod.assign_files(&[("m-r2", new)], &[("m-r1", old)]);
    pod.is("m-r2", Proven).await;
    assert_eq!(infer(new, &request()).await.1["model_version"], "2");
    assert_eq!(children(supervisor.pid()).len(), 1);
    pod.assign(&[("m-r2", new)]);
    state(pod.admin, "m-r1 is gone", |s| phase(s, "m-r1").is_none()).await;
    assert_eq!(infer(new, &request()).await.0, 200);
}

#[tokio::test]
async fn a_revision_on_the_port_of_one_that_leaves_starts_when_that_has_gone() {
    let pod = Pod::new();
    let (first, second) = (free_port(), free_port());
    pod.assign(&[("m-r1", first), ("m-r2", second)]);
    pod.fetched("m-r1", &identity());
    pod.fetched("m-r2", &identity());
    pod.fetched("m-r3", &identity());
    let supervisor = pod.supervise(&[]);
    pod.is("m-r1", Proven).await;
    pod.is("m-r2", Proven).await;
    let stays = worker_of(supervisor.pid(), second);

    pod.assign(&[("m-r2", second), ("m-r3", first)]);
    let started = pod.is("m-r3", Proven).await;
    assert_eq!((started.port, started.reason), (Some(first), None), "no try found the port taken");
    let (_, answer) = infer(first, &request()).await;
    assert_eq!(answer["model_version"], "3");
    assert_eq!(worker_of(supervisor.pid(), second), stays);
}

#[tokio::test]
async fn a_candidate_that_can_not_be_loaded_says_why_and_leaves_the_stable_one_alone() {
    use onnx::{model, node, types, value};
    let pod = Pod::new();
    let stable = free_port();
    pod.assign(&[("m-r1", stable)]);
    pod.fetched("m-r1", &identity());
    let _supervisor = pod.supervise(&[]);
    pod.is("m-r1", Proven).await;

    let floats = |operator, domain, opset| {
        model(
            opset,
            vec![node(operator, domain, &["x"], &["y"])],
            vec![value("x", types::FLOAT, &[-1])],
            vec![value("y", types::FLOAT, &[-1])],
        )
    };
    let truncated = identity()[..40].to_vec();
    let cases = [
        (
            2,
            floats("Frobnicate", "", 17),
            "ModelInvalid",
            "operator Frobnicate is not known to ONNX Runtime at opset 17",
        ),
        (
            3,
            floats("Frob", "com.example", 17),
            "ModelInvalid",
            "operator Frob of domain com.example is not known",
        ),
        (4, floats("Identity", "", 99), "OpsetUnsupported", "Opset 99 is under development"),
        (5, b"<html>404</html>".to_vec(), "ModelInvalid", "the file is not an ONNX model, or is truncated"),
        (6, truncated, "ModelInvalid", "the file is not an ONNX model, or is truncated"),
        (7, Vec::new(), "ModelInvalid", "the file holds no ONNX graph"),
    ];
    for (number, model, reason, message) in cases {
        let revision = format!("m-r{number}");
        pod.assign(&[("m-r1", stable), (&revision, free_port())]);
        pod.fetched(&revision, &model);
        let failed = pod.is(&revision, Failed).await;
        assert_eq!(failed.reason.as_deref(), Some(reason), "{revision}: {failed:?}");
        let text = failed.message.unwrap();
        assert!(text.contains(message), "{revision}: {text}");
        for secret in ["/onnxruntime_src", "0x", "models/revisions", ".cc:"] {
            assert!(!text.contains(secret), "{revision}: {text}");
        }
        assert_eq!(infer(stable, &request()).await.0, 200);
    }
}

#[tokio::test]
async fn a_gpu_that_was_asked_for_and_does_not_load_is_an_error_with_its_cause() {
    for (provider, cause) in [
        (
            "CUDA",
            "execution provider CUDA did not load: CUDA execution provider is not enabled in this build",
        ),
        (
            "TensorRT,trt_fp16_enable=1",
            "execution provider TensorRT did not load: TensorRT execution provider is not",
        ),
    ] {
        let pod = Pod::new();
        pod.assign(&[("m-r1", free_port())]);
        pod.fetched("m-r1", &identity());
        let _supervisor = pod.supervise(&["--execution-provider", provider]);
        let failed = pod.is("m-r1", Failed).await;
        assert_eq!(failed.reason.as_deref(), Some("ExecutionProviderUnavailable"));
        assert!(failed.message.as_ref().unwrap().starts_with(cause), "{failed:?}");
        assert_eq!(failed.device, None);
        assert_eq!(get(pod.admin, "/readyz").await.unwrap().0, 503);
    }
}

#[test]
fn a_policy_or_limit_that_makes_no_sense_is_refused_with_what_does() {
    let folder = TempDir::new().unwrap();
    let model = folder.path().join("model.onnx");
    fs::write(&model, identity()).unwrap();
    for (arguments, text) in [
        (["--cpu-fallback", "Never"], "not one of Forbid, ShapeOpsOnly, Allow"),
        (["--gpu-memory-limit", "1024"], "bounds CUDA, which is not among the execution providers"),
    ] {
        let output = command().arg("--model").arg(&model).args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(text), "{said}");
    }
}

#[tokio::test]
async fn an_assignment_file_that_is_not_understood_changes_nothing() {
    let pod = Pod::new();
    let port = free_port();
    pod.assign(&[("m-r1", port)]);
    pod.fetched("m-r1", &identity());
    let _supervisor = pod.supervise(&[]);
    pod.is("m-r1", Proven).await;
    for broken in [json!("{"), json!({"assignments": 1}), json!({"formatVersion": 1, "assignments": [{}]})] {
        pod.replace("assignment", &broken);
        // A later change is taken over, so the broken one was looked at before it.
        let other = free_port();
        pod.assign(&[("m-r1", port), ("m-r2", other)]);
        pod.is("m-r2", Fetching).await;
        assert_eq!(infer(port, &request()).await.0, 200);
        pod.assign(&[("m-r1", port)]);
        state(pod.admin, "m-r2 is gone", |s| phase(s, "m-r2").is_none()).await;
    }
}

#[tokio::test]
async fn sigterm_unreadies_the_pod_answers_what_comes_and_exits_cleanly() {
    let pod = Pod::new();
    let port = free_port();
    pod.assign(&[("m-r1", port)]);
    pod.fetched("m-r1", &identity());
    let mut supervisor = pod.supervise_with_drain(10, &[]);
    pod.is("m-r1", Proven).await;

    let (mut grpc, connection) = grpc::open(port).await;
    grpc.server_live(ServerLiveRequest {}).await.unwrap();
    supervisor.signal("TERM");
    pod.is("m-r1", Draining).await;
    assert_eq!(get(pod.admin, "/readyz").await.unwrap().0, 503);
    tokio::time::timeout(DEADLINE, connection).await.expect("GOAWAY").unwrap().expect("a clean end");
    // A client whose node has not heard of it yet.
    let late = until("draining is answered", async || {
        let late = post(port, "/v2/models/m/infer", &[], request().to_string()).await;
        assert_eq!(late.status(), 200);
        late.headers().contains_key("connection").then_some(late)
    })
    .await;
    assert_eq!(late.headers()["connection"], "close");
    assert_eq!(supervisor.ended().await, Some(0));
}

#[tokio::test]
async fn a_worker_without_its_supervisor_ends() {
    let pod = Pod::new();
    let port = free_port();
    pod.assign(&[("m-r1", port)]);
    pod.fetched("m-r1", &identity());
    let supervisor = pod.supervise(&[]);
    pod.is("m-r1", Proven).await;
    let worker = children(supervisor.pid())[0];
    supervisor.signal("KILL");
    until("the worker is gone", async || {
        let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_model_larger_than_its_share_of_memory_is_out_of_memory_not_a_crash() {
    use onnx::{model_with, node, types, value, zeros};
    use std::io::{BufRead, BufReader};
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("big.onnx");
    let model = model_with(
        17,
        vec![node("Add", "", &["x", "w"], &["y"])],
        vec![value("x", types::FLOAT, &[1])],
        vec![value("y", types::FLOAT, &[-1])],
        vec![zeros("w", 16 << 20)],
    );
    fs::write(&path, model).unwrap();
    let report = run_worker(&path, 96 << 20);
    let mut last = String::new();
    for line in BufReader::new(report).lines().map_while(Result::ok) {
        last = line;
    }
    let report: Value = serde_json::from_str(&last).unwrap();
    assert_eq!((&report["phase"], &report["reason"]), (&json!("Failed"), &json!("OutOfMemory")), "{report}");
}

/// A worker as a supervisor starts it; its reports.
fn run_worker(model: &Path, memory_limit: u64) -> std::os::unix::net::UnixStream {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut child = command()
        .args([
            "worker",
            "--name",
            "m",
            "--model-version",
            "1",
            "--port",
            &free_port().to_string(),
            "--model",
        ])
        .arg(model)
        .args(["--memory-limit", &memory_limit.to_string()])
        .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    std::thread::spawn(move || child.wait());
    ours
}
