//! A cluster small enough to hold in the head: objects as JSON, controllers that take one step each.

mod controllers;
mod demand;
mod gateways;
mod gist;
mod invariants;
mod users;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::watcher::Event;
use modelwright::api::{ModelDeployment, RolloutRecord};
use modelwright::apply::{Applied, WriteError};
use modelwright::formats::OutputReport;
use modelwright::observe::*;
use modelwright::plan::scale::Scaler;
use modelwright::plan::{Kind, Plan, Write, plan};
use modelwright::status;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use gateways::Gateway;
use gist::{gist, told};

const STEP_LIMIT: usize = 600;
/// A wait that is longer is none that a story waits for.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(600);

/// Splitmix64: seeded, the same everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

type Place = (&'static str, String);

pub struct Sim {
    spec: Option<Value>,
    deployment: Option<Arc<ModelDeployment>>,
    objects: BTreeMap<Place, Value>,
    /// What the operator's watches show of them, parsed when an object changes.
    shelves: Shelves,
    family: Family,
    gateways: Vec<Gateway>,
    /// Gateways that run and answer nothing.
    pub mute: bool,
    /// Gateways that say nothing of demand.
    pub silent: u32,
    scaler: RefCell<Scaler>,
    held: u64,
    scaled: String,
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
    /// What was counted of an attempt, by candidate and attempt.
    evidence: ((i64, i64), Evidence),
    said: Vec<String>,
    last: String,
    settings: Arc<Settings>,
}

impl Sim {
    pub fn new() -> Self {
        let mut sim = Self {
            spec: None,
            deployment: None,
            objects: BTreeMap::new(),
            shelves: Shelves::default(),
            family: Family::default(),
            gateways: Vec::new(),
            mute: false,
            silent: 0,
            scaler: RefCell::new(Scaler::new(0.0)),
            held: 0,
            scaled: String::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            version: 0,
            etag: "first".into(),
            capacity: 100,
            evictions: 0,
            refusal: None,
            shuffle: None,
            crash_after: None,
            writes: 0,
            evidence: Default::default(),
            said: Vec::new(),
            last: String::new(),
            settings: Arc::new(Settings {
                loader_image: "modelwright:1".into(),
                server_image: "modelwright-server".into(),
                server_digests: BTreeMap::new(),
                server_environment: Vec::new(),
                runtime_version: "1".into(),
                node_cache: None,
                image_pull_policy: "IfNotPresent".into(),
                image_pull_secrets: vec![],
                cluster_domain: "cluster.local".into(),
                crd_outdated: false,
            }),
        };
        sim.scaler = RefCell::new(Scaler::new(sim.seconds()));
        sim.add_gateway();
        sim.add_gateway();
        sim
    }

    /// The attempt that the gateways count.
    fn counted(&self) -> Option<(i64, i64)> {
        let record = &self.family.route.as_ref()?.spec.rollout;
        let runs = record.analysis.is_some() && record.aborted.is_none();
        record.candidate.filter(|_| runs).map(|candidate| (candidate, record.attempt))
    }

    fn evidence(&self) -> Evidence {
        let (attempt, evidence) = &self.evidence;
        if self.counted() == Some(*attempt) { evidence.clone() } else { Evidence::default() }
    }

    fn take_evidence(&mut self, line: &str, take: impl FnOnce(&mut Evidence)) {
        let Some(attempt) = self.counted() else { return };
        let mut evidence = self.evidence();
        take(&mut evidence);
        self.evidence = (attempt, evidence);
        self.say(format!("{line} r{}.{}", attempt.0, attempt.1));
    }

    /// Of the candidate, if it is analysed; some fail.
    pub fn requests(&mut self, count: u64, errors: u64) {
        self.take_evidence(&format!("gateways: {count} requests, {errors} failed, to"), |evidence| {
            evidence.counts.requests += count;
            evidence.counts.errors += errors;
        });
    }

    /// Answers to mirrored requests; the largest error of one output.
    pub fn compared(&mut self, count: u64, max_absolute: f64) {
        self.take_evidence(
            &format!("gateways: {count} answers compared, error {max_absolute}, of"),
            |evidence| {
                let output = OutputReport { samples: count, max_absolute, ..OutputReport::default() };
                evidence.counts.shadow.compared += count;
                evidence.counts.shadow.add_output("score", output);
            },
        );
    }

    /// What Prometheus says of the candidate, if it is analysed.
    pub fn measure(&mut self, metric: &str, answer: Result<f64, &str>, fails: bool) {
        self.take_evidence(&format!("Prometheus: {metric} {answer:?} of"), |evidence| {
            let found = evidence.measurements.entry(metric.into()).or_default();
            found.values += u64::from(answer.is_ok());
            found.failures += u64::from(fails);
            found.last = answer.ok().or(found.last);
            found.error = answer.err().map(String::from);
        });
    }

    /// `count` pods of the newest revision answer everything.
    pub fn is_serving(&self, count: usize) -> bool {
        let family = self.family();
        let newest = family.revisions.last().map(|r| r.number);
        let route = family.route.unwrap();
        let all =
            route.spec.rollout.stable == newest.map(|n| n as i64) && route.spec.rollout.candidate.is_none();
        let alone = |pod: &&Arc<PodView>| newest.is_some_and(|n| pod.holds(n)) && pod.slots.len() == 1;
        let ready = family.pods.iter().filter(alone).filter(|pod| pod.ready).count();
        all && ready == count && self.last.starts_with("status: True Serving")
    }

    /// What an operator without gateways left: a Service that selects one revision's pods, and no route.
    pub fn forget_gateways(&mut self, revision: &str) {
        self.say(format!(
            "an older operator's Service selects the pods of {revision}; there are no gateways"
        ));
        self.gateways.clear();
        self.remove(&("ModelRoute", "fraud".into()));
        let place = ("Service", "fraud".to_string());
        let mut service = self.objects[&place].clone();
        service["spec"]["selector"] =
            json!({ "modelwright.dev/deployment": "fraud", "modelwright.dev/set": revision });
        self.put(place, service);
    }

    pub fn wait(&mut self, seconds: i64) {
        self.say(format!("{seconds} seconds pass"));
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Until nobody has anything to do: then planning again yields nothing.
    pub fn settle(&mut self) {
        for _ in 0..STEP_LIMIT {
            if !self.step() {
                let mut left = self.plan().writes;
                left.retain(|write| self.refused(write).is_none());
                assert_eq!(left, vec![], "a settled plan writes nothing\n{}", self.transcript());
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
        let worked = self.work();
        if !worked && let Some(at) = self.plan().wake_at.filter(|at| *at < self.now + LONGEST_WAIT) {
            let seconds = at.duration_since(self.now).as_secs().max(1);
            self.wait(seconds);
            return true;
        }
        worked
    }

    fn work(&mut self) -> bool {
        let controllers: [fn(&mut Self) -> bool; 4] =
            [Self::operator, Self::gateway, Self::replica_set_controller, Self::kubelet];
        let start = self.shuffle.as_mut().map_or(0, |rng| rng.below(4));
        (0..4).any(|i| controllers[(start + i) % 4](self))
    }

    fn operator(&mut self) -> bool {
        let snapshot = self.snapshot();
        let plan = plan(&snapshot, self.now);
        if let Some(decision) = &snapshot.scaling {
            let number = format!("{} {:?} {:?}", decision.desired, decision.limited, decision.active);
            if number != self.scaled {
                self.scaled = number;
                self.say(format!("scaling: {}", decision.message));
            }
        }
        let mut wrote = false;
        let mut applied = Applied::default();
        let ceiling = plan_record(&plan).or(self.family.route.as_ref().map(|r| r.spec.rollout.clone()));
        let ceiling = ceiling.map_or(0, |record| self.ceiling(&record));
        for write in &plan.writes {
            applied.failure = self.refused(write);
            if applied.failure.is_some() {
                break;
            }
            let (before, missing, wanted) = (self.capacity_in_use(), self.missing(), self.wanted());
            self.check_write(write);
            self.write(write);
            self.check(before, missing);
            self.check_ceiling(wanted, ceiling);
            wrote = true;
            self.writes += 1;
            if self.crash_after == Some(self.writes) {
                return true;
            }
        }
        let status = status::derive(&snapshot, &plan, &applied, self.now);
        let line = told(&status.conditions);
        if line != self.last {
            self.last = line.clone();
            self.say(line);
        }
        wrote
    }

    /// As the status says.
    pub fn last_verb(&self) -> Option<String> {
        status::derive(&self.snapshot(), &self.plan(), &Applied::default(), self.now).last_verb
    }

    fn plan(&self) -> Plan {
        plan(&self.snapshot(), self.now)
    }

    fn refused(&self, write: &Write) -> Option<WriteError> {
        let pod = matches!(write, Write::Create { kind: Kind::Pod, .. });
        self.refusal.filter(|_| pod).map(|message| WriteError::PodRefused { message: message.into() })
    }

    fn write(&mut self, write: &Write) {
        let place = (write.kind().as_str(), write.name().to_string());
        match write {
            Write::Create { body, .. } => {
                let taken = self.objects.contains_key(&place);
                assert!(!taken, "created twice: {place:?}\n{}", self.transcript());
                let mut object = body.clone();
                object["metadata"]["uid"] = json!(format!("u{}", self.version + 1));
                object["metadata"]["creationTimestamp"] = json!(self.now.to_string());
                self.say(format!("create {} {} {}", place.0, place.1, gist(write.kind(), body)));
                self.put(place, object);
            }
            Write::Apply { kind, body, .. } => {
                let mut object = self.objects.get(&place).expect("applied to what is there").clone();
                assert_eq!(object["metadata"]["uid"], body["metadata"]["uid"], "an apply carries the uid");
                if *kind == Kind::ReplicaSet {
                    let template = |object: &Value| {
                        let mut template = object["spec"]["template"].clone();
                        template["metadata"]["annotations"]["modelwright.dev/assignment"] = Value::Null;
                        template
                    };
                    assert_eq!(
                        template(&object),
                        template(body),
                        "a live template stays, but for what it assigns"
                    );
                }
                merge(&mut object, body);
                self.say(format!("apply {} {} {}", place.0, place.1, gist(*kind, body)));
                self.put(place, object);
            }
            Write::Delete { uid, .. } => {
                assert_eq!(self.objects[&place]["metadata"]["uid"], json!(uid));
                self.say(format!("delete {} {}", place.0, place.1));
                self.remove(&place);
                let owned = |o: &Value| o["metadata"]["ownerReferences"][0]["uid"] == json!(uid);
                let children: Vec<Place> =
                    self.objects.iter().filter(|(_, o)| owned(o)).map(|(p, _)| p.clone()).collect();
                children.iter().for_each(|place| self.remove(place));
            }
        }
    }

    /// Stores an object, and shows it to the operator.
    fn put(&mut self, place: Place, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let former = self.objects.get(&place);
        let generation = former.map_or(0, |f| f["metadata"]["generation"].as_i64().unwrap_or(0));
        let changed = former.is_none_or(|f| f["spec"] != object["spec"]);
        object["metadata"]["generation"] = json!(generation + i64::from(changed));
        self.show(place.0, &object, false);
        self.objects.insert(place, object);
    }

    fn remove(&mut self, place: &Place) {
        if let Some(object) = self.objects.remove(place) {
            self.show(place.0, &object, true);
        }
    }

    fn show(&mut self, kind: &str, object: &Value, gone: bool) {
        fn event<V>(view: Option<V>, gone: bool) -> Event<Option<V>> {
            if gone { Event::Delete(view) } else { Event::Apply(view) }
        }
        let shelves = &self.shelves;
        match kind {
            "ControllerRevision" => {
                shelves.revisions.take(event(RevisionView::of(parse(object)), gone));
            }
            "ReplicaSet" => {
                shelves.replica_sets.take(event(ReplicaSetView::of(parse(object)), gone));
            }
            "ModelRoute" => {
                shelves.routes.take(event(RouteView::of(parse(object)), gone));
            }
            "Service" => {
                shelves.services.take(event(ServiceView::of(parse(object)), gone));
            }
            "PodDisruptionBudget" => {
                shelves.budgets.take(event(BudgetView::of(parse(object)), gone));
            }
            "Pod" => {
                shelves.pods.take(event(PodView::of(parse(object)), gone));
            }
            other => panic!("{other}"),
        }
        self.family = shelves.family(&("ns".into(), "fraud".into()), "u0");
    }

    fn snapshot(&self) -> Snapshot {
        let seen = self.seen();
        let scaling = self.decision(&seen);
        Snapshot { scaling, ..seen }
    }

    /// But for what was decided.
    fn seen(&self) -> Snapshot {
        Snapshot {
            family: self.family(),
            deployment: self.deployment.clone().unwrap(),
            pod_states: self.pod_states(),
            gpu_holders: BTreeMap::new(),
            gateways: self.gateway_views(),
            scaling: None,
            evidence: self.evidence(),
            settings: self.settings.clone(),
        }
    }

    fn family(&self) -> Family {
        self.family.clone()
    }

    /// What stands at the end, but for pods' names.
    pub fn end_state(&self) -> Vec<String> {
        let objects = self.objects.iter().filter(|((kind, _), _)| *kind != "Pod");
        let spec = |o: &Value| {
            format!(
                "{}{}{}{}",
                o["spec"]["replicas"], o["spec"]["selector"], o["spec"]["mode"], o["spec"]["backends"]
            )
        };
        let pods = self.family.pods.iter().filter(|pod| pod.proven.is_some());
        let pods = pods.map(|pod| format!("Pod with {:?}", pod.slots));
        objects.map(|((kind, name), o)| format!("{kind} {name} {}", spec(o))).chain(pods).collect()
    }

    pub fn transcript(&self) -> String {
        self.said.join("\n") + "\n"
    }

    fn say(&mut self, line: String) {
        self.said.push(line.trim_end().to_string());
    }
}

/// What the plan decides of the rollout. More pods come before it is written.
fn plan_record(plan: &Plan) -> Option<RolloutRecord> {
    let routed = plan.writes.iter().find_map(|write| match write {
        Write::Create { kind: Kind::ModelRoute, body, .. }
        | Write::Apply { kind: Kind::ModelRoute, body, .. } => Some(body),
        _ => None,
    });
    routed.map(|body| parse(&body["spec"]["rollout"]))
}

pub fn parse<T: DeserializeOwned>(value: &Value) -> T {
    T::deserialize(value).unwrap()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                // An atomic map: a key that is not said is gone.
                if key == "selector" {
                    into.insert(key.clone(), value.clone());
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}
