//! A model under load, and what a user or a bad day does to it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, Service};
use modelwright::api::AnalysisVerdict;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::ledger::{FAILS, Load, Pace, Target, Verdict, broken, digest, model};
use crate::support::{Space, in_namespace, says, wait};

/// Of each scene; REQUESTS= others.
const REQUESTS: usize = 2000;
/// As many of the drawn scenes are played in a run; all would take minutes more.
const DRAW: usize = 5;

type Act = for<'a> fn(&'a Stage<'a>) -> BoxFuture<'a, ()>;

pub struct Scene {
    title: &'static str,
    act: Act,
    pace: Pace,
    /// Requests that a version fails: its clients are told so.
    fails: bool,
    /// The ModelDeployment, and what its spec has that others' have not.
    deployment: (&'static str, Value),
    /// Its first version.
    first: i64,
    /// It is played when the seed draws it.
    drawn: bool,
}

impl Scene {
    pub fn new(title: &'static str, act: Act) -> Self {
        let deployment = ("model", json!({ "replicas": 2 }));
        Self { title, act, pace: Pace::default(), fails: false, deployment, first: 1, drawn: false }
    }

    /// One of those that there is not the time for in every run.
    pub fn drawn(mut self) -> Self {
        self.drawn = true;
        self
    }

    pub fn retries(mut self, retries: u8) -> Self {
        self.pace.retries = retries;
        self
    }

    pub fn fails(mut self) -> Self {
        self.fails = true;
        self
    }

    pub fn of(mut self, name: &'static str, spec: Value) -> Self {
        self.deployment = (name, spec);
        self
    }

    pub fn from(mut self, version: i64) -> Self {
        self.first = version;
        self
    }
}

/// A ModelDeployment of the namespace.
#[derive(Clone)]
pub(super) struct Play {
    pub(super) name: &'static str,
    spec: Value,
    first: i64,
    /// The newest that was made.
    last: i64,
    stable: i64,
}

pub struct Stage<'a> {
    pub(super) space: &'a Space,
    load: &'a Load,
    play: Mutex<&'a mut Play>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(space: &'a Space, load: &'a Load, play: &'a mut Play) -> Self {
        load.serves(play.stable);
        Self { space, load, play: Mutex::new(play) }
    }
}

/// Those to play, in their order: with `SCENE=` those whose title has these words, else all but the drawn ones, and of
/// these the `DRAW=` many that `SEED=` draws.
fn chosen(scenes: &[Scene]) -> Vec<&Scene> {
    if let Some(wanted) = std::env::var("SCENE").ok().filter(|wanted| !wanted.is_empty()) {
        return scenes.iter().filter(|scene| scene.title.contains(&wanted)).collect();
    }
    let seed = std::env::var("SEED").unwrap_or_else(|_| "1".into());
    let mut pool: Vec<&str> = scenes.iter().filter(|scene| scene.drawn).map(|scene| scene.title).collect();
    pool.sort_by_cached_key(|title| Sha256::digest(format!("{seed} {title}")));
    pool.truncate(number("DRAW", DRAW));
    println!("seed {seed} draws {pool:?}");
    scenes.iter().filter(|scene| !scene.drawn || pool.contains(&scene.title)).collect()
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: want a number")))
}

/// Each scene in turn, on one namespace.
pub async fn play(scenes: &[Scene]) {
    let requests = number("REQUESTS", REQUESTS);
    in_namespace("traffic", async |space| {
        let mut plays: Vec<Play> = Vec::new();
        let mut failed = Vec::new();
        for scene in chosen(scenes) {
            let (name, extra) = &scene.deployment;
            if !plays.iter().any(|play| play.name == *name) {
                plays.push(open(space, name, extra, scene.first).await);
            }
            let play = plays.iter_mut().find(|play| play.name == *name).expect("it was opened");
            let started = Instant::now();
            let verdict = perform(space, play, scene, requests).await;
            println!("{} ({:.1} s): {verdict}", scene.title, started.elapsed().as_secs_f64());
            if !verdict.is_clean() {
                println!("{}", space.kubectl(&["get", "mdep,modelroutes,pods", "-o", "wide"]));
                failed.push(scene.title);
            }
        }
        assert!(failed.is_empty(), "requests were lost or wrong: {failed:?}");
    })
    .await;
}

pub(super) async fn open(space: &Space, name: &'static str, extra: &Value, first: i64) -> Play {
    let mut spec = space.spec("");
    merge(&mut spec, extra);
    // More than all that may come while pods are recreated.
    merge(&mut spec, &json!({ "traffic": { "queue": { "maxRequests": 20000 } } }));
    let mut play = Play { name, spec, first, last: first, stable: first };
    space.apply(name, &of_version(space, &mut play, first).await).await;
    // One that scales may be at zero again before anybody looks.
    space
        .until(name, |deployment| {
            let says = |reason| says(deployment, "Ready", "True", reason, &[]);
            says("Serving").or_else(|_| says("ScaledToZero"))
        })
        .await;
    // A node may learn of a new Service's address after its pods are ready.
    let target = target(space, name).await;
    wait("the Service's address", async || {
        for address in [target.rest, target.grpc] {
            tokio::net::TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    })
    .await;
    play
}

async fn perform(space: &Space, play: &mut Play, scene: &Scene, requests: usize) -> Verdict {
    let load = Load::start(target(space, play.name).await, scene.pace);
    let stage = Stage::new(space, &load, play);
    let quarter = requests / 4;
    answered(&load, quarter).await;
    (scene.act)(&stage).await;
    // What comes after the change is part of it.
    answered(&load, (load.answered() + quarter).max(requests)).await;
    let mut verdict = load.stop();
    if scene.fails {
        let all = verdict.lost.len();
        // A gRPC status encodes its spaces.
        verdict.lost.retain(|lost| !lost.replace("%20", " ").contains("not enough memory for this request"));
        println!("{} requests were failed by the model", all - verdict.lost.len());
        assert!(verdict.lost.len() < all, "the version fails no request");
    }
    verdict
}

async fn answered(load: &Load, count: usize) {
    wait(&format!("{count} requests with an outcome"), async || {
        let so_far = load.answered();
        (so_far >= count).then_some(()).ok_or(format!("{so_far}"))
    })
    .await;
}

/// Names are not resolved here: the cluster's DNS is for pods.
pub(super) async fn target(space: &Space, name: &str) -> Target {
    let service = space.api::<Service>().get(name).await.expect("the Service");
    let ip =
        service.spec.and_then(|spec| spec.cluster_ip).expect("a cluster IP").parse().expect("an address");
    Target {
        rest: SocketAddr::new(ip, 80),
        grpc: SocketAddr::new(ip, 9000),
        host: format!("{name}.{}.svc.cluster.local", space.name),
        name: name.into(),
    }
}

async fn of_version(space: &Space, play: &mut Play, version: i64) -> Value {
    let uri = space.file(&format!("{}/{version}/model.onnx", play.name), &model(version)).await;
    play.spec["model"]["uri"] = json!(uri);
    play.spec.clone()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

impl Stage<'_> {
    pub fn name(&self) -> &'static str {
        self.play.lock().expect("no panic").name
    }

    /// The one that serves.
    pub fn version(&self) -> i64 {
        self.play.lock().expect("no panic").stable
    }

    async fn apply(&self, version: i64) {
        self.load.declare(version);
        let mut play = self.copy();
        let spec = of_version(self.space, &mut play, version).await;
        self.play.lock().expect("no panic").spec = play.spec;
        self.space.apply(play.name, &spec).await;
    }

    fn copy(&self) -> Play {
        self.play.lock().expect("no panic").clone()
    }

    /// A new model in the spec. Its number.
    pub async fn apply_next(&self) -> i64 {
        let next = {
            let mut play = self.play.lock().expect("no panic");
            play.last += 1;
            play.last
        };
        self.apply(next).await;
        next
    }

    /// One that fails every request. Its number.
    pub async fn apply_failing(&self) -> i64 {
        self.apply(FAILS).await;
        FAILS
    }

    /// The analysis has failed, and the evidence stands where people look.
    pub async fn until_analysis_failed(&self, metric: &str) {
        let name = self.name();
        let deployment =
            self.space.until(name, |d| says(d, "Degraded", "True", "AnalysisFailed", &[metric])).await;
        let rollout = deployment.status.and_then(|status| status.rollout).expect("the attempt");
        let analysis = rollout.analysis.expect("what it was given up with");
        println!("{}: {analysis:?}", rollout.id);
        assert_eq!(analysis.verdict, AnalysisVerdict::Failed);
        wait("an event of it", async || {
            let events = self.space.kubectl(&["get", "events", "--field-selector", "reason=AnalysisFailed"]);
            events.contains(name).then_some(()).ok_or(events)
        })
        .await;
    }

    /// A new model, to the end.
    pub async fn roll(&self) {
        let next = self.apply_next().await;
        self.until_stable(next).await;
    }

    /// A model with an operator that nobody knows: until its worker has said so.
    pub async fn apply_broken(&self) {
        let mut play = self.copy();
        let uri = self.space.file(&format!("{}/broken/model.onnx", play.name), &broken()).await;
        play.spec["model"]["uri"] = json!(uri);
        self.space.apply(play.name, &play.spec).await;
        self.space.until_degraded(play.name, "ModelInvalid", &["Frobnicate"]).await;
    }

    pub async fn back_to(&self, version: i64) {
        self.apply(version).await;
        self.until_stable(version).await;
    }

    /// A part of the spec, for what is applied from now on.
    pub fn set(&self, part: Value) {
        let mut play = self.play.lock().expect("no panic");
        if part.get("strategy").is_some() {
            play.spec["strategy"] = json!({});
        }
        merge(&mut play.spec, &part);
    }

    pub async fn apply_now(&self, part: Value) {
        self.set(part);
        let play = self.copy();
        self.space.apply(play.name, &play.spec).await;
    }

    /// The whole traffic is with this version: no other may answer what is sent from now on.
    pub async fn until_stable(&self, version: i64) {
        let name = self.name();
        self.space
            .until(name, |deployment| {
                says(deployment, "Ready", "True", "Serving", &[])?;
                let status = deployment.status.clone().unwrap_or_default();
                let stable =
                    status.revisions.iter().find(|r| Some(&r.name) == status.stable_revision.as_ref());
                let seen = stable.and_then(|revision| revision.digest.clone());
                (seen == Some(digest(version))).then_some(()).ok_or(format!("stable is {seen:?}"))
            })
            .await;
        let mut play = self.play.lock().expect("no panic");
        play.stable = version;
        (play.first..=play.last).filter(|other| *other != version).for_each(|other| self.load.retire(other));
    }

    /// No pod is left, and requests wait.
    pub async fn until_none(&self) {
        self.space
            .until(self.name(), |deployment| {
                let status = deployment.status.clone().unwrap_or_default();
                (status.replicas == 0).then_some(()).ok_or(format!("{} replicas", status.replicas))
            })
            .await;
    }

    /// No request comes for so long.
    pub async fn rest(&self, time: Duration) {
        self.load.rest();
        tokio::time::sleep(time).await;
        self.load.go_on();
    }

    /// No request comes until no pod is left.
    pub async fn rest_until_none(&self) {
        self.load.rest();
        self.until_none().await;
        self.load.go_on();
    }

    pub async fn answered_more(&self, count: usize) {
        answered(self.load, self.load.answered() + count).await;
    }

    pub async fn until_serving(&self, replicas: i32) {
        self.space
            .until(self.name(), |deployment| {
                says(deployment, "Ready", "True", "Serving", &[])?;
                let status = deployment.status.clone().unwrap_or_default();
                let all = [status.replicas, status.available_replicas, status.desired_replicas];
                all.iter().all(|seen| *seen == replicas).then_some(()).ok_or(format!("{all:?}"))
            })
            .await;
    }

    /// The rollout goes on as somebody other than the user decided, and says why.
    pub async fn until_replaced(&self, by: &str, reason: &str) {
        self.space
            .until(self.name(), |deployment| {
                let rollout = deployment.status.clone().unwrap_or_default().rollout.ok_or("no rollout")?;
                let said = [&rollout.replacement, &rollout.replacement_reason].map(Option::as_deref);
                let decided = said == [Some(by), Some(reason)];
                decided.then_some(()).ok_or(format!("{rollout:?}"))
            })
            .await;
    }

    /// The rollout stands at this step with this weight, as every gateway has acknowledged. Its id.
    pub async fn until_weight(&self, percent: i32, step: i32) -> String {
        let deployment = self
            .space
            .until(self.name(), |deployment| {
                let status = deployment.status.clone().unwrap_or_default();
                let rollout = status.rollout.ok_or("no rollout")?;
                let known = status.gateway.is_some_and(|g| g.acknowledged == g.replicas);
                let there = rollout.weight == percent && rollout.current_step_index == step && known;
                there.then_some(()).ok_or(format!("{rollout:?}"))
            })
            .await;
        deployment.status.and_then(|status| status.rollout).expect("a rollout").id
    }

    /// All of the traffic is back, and this version may answer nothing more.
    pub async fn until_aborted(&self, version: i64) {
        self.space
            .until(self.name(), |deployment| {
                let status = deployment.status.clone().unwrap_or_default();
                says(deployment, "Progressing", "False", "Aborted", &[])?;
                let known = status.gateway.as_ref().is_some_and(|g| g.acknowledged == g.replicas);
                let back = status
                    .traffic
                    .iter()
                    .all(|t| t.percent == 0 || Some(&t.revision) == status.stable_revision.as_ref());
                (known && back).then_some(()).ok_or(format!("{:?}", status.traffic))
            })
            .await;
        self.load.retire(version);
    }

    pub async fn annotate(&self, key: &str, value: &str) {
        self.space.annotate(self.name(), key, value).await;
    }

    pub fn kubectl(&self, arguments: &[&str]) {
        println!("{}", self.space.kubectl(arguments).trim_end());
    }

    /// It must come to its end.
    pub async fn kubectl_slow(&self, arguments: &[&str]) {
        let mut command = tokio::process::Command::new("kubectl");
        let output = command.arg("--namespace").arg(&self.space.name).args(arguments).output().await;
        let output = output.expect("kubectl runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {said}", arguments.join(" "));
    }

    pub async fn pods(&self, selector: &str) -> Vec<Pod> {
        self.space.pods(selector).await
    }

    pub fn serving(&self) -> String {
        format!("modelwright.dev/deployment={},modelwright.dev/role=serve", self.name())
    }

    /// Their uids.
    pub async fn serving_pods(&self) -> BTreeSet<String> {
        let pods = self.pods(&self.serving()).await;
        pods.into_iter().filter_map(|pod| pod.metadata.uid).collect()
    }
}
