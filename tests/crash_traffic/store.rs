//! Where the models are: an HTTP server on the address of the node, which pods reach.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::net::TcpListener;

use crate::common::{Abort, Cluster};
use crate::ledger::model;

pub struct Store {
    address: SocketAddr,
    _task: Abort,
}

impl Store {
    pub async fn open(cluster: &Cluster) -> Self {
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let node = nodes.get("node-1").await.expect("the node");
        let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
        let ip = addresses.into_iter().find(|a| a.type_ == "InternalIP").expect("the node's address").address;
        let listener = TcpListener::bind((ip, 0)).await.expect("a port of the node");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/{version}/model.onnx", get(file));
        let serve = async move { axum::serve(listener, router).await.expect("it serves") };
        Self { address, _task: Abort(tokio::spawn(serve)) }
    }

    pub fn uri(&self, version: i64) -> String {
        format!("http://{}/{version}/model.onnx", self.address)
    }
}

/// A version's file for ever: its number is its ETag.
async fn file(Path(version): Path<i64>, headers: HeaderMap) -> Response {
    let (model, etag) = (model(version), format!("\"{version}\""));
    let Some(range) = range(&headers, model.len()) else {
        return ([(header::ETAG, etag)], model).into_response();
    };
    let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, model.len());
    let headers = [(header::ETAG, etag), (header::CONTENT_RANGE, shown)];
    (StatusCode::PARTIAL_CONTENT, headers, model[range].to_vec()).into_response()
}

fn range(headers: &HeaderMap, size: usize) -> Option<std::ops::Range<usize>> {
    let (first, last) = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    (first < size).then(|| first..(last + 1).min(size))
}
