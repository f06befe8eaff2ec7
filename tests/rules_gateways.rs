//! The gateways of a namespace: made with its first ModelDeployment, mended, owned by all, gone with the last.

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, Operator, Place, condition, wait};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Resource, ResourceExt};
use modelwright::api::ModelDeployment;
use serde_json::json;

const GATEWAY: &str = "modelwright-gateway";

impl Place {
    async fn open(namespace: &'static str) -> Self {
        let cluster = Cluster::open().await;
        // With the chart's rights: the API server lets nobody grant what they don't have.
        let identity = cluster.namespaced_identity(namespace).await;
        Self { cluster, identity, namespace }
    }

    async fn delete(&self, name: &str) {
        let api = self.api::<ModelDeployment>();
        api.delete(name, &DeleteParams::background()).await.expect("delete");
    }

    /// The names of those that own an object of the gateways; none: there is no such object.
    async fn owners<K>(&self) -> Option<Vec<String>>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let object = self.api::<K>().get_opt(GATEWAY).await.expect("get")?;
        let mut names: Vec<String> = object.owner_references().iter().map(|o| o.name.clone()).collect();
        names.sort();
        Some(names)
    }

    async fn until_owned_by(&self, wanted: Option<&[&str]>) {
        let wanted = wanted.map(|names| names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        wait("owners of the gateways", async || {
            let found = [
                self.owners::<ServiceAccount>().await,
                self.owners::<Role>().await,
                self.owners::<RoleBinding>().await,
                self.owners::<NetworkPolicy>().await,
                self.owners::<Service>().await,
                self.owners::<PodDisruptionBudget>().await,
                self.owners::<Deployment>().await,
            ];
            if found.iter().all(|found| *found == wanted) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    async fn gateways(&self) -> Vec<Pod> {
        let params = ListParams::default().labels("modelwright.dev/component=gateway");
        self.api::<Pod>().list(&params).await.expect("pods").items
    }
}

fn writes(metrics: &std::collections::BTreeMap<String, f64>) -> f64 {
    let writes = metrics.iter().filter(|(name, _)| name.starts_with("modelwright_operator_writes_total"));
    writes.map(|(_, value)| value).sum()
}

#[tokio::test]
async fn the_gateways_come_with_the_first_model_and_go_with_the_last() {
    let place = Place::open("gateways").await;
    let operator = Operator::start(&place.options());
    place.create("one").await;
    place.until("one", "Ready", common::ready).await;
    place.until_owned_by(Some(&["one"])).await;
    place.create("two").await;
    place.until("two", "Ready", common::ready).await;
    place.until_owned_by(Some(&["one", "two"])).await;
    wait("two gateways", async || {
        let count = place.gateways().await.len();
        if count == 2 { Ok(()) } else { Err(format!("{count}")) }
    })
    .await;

    place.api::<Role>().delete(GATEWAY, &DeleteParams::default()).await.expect("delete");
    place.until_owned_by(Some(&["one", "two"])).await;

    let mut known = (0.0, Instant::now());
    wait("an operator at rest", async || {
        let now = writes(&operator.metrics().await.unwrap_or_default());
        if now != known.0 {
            known = (now, Instant::now());
        }
        if known.1.elapsed() > Duration::from_secs(5) { Ok(()) } else { Err(format!("{now} writes")) }
    })
    .await;

    place.delete("one").await;
    place.until_owned_by(Some(&["two"])).await;
    assert_eq!(place.gateways().await.len(), 2, "the other model still needs them");
    place.delete("two").await;
    place.until_owned_by(None).await;
}

#[tokio::test]
async fn a_foreign_deployment_of_the_gateways_name_is_reported_and_never_touched() {
    let place = Place::open("gateways-foreign").await;
    let foreign = json!({
        "metadata": { "name": GATEWAY },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": "foreign" } },
            "template": {
                "metadata": { "labels": { "app": "foreign" } },
                "spec": { "containers": [{ "name": "c", "image": "example.test/c" }] },
            },
        },
    });
    let foreign: Deployment = serde_json::from_value(foreign).expect("a Deployment");
    let api = place.api::<Deployment>();
    let theirs = api.create(&PostParams::default(), &foreign).await.expect("create");
    let _operator = Operator::start(&place.options());
    place.create("model").await;
    let said = |d: &ModelDeployment| {
        condition(d, "Available")
            .is_some_and(|c| c.reason == "GatewayUnavailable" && c.message.contains("delete or rename it"))
    };
    place.until("model", "GatewayUnavailable", said).await;
    let still = api.get(GATEWAY).await.expect("the foreign Deployment");
    assert_eq!((still.uid(), still.metadata.generation), (theirs.uid(), theirs.metadata.generation));
    api.delete(GATEWAY, &DeleteParams::background()).await.expect("delete");
    place.until("model", "Ready", common::ready).await;
}
