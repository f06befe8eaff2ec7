//! The neighbours: the ReplicaSet controller, the scheduler and the kubelet.

use std::collections::HashMap;
use std::sync::Arc;

use modelwright::formats::{
    Assignments, Dim, GraphSummary, Pin, PinnedFile, PinnedSource, PodState, ResolveReport, Resolved,
    SourceRequest, TensorSignature,
};
use modelwright::observe::{PodPhase, PodView};
use serde_json::{Value, json};

use super::Sim;

impl Sim {
    pub(super) fn replica_set_controller(&mut self) -> bool {
        let family = self.family();
        for set in &family.replica_sets {
            let place = ("ReplicaSet", set.meta.name.clone());
            let pods = family.pods.iter().filter(|pod| pod.meta.owner_uid.as_ref() == Some(&set.meta.uid));
            let pods: Vec<&PodView> =
                pods.map(|pod| &**pod).filter(|p| p.phase != PodPhase::Failed).collect();
            if (pods.len() as i32) < set.replicas {
                self.add_pod(&self.objects[&place].clone());
                return true;
            }
            if pods.len() as i32 > set.replicas {
                // Ready ones last, as the real one.
                let victim = pods.iter().min_by_key(|pod| pod.ready).unwrap();
                self.remove(&("Pod", victim.meta.name.clone()));
                return true;
            }
            let count = pods.iter().filter(|pod| pod.ready).count();
            let generation = &self.objects[&place]["metadata"]["generation"];
            let status = json!({ "replicas": pods.len(), "readyReplicas": count, "availableReplicas": count,
                "observedGeneration": generation });
            if self.objects[&place]["status"] != status {
                let mut object = self.objects[&place].clone();
                object["status"] = status;
                self.put(place, object);
                return true;
            }
        }
        false
    }

    fn running(&self) -> usize {
        self.family.pods.iter().filter(|pod| pod.phase == PodPhase::Running).count()
    }

    fn add_pod(&mut self, owner: &Value) {
        // What nobody reads is left out.
        let template = &owner["spec"]["template"];
        let mut pod = json!({ "metadata": template["metadata"] });
        let container = &template["spec"]["containers"][1];
        pod["spec"] =
            json!({ "containers": [{ "name": container["name"], "resources": container["resources"] }] });
        let number = self.version + 1;
        let name = format!("{}-{number:03}", owner["metadata"]["name"].as_str().unwrap());
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["namespace"] = json!("ns");
        pod["metadata"]["uid"] = json!(format!("u{number}"));
        pod["metadata"]["creationTimestamp"] = json!(self.now.to_string());
        pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": owner["kind"],
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": true }]);
        pod["status"] = if self.running() < self.capacity {
            json!({ "phase": "Pending" })
        } else {
            json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
                "lastTransitionTime": self.now.to_string(), "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu." }] })
        };
        self.put(("Pod", name), pod);
    }

    /// A node loses a pod.
    pub fn lose_pod(&mut self, index: usize) {
        let pods = self.family().pods;
        let Some(pod) = pods.get(index).filter(|pod| !pod.slots.is_empty()) else { return };
        self.say(format!("pod {} is lost", pod.meta.name));
        self.remove(&("Pod", pod.meta.name.clone()));
    }

    /// Starts one pod: a resolver reports, a server becomes ready or fails.
    pub(super) fn kubelet(&mut self) -> bool {
        if self.supervisor() {
            return true;
        }
        let running = self.running();
        for view in self.family().pods {
            let place = ("Pod", view.meta.name.clone());
            let settled = view.ready || !view.containers.is_empty() || view.phase == PodPhase::Succeeded;
            if settled {
                continue;
            }
            let pod = &self.objects[&place];
            let text = pod["spec"]["containers"].to_string() + &pod["metadata"]["annotations"].to_string();
            let status = if pod["spec"]["containers"][0]["name"] == "resolve" {
                if self.evictions > 0 && pod["status"].is_null() {
                    self.evictions -= 1;
                    json!({ "phase": "Failed", "reason": "Evicted", "message": "the node was low on memory" })
                } else if pod["status"]["phase"] == "Failed" {
                    continue;
                } else if text.contains("missing.onnx") {
                    json!({ "phase": "Running", "containerStatuses": [ended("resolve", 1, "SourceNotFound: s3://models: no such key")] })
                } else {
                    json!({ "phase": "Succeeded", "containerStatuses": [ended("resolve", 0, &self.report(&text))] })
                }
            } else if pod["status"]["phase"] != "Running" && running >= self.capacity {
                continue;
            } else if text.contains("crashes.onnx") {
                json!({ "phase": "Running", "conditions": scheduled(false), "containerStatuses": [
                    { "name": "server", "restartCount": 3, "ready": false, "image": "", "imageID": "",
                      "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } },
                      "lastState": { "terminated": { "exitCode": 1, "reason": "Error" } } }] })
            } else {
                json!({ "phase": "Running", "conditions": scheduled(true) })
            };
            if pod["status"] != status {
                let mut pod = pod.clone();
                pod["status"] = status;
                self.put(place, pod);
                return true;
            }
        }
        false
    }

    /// One worker of a pod that was assigned anew: it is proven, fails or ends.
    fn supervisor(&mut self) -> bool {
        for view in self.family().pods {
            if view.proven.is_none() || view.phase != PodPhase::Running {
                continue;
            }
            let place = ("Pod", view.meta.name.clone());
            let mut pod = self.objects[&place].clone();
            let assigned: Assignments = serde_json::from_str(
                pod["metadata"]["annotations"]["modelwright.dev/assignment"].as_str().unwrap(),
            )
            .unwrap();
            let mut workers = pod["status"]["workers"].as_object().cloned().unwrap_or_else(|| {
                let served = view.slots.iter().filter(|slot| view.serves(slot.revision));
                served.map(|slot| (format!("fraud-r{}", slot.revision), json!(""))).collect()
            });
            let runs = |name: &str| assigned.assignments.iter().any(|a| a.revision == name);
            // One at a time, as with the real one: what leaves goes first.
            let leaves = workers.keys().find(|name| !runs(name)).cloned();
            let gone = leaves.is_some_and(|name| workers.remove(&name).is_some());
            let alone = assigned.assignments.len() == 1;
            let next = assigned
                .assignments
                .iter()
                .find(|a| workers.get(&a.revision).is_none_or(|failure| failure == "OutOfMemory" && alone))
                .filter(|_| !gone);
            if let Some(next) = next {
                let uri = &next.source.request.uri;
                let failure = match () {
                    () if uri.contains("crashes") => "ModelInvalid",
                    () if uri.contains("large") && !alone => "OutOfMemory",
                    () => "",
                };
                workers.insert(next.revision.clone(), json!(failure));
            }
            let ready = workers.iter().any(|(name, failure)| failure == "" && runs(name));
            let files: Vec<&str> = assigned.fetch_only.iter().map(|a| a.revision.as_str()).collect();
            let status = json!({ "phase": "Running", "conditions": scheduled(ready), "workers": workers, "files": files });
            if pod["status"] != status {
                pod["status"] = status;
                self.put(place, pod);
                return true;
            }
        }
        false
    }

    /// A worker of some pod crashes, and is started again.
    pub fn lose_worker(&mut self, index: usize) {
        let pods = self.family().pods;
        let Some(view) = pods.get(index) else { return };
        let place = ("Pod", view.meta.name.clone());
        let mut pod = self.objects[&place].clone();
        let Some(workers) = pod["status"]["workers"].as_object_mut() else { return };
        let Some(name) = workers.keys().next_back().cloned() else { return };
        workers.remove(&name);
        let ready = workers.values().any(|failure| failure == "");
        pod["status"]["conditions"] = scheduled(ready);
        self.say(format!("the worker of {name} in pod {} crashes", view.meta.name));
        self.put(place, pod);
    }

    /// What pods that were assigned anew say of themselves.
    pub(super) fn pod_states(&self) -> HashMap<String, Arc<PodState>> {
        let pods = self.family.pods.iter().filter(|pod| pod.proven.is_some());
        let states = pods.map(|view| {
            let pod = &self.objects[&("Pod", view.meta.name.clone())];
            let workers = &pod["status"]["workers"];
            let revisions = view.slots.iter().map(|slot| {
                let revision = format!("fraud-r{}", slot.revision);
                let mut state = json!({ "deployment": "fraud", "revision": revision, "phase": "Loading" });
                if slot.fetch_only {
                    let files = pod["status"]["files"].as_array();
                    let there = files.is_some_and(|files| files.contains(&json!(revision)));
                    state["phase"] = json!(if there { "Fetched" } else { "Fetching" });
                    return state;
                }
                match workers[&revision].as_str() {
                    Some("") => state["phase"] = json!("Proven"),
                    Some(reason) => {
                        state["phase"] = json!("Failed");
                        state["reason"] = json!(reason);
                        state["message"] = json!("the model says so");
                    }
                    None if workers.is_null() && view.serves(slot.revision) => {
                        state["phase"] = json!("Proven")
                    }
                    None => {}
                }
                state
            });
            let revisions: Vec<Value> = revisions.collect();
            let state = json!({ "formatVersion": 1, "ready": view.ready, "fetchesOnly": true, "revisions": revisions });
            (view.meta.uid.clone(), Arc::new(super::parse(&state)))
        });
        states.collect()
    }

    fn report(&self, text: &str) -> String {
        let uri = self.deployment.as_ref().unwrap().spec.model.uri.clone();
        assert!(text.contains("resolve"));
        let input = if uri.contains("renamed") { "features" } else { "x" };
        let input =
            TensorSignature { name: input.into(), datatype: "FP32".into(), shape: Some(vec![Dim::Fixed(3)]) };
        let graph = GraphSummary { inputs: vec![input], ..Default::default() };
        let request = SourceRequest {
            uri,
            digest: None,
            s3: None,
            hf: None,
            insecure_http: false,
            secret_name: None,
            ca_bundle_name: None,
        };
        let pin = Some(Pin::Etag(self.etag.clone()));
        let file = PinnedFile { path: "model.onnx".into(), size: 1, pin };
        let source = PinnedSource { request, files: vec![file], immutable: true, sha256: None };
        let resolved = Resolved { source, graph };
        ResolveReport::Resolved(Box::new(resolved)).encode().unwrap()
    }
}

fn scheduled(ready: bool) -> Value {
    json!([
        { "type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
        { "type": "Ready", "status": if ready { "True" } else { "False" } },
    ])
}

fn ended(container: &str, code: i32, message: &str) -> Value {
    json!({ "name": container, "restartCount": 0, "ready": false, "image": "", "imageID": "",
        "state": { "terminated": { "exitCode": code, "message": message } } })
}
