//! What the gateways say: the operator listens to the fake ones, which say what they are told.

use std::collections::HashMap;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use modelwright::api::labels;
use modelwright::formats::{GatewayReport, ports};

use crate::common::Cluster;

const DEADLINE: Duration = Duration::from_secs(10);

pub struct Gateways {
    client: Client<HttpConnector, Full<Bytes>>,
    /// By namespace, the address of one.
    addresses: HashMap<String, String>,
}

impl Gateways {
    pub async fn find(cluster: &Cluster, namespaces: impl Iterator<Item = String>) -> Self {
        let mut addresses = HashMap::new();
        let selector = format!("{}={}", labels::COMPONENT, labels::GATEWAY);
        for namespace in namespaces {
            let pods: Api<Pod> = cluster.api(&namespace);
            let pods = pods.list(&ListParams::default().labels(&selector)).await.expect("a list");
            let address = pods.items.into_iter().find_map(|pod| pod.status?.pod_ip);
            addresses.insert(namespace, address.expect("a gateway in each namespace"));
        }
        Self { client: Client::builder(TokioExecutor::new()).build_http(), addresses }
    }

    /// When it was said.
    pub async fn say(&self, namespace: &str, line: &GatewayReport) -> Timestamp {
        let uri = format!("http://{}:{}/modelwright/v1/stream", self.addresses[namespace], ports::ADMIN);
        let line = Bytes::from(serde_json::to_vec(line).expect("JSON"));
        let request =
            Request::builder().method(Method::POST).uri(uri).body(Full::new(line)).expect("a request");
        let answer = async {
            let answer = self.client.request(request).await.expect("an answer");
            let status = answer.status();
            let body = answer.into_body().collect().await.expect("an answer").to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            assert!(status.is_success(), "the gateway of {namespace}: {status} {text}");
            text
        };
        let text = tokio::time::timeout(DEADLINE, answer).await.expect("an answer in time");
        Timestamp::from_nanosecond(text.trim().parse().expect("nanoseconds")).expect("a time")
    }
}
