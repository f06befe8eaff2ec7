//! The operator dies at each of its API writes, in three moments: before the request is sent, after it was sent (the
//! answer is lost), and after the answer (nothing is done with it yet). Another replica goes on, and in the end nothing
//! tells which of them it was. `make test-operator` tries 70
//! of these crashes; `SEED=7 PLANS=1000 PARALLEL=4` chooses others, or all.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use common::{
    Abort, Cluster, DEADLINE, Identity, LONG_STILL, MOMENTS, Operator, OperatorOptions, STILL, State,
    difference, number, panic_text, settled_writes, shorten_drain, shuffle, state,
};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use modelwright::api::ModelRoute;
use serde_json::{Value, json};

const NAME: &str = "model";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scenario {
    Create,
    Change,
    Rollback,
    Scale,
    /// Of an object that was being created when the operator died.
    Delete,
}

const SCENARIOS: [Scenario; 5] =
    [Scenario::Create, Scenario::Change, Scenario::Rollback, Scenario::Scale, Scenario::Delete];

#[derive(Clone, Debug)]
struct Plan {
    scenario: Scenario,
    moment: &'static str,
    number: usize,
}

/// A run without a crash.
struct Reference {
    state: State,
    writes: usize,
}

/// Successful creates and deletes of the operator, by resource and name.
type Counts = BTreeMap<String, (usize, usize)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_changes_nothing_in_the_end() {
    let cluster = Cluster::open().await;
    let identity = cluster.administrator("crash-test", "operator").await;
    let mut audit = cluster.audit();
    let start = Instant::now();

    let runs = SCENARIOS.map(|scenario| reference(&cluster, &identity, scenario));
    let references = futures::future::join_all(runs).await;
    let known: BTreeMap<Scenario, Reference> = SCENARIOS.into_iter().zip(references).collect();
    for (scenario, reference) in &known {
        eprintln!("{scenario:?}: {} writes", reference.writes);
    }
    let mut plans: Vec<Plan> = Vec::new();
    for (scenario, reference) in &known {
        for number in 1..=reference.writes {
            plans.extend(MOMENTS.map(|moment| Plan { scenario: *scenario, moment, number }));
        }
    }
    let seed = number("SEED", 1);
    shuffle(&mut plans, seed);
    plans.truncate(number("PLANS", 70));
    let runs = futures::stream::iter(&plans).map(async |plan| {
        let run = crash(&cluster, &identity, plan, &known[&plan.scenario]);
        (plan, AssertUnwindSafe(run).catch_unwind().await)
    });
    let mut runs = runs.buffer_unordered(number("PARALLEL", 8));
    let (mut failures, mut crashed) = (Vec::new(), 0);
    while let Some((plan, run)) = runs.next().await {
        match run {
            Ok(reached) => crashed += usize::from(reached),
            Err(panic) => failures.push(format!("{plan:?}: {}", panic_text(&*panic))),
        }
    }
    drop(runs);
    let counts = counts(audit.of(&identity.user));
    for plan in &plans {
        let wanted = counts.get(&reference_namespace(plan.scenario));
        let found = counts.get(&namespace(plan));
        // What a deletion met half-way was never created.
        let same = plan.scenario == Scenario::Delete || same(wanted, found);
        let twice = found.into_iter().flatten().find(|(_, (created, deleted))| *created > deleted + 1);
        if !same || twice.is_some() {
            failures
                .push(format!("{plan:?}: creates and deletes\n    wanted {wanted:?}\n    found  {found:?}"));
        }
    }
    let seconds = start.elapsed().as_secs();
    let how =
        format!("seed {seed}, {} plans of which {crashed} reached their write, {seconds} s", plans.len());
    figure("operator.crash_plans.run", crashed, ">=50", crashed >= 50, &how);
    figure("operator.crash_plans.failed", failures.len(), "<=0", failures.is_empty(), &how);
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    assert!(crashed >= 50, "only {crashed} plans crashed");
}

/// The two reconcilers write side by side: of a write that was under way when the process died over another one, the
/// API server logs no answer.
fn same(wanted: Option<&Counts>, found: Option<&Counts>) -> bool {
    let (Some(wanted), Some(found)) = (wanted, found) else { return wanted.is_none() && found.is_none() };
    let mut missing = 0;
    for key in wanted.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        let count = |counts: &Counts| counts.get(key).copied().unwrap_or_default();
        let ((created, deleted), (creates, deletes)) = (count(wanted), count(found));
        let (Some(no_create), Some(no_delete)) = (created.checked_sub(creates), deleted.checked_sub(deletes))
        else {
            return false;
        };
        missing += no_create + no_delete;
    }
    missing <= 1
}

async fn reference(cluster: &Cluster, identity: &Identity, scenario: Scenario) -> Reference {
    let namespace = reference_namespace(scenario);
    let run = Run::prepare(cluster, identity, scenario, &namespace).await;
    run.act().await;
    let mut operator = Operator::start(&run.options("first"));
    run.until_converged().await;
    let writes = settled_writes(&mut operator, LONG_STILL).await;
    operator.terminate().await;
    run.delete_if_asked().await;
    if scenario == Scenario::Delete {
        run.until_gone().await;
    }
    Reference { state: run.state().await.expect("the objects of the namespace"), writes }
}

/// True: it crashed. A status that says how far a rollout is may be left out in a quick run, and then it does not.
async fn crash(cluster: &Cluster, identity: &Identity, plan: &Plan, reference: &Reference) -> bool {
    let run = Run::prepare(cluster, identity, plan.scenario, &namespace(plan)).await;
    run.act().await;
    let mut options = run.options("first");
    options.crash = Some(format!("{}:{}", plan.moment, plan.number));
    let mut operator = Operator::start(&options);
    let crashed = run.until_crashed_or_settled(&mut operator).await;
    drop(operator);
    run.delete_if_asked().await;

    let mut operator = Operator::start(&run.options("second"));
    operator.until_leading().await;
    settled_writes(&mut operator, STILL).await;
    run.until_like(reference).await;
    operator.terminate().await;
    run.until_like(reference).await;
    run.check_foreign().await;
    run.remove().await;
    crashed
}

/// One scenario in a namespace of its own.
struct Run<'a> {
    cluster: &'a Cluster,
    identity: &'a Identity,
    scenario: Scenario,
    namespace: String,
    foreign: Vec<String>,
    _drain: Option<Abort>,
}

impl<'a> Run<'a> {
    /// Everything up to the change that the crash is about.
    async fn prepare(
        cluster: &'a Cluster,
        identity: &'a Identity,
        scenario: Scenario,
        namespace: &str,
    ) -> Run<'a> {
        cluster.create_namespace(namespace).await;
        let moves = matches!(scenario, Scenario::Change | Scenario::Rollback);
        let routes: Api<ModelRoute> = cluster.api(namespace);
        let drain = moves.then(|| Abort(tokio::spawn(shorten_drain(routes, NAME))));
        let mut run = Run {
            cluster,
            identity,
            scenario,
            namespace: namespace.into(),
            foreign: Vec::new(),
            _drain: drain,
        };
        run.place_foreign().await;
        run.foreign = run.look_at_foreign().await;
        if matches!(scenario, Scenario::Create | Scenario::Delete) {
            return run;
        }
        let operator = Operator::start(&run.options("zeroth"));
        run.create().await;
        run.until_converged().await;
        if scenario == Scenario::Rollback {
            run.patch(json!({ "spec": { "model": { "uri": common::uri(NAME, 2) } } })).await;
            run.until_converged().await;
        }
        operator.terminate().await;
        run
    }

    fn options(&self, identity: &str) -> OperatorOptions {
        let options = OperatorOptions::of(self.identity.kubeconfig.clone(), &self.namespace);
        OperatorOptions { identity: identity.into(), ..options }
    }

    async fn act(&self) {
        match self.scenario {
            Scenario::Create | Scenario::Delete => self.create().await,
            Scenario::Change => {
                self.patch(json!({ "spec": { "model": { "uri": common::uri(NAME, 2) } } })).await
            }
            Scenario::Rollback => {
                self.patch(json!({ "spec": { "model": { "uri": common::uri(NAME, 1) } } })).await
            }
            Scenario::Scale => self.patch(json!({ "spec": { "replicas": 3 } })).await,
        }
    }

    async fn create(&self) {
        let api = self.cluster.deployments(&self.namespace);
        api.create(&PostParams::default(), &common::deployment(NAME)).await.expect("create");
    }

    async fn patch(&self, patch: Value) {
        let api = self.cluster.deployments(&self.namespace);
        api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.expect("patch");
    }

    async fn delete_if_asked(&self) {
        if self.scenario == Scenario::Delete {
            let api = self.cluster.deployments(&self.namespace);
            api.delete(NAME, &DeleteParams::background()).await.expect("delete");
        }
    }

    /// Ready, only one revision has pods, and no source is being resolved.
    async fn until_converged(&self) {
        common::wait("convergence", async || self.converged().await).await;
    }

    async fn converged(&self) -> Result<(), String> {
        let deployment =
            self.cluster.deployments(&self.namespace).get(NAME).await.map_err(|e| e.to_string())?;
        if !common::ready(&deployment) {
            return Err(format!("{}: {:?}", self.namespace, common::condition(&deployment, "Ready")));
        }
        let state = self.state().await?;
        let sets = state.keys().filter(|key| key.starts_with("ReplicaSet/model-r")).count();
        let resolvers = state.keys().filter(|key| key.starts_with("pods of ModelDeployment/")).count();
        let left = || format!("{}: {:?}", self.namespace, state.keys());
        if (sets, resolvers) == (1, 0) { Ok(()) } else { Err(left()) }
    }

    async fn until_like(&self, reference: &Reference) {
        common::wait("end like that of a run without a crash", async || {
            if self.scenario != Scenario::Delete {
                self.converged().await?;
            }
            let differences = difference(&reference.state, &self.state().await?);
            if differences.is_empty() { Ok(()) } else { Err(differences.join("\n  ")) }
        })
        .await;
    }

    async fn until_gone(&self) {
        common::wait("end of all that was owned", async || {
            let left: Vec<String> =
                self.state().await?.into_keys().filter(|key| !key.contains("foreign")).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{}: {left:?}", self.namespace)) }
        })
        .await;
    }

    async fn until_crashed_or_settled(&self, operator: &mut Operator) -> bool {
        let start = Instant::now();
        let mut settled: Option<(usize, Instant)> = None;
        loop {
            if let Some(status) = operator.ended() {
                assert!(!status.success(), "{}: it ended without a crash", self.namespace);
                return true;
            }
            assert!(start.elapsed() < DEADLINE, "{}: neither a crash nor convergence", self.namespace);
            if self.converged().await.is_ok() {
                match (settled, operator.writes().await) {
                    (Some((known, since)), Some(writes)) if known == writes => {
                        if since.elapsed() > STILL {
                            return false;
                        }
                    }
                    (_, writes) => settled = writes.map(|writes| (writes, Instant::now())),
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn state(&self) -> Result<State, String> {
        state(self.cluster, &self.namespace).await.map_err(|e| e.to_string())
    }

    /// Things that look like children and are not ours: they carry the label, but not the owner.
    async fn place_foreign(&self) {
        let metadata = |name: &str| json!({ "name": name, "labels": { "modelwright.dev/deployment": NAME } });
        let set = json!({
            "metadata": metadata("foreign-set"),
            "spec": {
                "replicas": 0,
                "selector": { "matchLabels": { "app": "foreign" } },
                "template": {
                    "metadata": { "labels": { "app": "foreign" } },
                    "spec": { "containers": [{ "name": "c", "image": "example.test/c" }] },
                },
            },
        });
        self.post::<ReplicaSet>(set).await;
        self.post::<ControllerRevision>(
            json!({ "metadata": metadata("foreign-r1"), "revision": 1, "data": {} }),
        )
        .await;
        self.post::<Service>(
            json!({ "metadata": metadata("foreign"), "spec": { "ports": [{ "port": 80 }] } }),
        )
        .await;
        self.post::<ConfigMap>(json!({ "metadata": metadata("foreign"), "data": { "key": "value" } })).await;
        let mut resolver = metadata("foreign");
        resolver["labels"]["modelwright.dev/role"] = json!("resolve");
        let containers = json!([{ "name": "resolve", "image": "example.test/c" }]);
        let spec = json!({ "nodeName": "node-1", "containers": containers });
        self.post::<Pod>(json!({ "metadata": resolver, "spec": spec })).await;
        common::wait("foreign pod that runs", async || {
            let pod =
                self.cluster.api::<Pod>(&self.namespace).get("foreign").await.map_err(|e| e.to_string())?;
            let phase = pod.status.and_then(|s| s.phase).unwrap_or_default();
            if phase == "Running" { Ok(()) } else { Err(phase) }
        })
        .await;
        common::wait("observed foreign ReplicaSet", async || {
            let api: Api<ReplicaSet> = self.cluster.api(&self.namespace);
            let set = api.get("foreign-set").await.map_err(|e| e.to_string())?;
            set.status.and_then(|s| s.observed_generation).map(drop).ok_or_else(|| "not observed".to_string())
        })
        .await;
    }

    async fn post<K>(&self, object: Value)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).expect("an object");
        self.cluster.api::<K>(&self.namespace).create(&PostParams::default(), &object).await.expect("create");
    }

    /// Name and version of each: any write to it would show.
    async fn look_at_foreign(&self) -> Vec<String> {
        let seen = |meta: &kube::api::ObjectMeta| {
            format!("{:?} {:?} {:?}", meta.name, meta.uid, meta.resource_version)
        };
        let set = self.cluster.api::<ReplicaSet>(&self.namespace).get("foreign-set").await.expect("foreign");
        let revision =
            self.cluster.api::<ControllerRevision>(&self.namespace).get("foreign-r1").await.expect("foreign");
        let service = self.cluster.api::<Service>(&self.namespace).get("foreign").await.expect("foreign");
        let map = self.cluster.api::<ConfigMap>(&self.namespace).get("foreign").await.expect("foreign");
        let pod = self.cluster.api::<Pod>(&self.namespace).get("foreign").await.expect("foreign");
        [&set.metadata, &revision.metadata, &service.metadata, &map.metadata, &pod.metadata].map(seen).into()
    }

    async fn check_foreign(&self) {
        assert_eq!(self.look_at_foreign().await, self.foreign, "a foreign object was touched");
    }

    /// So that a hundred plans do not pile up; nobody waits for it.
    async fn remove(&self) {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.cluster.client.clone());
        let _ = api.delete(&self.namespace, &DeleteParams::default()).await;
    }
}

fn counts(requests: Vec<common::Request>) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for request in requests.iter().filter(|r| r.code() < 300 && r.resource() != "events") {
        let count = counts.entry(request.namespace().into()).or_default().entry(format!(
            "{}/{}",
            request.resource(),
            request.name()
        ));
        match request.verb.as_str() {
            "create" => count.or_default().0 += 1,
            "delete" => count.or_default().1 += 1,
            _ => {}
        }
    }
    counts
}

fn reference_namespace(scenario: Scenario) -> String {
    format!("crash-{scenario:?}-reference").to_lowercase()
}

fn namespace(plan: &Plan) -> String {
    format!("crash-{:?}-{}-{}", plan.scenario, plan.number, plan.moment).to_lowercase()
}

fn figure(name: &str, value: usize, goal: &str, ok: bool, how: &str) {
    println!(
        "{}",
        json!({ "figure": name, "value": value, "unit": "plans", "goal": goal, "ok": ok, "how": how })
    );
}
