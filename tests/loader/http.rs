//! Resolve over plain HTTP.

use modelwright::formats::{HubSettings, Pin, S3Settings, SourceRequest};
use modelwright::loader::{Env, resolve};

use crate::*;

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
    refused(&request(&stall.url("/m.onnx")), &hasty(root.path()), "SourceUnavailable", "").await;
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
        s3: Some(S3Settings { endpoint: Some("http://localhost:1".into()), region: None }),
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
