//! A hub, by the paths and JSON of huggingface.co.

use modelwright::formats::{HubSettings, SourceRequest};
use modelwright::loader::resolve;

use crate::*;

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
