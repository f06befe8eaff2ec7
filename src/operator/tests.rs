//! An operator without a cluster: what its watches show is put on its shelves by hand.

use axum::Router;
use kube::runtime::watcher::Event;
use serde_json::json;

use super::*;

/// Leads, and has seen every first list; `api_server` gets what it writes.
pub(super) fn mk_context(api_server: Router, measurements: Measurements) -> Arc<Context> {
    let shelves = Arc::new(Shelves::default());
    macro_rules! listed {
        ($($shelf:expr),*) => { $( $shelf.take(Event::InitDone); )* };
    }
    let (own, shared) = (&shelves, &shelves.gateways);
    listed!(own.revisions, own.replica_sets, own.routes, own.services, own.budgets, own.pods);
    listed!(shared.deployments, shared.service_accounts, shared.roles, shared.role_bindings);
    listed!(shared.budgets, shared.policies, shared.services, shared.pods);
    let (lease, metrics) = (lease::tests::held(), Arc::new(Metrics::default()));
    Arc::new(Context {
        shelves,
        pod_states: Arc::default(),
        gateways: Arc::default(),
        scaling: Arc::default(),
        measurements: Arc::new(measurements),
        namespaces: Arc::default(),
        writer: Writer::new(Client::new(api_server, "ns"), lease.clone(), metrics.clone()),
        expectations: Expectations::default(),
        budget: StatusBudget::default(),
        lease,
        metrics,
        settings: Arc::new(Settings {
            loader_image: String::new(),
            server_image: String::new(),
            server_digests: Default::default(),
            server_environment: Vec::new(),
            runtime_version: "1".into(),
            node_cache: None,
            image_pull_policy: String::new(),
            image_pull_secrets: Vec::new(),
            cluster_domain: "cluster.local".into(),
            crd_outdated: false,
        }),
    })
}

pub(super) fn mk_deployment(namespace: &str, name: &str) -> ModelDeployment {
    let object = json!({
        "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": { "name": name, "namespace": namespace, "uid": format!("{name}-uid"), "generation": 1 },
        "spec": { "model": { "uri": "s3://a/b" } },
    });
    serde_json::from_value(object).unwrap()
}
