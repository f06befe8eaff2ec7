//! The pod in the cluster that keeps files, sends requests and puts a load on addresses (`helper/`).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Value, json};

use super::wait;

/// The namespace of what tests share.
const SHARED: &str = "e2e-shared";
const IMAGE: &str = "modelwright.dev/e2e-helper:1";
/// Longer than the helper itself waits for an answer.
const ATTEMPT: Duration = Duration::from_secs(90);

#[derive(Clone)]
pub struct Helper {
    client: Client,
}

/// What somebody in the cluster answered.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// 0: nobody answered, and `error` says why.
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    body: String,
    pub error: String,
}

impl Answer {
    pub fn body(&self) -> Vec<u8> {
        STANDARD.decode(&self.body).expect("base64")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }
}

/// What a load has seen.
#[derive(Debug, Deserialize)]
pub struct Summary {
    pub sent: u64,
    pub failed: u64,
    pub failures: Vec<String>,
    /// By revision.
    pub answered: BTreeMap<String, u64>,
}

impl Helper {
    /// The one that all tests share.
    pub fn of(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    /// Whoever comes first starts it.
    pub async fn start(client: &Client) {
        super::space::create_namespace(client, SHARED).await;
        let service = json!({
            "metadata": { "name": "helper" },
            "spec": { "selector": { "app": "helper" }, "ports": [{ "name": "http", "port": 8080 }] },
        });
        let pods: Api<Pod> = Api::namespaced(client.clone(), SHARED);
        super::space::create(&pods, &Self::pod("helper", None)).await;
        super::space::create(&Api::<Service>::namespaced(client.clone(), SHARED), &service).await;
        wait("helper pod", async || {
            let pod = pods.get("helper").await.map_err(|e| e.to_string())?;
            let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
            let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            ready.then_some(()).ok_or_else(|| format!("{conditions:?}"))
        })
        .await;
    }

    /// With a certificate from a Secret it speaks TLS, too.
    pub fn pod(name: &str, tls: Option<&str>) -> Value {
        let mut pod = json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{
                    "name": "helper", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                    "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                    "resources": { "requests": { "cpu": "10m" } },
                    "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 },
                }],
            },
        });
        if let Some(secret) = tls {
            pod["spec"]["volumes"] = json!([{ "name": "tls", "secret": { "secretName": secret } }]);
            pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "tls", "mountPath": "/tls" }]);
        }
        pod
    }

    /// Where a file of a test is for pods.
    pub fn url(path: &str) -> String {
        format!("http://helper.{SHARED}.svc.cluster.local:8080/files/{path}")
    }

    pub fn hub() -> String {
        format!("http://helper.{SHARED}.svc.cluster.local:8080/hub")
    }

    pub async fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        self.put_with(path, bytes, &[]).await;
    }

    /// The headers say how it misbehaves: `helper/store.go`.
    pub async fn put_with(&self, path: &str, bytes: impl Into<Bytes>, headers: &[(&str, &str)]) {
        let (status, text) =
            self.request(Method::PUT, &format!("/files/{path}"), headers, bytes.into()).await;
        assert_eq!(status, 200, "{path}: {text}");
    }

    /// Sends a request from inside the cluster.
    pub async fn call(&self, method: &str, url: &str, headers: &[(String, String)], body: &[u8]) -> Answer {
        let headers: BTreeMap<_, _> = headers.iter().cloned().collect();
        let ask = json!({ "method": method, "url": url, "headers": headers, "body": STANDARD.encode(body) });
        let (_, text) = self.request(Method::POST, "/call", &[], ask.to_string().into()).await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Two clients ask every 20 ms from now on.
    pub async fn start_load(&self, id: &str, url: &str, body: &Value) {
        let headers = json!({ "Content-Type": "application/json" });
        let ask = json!({
            "method": "POST", "url": url, "headers": headers, "body": STANDARD.encode(body.to_string()),
        });
        let (status, text) =
            self.request(Method::POST, &format!("/loads/{id}"), &[], ask.to_string().into()).await;
        assert_eq!(status, 200, "{text}");
    }

    pub async fn stop_load(&self, id: &str) -> Summary {
        let (_, text) = self.request(Method::DELETE, &format!("/loads/{id}"), &[], Bytes::new()).await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> (u16, String) {
        wait("answer of the helper", async || {
            let mut request = Request::builder().method(&method).uri(path).header("host", "helper");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Full::new(body.clone())).expect("a request");
            let mut sent = false;
            let attempt = tokio::time::timeout(ATTEMPT, self.attempt(request, &mut sent)).await;
            let answer = attempt.unwrap_or_else(|_| Err(format!("nothing within {ATTEMPT:?}")));
            // A load starts once, and ends once.
            assert!(answer.is_ok() || !sent || !path.starts_with("/loads/"), "{path}: {answer:?}");
            answer
        })
        .await
    }

    /// By a port-forward of its own, which may break on a busy node.
    async fn attempt(&self, request: Request<Full<Bytes>>, sent: &mut bool) -> Result<(u16, String), String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), SHARED);
        let mut forward = pods.portforward("helper", &[8080]).await.map_err(|e| e.to_string())?;
        let stream = forward.take_stream(8080).expect("a stream");
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(connection);
        *sent = true;
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        connection.abort();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
