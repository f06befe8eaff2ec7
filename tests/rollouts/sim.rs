//! A cluster small enough to hold in the head: objects as JSON, controllers that take one step each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::watcher::Event;
use modelwright::api::ModelDeployment;
use modelwright::apply::{Applied, WriteError};
use modelwright::formats::{
    GraphSummary, Pin, PinnedFile, PinnedSource, ResolveReport, Resolved, SourceRequest,
};
use modelwright::observe::*;
use modelwright::plan::{Kind, Plan, Write, plan};
use modelwright::status;
use serde_json::{Value, json};

const STEP_LIMIT: usize = 400;

/// Splitmix64: seeded, the same everywhere.
pub struct Rng(pub u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

pub struct Sim {
    deployment: Option<Value>,
    objects: BTreeMap<(&'static str, String), Value>,
    now: Timestamp,
    version: u64,
    /// What the store says of every object.
    pub etag: String,
    /// Pods that fit; the rest are unschedulable.
    pub capacity: usize,
    /// Resolve pods that the kubelet still throws out.
    pub evictions: usize,
    /// What the API server answers to the create of a pod.
    pub refusal: Option<&'static str>,
    pub shuffle: Option<Rng>,
    /// The operator dies after this write, once.
    pub crash_after: Option<usize>,
    pub writes: usize,
    /// The address has answered: from then on it always must.
    answered: bool,
    said: Vec<String>,
    last: String,
    settings: Arc<Settings>,
}

impl Sim {
    pub fn new() -> Self {
        Self {
            deployment: None,
            objects: BTreeMap::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            version: 0,
            etag: "first".into(),
            capacity: 100,
            evictions: 0,
            refusal: None,
            shuffle: None,
            crash_after: None,
            writes: 0,
            answered: false,
            said: Vec::new(),
            last: String::new(),
            settings: Arc::new(Settings {
                loader_image: "modelwright:1".into(),
                server_image: "modelwright-server".into(),
                server_digests: BTreeMap::new(),
                server_environment: Vec::new(),
                runtime_version: "1".into(),
                image_pull_policy: "IfNotPresent".into(),
                image_pull_secrets: vec![],
                cluster_domain: "cluster.local".into(),
                crd_outdated: false,
            }),
        }
    }

    /// As `kubectl apply`.
    pub fn apply(&mut self, uri: &str, replicas: i32) {
        let annotations = self.deployment.as_ref().map(|d| d["metadata"]["annotations"].clone());
        self.say(format!("user: model {uri}, {replicas} replicas"));
        self.deployment = Some(json!({
            "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": { "name": "fraud", "namespace": "ns", "uid": "u0", "generation": 1,
                "annotations": annotations.unwrap_or(json!({})) },
            "spec": { "model": { "uri": uri }, "replicas": replicas },
        }));
    }

    pub fn annotate(&mut self, key: &str, value: &str) {
        self.say(format!("user: annotates {key}={value}"));
        self.deployment.as_mut().unwrap()["metadata"]["annotations"][key] = json!(value);
    }

    /// Until nobody has anything to do: then planning again yields nothing.
    pub fn settle(&mut self) {
        for _ in 0..STEP_LIMIT {
            if !self.step() {
                let mut left = self.plan().writes;
                left.retain(|write| self.refused(write).is_none());
                assert_eq!(left, vec![], "a settled plan writes nothing");
                return;
            }
        }
        panic!("not settled after {STEP_LIMIT} steps:\n{}", self.transcript());
    }

    pub fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    /// One step of one controller. False: all are idle.
    fn step(&mut self) -> bool {
        let controllers: [fn(&mut Self) -> bool; 3] =
            [Self::operator, Self::replica_set_controller, Self::kubelet];
        let start = self.shuffle.as_mut().map_or(0, |rng| rng.below(3));
        let worked = (0..3).any(|i| controllers[(start + i) % 3](self));
        if !worked
            && let Some(at) = self.plan().wake_at.filter(|at| *at < self.now + SignedDuration::from_secs(600))
        {
            self.now = at.max(self.now + SignedDuration::from_secs(1));
            return true;
        }
        worked
    }

    fn operator(&mut self) -> bool {
        let snapshot = self.snapshot();
        let plan = plan(&snapshot, self.now);
        let mut wrote = false;
        let mut applied = Applied::default();
        for write in &plan.writes {
            applied.failure = self.refused(write);
            if applied.failure.is_some() {
                break;
            }
            self.write(write);
            self.check();
            wrote = true;
            self.writes += 1;
            if self.crash_after == Some(self.writes) {
                return true;
            }
        }
        let status = status::derive(&snapshot, &plan, &applied, self.now);
        let ready = &status.conditions[0];
        let line = format!("status: {} {}: {}", ready.status, ready.reason, ready.message);
        if line != self.last {
            self.last = line.clone();
            self.say(line);
        }
        wrote
    }

    fn plan(&self) -> Plan {
        plan(&self.snapshot(), self.now)
    }

    fn refused(&self, write: &Write) -> Option<WriteError> {
        let pod = matches!(write, Write::Create { kind: Kind::Pod, .. });
        self.refusal.filter(|_| pod).map(|message| WriteError::PodRefused { message: message.into() })
    }

    fn write(&mut self, write: &Write) {
        self.version += 1;
        let place = (write.kind().as_str(), write.name().to_string());
        match write {
            Write::Create { body, .. } => {
                assert!(
                    !self.objects.contains_key(&place),
                    "created twice: {place:?}\n{}",
                    self.transcript()
                );
                let mut object = body.clone();
                object["metadata"]["uid"] = json!(format!("u{}", self.version));
                object["metadata"]["creationTimestamp"] = json!(self.now.to_string());
                self.say(format!("create {} {}", place.0, place.1));
                self.objects.insert(place.clone(), object);
            }
            Write::Apply { kind, body, .. } => {
                let object = self.objects.get_mut(&place).expect("applied to what is there");
                assert_eq!(object["metadata"]["uid"], body["metadata"]["uid"], "an apply carries the uid");
                let what = match kind {
                    Kind::ReplicaSet => format!("replicas {}", body["spec"]["replicas"]),
                    Kind::Service => format!("selector {}", body["spec"]["selector"]["modelwright.dev/set"]),
                    _ => String::new(),
                };
                if *kind == Kind::ReplicaSet {
                    assert_eq!(object["spec"]["template"], body["spec"]["template"], "a live template stays");
                }
                merge(object, body);
                self.say(format!("apply {} {} {what}", place.0, place.1).trim_end().to_string());
            }
            Write::Delete { uid, .. } => {
                let object = self.objects.remove(&place).expect("deleted what is there");
                assert_eq!(object["metadata"]["uid"], json!(uid));
                self.say(format!("delete {} {}", place.0, place.1));
                self.objects.retain(|_, o| o["metadata"]["ownerReferences"][0]["uid"] != json!(uid));
            }
        }
        if let Some(object) = self.objects.get_mut(&place) {
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        }
    }

    fn replica_set_controller(&mut self) -> bool {
        for set in self.kind("ReplicaSet") {
            let pods = self.pods_of(&set);
            let wanted = set["spec"]["replicas"].as_u64().unwrap() as usize;
            if pods.len() < wanted {
                self.add_pod(&set);
                return true;
            }
            if pods.len() > wanted {
                // Ready ones last, as the real one.
                let victim = pods.iter().min_by_key(|pod| ready(pod)).unwrap();
                self.objects.remove(&("Pod", name(victim)));
                return true;
            }
            let count = pods.iter().filter(|pod| ready(pod)).count();
            let status =
                json!({ "replicas": pods.len(), "readyReplicas": count, "availableReplicas": count });
            if set["status"] != status {
                self.objects.get_mut(&("ReplicaSet", name(&set))).unwrap()["status"] = status;
                return true;
            }
        }
        false
    }

    fn add_pod(&mut self, owner: &Value) {
        self.version += 1;
        let mut pod = owner["spec"]["template"].clone();
        let running = self.kind("Pod").iter().filter(|p| p["status"]["phase"] == "Running").count();
        pod["metadata"]["name"] = json!(format!("{}-{:03}", name(owner), self.version));
        pod["metadata"]["namespace"] = json!("ns");
        pod["metadata"]["uid"] = json!(format!("u{}", self.version));
        pod["metadata"]["creationTimestamp"] = json!(self.now.to_string());
        pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": owner["kind"], "name": name(owner),
            "uid": owner["metadata"]["uid"], "controller": true }]);
        pod["status"] = if running < self.capacity {
            json!({ "phase": "Pending" })
        } else {
            json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu." }] })
        };
        self.objects.insert(("Pod", name(&pod)), pod);
    }

    /// Starts one pod: a resolver reports, a server becomes ready or fails.
    fn kubelet(&mut self) -> bool {
        let running = self.kind("Pod").iter().filter(|p| p["status"]["phase"] == "Running").count();
        for pod in self.kind("Pod") {
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
                self.objects.get_mut(&("Pod", name(&pod))).unwrap()["status"] = status;
                return true;
            }
        }
        false
    }

    fn report(&self, text: &str) -> String {
        let uri = self.deployment.as_ref().unwrap()["spec"]["model"]["uri"].as_str().unwrap().to_string();
        assert!(text.contains("resolve"));
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
        let resolved = Resolved { source, graph: GraphSummary::default() };
        ResolveReport::Resolved(Box::new(resolved)).encode().unwrap()
    }

    /// Once the address has answered, as many pods as are wanted answer behind it, whatever is rolled.
    fn check(&mut self) {
        let Some(service) = self.kind("Service").pop() else { return };
        let set = &service["spec"]["selector"]["modelwright.dev/set"];
        let behind = self
            .kind("Pod")
            .iter()
            .filter(|p| ready(p) && p["metadata"]["labels"]["modelwright.dev/set"] == *set)
            .count();
        assert!(!self.answered || behind > 0, "nothing answers behind the address\n{}", self.transcript());
        let wanted = self.deployment.as_ref().unwrap()["spec"]["replicas"].as_u64().unwrap();
        self.answered = behind > 0 && wanted > 0;
        let sets = self.kind("ReplicaSet").len();
        assert!(sets <= 4, "{sets} ReplicaSets at once\n{}", self.transcript());
    }

    fn snapshot(&self) -> Snapshot {
        let shelves = Shelves::default();
        for ((kind, _), object) in &self.objects {
            let object = object.clone();
            match *kind {
                "ControllerRevision" => {
                    drop(shelves.revisions.take(Event::Apply(RevisionView::of(parse(object)))))
                }
                "ReplicaSet" => {
                    drop(shelves.replica_sets.take(Event::Apply(ReplicaSetView::of(parse(object)))))
                }
                "Service" => drop(shelves.services.take(Event::Apply(ServiceView::of(parse(object))))),
                "PodDisruptionBudget" => {
                    drop(shelves.budgets.take(Event::Apply(BudgetView::of(parse(object)))))
                }
                "Pod" => drop(shelves.pods.take(Event::Apply(PodView::of(parse(object))))),
                other => panic!("{other}"),
            }
        }
        let deployment: ModelDeployment = parse(self.deployment.clone().unwrap());
        Snapshot {
            family: shelves.family(&("ns".into(), "fraud".into()), "u0"),
            deployment: Arc::new(deployment),
            pod_states: HashMap::new(),
            gpu_holders: BTreeMap::new(),
            settings: self.settings.clone(),
        }
    }

    /// What stands at the end, but for pods' names.
    pub fn end_state(&self) -> Vec<String> {
        let objects = self.objects.iter().filter(|((kind, _), _)| *kind != "Pod");
        let spec = |o: &Value| format!("{}{}", o["spec"]["replicas"], o["spec"]["selector"]);
        objects.map(|((kind, name), o)| format!("{kind} {name} {}", spec(o))).collect()
    }

    pub fn transcript(&self) -> String {
        self.said.join("\n") + "\n"
    }

    fn say(&mut self, line: String) {
        self.said.push(line);
    }

    fn kind(&self, kind: &str) -> Vec<Value> {
        self.objects.iter().filter(|((k, _), _)| *k == kind).map(|(_, o)| o.clone()).collect()
    }

    fn pods_of(&self, owner: &Value) -> Vec<Value> {
        let mut pods = self.kind("Pod");
        pods.retain(|pod| pod["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]);
        pods
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().into()
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
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

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
