//! Sources that fail: what the user reads, that the former version goes on serving, and that mending is enough.

use serde_json::json;

use crate::support::{Helper, NEG, RELU, Space, in_namespace, neg, padded, relu};

/// Serves a first model, then asks for `bad` beside it: it is refused for this reason, and revision 1 serves on.
/// Afterwards the spec that served is enough to be Ready again, without a new revision.
async fn refused(space: &Space, uri: &str, reason: &str, parts: &[&str]) {
    let good = space.serve_first("model").await;
    space.apply("model", &space.with_uri(&good, uri)).await;
    let parts = [parts, &["model-r1 serves on"]].concat();
    space.until("model", |d| crate::support::says(d, "Ready", "False", reason, &parts)).await;
    let degraded = space.until_degraded("model", reason, &parts[..parts.len() - 1]).await;
    crate::support::says(&degraded, "Available", "True", "MinimumReplicasAvailable", &[]).expect("it serves");
    space.answers("model", 1, RELU).await;
    space.apply("model", &good).await;
    let mended = space.until_ready("model").await;
    assert_eq!(mended.status.unwrap().stable_revision.as_deref(), Some("model-r1"));
    space.answers("model", 1, RELU).await;
}

#[tokio::test]
async fn a_source_that_is_not_found_is_named_and_its_file_is_enough() {
    in_namespace("not-found", async |space| {
        let good = space.serve_first("model").await;
        let uri = Helper::url(&format!("{}/second/model.onnx", space.name));
        space.apply("model", &space.with_uri(&good, &uri)).await;
        let parts = [uri.as_str(), "the server answers 404", "check model.uri"];
        space.until_degraded("model", "SourceNotFound", &parts).await;
        space.serves_on("model", 1, RELU).await;
        // It need not be the spec that is mended.
        space.file("second/model.onnx", &neg()).await;
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
    })
    .await;
}

#[tokio::test]
async fn an_object_that_is_not_in_the_bucket_is_named() {
    in_namespace("no-object", async |space| {
        let s3 = space.s3().await;
        s3.create_bucket(&space.name).await;
        space.create::<k8s_openapi::api::core::v1::Secret>(&s3.credentials.secret("store")).await;
        let mut spec = space.spec(&format!("s3://{}/missing/model.onnx", space.name));
        spec["model"]["s3"] = json!({ "endpoint": s3.endpoint });
        spec["model"]["secretRef"] = json!({ "name": "store" });
        space.apply("model", &spec).await;
        let parts = ["missing/model.onnx: there is no such object", "check model.uri"];
        space.until_degraded("model", "SourceNotFound", &parts).await;
        s3.put(&space.name, "missing/model.onnx", &relu()).await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_fails_is_waited_for() {
    in_namespace("server-down", async |space| {
        let good = space.serve_first("model").await;
        let uri = space.file_with("second/model.onnx", &neg(), &[("X-Status", "503")]).await;
        space.apply("model", &space.with_uri(&good, &uri)).await;
        let parts = ["the server answers 503", "the server has a fault of its own"];
        space.until_degraded("model", "SourceUnavailable", &parts).await;
        space.serves_on("model", 1, RELU).await;
        space.file("second/model.onnx", &neg()).await;
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
    })
    .await;
}

#[tokio::test]
async fn a_download_that_breaks_off_is_tried_again() {
    in_namespace("truncated", async |space| {
        let good = space.serve_first("model").await;
        // Ranges work, so it is resolved; whole reads end early.
        let uri = space.file_with("second/model.onnx", &padded(300_000), &[("X-Cut", "100000")]).await;
        space.apply("model", &space.with_uri(&good, &uri)).await;
        space
            .until_degraded("model", "SourceUnavailable", &["the download broke off after", "of 300", &uri])
            .await;
        space.serves_on("model", 1, RELU).await;
        space.file("second/model.onnx", &padded(300_000)).await;
        space.until_ready("model").await;
        space.answers("model", 2, RELU).await;
    })
    .await;
}

#[tokio::test]
async fn bytes_of_another_digest_are_never_served() {
    in_namespace("digest", async |space| {
        let good = space.serve_first("model").await;
        let uri = space.file("second/model.onnx", &neg()).await;
        let mut bad = space.with_uri(&good, &uri);
        bad["model"]["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
        space.apply("model", &bad).await;
        let digest = modelwright_digest(&neg());
        let parts = [format!("the bytes have digest {digest}, and model.digest says sha256:0000")];
        space.until_degraded("model", "DigestMismatch", &[&parts[0]]).await;
        space.serves_on("model", 1, RELU).await;
        bad["model"]["digest"] = json!(digest);
        space.apply("model", &bad).await;
        let ready = space.until_ready("model").await;
        assert_eq!(ready.status.unwrap().revisions[0].digest.as_deref(), Some(digest.as_str()));
        space.answers("model", 3, NEG).await;
    })
    .await;
}

fn modelwright_digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

#[tokio::test]
async fn a_redirect_to_this_pod_itself_is_forbidden() {
    in_namespace("loopback", async |space| {
        let away = [("X-Redirect", "http://127.0.0.1:8081/metrics")];
        let uri = space.file_with("second/model.onnx", b"", &away).await;
        refused(space, &uri, "SourceForbidden", &["127.0.0.1 is a loopback address"]).await;
    })
    .await;
}

#[tokio::test]
async fn plain_http_needs_to_be_asked_for() {
    in_namespace("plain-http", async |space| {
        let uri = space.file("model.onnx", &relu()).await;
        let mut spec = space.spec(&uri);
        spec["model"].as_object_mut().unwrap().remove("insecureHTTP");
        let refusal = space.try_apply("model", &spec).await.unwrap_err().to_string();
        assert!(refusal.contains("a plain http:// source needs model.insecureHTTP: true"), "{refusal}");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_onnx_file_is_called_by_its_name() {
    in_namespace("not-onnx", async |space| {
        let good = space.serve_first("model").await;
        let random: Vec<u8> =
            (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect();
        let files: [(&str, &[u8], &str); 5] = [
            ("html", b"<!DOCTYPE html><html><body>Sign in to continue</body></html>", "it is HTML or XML"),
            ("zip", b"PK\x03\x04\x14\x00\x00\x00\x08\x00archive/data.pkl", "it is a zip archive"),
            ("pickle", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05torch", "it is a Python pickle"),
            ("empty", b"", "empty"),
            ("random", &random, "second-random/model.onnx"),
        ];
        for (name, bytes, part) in files {
            let uri = space.file(&format!("second-{name}/model.onnx"), bytes).await;
            space.apply("model", &space.with_uri(&good, &uri)).await;
            space.until_degraded("model", "ModelInvalid", &[part, &uri]).await;
        }
        space.answers("model", 1, RELU).await;
        space.apply("model", &good).await;
        space.until_ready("model").await;
    })
    .await;
}

#[tokio::test]
async fn bytes_that_changed_are_never_silently_a_new_model() {
    in_namespace("changed", async |space| {
        let spec = space.serve_first("model").await;
        space.file("first/model.onnx", &neg()).await;
        // What is in memory serves on; a new pod would load something else.
        space.answers("model", 1, RELU).await;
        let pods = space.pods("modelwright.dev/role=serve").await;
        let api = space.api::<k8s_openapi::api::core::v1::Pod>();
        api.delete(pods[0].metadata.name.as_deref().unwrap(), &Default::default()).await.expect("a delete");
        let parts = ["the file has changed since it was resolved", "modelwright.dev/resolve-at=<time>"];
        space.until_degraded("model", "SourceChanged", &parts).await;
        space.annotate("model", "modelwright.dev/resolve-at", "2026-11-22T15:00:00Z").await;
        let served = space
            .until("model", |d| {
                let stable = d.status.as_ref().and_then(|s| s.stable_revision.clone());
                crate::support::says(d, "Ready", "True", "Serving", &[])?;
                (stable.as_deref() == Some("model-r2")).then_some(()).ok_or("still r1".to_string())
            })
            .await;
        let versions: Vec<_> =
            served.status.unwrap().revisions.into_iter().map(|r| r.source.version).collect();
        assert!(versions[0] != versions[1], "{versions:?}");
        space.answers("model", 2, NEG).await;
        // The same bytes: nothing but a note.
        space.annotate("model", "modelwright.dev/resolve-at", "2026-11-22T16:00:00Z").await;
        let revisions = space.api::<k8s_openapi::api::apps::v1::ControllerRevision>();
        crate::support::wait("note of the verb", async || {
            let revision = revisions.get("model-r2").await.map_err(|e| e.to_string())?;
            let verb = revision.metadata.annotations.unwrap_or_default();
            let done = verb.get("modelwright.dev/resolve-at").is_some_and(|v| v == "2026-11-22T16:00:00Z");
            done.then_some(()).ok_or(format!("{verb:?}"))
        })
        .await;
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
        drop(spec);
    })
    .await;
}

#[tokio::test]
async fn a_source_that_nothing_can_pin_is_called_mutable() {
    in_namespace("mutable", async |space| {
        let uri = space.file_with("model.onnx", &relu(), &[("X-Mutable", "yes")]).await;
        space.apply("model", &space.spec(&uri)).await;
        let ready = space.until_ready("model").await;
        let parts = ["1 input, 1 output, opset 17", "pinned by sha256"];
        crate::support::says(&ready, "ModelResolved", "True", "MutableSource", &parts).unwrap();
        let revision = &ready.status.as_ref().unwrap().revisions[0];
        assert!(!revision.source.immutable);
        assert_eq!(revision.digest.as_deref(), Some(modelwright_digest(&relu()).as_str()));
        space.answers("model", 1, RELU).await;
    })
    .await;
}
