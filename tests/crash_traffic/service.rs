//! The address of a Service, where nothing translates it: connections go to its ready endpoints in turn.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use tokio::net::{TcpListener, TcpStream};

use crate::common::{Abort, Cluster, wait};
use crate::ledger::Target;

type Endpoints = Arc<Mutex<Vec<SocketAddr>>>;

pub struct Service {
    target: Target,
    endpoints: Endpoints,
    _tasks: [Abort; 2],
}

impl Service {
    pub async fn open(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let endpoints = Endpoints::default();
        let host = format!("{name}.{namespace}.svc.cluster.local");
        let follow = follow(cluster.api(namespace), name.to_string(), endpoints.clone());
        let forward = forward(listener, endpoints.clone());
        Self {
            target: Target { rest: address, grpc: address, host, name: name.into() },
            endpoints,
            _tasks: [Abort(tokio::spawn(follow)), Abort(tokio::spawn(forward))],
        }
    }

    pub fn target(&self) -> Target {
        self.target.clone()
    }

    pub async fn until_ready(&self) {
        wait("ready endpoints", async || {
            let known = self.endpoints.lock().expect("no panic").len();
            (known > 0).then_some(()).ok_or_else(|| "none".to_string())
        })
        .await;
    }
}

/// Keeps what the EndpointSlices say; a node would know it no sooner. Their last address stays: gateways that miss
/// their probes on a slow machine still serve, and none ends in these scenes.
async fn follow(slices: Api<EndpointSlice>, service: String, endpoints: Endpoints) {
    let of = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    loop {
        if let Ok(list) = slices.list(&of).await {
            let ready: Vec<SocketAddr> = list.items.iter().flat_map(ready).collect();
            if !ready.is_empty() {
                *endpoints.lock().expect("no panic") = ready;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn ready(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports = slice.ports.iter().flatten();
    let port = ports.filter(|port| port.name.as_deref() == Some("http")).find_map(|port| port.port);
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    let is_ready = |c: &k8s_openapi::api::discovery::v1::EndpointConditions| c.ready == Some(true);
    let ready = slice.endpoints.iter().filter(|e| e.conditions.as_ref().is_some_and(is_ready));
    let addresses = ready.flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(|address| Some(SocketAddr::new(address.parse().ok()?, port))).collect()
}

async fn forward(listener: TcpListener, endpoints: Endpoints) {
    let mut turn = 0;
    while let Ok((mut client, _)) = listener.accept().await {
        turn += 1;
        let known = endpoints.lock().expect("no panic").clone();
        // Without any the connection is refused, as a node would.
        let Some(endpoint) = known.get(turn % known.len().max(1)).copied() else { continue };
        tokio::spawn(async move {
            let Ok(mut gateway) = TcpStream::connect(endpoint).await else { return };
            let _ = (client.set_nodelay(true), gateway.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut gateway).await;
        });
    }
}
