//! What a user does to the model, and what they see.

use std::sync::Mutex;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use modelwright::api::{ModelDeployment, ModelDeploymentStatus};
use serde_json::{Value, json};

use super::World;
use super::store::Store;
use crate::common::{condition, wait};
use crate::ledger::{Load, digest};

pub const NAME: &str = "model";
pub const REPLICAS: i32 = 2;
/// The operator's default.
const GATEWAYS: i32 = 2;

/// The ModelDeployment of a journey.
pub struct Play(Mutex<Model>);

struct Model {
    spec: Value,
    /// The newest version that was made.
    last: i64,
    stable: i64,
}

impl Play {
    pub fn new(store: &Store) -> Self {
        let spec = json!({
            "model": { "uri": store.uri(1), "insecureHTTP": true },
            "replicas": REPLICAS,
            // More than all that may come while pods are exchanged.
            "traffic": { "queue": { "maxRequests": 20000 } },
        });
        Self(Mutex::new(Model { spec, last: 1, stable: 1 }))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Model) -> T) -> T {
        work(&mut self.0.lock().expect("no panic"))
    }
}

pub struct Stage<'a> {
    pub world: &'a World,
    pub namespace: &'a str,
    pub load: &'a Load,
    pub play: &'a Play,
}

impl Stage<'_> {
    /// The first version, until it serves.
    pub async fn first(&self) {
        self.apply(1).await;
        self.until_stable(1).await;
    }

    pub fn declare_stable(&self) {
        self.load.serves(self.version());
    }

    /// The one that serves.
    pub fn version(&self) -> i64 {
        self.play.with(|model| model.stable)
    }

    pub async fn apply(&self, version: i64) {
        self.load.declare(version);
        self.play.with(|model| model.spec["model"]["uri"] = json!(self.world.store.uri(version)));
        self.send().await;
    }

    async fn send(&self) {
        let body = json!({
            "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": { "name": NAME }, "spec": self.play.with(|model| model.spec.clone()),
        });
        let api = self.world.cluster.deployments(self.namespace);
        api.patch(NAME, &PatchParams::apply("user").force(), &Patch::Apply(&body)).await.expect("a spec");
    }

    /// A new model in the spec. Its number.
    pub async fn apply_next(&self) -> i64 {
        let next = self.play.with(|model| {
            model.last += 1;
            model.last
        });
        self.apply(next).await;
        next
    }

    /// A new model, to the end.
    pub async fn roll(&self) {
        let next = self.apply_next().await;
        self.until_stable(next).await;
    }

    pub async fn back_to(&self, version: i64) {
        self.apply(version).await;
        self.until_stable(version).await;
    }

    pub fn set_strategy(&self, strategy: Value) {
        self.play.with(|model| model.spec["strategy"] = strategy);
    }

    /// From the next version on.
    pub fn want_gpu(&self) {
        self.play.with(|model| {
            model.spec["runtime"] = json!({ "executionProviders": [{ "name": "CUDA" }] });
            model.spec["resources"] = json!({ "limits": { "nvidia.com/gpu": "1" } });
        });
    }

    pub async fn scale(&self, replicas: i32) {
        self.play.with(|model| model.spec["replicas"] = json!(replicas));
        self.send().await;
    }

    pub async fn annotate(&self, key: &str, value: &str) {
        let body = json!({ "metadata": { "annotations": { key: value } } });
        let api = self.world.cluster.deployments(self.namespace);
        api.patch(NAME, &PatchParams::default(), &Patch::Merge(&body)).await.expect("an annotation");
    }

    pub async fn answered_more(&self, count: usize) {
        let wanted = self.load.answered() + count;
        wait(&format!("{count} more requests with an outcome"), async || {
            let so_far = self.load.answered();
            (so_far >= wanted).then_some(()).ok_or(format!("{so_far} of {wanted}"))
        })
        .await;
    }

    async fn until<T>(
        &self,
        what: &str,
        fits: impl Fn(&ModelDeployment, ModelDeploymentStatus) -> Result<T, String>,
    ) -> T {
        let api = self.world.cluster.deployments(self.namespace);
        wait(&format!("{what} in {}", self.namespace), async || {
            let deployment = api.get(NAME).await.map_err(|e| e.to_string())?;
            fits(&deployment, deployment.status.clone().unwrap_or_default())
        })
        .await
    }

    /// The whole traffic is with this version: no other may answer what is sent from now on.
    pub async fn until_stable(&self, version: i64) {
        self.until(&format!("version {version}, stable"), |deployment, status| {
            says(deployment, "Ready", "True", "Serving")?;
            let stable = status.revisions.iter().find(|r| Some(&r.name) == status.stable_revision.as_ref());
            let seen = stable.and_then(|revision| revision.digest.clone());
            (seen == Some(digest(version))).then_some(()).ok_or(format!("stable is {seen:?}"))
        })
        .await;
        let others = self.play.with(|model| {
            model.stable = version;
            (1..=model.last).filter(move |other| *other != version)
        });
        others.for_each(|other| self.load.retire(other));
    }

    /// The rollout stands at this step with this weight, as every gateway has acknowledged. Its id.
    pub async fn until_weight(&self, percent: i32, step: i32) -> String {
        self.until(&format!("weight {percent}, step {step}"), |_, status| {
            let known = status.gateway.is_some_and(|g| g.acknowledged == g.replicas);
            let rollout = status.rollout.ok_or("no rollout")?;
            let there = rollout.weight == percent && rollout.current_step_index == step && known;
            there.then(|| rollout.id.clone()).ok_or(format!("{rollout:?}"))
        })
        .await
    }

    /// The rollout finds its room in this way, for this reason.
    pub async fn until_replaced(&self, by: &str, reason: &str) {
        self.until(&format!("{by} ({reason})"), |_, status| {
            let rollout = status.rollout.ok_or("no rollout")?;
            let said = [&rollout.replacement, &rollout.replacement_reason].map(Option::as_deref);
            (said == [Some(by), Some(reason)]).then_some(()).ok_or(format!("{rollout:?}"))
        })
        .await;
    }

    /// The gateways' evidence was enough.
    pub async fn until_analysis_failed(&self) {
        self.until("failed analysis", |deployment, _| says(deployment, "Degraded", "True", "AnalysisFailed"))
            .await;
    }

    /// All of the traffic is back, and this version may answer nothing more.
    pub async fn until_aborted(&self, version: i64) {
        self.until("end of the attempt", |deployment, status| {
            says(deployment, "Progressing", "False", "Aborted")?;
            let known = status.gateway.as_ref().is_some_and(|g| g.acknowledged == g.replicas);
            let stable = status.stable_revision.as_ref();
            let back = status.traffic.iter().all(|t| t.percent == 0 || Some(&t.revision) == stable);
            (known && back).then_some(()).ok_or(format!("{:?}", status.traffic))
        })
        .await;
        self.load.retire(version);
    }

    /// No pod is left, and requests wait.
    pub async fn until_none(&self) {
        self.until("end of all pods", |_, status| {
            (status.replicas == 0).then_some(()).ok_or(format!("{} replicas", status.replicas))
        })
        .await;
    }

    pub async fn until_serving(&self, replicas: i32) {
        self.until(&format!("{replicas} pods"), |deployment, status| {
            says(deployment, "Ready", "True", "Serving")?;
            let all = [status.replicas, status.available_replicas, status.desired_replicas];
            all.iter().all(|seen| *seen == replicas).then_some(()).ok_or(format!("{all:?}"))
        })
        .await;
    }

    /// One that missed its probes on a slow machine is ready again.
    pub async fn until_all_gateways(&self) {
        self.until("all gateways", |_, status| {
            let gateway = status.gateway.ok_or("no gateway")?;
            let all = gateway.replicas == GATEWAYS && gateway.acknowledged == GATEWAYS;
            all.then_some(()).ok_or(format!("{gateway:?}"))
        })
        .await;
    }

    /// Those of the revision before have been told to go.
    pub async fn until_pods(&self, count: i32) {
        wait(&format!("{count} pods in {}", self.namespace), async || {
            let there = self.pods().await.len();
            (there == count as usize).then_some(()).ok_or(format!("{there}"))
        })
        .await;
    }

    /// The uids of those that serve, and are not on their way out.
    pub async fn pods(&self) -> Vec<String> {
        let selector = ListParams::default().labels("modelwright.dev/role=serve");
        let pods = self.world.cluster.api::<Pod>(self.namespace).list(&selector).await.expect("pods");
        let staying = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        staying.filter_map(|pod| pod.metadata.uid).collect()
    }
}

/// Of the newest spec.
fn says(deployment: &ModelDeployment, kind: &str, status: &str, reason: &str) -> Result<(), String> {
    let generation = deployment.metadata.generation;
    let condition = condition(deployment, kind).filter(|c| c.observed_generation == generation);
    let condition = condition.ok_or_else(|| format!("{kind} does not speak of the newest spec"))?;
    if condition.status == status && condition.reason == reason {
        return Ok(());
    }
    Err(format!("{kind} is {}, {}: {}", condition.status, condition.reason, condition.message))
}
