//! Resolve and fetch over HTTP, from a hub and from a claim, against servers that break off, stall and lie.

mod loader_support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loader_support::*;
use modelwright::formats::{HubSettings, LoadPhase, LoadStatus, Pin, PinnedSource, SourceRequest};
use modelwright::loader::{Env, Folders, digest_of, fetch, resolve};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

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
        let folders =
            Folders { assignment: root.path().join("pod/assignment"), models: root.path().join("models") };
        let agent = tokio::spawn(fetch(folders.clone(), env(root.path())));
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

#[tokio::test]
async fn two_gigabytes_are_resolved_by_short_pinned_reads() {
    let (root, files) = (temp(), Files::default());
    let model = inline_model(400, 1325);
    files.put("/m.onnx", File { content: model.clone(), ..File::new("", "\"v1\"") });
    let server = serve(&files).await;
    let outcome = resolve(&request(&server.url("/m.onnx")), &env(root.path())).await.unwrap();
    let log = server.log();
    // The first asks for one byte, to see what the server can do.
    assert!(log[1..].iter().all(|a| a.sent <= 8192 && a.header("if-match") == Some("\"v1\"")), "{log:?}");
    println!("{} bytes of model, {} bytes read in {} requests", model.len(), server.bytes(), log.len());
    assert!(server.bytes() < 5_000_000);
    assert_eq!((outcome.bytes, outcome.requests), (server.bytes() - 1, log.len() as u64));
    let source = outcome.resolved.source;
    assert!(source.immutable && source.sha256.is_none());
    assert_eq!(source.files[0].pin, Some(Pin::Etag("\"v1\"".into())));
}

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
    for _ in 0..300 {
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
    let agent = tokio::spawn(fetch(root.folders.clone(), env(root.root.path())));
    root.fetched("fraud-r2").await;
    assert_eq!(server.log().len(), asked);
    agent.abort();
    let torn = root.file("revisions/fraud-r2/weights.bin");
    std::fs::write(&torn, vec![0; weights as usize]).unwrap();
    std::fs::remove_file(root.file("status/fraud-r2.json")).unwrap();
    let agent = tokio::spawn(fetch(root.folders.clone(), env(root.root.path())));
    root.fetched("fraud-r2").await;
    assert_eq!(std::fs::read(&torn).unwrap(), data);
    agent.abort();
}

#[tokio::test]
async fn a_server_without_pins_is_hashed_whole_and_watched() {
    let (root, files) = (temp(), Files::default());
    let (model, weights) = with_external_data(2, 1);
    let data = vec![3; weights as usize];
    // No ranges; a weak ETag, which If-Match may not carry.
    files.put("/model.onnx", File { ranges: false, ..File::new(model, "W/\"m\"") });
    files.put("/weights.bin", File { ranges: false, ..File::new(data, "") });
    let server = serve(&files).await;
    let source = pinned(&request(&server.url("/model.onnx")), &env(root.path())).await;
    assert!(!source.immutable && source.sha256.is_some() && source.files.iter().all(|f| f.pin.is_none()));

    let wrong = SourceRequest { digest: Some(sha256(b"")), ..source.request.clone() };
    refused(&wrong, &env(root.path()), "DigestMismatch", &sha256(b"")).await;
    refused(&wrong, &env(root.path()), "DigestMismatch", source.sha256.as_deref().unwrap()).await;

    let pod = Pod::start(root);
    pod.assign(&[("fraud-r1", &source)]);
    pod.fetched("fraud-r1").await;
    files.put("/weights.bin", File { ranges: false, ..File::new(vec![4; weights as usize], "") });
    pod.assign(&[("fraud-r1", &source), ("fraud-r2", &source)]);
    let (reason, message) = pod.failed("fraud-r2").await;
    assert_eq!(reason, "SourceChanged");
    assert!(
        message.contains("annotate the ModelDeployment with modelwright.dev/resolve-at=<time>"),
        "{message}"
    );
    assert!(pod.file("revisions/fraud-r1/model.onnx").exists(), "the older revision is untouched");
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
        let pod = Pod::start(root);
        pod.assign(&[("fraud-r1", &source)]);
        let (found, message) = pod.failed("fraud-r1").await;
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(text), "{message}");
        is_spoilt.store(false, Ordering::SeqCst);
        pod.fetched("fraud-r1").await;
    }
}

#[tokio::test]
async fn a_resolve_that_fails_says_why() {
    let (root, files) = (temp(), Files::default());
    for (path, bytes) in [
        ("/empty.onnx", &b""[..]),
        ("/page.onnx", b"<!doctype html><title>Sign in</title>"),
        ("/model.pt", b"PK\x03\x04................"),
        ("/noise.onnx", &[0xa7; 4096]),
        ("/cut.onnx", &small()[..100]),
    ] {
        files.put(path, File::new(bytes, "\"e\""));
    }
    let new = fixture::msg().int(1, 8).msg(7, fixture::graph(&[], &[])).msg(8, fixture::opset("", 99)).0;
    files.put("/new.onnx", File::new(new, "\"e\""));
    let escaping = fixture::external(fixture::tensor("w", &[1]), &[("location", "../../etc/passwd")]);
    files.put("/out.onnx", File::new(fixture::model(fixture::graph(&[], &[escaping])).0, "\"e\""));
    let server = serve(&files).await;
    let env = env(root.path());
    for (path, reason, text) in [
        ("/absent.onnx", "SourceNotFound", "404"),
        ("/", "SourceNotFound", "name the model file"),
        ("/empty.onnx", "ModelInvalid", "the file is empty"),
        ("/page.onnx", "ModelInvalid", "it is HTML or XML"),
        ("/model.pt", "ModelInvalid", "it is a zip archive"),
        ("/noise.onnx", "ModelInvalid", "this is not an ONNX model"),
        ("/cut.onnx", "ModelInvalid", "cut short"),
        ("/new.onnx", "OpsetUnsupported", "opset 99 of ai.onnx"),
        ("/out.onnx", "ModelInvalid", "tensor \"w\" has its data outside the model's folder"),
    ] {
        refused(&request(&server.url(path)), &env, reason, text).await;
    }
    let mut plain = request(&server.url("/m.onnx"));
    plain.insecure_http = false;
    refused(&plain, &env, "SourceForbidden", "set model.insecureHTTP to true").await;
    refused(&request("ftp://host/m.onnx"), &env, "SourceNotFound", "no store is known for ftp://").await;
    refused(&request("http://127.0.0.1:9/m.onnx"), &env, "SourceUnavailable", "Connection refused").await;
    refused(&request("http://nowhere.invalid/m.onnx"), &env, "SourceUnavailable", "does not resolve").await;
    refused(&request("http://user:pw@host/m.onnx"), &env, "SourceForbidden", "holds credentials").await;
    let stall = Server::start(|_| Reply { stall: Some(0), ..Reply::new(200, "x") }).await;
    refused(&request(&stall.url("/m.onnx")), &env, "SourceUnavailable", "").await;
}

#[tokio::test]
async fn addresses_are_checked_before_after_names_and_after_redirects() {
    let root = temp();
    let strict = Env { allow_loopback: false, ..env(root.path()) };
    for uri in [
        "http://127.0.0.1/m.onnx",
        "http://2130706433/m.onnx",
        "http://0x7f.1/m.onnx",
        "http://[::1]/m.onnx",
        "http://[::ffff:7f00:1]/m.onnx",
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/m.onnx",
        "http://0.0.0.0/m.onnx",
        "http://localhost/m.onnx",
    ] {
        refused(&request(uri), &strict, "SourceForbidden", "where no source may stand").await;
    }
    let hf = SourceRequest {
        hf: Some(HubSettings { endpoint: Some("http://localhost:1".into()) }),
        ..request("hf://o/n/m.onnx")
    };
    refused(&hf, &strict, "SourceForbidden", "a loopback address").await;
    let s3 = SourceRequest {
        s3: Some(modelwright::formats::S3Settings {
            endpoint: Some("http://localhost:1".into()),
            region: None,
        }),
        ..request("s3://b/m.onnx")
    };
    refused(&s3, &strict, "SourceForbidden", "a loopback address").await;

    let to = |place: &'static str| Server::start(move |_| Reply::new(302, "").with("location", place));
    let env = env(root.path());
    for (place, text) in [
        ("http://169.254.169.254/x", "a link-local address"),
        ("http://[fd00:ec2::254]/x", "a metadata address"),
        ("file:///etc/passwd", "is no address of a store"),
    ] {
        refused(&request(&to(place).await.url("/m.onnx")), &env, "SourceForbidden", text).await;
    }
    refused(&request(&to("/again").await.url("/m.onnx")), &env, "SourceUnavailable", "more than 5 redirects")
        .await;
}

#[tokio::test]
async fn credentials_go_to_their_own_host_only() {
    let (root, files) = (temp(), Files::default());
    files.put("/far.onnx", File::new(small(), "\"v1\""));
    let far = serve(&files).await;
    let place = far.url("/far.onnx");
    let near = Server::start(move |asked| match asked.header("authorization") {
        Some("Bearer hush") | Some("Basic bWU6aHVzaA==") => {
            Reply::new(302, "").with("location", place.clone())
        }
        _ => Reply::new(401, ""),
    })
    .await;
    let env = env(root.path());
    let bare = request(&near.url("/m.onnx"));
    refused(&bare, &env, "SourceForbidden", "name a Secret in model.secretRef").await;
    let named = SourceRequest { secret_name: Some("web".into()), ..bare };
    refused(&named, &env, "SecretNotFound", "Secret web (model.secretRef) does not exist").await;
    write(&env.secret.join("OTHER"), "x");
    refused(&named, &env, "SecretNotFound", "has neither TOKEN nor USERNAME and PASSWORD").await;
    write(&env.secret.join("USERNAME"), "me");
    refused(&named, &env, "SecretNotFound", "has no key PASSWORD").await;
    write(&env.secret.join("PASSWORD"), "hush\n");
    resolve(&named, &env).await.unwrap();
    write(&env.secret.join("TOKEN"), "hush");
    resolve(&named, &env).await.unwrap();
    assert!(far.log().iter().all(|asked| asked.header("authorization").is_none()));
    write(&env.secret.join("TOKEN"), "wrong-hush");
    let error = resolve(&named, &env).await.unwrap_err();
    assert!(
        error.to_string().contains("may not read this") && !error.to_string().contains("hush"),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_ca_bundle_is_named() {
    let env = env(temp().path());
    let named = SourceRequest { ca_bundle_name: Some("corp-ca".into()), ..request("http://10.0.0.1/m.onnx") };
    refused(&named, &env, "SecretNotFound", "ConfigMap corp-ca (model.caBundleRef) does not exist").await;
    write(&env.ca.join("ca.crt"), "no certificate");
    refused(&named, &env, "SecretNotFound", "corp-ca").await;
    std::fs::remove_dir_all(&env.ca).unwrap();
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The hub's API over one repository; large files come from another host, as they do there.
async fn hub(files: &[(&str, Vec<u8>)], token: Option<&'static str>) -> (Server, Server) {
    let store = Files::default();
    for (path, bytes) in files {
        store.put(&format!("/lfs/{path}"), File::new(bytes.clone(), "\"lfs\""));
    }
    let large = serve(&store).await;
    let lfs = large.url("/lfs");
    let names: Vec<(String, usize)> =
        files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.len())).collect();
    let hub = Server::start(move |asked| {
        if token.is_some_and(|t| asked.header("authorization") != Some(&format!("Bearer {t}"))) {
            return Reply::new(401, r#"{"error":"Invalid username or password."}"#);
        }
        let target = asked.target.split('?').next().unwrap();
        if target == "/api/models/acme/minilm/revision/main" {
            return Reply::new(200, format!(r#"{{"id":"acme/minilm","sha":"{COMMIT}","siblings":[]}}"#));
        }
        if let Some(below) = target.strip_prefix(&format!("/api/models/acme/minilm/tree/{COMMIT}")) {
            assert!(asked.target.ends_with("?recursive=true"));
            let below = below.trim_start_matches('/');
            let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
            let found: Vec<String> = names
                .iter()
                .filter(|(path, _)| path.starts_with(&prefix))
                .map(|(path, size)| format!(r#"{{"type":"file","oid":"x","size":{size},"path":"{path}"}}"#))
                .collect();
            if found.is_empty() {
                return Reply::new(404, r#"{"error":"does not exist"}"#);
            }
            return Reply::new(
                200,
                format!(r#"[{{"type":"directory","oid":"x","size":0,"path":"d"}},{}]"#, found.join(",")),
            );
        }
        match target.strip_prefix(&format!("/acme/minilm/resolve/{COMMIT}/")) {
            Some(path) => Reply::new(302, "").with("location", format!("{lfs}/{path}")),
            None => Reply::new(404, r#"{"error":"Repository not found"}"#),
        }
    })
    .await;
    (hub, large)
}

#[tokio::test]
async fn a_hub_is_pinned_by_its_commit() {
    let (model, weights) = with_external_data(2, 1);
    let files = [
        ("onnx/model.onnx", model.clone()),
        ("onnx/weights.bin", vec![5; weights as usize]),
        ("README.md", b"# hello".to_vec()),
    ];
    let (hub, large) = hub(&files, Some("hf_hush")).await;
    let root = temp();
    let settings = HubSettings { endpoint: Some(hub.url("")) };
    let at = |uri: &str| SourceRequest {
        hf: Some(settings.clone()),
        secret_name: Some("hub".into()),
        ..request(uri)
    };
    let env = env(root.path());
    write(&env.secret.join("HF_TOKEN"), "hf_hush\n");
    for uri in ["hf://acme/minilm/onnx/model.onnx", "hf://acme/minilm@main/onnx", "hf://acme/minilm/onnx/"] {
        let source = pinned(&at(uri), &env).await;
        assert!(source.immutable && source.version() == Some(COMMIT), "{source:?}");
        let named: Vec<_> = source.files.iter().map(|f| (f.path.as_str(), f.size)).collect();
        assert_eq!(named, [("model.onnx", model.len() as u64), ("weights.bin", weights)]);
    }
    assert!(large.log().iter().all(|asked| asked.header("authorization").is_none()));

    for (uri, reason, text) in [
        ("hf://acme/minilm/onnx/absent.onnx", "SourceNotFound", "no such file"),
        ("hf://acme/minilm/absent", "SourceNotFound", "no such file"),
        ("hf://acme/minilm", "SourceNotFound", "no .onnx file"),
        ("hf://acme/other/m.onnx", "SourceNotFound", "no such repository"),
        ("hf://acme/minilm@v9/onnx", "SourceNotFound", "no such repository, revision or file"),
        ("hf://acme", "SourceNotFound", "is no hf://owner/name"),
    ] {
        refused(&at(uri), &env, reason, text).await;
    }
    let bare = SourceRequest { secret_name: None, ..at("hf://acme/minilm/onnx") };
    refused(&bare, &env, "SourceForbidden", "it is private and needs HF_TOKEN").await;

    let source = pinned(&at("hf://acme/minilm/onnx"), &env).await;
    let pod = Pod::start(root);
    pod.assign(&[("minilm-r1", &source)]);
    assert_eq!(pod.fetched("minilm-r1").await.model_file.as_deref(), Some("model.onnx"));
    assert_eq!(std::fs::read(pod.file("revisions/minilm-r1/weights.bin")).unwrap(), files[1].1);
}

#[tokio::test]
async fn a_hub_sends_for_a_large_file_once() {
    let model = inline_model(50, 10);
    let (hub, large) = hub(&[("m.onnx", model.read(0..model.len()))], None).await;
    let request = SourceRequest {
        hf: Some(HubSettings { endpoint: Some(hub.url("")) }),
        ..request("hf://acme/minilm/m.onnx")
    };
    resolve(&request, &env(temp().path())).await.unwrap();
    let sent = hub.log().iter().filter(|asked| asked.target.contains("/resolve/")).count();
    assert_eq!(sent, 1);
    assert!(large.log().len() > 50);
}

#[cfg(unix)]
fn link(to: impl AsRef<Path>, from: &Path) {
    std::os::unix::fs::symlink(to, from).unwrap();
}

#[tokio::test]
async fn a_claim_is_read_without_following_links() {
    let root = temp();
    let env = env(root.path());
    let (model, weights) = with_external_data(2, 1);
    write(&env.claim.join("a/model.onnx"), &model);
    write(&env.claim.join("a/weights.bin"), vec![1; weights as usize]);
    for uri in ["pvc://models/a/model.onnx", "pvc://models/a", "pvc://models/a/"] {
        let source = pinned(&request(uri), &env).await;
        assert!(!source.immutable && source.sha256.is_some() && source.files.len() == 2, "{source:?}");
    }
    write(&root.path().join("outside/model.onnx"), &model);
    write(&root.path().join("outside/weights.bin"), "secret");
    link("../outside/model.onnx", &env.claim.join("final.onnx"));
    link("../outside", &env.claim.join("parent"));
    write(&env.claim.join("b/model.onnx"), &model);
    link("../../outside/weights.bin", &env.claim.join("b/weights.bin"));
    write(&env.claim.join("c/model.onnx"), &model);
    std::process::Command::new("mkfifo").arg(env.claim.join("c/weights.bin")).status().unwrap();
    write(&env.claim.join("d/readme.txt"), "x");
    for (uri, reason, text) in [
        ("pvc://models/final.onnx", "SourceForbidden", "final.onnx is a symbolic link"),
        ("pvc://models/parent/model.onnx", "SourceForbidden", "parent is a symbolic link"),
        ("pvc://models/../outside/model.onnx", "SourceForbidden", "dot component"),
        (
            "pvc://models/b",
            "ModelInvalid",
            "weights.bin named by tensor \"layer.0.weight\": pvc://models/b/weights.bin: weights.bin is a symbolic link",
        ),
        ("pvc://models/c", "ModelInvalid", "is neither a file nor a folder"),
        ("pvc://models/d", "SourceNotFound", "no .onnx file"),
        ("pvc://models/absent.onnx", "SourceNotFound", "there is no such file"),
    ] {
        refused(&request(uri), &env, reason, text).await;
    }
    let unmounted = Env { claim: root.path().join("nothing"), ..env.clone() };
    refused(&request("pvc://models/a"), &unmounted, "SourceNotFound", "the claim is not mounted").await;

    let source = pinned(&request("pvc://models/a"), &env).await;
    let claim = env.claim.clone();
    let pod = Pod::start(root);
    pod.assign(&[("fraud-r1", &source)]);
    let status = pod.fetched("fraud-r1").await;
    assert_eq!(status.digest, source.sha256);
    std::fs::write(claim.join("a/weights.bin"), vec![2; weights as usize]).unwrap();
    pod.assign(&[("fraud-r1", &source), ("fraud-r2", &source)]);
    assert_eq!(pod.failed("fraud-r2").await.0, "SourceChanged");
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
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let pid = rustix::process::Pid::from_child(&agent);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}
