//! How soon another demand is another number of pods, with many ModelDeployments: `make bench ONLY=operator-decisions`,
//! with N=, MOST=, SECONDS= and SEED=.
//!
//! Real API server and controllers, fake pods. A fake gateway says a line of the stream that a real one would say, and
//! when; the API server's audit log has the operator's write of the ReplicaSet, and when it was answered. Ten models a
//! second get another demand, of which the decision is due at once: see `demand.rs`. What the algorithm does later by
//! itself, at the end of a window, is load, and no figure.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../create.rs"]
mod create;
mod demand;
mod gateway;
mod load;
#[path = "../report.rs"]
mod report;

use std::time::{Duration, Instant};

use common::{Audit, Cluster, Identity, Operator, OperatorOptions};
use create::create_all;
use demand::{Change, Demands, KINDS, Kind, Seen};
use gateway::Gateways;
use jiff::Timestamp;
use load::Load;
use modelwright::api::ModelDeployment;
use report::{Goal, figure, number, proc_mb, say};
use serde_json::{from_value, json};

const NAMESPACES: usize = 10;
const EVERY: Duration = Duration::from_millis(100);
/// What a decision looks back on is known by then, and what the last pods' starts have caused is over.
const SETTLED: Duration = Duration::from_secs(30);
/// A change that is not answered by then never will be.
const PATIENCE: Duration = Duration::from_secs(10);
const GOAL: f64 = 1.0;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut n = number("N", 1000);
    let most = number("MOST", n);
    let cluster = Cluster::open().await;
    let identity = cluster.operator_identity("modelwright-system").await;
    let options = OperatorOptions {
        namespace: None,
        lease_namespace: "modelwright-system".into(),
        lease_seconds: 8,
        ..OperatorOptions::of(identity.kubeconfig.clone(), "bench-decisions")
    };
    let mut operator = Operator::start(&options);
    operator.until_leading().await;
    let demands = Demands::default();
    let mut bench = Bench { audit: cluster.audit(), cluster, identity, operator, models: 0, demands };
    let mut largest = 0;
    loop {
        bench.grow(n).await;
        if bench.measure(n).await > GOAL {
            break;
        }
        largest = n;
        if 2 * n > most {
            break;
        }
        n *= 2;
    }
    if most > number("N", 1000) {
        let how = format!(
            "the last of N, 2 N, 4 N … up to {most} whose p99 is within {GOAL} s; what limits it is in the lines before"
        );
        figure("operator.decision_largest", largest as f64, "ModelDeployments", None, &how);
    }
    bench.operator.terminate().await;
}

struct Bench {
    cluster: Cluster,
    identity: Identity,
    audit: Audit,
    operator: Operator,
    models: usize,
    demands: Demands,
}

impl Bench {
    /// Until there are so many, evenly in all namespaces.
    async fn grow(&mut self, n: usize) {
        let numbers = self.models / NAMESPACES..n / NAMESPACES;
        say(&format!("{} ModelDeployments more", numbers.len() * NAMESPACES));
        let places =
            numbers.clone().flat_map(|i| (0..NAMESPACES).map(move |space| (namespace(space), name(i))));
        self.demands.add(places, number("SEED", 1));
        for i in 0..NAMESPACES {
            let namespace = namespace(i);
            self.cluster.create_namespace(&namespace).await;
            let api = self.cluster.deployments(&namespace);
            let seconds = create_all(&api, numbers.clone(), model, common::ready).await;
            say(&format!("{namespace}: ready after {seconds:.1} s"));
        }
        self.models = n;
    }

    /// The p99, in seconds.
    async fn measure(&mut self, n: usize) -> f64 {
        tokio::time::sleep(SETTLED).await;
        let seconds = number("SECONDS", 90);
        say(&format!("another demand for {} of {n} models a second, {seconds} s", 1000 / EVERY.as_millis()));
        let gateways = Gateways::find(&self.cluster, (0..NAMESPACES).map(namespace)).await;
        self.read();
        self.demands.take();
        let load = Load::now(&self.cluster, &self.operator).await;
        let mut ticks = tokio::time::interval(EVERY);
        for i in 0..seconds * 1000 / EVERY.as_millis() as usize {
            ticks.tick().await;
            self.read();
            if let Some((namespace, line)) = self.demands.next(KINDS[i % KINDS.len()]) {
                let sent = gateways.say(&namespace, &line).await;
                self.demands.sent(sent);
            }
        }
        let load = load.until_now(&self.cluster, &self.operator).await;
        let end = Instant::now();
        while self.demands.is_waiting() && end.elapsed() < PATIENCE {
            ticks.tick().await;
            self.read();
        }
        assert!(self.operator.ended().is_none(), "the operator ended");
        let seen = self.demands.take();
        self.report(n, &seen, &load)
    }

    /// What the audit log says of the operator since the last time.
    fn read(&mut self) {
        for request in self.audit.of(&self.identity.user).iter().filter(|request| request.is_write()) {
            self.demands.written(request);
        }
    }

    fn report(&self, n: usize, seen: &Seen, load: &Load) -> f64 {
        let changes = &seen.changes;
        let of = |part: Part, kind: Option<Kind>| {
            let chosen = changes.iter().filter(|change| kind.is_none_or(|kind| change.kind == kind));
            let never = PATIENCE.as_secs_f64();
            let mut seconds: Vec<f64> =
                chosen.map(|c| c.written.map_or(never, |written| part(c, written))).collect();
            seconds.sort_by(f64::total_cmp);
            let at = |share: f64| seconds[((seconds.len() as f64 * share).ceil() as usize).max(1) - 1];
            (at(0.5), at(0.99))
        };
        let whole: Part = |change, (_, answered)| between(change.sent, answered);
        let (p50, p99) = of(whole, None);
        let parts =
            |what: &str, (p50, p99): (f64, f64)| say(&format!("{what}: p50 {p50:.3} s, p99 {p99:.3} s"));
        KINDS.into_iter().for_each(|kind| parts(kind.name(), of(whole, Some(kind))));
        let until = of(|change, (received, _)| between(change.sent, received), None);
        parts("until the API server has the request", until);
        parts("from there to its answer", of(|_, (received, answered)| between(received, answered), None));
        load.say();
        say(&format!("writes of the operator: {:?}", seen.writes));
        let how = format!(
            "a gateway's sample sent → ReplicaSet write answered, by the audit log; {} changes in {:.0} s, from 1 to 2 pods \
             and back: a rate that jumps, requests that wait, and their end, in turn; not counted: {} ways back after a \
             window",
            changes.len(),
            load.seconds,
            seen.by_itself,
        );
        figure(&format!("operator.decision_p50_s.{n}"), p50, "s", None, &how);
        figure(&format!("operator.decision_p99_s.{n}"), p99, "s", Some(Goal::AtMost(GOAL)), &how);
        let unanswered = changes.iter().filter(|change| change.written.is_none()).count();
        let how = format!(
            "changes without a write within {PATIENCE:?}, and {} writes nobody asked for",
            seen.stray
        );
        let missed = (unanswered + seen.stray) as f64;
        figure(&format!("operator.decision_missed.{n}"), missed, "changes", Some(Goal::AtMost(0.0)), &how);
        let writes = seen.writes.values().sum::<usize>() as f64 / (changes.len() + seen.by_itself) as f64;
        let how = "all of the operator's, status and events included, ÷ changes of the number of pods";
        figure(&format!("operator.decision_writes.{n}"), writes, "writes", None, how);
        let how = format!("/proc/<pid>/stat; {}", load.machine());
        figure(&format!("operator.decision_cpu.{n}"), load.of("operator"), "cores", None, &how);
        let rss = proc_mb(self.operator.pid(), "status", "VmRSS:");
        figure(&format!("operator.decision_rss_mb.{n}"), rss, "MB", None, "VmRSS at the end");
        p99
    }
}

/// Of the time that a change took, until the API server had the request to write and until it had answered.
type Part = fn(&Change, (Timestamp, Timestamp)) -> f64;

fn between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

fn namespace(i: usize) -> String {
    format!("bench-{i}")
}

fn name(i: usize) -> String {
    format!("model-{i:05}")
}

fn model(i: usize) -> ModelDeployment {
    let mut deployment = common::deployment(&name(i));
    let autoscaling = json!({
        "maxReplicas": 2,
        "metric": "RequestsPerSecond",
        "target": demand::TARGET,
        "behavior": { "scaleDown": { "stabilizationWindowSeconds": 0 } },
    });
    deployment.spec.autoscaling = from_value(autoscaling).expect("a spec");
    deployment
}
