//! The agent in a pod.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use modelwright::formats::SourceRequest;
use modelwright::loader::digest_of;

use crate::*;

#[tokio::test]
async fn a_model_and_its_data_arrive_verified_and_leave_when_unassigned() {
    let (root, files) = (temp(), Files::default());
    let (model, weights) = with_external_data(3, 2);
    let data: Vec<u8> = (0..weights).map(|i| i as u8).collect();
    files.put("/a/model.onnx", File::new(model.clone(), "\"m\""));
    files.put("/a/weights.bin", File::new(data.clone(), "\"w\""));
    let server = serve(&files).await;
    let hex = |bytes: &[u8]| sha256(bytes)["sha256:".len()..].to_owned();
    let whole = digest_of(&[("model.onnx".into(), hex(&model)), ("weights.bin".into(), hex(&data))]);
    let given = SourceRequest { digest: Some(whole.clone()), ..request(&server.url("/a/model.onnx")) };
    let source = pinned(&given, &env(root.path())).await;
    assert_eq!(source.sha256.as_deref(), Some(whole.as_str()));

    let pod = Pod::start(root);
    pod.assign(&[("fraud-r1", &source), ("fraud-r2", &source)]);
    let status = pod.fetched("fraud-r1").await;
    assert_eq!(status.model_file.as_deref(), Some("model.onnx"));
    assert_eq!((status.digest.as_deref(), status.bytes), (Some(whole.as_str()), status.total_bytes));
    assert_eq!(status.total_bytes, model.len() as u64 + weights);
    assert_eq!(std::fs::read(pod.file("revisions/fraud-r1/weights.bin")).unwrap(), data);
    pod.fetched("fraud-r2").await;

    pod.assign(&[("fraud-r2", &source)]);
    for _ in 0..3000 {
        if !pod.file("revisions/fraud-r1").exists() && !pod.file("status/fraud-r1.json").exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!pod.file("revisions/fraud-r1").exists() && pod.file("revisions/fraud-r2/model.onnx").exists());
    // What can't be read is not an empty list.
    write(&pod.folders.assignment, "{");
    tokio::time::sleep(std::time::Duration::from_millis(1300)).await;
    assert!(pod.file("revisions/fraud-r2/model.onnx").exists());

    // A restarted container takes what is there, and nothing else.
    let asked = server.log().len();
    let root = {
        pod.assign(&[("fraud-r2", &source)]);
        pod.agent.abort();
        let status = pod.file("status/fraud-r2.json");
        std::fs::remove_file(status).unwrap();
        pod
    };
    let agent = tokio::spawn(modelwright::loader::fetch(root.folders.clone(), env(root.root.path())));
    root.fetched("fraud-r2").await;
    assert_eq!(server.log().len(), asked);
    agent.abort();
    let torn = root.file("revisions/fraud-r2/weights.bin");
    std::fs::write(&torn, vec![0; weights as usize]).unwrap();
    std::fs::remove_file(root.file("status/fraud-r2.json")).unwrap();
    let agent = tokio::spawn(modelwright::loader::fetch(root.folders.clone(), env(root.root.path())));
    root.fetched("fraud-r2").await;
    assert_eq!(std::fs::read(&torn).unwrap(), data);
    agent.abort();
}

#[tokio::test]
async fn a_changed_file_is_noticed_even_by_a_server_that_ignores_if_match() {
    for if_match in [true, false] {
        let (root, files) = (temp(), Files::default());
        files.put("/m.onnx", File { if_match, ..File::new(small(), "\"v1\"") });
        let server = serve(&files).await;
        let source = pinned(&request(&server.url("/m.onnx")), &env(root.path())).await;
        files.put("/m.onnx", File { if_match, ..File::new(small(), "\"v2\"") });
        let pod = Pod::start(root);
        pod.assign(&[("fraud-r1", &source)]);
        assert_eq!(pod.failed("fraud-r1").await.0, "SourceChanged");
        // The pinned bytes come back, and so does the revision, alone.
        files.put("/m.onnx", File { if_match, ..File::new(small(), "\"v1\"") });
        pod.fetched("fraud-r1").await;
    }
}

#[tokio::test]
async fn a_wrong_digest_names_both() {
    let (root, files) = (temp(), Files::default());
    files.put("/m.onnx", File::new(small(), "\"v1\""));
    let server = serve(&files).await;
    let wrong = SourceRequest { digest: Some(sha256(b"other")), ..request(&server.url("/m.onnx")) };
    let source = pinned(&wrong, &env(root.path())).await;
    let pod = Pod::start(root);
    pod.assign(&[("fraud-r1", &source)]);
    let (reason, message) = pod.failed("fraud-r1").await;
    assert_eq!(reason, "DigestMismatch");
    assert!(message.contains(&sha256(b"other")) && message.contains(&sha256(&small())), "{message}");
    assert!(!pod.file("revisions/fraud-r1").exists());
}

/// A server whose answers a test can spoil, once the file is resolved.
async fn spoilt(spoil: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> (Server, Arc<AtomicBool>) {
    let is_spoilt = Arc::new(AtomicBool::new(false));
    let (flag, files) = (is_spoilt.clone(), Files::default());
    files.put("/m.onnx", File::new(small(), "\"v1\""));
    let server = Server::start(move |asked| {
        let reply = files.serve(asked);
        if flag.load(Ordering::SeqCst) { spoil(reply) } else { reply }
    })
    .await;
    (server, is_spoilt)
}

#[tokio::test]
async fn a_fetch_says_what_is_wrong_and_recovers_alone() {
    type Spoil = fn(Reply) -> Reply;
    let cases: [(Spoil, &str, &str); 6] = [
        (|r| Reply { cut: Some(1000), ..r }, "SourceUnavailable", "m.onnx"),
        (|r| Reply { stall: Some(1000), ..r }, "SourceUnavailable", "the server did not answer in time"),
        (|_| Reply::new(500, "oops"), "SourceUnavailable", "the server answers 500"),
        (|_| Reply::new(403, "no"), "SourceForbidden", "the server answers 403"),
        (|_| Reply::new(404, "gone"), "SourceNotFound", "the server answers 404"),
        (|r| Reply { body: Body::Bytes(vec![8; 100]), ..r }, "SourceUnavailable", "after 100 of"),
    ];
    for (spoil, reason, text) in cases {
        let (server, is_spoilt) = spoilt(spoil).await;
        let root = temp();
        let source = pinned(&request(&server.url("/m.onnx")), &env(root.path())).await;
        is_spoilt.store(true, Ordering::SeqCst);
        let env = if text.ends_with("in time") { hasty(root.path()) } else { env(root.path()) };
        let pod = Pod::start_in(root, env);
        pod.assign(&[("fraud-r1", &source)]);
        let (found, message) = pod.failed("fraud-r1").await;
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(text), "{message}");
        is_spoilt.store(false, Ordering::SeqCst);
        pod.fetched("fraud-r1").await;
    }
}

#[tokio::test]
async fn an_assignment_can_name_nothing_outside() {
    let root = temp();
    let env = env(root.path());
    write(&env.claim.join("m.onnx"), small());
    let source = pinned(&request("pvc://models/m.onnx"), &env).await;
    let mut escaping = source.clone();
    escaping.files[0].path = "../../m.onnx".into();
    let pod = Pod::start(root);
    pod.assign(&[("fraud-r1", &escaping)]);
    assert_eq!(pod.failed("fraud-r1").await.0, "ModelInvalid");
    pod.assign(&[("../../escape", &source), ("fraud-r2", &source)]);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert!(!pod.file("status/fraud-r2.json").exists(), "one bad name spoils the document");
    pod.assign(&[("fraud-r2", &source)]);
    pod.fetched("fraud-r2").await;
    assert!(!pod.file("status/fraud-r1.json").exists());
}

#[tokio::test]
async fn a_full_volume_is_said_in_bytes() {
    let (root, files) = (temp(), Files::default());
    files.put("/m.onnx", File::new(small(), "\"v1\""));
    let server = serve(&files).await;
    let mut source = pinned(&request(&server.url("/m.onnx")), &env(root.path())).await;
    source.files[0].size = 1 << 60;
    let pod = Pod::start(root);
    pod.assign(&[("fraud-r1", &source)]);
    let (reason, message) = pod.failed("fraud-r1").await;
    assert_eq!(reason, "SourceUnavailable");
    assert!(
        message.starts_with("the model needs 1152921504606846976 bytes, and the pod's volume has "),
        "{message}"
    );
}

#[tokio::test]
async fn the_binary_reports_and_ends_at_once_when_told() {
    let root = temp();
    write(&root.path().join("claim/m.onnx"), small());
    let loader = || std::process::Command::new(env!("CARGO_BIN_EXE_modelwright-loader"));
    let report = root.path().join("report");
    let resolve = |uri: &str| {
        let request = format!(r#"{{"uri":"{uri}"}}"#);
        let mut command = loader();
        command.args(["resolve", "--source", &request, "--report"]).arg(&report);
        command.arg("--claim-dir").arg(root.path().join("claim")).output().unwrap().status.code()
    };
    assert_eq!(resolve("pvc://models/m.onnx"), Some(0));
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(text.starts_with("modelwright.dev/resolved/v1:") && text.len() <= 4096);
    assert_eq!(resolve("pvc://models/absent.onnx"), Some(1));
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(text.starts_with("SourceNotFound: pvc://models/absent.onnx: "), "{text}");
    // Nothing in the arguments lets the binary talk to its own machine.
    assert_eq!(resolve("https://127.0.0.1/m.onnx"), Some(1));
    assert!(std::fs::read_to_string(&report).unwrap().starts_with("SourceForbidden: "));

    let mut agent = loader();
    agent.arg("fetch").arg("--assignment").arg(root.path().join("assignment"));
    let mut agent = agent.arg("--models").arg(root.path().join("models")).spawn().unwrap();
    // Once it is at work it listens to signals.
    let source = pinned(&request("pvc://models/m.onnx"), &env(root.path())).await;
    assign(&root.path().join("assignment"), &[("fraud-r1", &source)]);
    status(&root.path().join("models"), "fraud-r1", |_| true).await;
    let pid = rustix::process::Pid::from_child(&agent);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}
