//! The node cache: what a second pod gets from it, and what nobody does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use modelwright::formats::NODE_CACHE_AUDIENCE as AUDIENCE;
use modelwright::loader::cache::{Access, Options};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;

/// An API server that knows tokens by name, and to whom it tells it.
async fn api_server(tokens: &[(&'static str, &'static str, &'static str)]) -> SocketAddr {
    type Known = Arc<BTreeMap<&'static str, (&'static str, &'static str)>>;
    async fn review(State(known): State<Known>, headers: HeaderMap, body: String) -> String {
        assert_eq!(headers["authorization"], "Bearer the cache's own");
        let asked: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(asked["spec"]["audiences"], json!([AUDIENCE]));
        let found = known.get(asked["spec"]["token"].as_str().unwrap());
        let status = match found {
            Some((user, audience)) => {
                json!({ "authenticated": true, "user": { "username": user }, "audiences": [audience] })
            }
            None => json!({ "error": "invalid bearer token" }),
        };
        json!({ "kind": "TokenReview", "status": status }).to_string()
    }
    let known: Known =
        Arc::new(tokens.iter().map(|(token, user, audience)| (*token, (*user, *audience))).collect());
    let router =
        Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", post(review)).with_state(known);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A node: its cache, and folders for pods.
struct Node {
    root: TempDir,
    loaders: SocketAddr,
    admin: SocketAddr,
}

const TEAM: (&str, &str, &str) = ("team's", "system:serviceaccount:team:default", AUDIENCE);
const RIVAL: (&str, &str, &str) = ("rival's", "system:serviceaccount:rival:default", AUDIENCE);

impl Node {
    async fn start(max_bytes: u64) -> Self {
        // As the binary does; the second time it is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let other = ("for the API", "system:serviceaccount:team:default", "https://kubernetes.default.svc");
        let person = ("a person's", "jane", AUDIENCE);
        let api = api_server(&[TEAM, RIVAL, other, person]).await;
        let root = temp();
        write(&root.path().join("account/token"), "the cache's own\n");
        let options = Options {
            files: root.path().join("files"),
            max_bytes,
            // Whatever the disk of the tests has.
            min_free_percent: 0,
            port: 0,
            admin_port: 0,
            api_server: format!("http://{api}"),
            service_account: root.path().join("account"),
        };
        let (told, bound) = tokio::sync::oneshot::channel();
        let told = Mutex::new(Some(told));
        tokio::spawn(modelwright::loader::cache::run(options, move |loaders, admin| {
            let told = told.lock().unwrap().take().unwrap();
            told.send((loaders.port(), admin.port())).unwrap();
        }));
        let (loaders, admin) = bound.await.unwrap();
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { root, loaders: at(loaders), admin: at(admin) }
    }

    fn pod(&self, token: &str) -> Pod {
        pod_beside(self.loaders, token)
    }

    async fn metrics(&self) -> String {
        get(&format!("http://{}/metrics", self.admin)).await.1
    }

    async fn count(&self, result: &str) -> u64 {
        let name = format!("modelwright_node_cache_requests_total{{result=\"{result}\"}} ");
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until so many requests ended so.
    async fn until(&self, result: &str, count: u64) {
        for _ in 0..1500 {
            if self.count(result).await >= count {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("never {count} {result}: {}", self.metrics().await);
    }
}

/// A pod on the node of this cache.
fn pod_beside(cache: SocketAddr, token: &str) -> Pod {
    let root = temp();
    write(&root.path().join("token"), token);
    let access = Access { address: format!("http://{cache}"), token: root.path().join("token") };
    let env = Env { cache: Some(access), ..env(root.path()) };
    Pod::start_in(root, env)
}

async fn get(url: &str) -> (u16, String) {
    let answer = reqwest::Client::new().get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// A store with one file, which can be changed, refused and counted.
struct Store {
    files: Files,
    server: Server,
    source: PinnedSource,
}

impl Store {
    async fn start(content: Vec<u8>) -> Self {
        let files = Files::default();
        files.put("/m.onnx", File::new(content, "\"v1\""));
        let server = serve(&files).await;
        let root = temp();
        let source = pinned(&request(&server.url("/m.onnx")), &env(root.path())).await;
        Self { files, server, source }
    }

    /// Bytes that it sent while `work` ran.
    async fn sends<T>(&self, work: impl Future<Output = T>) -> (u64, T) {
        let before = self.server.bytes();
        let done = work.await;
        (self.server.bytes() - before, done)
    }
}

async fn fetched(pod: &Pod, source: &PinnedSource) -> LoadStatus {
    pod.assign(&[("fraud-r1", source)]);
    pod.fetched("fraud-r1").await
}

#[tokio::test]
async fn the_second_pod_of_a_node_reads_one_byte_from_the_store() {
    let (node, store) = (Node::start(1 << 20).await, Store::start(small()).await);
    assert!(store.source.sha256.is_none() && store.source.immutable);
    let first = fetched(&node.pod(TEAM.0), &store.source).await;
    node.until("stored", 1).await;
    let pod = node.pod(TEAM.0);
    let (sent, second) = store.sends(fetched(&pod, &store.source)).await;
    assert_eq!((sent, node.count("hit").await), (1, 1), "{:?}", store.server.log());
    assert_eq!(second.digest, first.digest);
    assert_eq!(std::fs::read(pod.file("revisions/fraud-r1/m.onnx")).unwrap(), small());
    let text = node.metrics().await;
    assert!(text.contains(&format!("modelwright_node_cache_stored_bytes {}\n", small().len())), "{text}");
}

#[tokio::test]
async fn another_namespace_gets_nothing_whatever_it_knows() {
    let (node, store) = (Node::start(1 << 20).await, Store::start(small()).await);
    fetched(&node.pod(TEAM.0), &store.source).await;
    node.until("stored", 1).await;
    let size = small().len() as u64;
    // The same source and pin, so the same key.
    let (sent, _) = store.sends(fetched(&node.pod(RIVAL.0), &store.source)).await;
    assert_eq!(sent, size);
    assert_eq!(node.count("hit").await, 0);
    node.until("stored", 2).await;
    for token in ["nobody's", "for the API", "a person's", ""] {
        let (sent, _) = store.sends(fetched(&node.pod(token), &store.source)).await;
        assert_eq!(sent, size, "{token:?}");
    }
    assert_eq!((node.count("hit").await, node.count("stored").await), (0, 2));
    assert!(node.count("unauthenticated").await >= 4);
}

#[tokio::test]
async fn what_the_store_no_longer_gives_is_not_taken_from_the_node() {
    let (node, store) = (Node::start(1 << 20).await, Store::start(small()).await);
    fetched(&node.pod(TEAM.0), &store.source).await;
    node.until("stored", 1).await;
    store.files.put("/m.onnx", File::new(small(), "\"v2\""));
    let pod = node.pod(TEAM.0);
    pod.assign(&[("fraud-r1", &store.source)]);
    let (reason, message) = pod.failed("fraud-r1").await;
    assert_eq!(reason, "SourceChanged", "{message}");
    assert!(!pod.file("revisions/fraud-r1").exists());
}

#[tokio::test]
async fn bytes_that_rot_on_the_node_are_fetched_and_kept_anew() {
    let (node, store) = (Node::start(1 << 20).await, Store::start(small()).await);
    fetched(&node.pod(TEAM.0), &store.source).await;
    node.until("stored", 1).await;
    let folder = node.root.path().join("files/team");
    let kept = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let mut rotten = small();
    *rotten.last_mut().unwrap() ^= 1;
    std::fs::write(kept, rotten).unwrap();
    let pod = node.pod(TEAM.0);
    fetched(&pod, &store.source).await;
    assert_eq!(std::fs::read(pod.file("revisions/fraud-r1/m.onnx")).unwrap(), small());
    node.until("stored", 2).await;
    let third = node.pod(TEAM.0);
    let (sent, _) = store.sends(fetched(&third, &store.source)).await;
    assert_eq!((sent, node.count("hit").await), (1, 2));
}

/// A small file's rot is found before the head of its answer has left, and then nothing of it may leave.
#[tokio::test]
async fn an_answer_that_breaks_off_before_its_head_does_not_keep_a_pod_from_bringing_the_file() {
    let store = Store::start(small()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, mut methods) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut first = [0; 3];
            connection.read_exact(&mut first).await.unwrap();
            heard.send(String::from_utf8_lossy(&first).into_owned()).unwrap();
        }
    });
    fetched(&pod_beside(address, TEAM.0), &store.source).await;
    for method in ["GET", "PUT"] {
        let heard = tokio::time::timeout(std::time::Duration::from_secs(30), methods.recv()).await;
        assert_eq!(heard.expect("it did not come").unwrap(), method);
    }
}

#[tokio::test]
async fn a_cache_that_falls_silent_is_left_for_the_store() {
    let store = Store::start(small()).await;
    let size = small().len();
    let cache = Server::start(move |_| {
        let digest = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
        Reply { stall: Some(3), ..Reply::new(200, vec![0; size]) }.with("repr-digest", digest)
    })
    .await;
    let pod = pod_beside(cache.address, TEAM.0);
    fetched(&pod, &store.source).await;
    assert_eq!(std::fs::read(pod.file("revisions/fraud-r1/m.onnx")).unwrap(), small());
}

#[tokio::test]
async fn a_cache_that_is_out_of_order_is_asked_once() {
    let files = Files::default();
    let (model, weights) = with_external_data(3, 2);
    files.put("/m.onnx", File::new(model, "\"m\""));
    files.put("/weights.bin", File::new(vec![7; weights as usize], "\"w\""));
    let server = serve(&files).await;
    let source = pinned(&request(&server.url("/m.onnx")), &env(temp().path())).await;
    assert_eq!(source.files.len(), 2);
    let cache = Server::start(|_| Reply::new(503, "")).await;
    fetched(&pod_beside(cache.address, TEAM.0), &source).await;
    assert_eq!(cache.log().len(), 1, "{:?}", cache.log());
}

#[tokio::test]
async fn a_model_that_has_no_room_is_fetched_as_without_a_cache() {
    let (node, store) = (Node::start(16).await, Store::start(small()).await);
    fetched(&node.pod(TEAM.0), &store.source).await;
    node.until("full", 1).await;
    fetched(&node.pod(TEAM.0), &store.source).await;
    assert_eq!((node.count("stored").await, node.count("hit").await), (0, 0));
}

#[tokio::test]
async fn without_its_cache_a_pod_fetches_as_ever() {
    let store = Store::start(small()).await;
    // Nobody listens where a listener was.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let root = temp();
    write(&root.path().join("token"), TEAM.0);
    for (address, token) in [
        (format!("http://{gone}"), "token"),
        ("no address".into(), "token"),
        (format!("http://{gone}"), "none"),
    ] {
        let access = Access { address, token: root.path().join(token) };
        let env = Env { cache: Some(access), ..env(root.path()) };
        fetched(&Pod::start_in(temp(), env), &store.source).await;
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_it_says_is_not_kept() {
    let node = Node::start(1 << 20).await;
    let url = |name: &str| format!("http://{}/v1/files/{name}", node.loaders);
    let key = "a".repeat(64);
    let put = async |name: &str, digest: &str, body: &'static str| {
        let asked = reqwest::Client::new().put(url(name)).bearer_auth(TEAM.0).header("repr-digest", digest);
        asked.body(body).send().await.unwrap().status().as_u16()
    };
    // printf hello | openssl dgst -sha256 -binary | base64
    let digest = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    assert_eq!(put(&key, digest, "hellO").await, 422);
    assert_eq!(put(&key, "md5=:AAAA:", "hello").await, 400);
    assert_eq!(put("short", digest, "hello").await, 400);
    assert_eq!(put(&key, digest, "hello").await, 201);
    assert_eq!(put(&key, digest, "hello").await, 204);
    let (status, text) = get(&url(&key)).await;
    assert_eq!(status, 401);
    assert!(text.contains("ServiceAccount token"), "{text}");
    assert_eq!(get(&format!("http://{}/healthz", node.admin)).await, (200, "ok\n".into()));
}
