//! A model change and its rollback under load: no request is lost, and no wanted replica is ever missing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use modelwright::api::{AnalysisVerdict, annotations};
use serde_json::{Value, json};

use crate::support::{NEG, RELU, Space, in_namespace, neg, operator, question, relu, renamed, says, wait};

/// The fewest pods that were seen at once since it began to watch, of any revision: those that have been ready and that
/// nobody has told to go. One that misses a probe on a slow machine is still wanted, and there.
struct Watch {
    fewest: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn start(space: &Space) -> Self {
        let fewest = Arc::new(Mutex::new(usize::MAX));
        let (api, seen): (Api<Pod>, _) = (space.api(), fewest.clone());
        let config = watcher::Config::default().labels("modelwright.dev/role=serve");
        let task = tokio::spawn(async move {
            let mut ready = BTreeSet::new();
            let mut listed = false;
            let mut events = watcher(api, config).default_backoff().boxed();
            while let Some(Ok(event)) = events.next().await {
                let (pod, gone) = match event {
                    watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => (pod, false),
                    watcher::Event::Delete(pod) => (pod, true),
                    watcher::Event::Init => continue,
                    watcher::Event::InitDone => {
                        listed = true;
                        continue;
                    }
                };
                let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
                let is_ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
                let name = pod.metadata.name.unwrap_or_default();
                if gone || pod.metadata.deletion_timestamp.is_some() {
                    ready.remove(&name);
                } else if is_ready {
                    ready.insert(name);
                }
                if listed {
                    let mut fewest = seen.lock().unwrap();
                    *fewest = (*fewest).min(ready.len());
                }
            }
        });
        Self { fewest, task }
    }

    fn fewest(self) -> usize {
        self.task.abort();
        *self.fewest.lock().unwrap()
    }
}

async fn until_stable(space: &Space, revision: &str) {
    space
        .until("model", |d| {
            says(d, "Ready", "True", "Serving", &[revision])?;
            let stable = d.status.as_ref().and_then(|s| s.stable_revision.as_deref());
            (stable == Some(revision)).then_some(()).ok_or(format!("{stable:?}"))
        })
        .await;
}

fn replicas(mut spec: Value, count: i32) -> Value {
    spec["replicas"] = json!(count);
    spec
}

#[tokio::test]
async fn a_change_and_its_rollback_lose_no_request() {
    in_namespace("rollout", async |space| {
        let first = space.file("first/model.onnx", &relu()).await;
        let second = space.file("second/model.onnx", &neg()).await;
        let (first, second) = (replicas(space.spec(&first), 2), replicas(space.spec(&second), 2));
        space.apply("model", &first).await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
        space.helper.start_load(&space.name, &space.inference_url("model"), &question()).await;
        let (watch, started) = (Watch::start(space), Instant::now());

        space.apply("model", &second).await;
        until_stable(space, "model-r2").await;
        space.answers("model", 2, NEG).await;
        println!("{}", space.kubectl(&["get", "mdep", "-o", "wide"]));
        // The first revision's pods go half a minute after the address moved.
        wait("drained first revision", async || {
            let pods = space.pods("modelwright.dev/set=r1").await;
            pods.is_empty().then_some(()).ok_or(format!("{} pods of r1", pods.len()))
        })
        .await;

        space.apply("model", &first).await;
        until_stable(space, "model-r1").await;
        space.answers("model", 1, RELU).await;
        wait("drained second revision", async || {
            let pods = space.pods("modelwright.dev/set=r2").await;
            pods.is_empty().then_some(()).ok_or(format!("{} pods of r2", pods.len()))
        })
        .await;
        let summary = space.helper.stop_load(&space.name).await;
        println!("{}", space.kubectl(&["describe", "mdep", "model"]));
        println!("{summary:?}");
        assert_eq!(summary.failed, 0, "{:#?}", summary.failures);
        assert!(summary.sent > started.elapsed().as_secs(), "{summary:?}");
        let by: Vec<&str> = summary.answered.keys().map(String::as_str).collect();
        assert_eq!(by, ["model-r1", "model-r2"]);
        assert!(watch.fewest() >= 2, "a wanted replica was missing");
        // Rolled back to what was kept: no third revision.
        let status = space.get("model").await.status.unwrap();
        let revisions: Vec<&str> = status.revisions.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(revisions, ["model-r2", "model-r1"]);
    })
    .await;
}

#[tokio::test]
async fn a_rollback_before_the_drain_ends_needs_no_new_pod() {
    in_namespace("quick-back", async |space| {
        let first = space.serve_first("model").await;
        let before: Vec<_> = names(&space.pods("modelwright.dev/set=r1").await);
        let uri = space.file("second/model.onnx", &neg()).await;
        space.apply("model", &space.with_uri(&first, &uri)).await;
        until_stable(space, "model-r2").await;
        space.apply("model", &first).await;
        until_stable(space, "model-r1").await;
        assert_eq!(names(&space.pods("modelwright.dev/set=r1").await), before);
        space.answers("model", 1, RELU).await;
    })
    .await;
}

/// One after the other, while requests come; a model that can't be loaded changes nothing.
#[tokio::test]
async fn a_new_model_comes_into_the_running_pods() {
    in_namespace("in-place", async |space| {
        let first = space.file("first/model.onnx", &relu()).await;
        let mut spec = replicas(space.spec(&first), 2);
        spec["strategy"] = json!({ "replacement": "InPlace" });
        space.apply("model", &spec).await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
        let before = names(&space.pods("modelwright.dev/role=serve").await);
        space.helper.start_load(&space.name, &space.inference_url("model"), &question()).await;

        let broken = space.file("broken/model.onnx", &operator("Frobnicate")).await;
        space.apply("model", &space.with_uri(&spec, &broken)).await;
        space.until_degraded("model", "ModelInvalid", &["operator Frobnicate"]).await;
        space.answers("model", 1, RELU).await;
        let second = space.file("second/model.onnx", &neg()).await;
        space.apply("model", &space.with_uri(&spec, &second)).await;
        until_stable(space, "model-r2").await;
        space.answers("model", 2, NEG).await;
        println!("{}", space.kubectl(&["get", "mdep,pods,replicasets", "-o", "wide", "--show-labels"]));

        let summary = space.helper.stop_load(&space.name).await;
        assert_eq!(summary.failed, 0, "{:#?}", summary.failures);
        let by: Vec<&str> = summary.answered.keys().map(String::as_str).collect();
        assert_eq!(by, ["model-r1", "model-r2"]);
        assert_eq!(names(&space.pods("modelwright.dev/role=serve").await), before, "no pod is new");
    })
    .await;
}

/// Too few requests to judge by: somebody else decides.
#[tokio::test]
async fn a_canary_that_nobody_asks_says_how_many_requests_are_missing() {
    in_namespace("unasked", async |space| {
        let mut spec = space.serve_first("model").await;
        spec["strategy"] = json!({ "canary": {
            "steps": [{ "setWeight": 50 }],
            "analysis": { "minRequests": 40, "metrics": [{ "name": "errors", "type": "ErrorRate", "max": "0.01" }] },
        } });
        let uri = space.file("second/model.onnx", &neg()).await;
        space.apply("model", &space.with_uri(&spec, &uri)).await;
        let deployment = space
            .until("model", |d| {
                let parts = ["model-r2 takes 50 %", "requests (0 so far)"];
                says(d, "Progressing", "True", "CanaryPaused", &parts)
            })
            .await;
        println!("{}", space.kubectl(&["get", "mdep"]));
        let rollout = deployment.status.and_then(|status| status.rollout).expect("a rollout");
        let analysis = rollout.analysis.expect("an analysis");
        assert_eq!((analysis.verdict, analysis.requests), (AnalysisVerdict::Inconclusive, 0));
        assert!(analysis.requests_needed >= 40, "{analysis:?}");
        space.annotate("model", annotations::PROMOTE, &format!("{}/full", rollout.id)).await;
        until_stable(space, "model-r2").await;
        space.answers("model", 2, NEG).await;
    })
    .await;
}

#[tokio::test]
async fn a_model_that_breaks_its_clients_gets_no_pod() {
    in_namespace("contract", async |space| {
        let first = space.serve_first("model").await;
        let uri = space.file("second/model.onnx", &renamed("z")).await;
        let mut spec = space.with_uri(&first, &uri);
        space.apply("model", &spec).await;
        let parts = ["output y is gone", "set model.compatibility: AllowBreaking", "model-r1 serves on"];
        space.until("model", |d| says(d, "Ready", "False", "SignatureIncompatible", &parts)).await;
        println!("{}", space.kubectl(&["get", "mdep,pods", "-o", "wide"]));
        assert!(space.pods("modelwright.dev/set=r2").await.is_empty());
        space.serves_on("model", 1, RELU).await;
        spec["model"]["compatibility"] = json!("AllowBreaking");
        space.apply("model", &spec).await;
        until_stable(space, "model-r2").await;
        space.answers("model", 2, RELU).await;
    })
    .await;
}

fn names(pods: &[Pod]) -> Vec<Option<String>> {
    pods.iter().map(|pod| pod.metadata.name.clone()).collect()
}

#[tokio::test]
async fn replicas_follow_the_spec_and_the_scale_subresource() {
    in_namespace("scale", async |space| {
        let spec = space.serve_first("model").await;
        space.apply("model", &replicas(spec.clone(), 3)).await;
        space
            .until("model", |d| {
                says(d, "Ready", "True", "Serving", &[])?;
                let status = d.status.clone().unwrap_or_default();
                let seen = (status.desired_replicas, status.available_replicas);
                (seen == (3, 3)).then_some(()).ok_or(format!("{seen:?}"))
            })
            .await;
        println!("{}", space.kubectl(&["scale", "mdep/model", "--replicas=1"]));
        space
            .until("model", |d| {
                let status = d.status.clone().unwrap_or_default();
                (status.desired_replicas == 1 && status.replicas == 1)
                    .then_some(())
                    .ok_or(format!("{status:?}"))
            })
            .await;
        space.answers("model", 1, RELU).await;
        let revisions = space.get("model").await.status.unwrap().revisions;
        assert_eq!(revisions.len(), 1, "scaling makes no revision");
    })
    .await;
}
