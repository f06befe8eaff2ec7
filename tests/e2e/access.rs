//! Stores that ask who is there: credentials, certificates, and a store that goes and comes back.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Credentials, Helper, NEG, RELU, S3, Space, in_namespace, neg, relu, says, wait};

fn s3_spec(space: &Space, s3: &S3, key: &str) -> Value {
    let mut spec = space.spec(&format!("s3://{}/{key}", space.name));
    spec["model"]["s3"] = json!({ "endpoint": s3.endpoint });
    spec["model"]["secretRef"] = json!({ "name": "store" });
    spec
}

async fn bucket(space: &Space) -> S3 {
    let s3 = space.s3().await;
    s3.create_bucket(&space.name).await;
    s3.put(&space.name, "first.onnx", &relu()).await;
    s3.put(&space.name, "second.onnx", &neg()).await;
    s3
}

/// A store of this namespace's own, with the certificate in Secret `tls` if there is one.
async fn own_store(space: &Space, tls: bool) -> Credentials {
    let credentials = Credentials { id: "tester".into(), secret: "tester-secret".into() };
    space.create::<Secret>(&credentials.secret("store")).await;
    let mut arguments = vec!["--port", ":7070", "--health", "/healthz"];
    let mut mounts = vec![json!({ "name": "data", "mountPath": "/data" })];
    let mut volumes = vec![json!({ "name": "data", "emptyDir": {} })];
    if tls {
        arguments.extend(["--cert", "/tls/tls.crt", "--key", "/tls/tls.key"]);
        mounts.push(json!({ "name": "tls", "mountPath": "/tls" }));
        volumes.push(json!({ "name": "tls", "secret": { "secretName": "tls" } }));
    }
    arguments.extend(["posix", "/data"]);
    let from = |key: &str| json!({ "secretKeyRef": { "name": "store", "key": key } });
    let scheme = if tls { "HTTPS" } else { "HTTP" };
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "store" },
        "spec": {
            "selector": { "matchLabels": { "app": "store" } },
            "template": {
                "metadata": { "labels": { "app": "store" } },
                "spec": {
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 0,
                    "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                    "volumes": volumes,
                    "containers": [{
                        "name": "store", "image": "modelwright.dev/versitygw:1.8.0", "args": arguments,
                        "imagePullPolicy": "IfNotPresent",
                        "env": [
                            { "name": "ROOT_ACCESS_KEY_ID", "valueFrom": from("AWS_ACCESS_KEY_ID") },
                            { "name": "ROOT_SECRET_ACCESS_KEY", "valueFrom": from("AWS_SECRET_ACCESS_KEY") },
                        ],
                        "resources": { "requests": { "cpu": "10m" } },
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                        },
                        "readinessProbe": {
                            "httpGet": { "path": "/healthz", "port": 7070, "scheme": scheme }, "periodSeconds": 1,
                        },
                        "volumeMounts": mounts,
                    }],
                },
            },
        },
    });
    space.create::<Deployment>(&deployment).await;
    space
        .create::<Service>(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "store" },
            "spec": { "selector": { "app": "store" }, "ports": [{ "port": 7070 }] },
        }))
        .await;
    until_replicas(space, 1).await;
    credentials
}

async fn until_replicas(space: &Space, count: i32) {
    let api = space.api::<Deployment>();
    wait("store", async || {
        let status = api.get("store").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        let (all, ready) = (status.replicas.unwrap_or(0), status.ready_replicas.unwrap_or(0));
        (all == count && ready == count).then_some(()).ok_or(format!("{ready} of {count}"))
    })
    .await;
}

async fn scale_store(space: &Space, replicas: i32) {
    let body = json!({ "spec": { "replicas": replicas } });
    let api = space.api::<Deployment>();
    api.patch("store", &PatchParams::default(), &Patch::Merge(&body)).await.expect("a patch");
    until_replicas(space, replicas).await;
}

#[tokio::test]
async fn wrong_credentials_are_told_from_missing_ones() {
    in_namespace("forbidden", async |space| {
        let s3 = bucket(space).await;
        let wrong = Credentials { secret: "wrong".repeat(8), ..s3.credentials.clone() };
        space.create::<Secret>(&s3.credentials.secret("store")).await;
        space.create::<Secret>(&wrong.secret("wrong")).await;
        let good = s3_spec(space, &s3, "first.onnx");
        space.apply("model", &good).await;
        space.until_ready("model").await;

        let mut bad = s3_spec(space, &s3, "second.onnx");
        bad["model"]["secretRef"] = json!({ "name": "wrong" });
        space.apply("model", &bad).await;
        let parts = ["the store refuses", "403", "these credentials; check the Secret of model.secretRef"];
        space.until_degraded("model", "SourceForbidden", &parts).await;
        space.serves_on("model", 1, RELU).await;

        bad["model"].as_object_mut().unwrap().remove("secretRef");
        space.apply("model", &bad).await;
        let parts = ["a read without credentials; name a Secret in model.secretRef"];
        space.until_degraded("model", "SourceForbidden", &parts).await;

        space.apply("model", &s3_spec(space, &s3, "second.onnx")).await;
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
    })
    .await;
}

#[tokio::test]
async fn a_bearer_token_opens_an_http_source() {
    in_namespace("token", async |space| {
        let uri = space.file_with("model.onnx", &relu(), &[("X-Token", "let-me-in")]).await;
        let mut spec = space.spec(&uri);
        space.apply("model", &spec).await;
        let parts = ["the server answers 401", "this needs credentials; name a Secret in model.secretRef"];
        space.until_degraded("model", "SourceForbidden", &parts).await;
        let secret = |name: &str, token: &str| {
            json!({ "metadata": { "name": name }, "stringData": { "TOKEN": token } })
        };
        space.create::<Secret>(&secret("stranger", "who-knows")).await;
        space.create::<Secret>(&secret("friend", "let-me-in")).await;
        spec["model"]["secretRef"] = json!({ "name": "stranger" });
        space.apply("model", &spec).await;
        let parts = ["the server answers 403", "the credentials of model.secretRef may not read this"];
        space.until_degraded("model", "SourceForbidden", &parts).await;
        spec["model"]["secretRef"] = json!({ "name": "friend" });
        space.apply("model", &spec).await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_down_is_waited_for_and_found_again() {
    in_namespace("store-down", async |space| {
        let credentials = own_store(space, false).await;
        let endpoint = format!("http://store.{}.svc.cluster.local:7070", space.name);
        let s3 = S3::at(&endpoint, &space.helper, credentials);
        s3.create_bucket(&space.name).await;
        s3.put(&space.name, "first.onnx", &relu()).await;
        space.apply("model", &s3_spec(space, &s3, "first.onnx")).await;
        space.until_ready("model").await;

        scale_store(space, 0).await;
        space.apply("model", &s3_spec(space, &s3, "second.onnx")).await;
        space.until_degraded("model", "SourceUnavailable", &["second.onnx: the store"]).await;
        space.serves_on("model", 1, RELU).await;

        scale_store(space, 1).await;
        s3.create_bucket(&space.name).await;
        s3.put(&space.name, "second.onnx", &neg()).await;
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
    })
    .await;
}

#[tokio::test]
async fn a_store_with_its_own_certificate_is_trusted_through_the_bundle() {
    in_namespace("bundle", async |space| {
        let host = format!("store.{}.svc.cluster.local", space.name);
        let certified = rcgen::generate_simple_self_signed(vec![host.clone()]).expect("a certificate");
        let tls = json!({
            "metadata": { "name": "tls" }, "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": certified.cert.pem(), "tls.key": certified.signing_key.serialize_pem() },
        });
        space.create::<Secret>(&tls).await;
        let credentials = own_store(space, true).await;
        let s3 = S3::at(&format!("https://{host}:7070"), &space.helper, credentials);
        s3.create_bucket(&space.name).await;
        s3.put(&space.name, "first.onnx", &relu()).await;
        let mut spec = s3_spec(space, &s3, "first.onnx");
        spec["model"].as_object_mut().unwrap().remove("insecureHTTP");
        space.apply("model", &spec).await;
        space.until_degraded("model", "SourceUnavailable", &["certificate"]).await;

        spec["model"]["caBundleRef"] = json!({ "name": "corp-ca" });
        space.apply("model", &spec).await;
        let parts = ["ConfigMap corp-ca (model.caBundleRef) does not exist in this namespace"];
        space.until_degraded("model", "SecretNotFound", &parts).await;
        let bundle = json!({ "metadata": { "name": "corp-ca" }, "data": { "ca.pem": certified.cert.pem() } });
        space.create::<ConfigMap>(&bundle).await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
    })
    .await;
}

#[tokio::test]
async fn an_https_source_is_trusted_through_the_bundle() {
    in_namespace("https", async |space| {
        let host = format!("files.{}.svc.cluster.local", space.name);
        let certified = rcgen::generate_simple_self_signed(vec![host.clone()]).expect("a certificate");
        let tls = json!({
            "metadata": { "name": "tls" }, "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": certified.cert.pem(), "tls.key": certified.signing_key.serialize_pem() },
        });
        space.create::<Secret>(&tls).await;
        space.create::<Pod>(&Helper::pod("files", Some("tls"))).await;
        let service = json!({
            "metadata": { "name": "files" },
            "spec": { "selector": { "app": "files" }, "ports": [{ "port": 443, "targetPort": 8443 }] },
        });
        space.create::<Service>(&service).await;
        let uri = format!("https://{host}/files/model.onnx");
        wait("file", async || match space.helper.call("PUT", &uri, &[], &relu()).await {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.error),
        })
        .await;
        let mut spec = space.spec(&uri);
        spec["model"] = json!({ "uri": uri });
        space.apply("model", &spec).await;
        let parts = ["the server's certificate is signed by an unknown CA; name it in model.caBundleRef"];
        space.until_degraded("model", "SourceUnavailable", &parts).await;
        let bundle = json!({ "metadata": { "name": "corp-ca" }, "data": { "ca.pem": certified.cert.pem() } });
        space.create::<ConfigMap>(&bundle).await;
        spec["model"]["caBundleRef"] = json!({ "name": "corp-ca" });
        space.apply("model", &spec).await;
        let ready = space.until_ready("model").await;
        says(&ready, "ModelResolved", "True", "Pinned", &[]).unwrap();
        space.answers("model", 1, RELU).await;
    })
    .await;
}

#[tokio::test]
async fn a_version_of_a_bucket_that_keeps_them_outlives_an_overwrite() {
    in_namespace("versioned", async |space| {
        let s3 = space.s3().await;
        s3.create_bucket(&space.name).await;
        s3.keep_versions(&space.name).await;
        s3.put(&space.name, "first.onnx", &relu()).await;
        space.create::<Secret>(&s3.credentials.secret("store")).await;
        space.apply("model", &s3_spec(space, &s3, "first.onnx")).await;
        let ready = space.until_ready("model").await;
        says(&ready, "ModelResolved", "True", "Pinned", &["1 input, 1 output, opset 17"]).unwrap();
        let source = &ready.status.as_ref().unwrap().revisions[0].source;
        assert!(source.immutable);
        let version = source.version.clone().unwrap_or_default();
        assert!(!version.is_empty() && !version.starts_with('"'), "a version id, not an ETag: {version}");
        // A new pod after an overwrite still gets what was resolved.
        s3.put(&space.name, "first.onnx", &neg()).await;
        let pods = space.pods("modelwright.dev/role=serve").await;
        let api = space.api::<k8s_openapi::api::core::v1::Pod>();
        let old = pods[0].metadata.name.clone().unwrap();
        api.delete(&old, &Default::default()).await.expect("a delete");
        wait("new pod", async || {
            let pods = space.pods("modelwright.dev/role=serve").await;
            let others = pods.iter().filter(|p| p.metadata.name.as_deref() != Some(old.as_str()));
            let ready = others.flat_map(|p| p.status.iter().flat_map(|s| s.conditions.iter().flatten()));
            let ready = ready.filter(|c| c.type_ == "Ready" && c.status == "True").count();
            (ready == 1).then_some(()).ok_or(format!("{ready} ready"))
        })
        .await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
    })
    .await;
}

#[tokio::test]
async fn without_versions_the_etag_is_the_pin() {
    in_namespace("etag", async |space| {
        let s3 = bucket(space).await;
        space.create::<Secret>(&s3.credentials.secret("store")).await;
        space.apply("model", &s3_spec(space, &s3, "first.onnx")).await;
        let ready = space.until_ready("model").await;
        let source = &ready.status.as_ref().unwrap().revisions[0].source;
        assert!(source.immutable && source.version.is_some(), "{source:?}");
        space.answers("model", 1, RELU).await;
    })
    .await;
}
