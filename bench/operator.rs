//! What the operator costs: `make bench ONLY=operator-objects`, the first half of `ONLY=operator`.
//!
//! Pods are made ready or finished at once by a fake kubelet, so that only controllers and the API
//! server take time; requests are counted from the API server's audit log by user. The built-in Deployment controller
//! is the reference, in the same run: one half of its objects before the ModelDeployments, the other half after.

#[path = "../tests/common/mod.rs"]
mod common;
mod create;
mod report;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{Audit, Cluster, Identity, Operator, OperatorOptions, Request};
use create::{LIMIT, create_all};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use report::{Goal, cpu_seconds, number, say};
use serde_json::json;

/// Resolve pod, ControllerRevision, Service, ReplicaSet, ModelRoute.
const CHILDREN: f64 = 5.0;
/// No write for so long: it is done.
const QUIET: Duration = Duration::from_secs(10);

#[tokio::main(worker_threads = 2)]
async fn main() {
    let n = number("N", 1000);
    let rest = Duration::from_secs(number("REST_SECONDS", 300) as u64);
    let cluster = Cluster::open().await;
    let identity = cluster.operator_identity("modelwright-system").await;
    let mut bench = Bench { audit: cluster.audit(), cluster, identity, n };

    let before = bench.reference("bench-reference-1", n / 2).await;
    let mut operator = Operator::start(&bench.options());
    operator.until_leading().await;
    let ready = bench.create(&mut operator).await;
    let after = bench.reference("bench-reference-2", n - n / 2).await;
    let reference = before + after;
    figure("operator.all_ready_s", n, ready, "s", None, "first create to the last Ready=True, 4 writers");
    figure(
        "operator.reference_ready_s",
        n,
        reference,
        "s",
        None,
        "as many Deployments of one replica, half before, half after",
    );
    let ratio = ready / reference;
    figure(
        "operator.all_ready_vs_deployment",
        n,
        ratio,
        "ratio",
        Some(4.0),
        "all_ready_s ÷ reference_ready_s",
    );
    bench.rest(rest).await;
    bench.restart(operator).await;
}

struct Bench {
    cluster: Cluster,
    identity: Identity,
    audit: Audit,
    n: usize,
}

impl Bench {
    fn options(&self) -> OperatorOptions {
        OperatorOptions {
            namespace: None,
            lease_namespace: "modelwright-system".into(),
            lease_seconds: 8,
            identity: format!("bench-{}", std::process::id()),
            ..OperatorOptions::of(self.identity.kubeconfig.clone(), "bench")
        }
    }

    /// Seconds that the built-in controller takes for `n` Deployments; leaves nothing behind.
    async fn reference(&self, namespace: &str, n: usize) -> f64 {
        say(&format!("the reference: {n} Deployments"));
        self.cluster.create_namespace(namespace).await;
        let api: Api<Deployment> = self.cluster.api(namespace);
        let available = |d: &Deployment| d.status.as_ref().is_some_and(|s| s.available_replicas == Some(1));
        let seconds = create_all(&api, 0..n, plain_deployment, available).await;
        say(&format!("{seconds:.1} s; removing them"));
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        namespaces.delete(namespace, &DeleteParams::default()).await.expect("delete the namespace");
        let start = Instant::now();
        // To its very end: a namespace of thousands of events takes the API server most of a minute.
        while namespaces.get_opt(namespace).await.expect("get").is_some() {
            assert!(start.elapsed() < LIMIT, "the reference's namespace stays");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        seconds
    }

    async fn create(&mut self, operator: &mut Operator) -> f64 {
        say(&format!("{} ModelDeployments", self.n));
        self.cluster.create_namespace("bench").await;
        self.audit.skip();
        let cpu = cpu_seconds(operator.pid());
        let api = self.cluster.deployments("bench");
        let seconds =
            create_all(&api, 0..self.n, |i| common::deployment(&format!("model-{i:05}")), common::ready)
                .await;
        say(&format!("all ready after {seconds:.1} s; waiting for the last request"));
        let all = self.until_quiet().await;
        assert!(operator.ended().is_none(), "the operator ended");
        let cpu = cpu_seconds(operator.pid()) - cpu;

        for (user, kinds) in by_user(&all) {
            say(&format!("writes of {user}: {kinds:?}"));
        }
        let requests = self.ours(all);
        let n = self.n as f64;
        let writes: Vec<&Request> = requests.iter().filter(|r| r.is_write()).collect();
        let reads: Vec<&Request> = requests.iter().filter(|r| r.is_read()).collect();
        if !reads.is_empty() {
            say(&format!("reads: {:?}", by_kind(&reads)));
        }
        let above = writes.len() as f64 / n - CHILDREN;
        let conflicts = requests.iter().filter(|r| r.code() == 409).count() as f64;
        let all = "audit log, without leases and watches";
        plain(
            "operator.writes_per_object",
            above,
            "writes",
            Some(3.0),
            &format!("{} writes, events included, ÷ {n} − {CHILDREN} children; {all}", writes.len()),
        );
        plain("operator.reads_per_object", reads.len() as f64 / n, "reads", Some(0.0), all);
        plain("operator.conflicts", conflicts, "requests", Some(0.0), "answers with code 409");
        plain(
            "operator.cpu_ms_per_object",
            1000.0 * cpu / n,
            "ms",
            Some(10.0),
            "/proc/<pid>/stat from the first create to the last request",
        );
        figure(
            "operator.rss_mb",
            self.n,
            rss_mb(operator.pid()),
            "MB",
            Some(50.0),
            "VmRSS after the last request",
        );
        seconds
    }

    /// Everybody's requests until the operator has written nothing for a while.
    async fn until_quiet(&mut self) -> Vec<Request> {
        let start = Instant::now();
        let mut quiet_since = Instant::now();
        let mut requests = Vec::new();
        while quiet_since.elapsed() < QUIET {
            assert!(start.elapsed() < LIMIT, "the operator writes and writes");
            tokio::time::sleep(Duration::from_millis(500)).await;
            let new = self.audit.read();
            if new.iter().any(|r| r.user() == self.identity.user && r.is_write()) {
                quiet_since = Instant::now();
            }
            requests.extend(new);
        }
        requests
    }

    fn ours(&self, mut requests: Vec<Request>) -> Vec<Request> {
        requests.retain(|request| request.user() == self.identity.user);
        requests
    }

    async fn rest(&mut self, rest: Duration) {
        say(&format!("at rest for {} s", rest.as_secs()));
        self.audit.skip();
        tokio::time::sleep(rest).await;
        let requests = self.audit.of(&self.identity.user);
        let writes: Vec<&Request> = requests.iter().filter(|r| r.is_write()).collect();
        say(&format!("writes at rest: {:?}", by_kind(&writes)));
        let how = format!("in {} s with {} objects", rest.as_secs(), self.n);
        plain("operator.writes_at_rest", writes.len() as f64, "writes", Some(0.0), &how);
    }

    async fn restart(&mut self, operator: Operator) {
        say("killing the operator");
        operator.kill().await;
        self.audit.skip();
        let mut operator = Operator::start(&self.options());
        let (leading, settled) = self.until_settled(&operator).await;
        assert!(operator.ended().is_none(), "the operator ended");
        let all = self.until_quiet().await;
        let requests = self.ours(all);
        let writes: Vec<&Request> = requests.iter().filter(|r| r.is_write()).collect();
        say(&format!("writes of the restart: {:?}", by_kind(&writes)));
        let how = "SIGKILL and start; from the lease acquired until every object has been reconciled and the counter of \
                   reconciles has stood still for 3 s (until its last move)";
        plain("operator.restart_settled_s", (settled - leading).as_secs_f64(), "s", Some(2.0), how);
        plain(
            "operator.restart_writes",
            writes.len() as f64,
            "writes",
            Some(0.0),
            "until 10 s without a write",
        );
        figure(
            "operator.restart_rss_mb",
            self.n,
            rss_mb(operator.pid()),
            "MB",
            Some(50.0),
            "VmRSS of the new process",
        );
        operator.terminate().await;
    }

    async fn until_settled(&self, operator: &Operator) -> (Instant, Instant) {
        let (start, mut leading) = (Instant::now(), None);
        let (mut last, mut moved) = (0.0, Instant::now());
        loop {
            assert!(start.elapsed() < LIMIT, "no end of the restart: {last} reconciles");
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Some(metrics) = operator.metrics().await else { continue };
            let now = Instant::now();
            if metrics.get("modelwright_operator_leader") == Some(&1.0) {
                leading.get_or_insert(now);
            }
            let passes =
                metrics.iter().filter(|(name, _)| name.starts_with("modelwright_operator_reconciles_total"));
            let count: f64 = passes.map(|(_, value)| value).sum();
            if count != last {
                (last, moved) = (count, now);
            }
            if let Some(leading) = leading
                && count >= self.n as f64
                && moved.elapsed() > Duration::from_secs(3)
            {
                return (leading, moved);
            }
        }
    }
}

fn plain_deployment(i: usize) -> Deployment {
    let name = format!("plain-{i:05}");
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "server", "image": "example.test/server:1" }] },
            },
        },
    }))
    .expect("a Deployment")
}

fn by_kind(requests: &[&Request]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for request in requests {
        *kinds.entry(format!("{} {}", request.kind(), request.code())).or_insert(0) += 1;
    }
    kinds
}

/// Who wrote what: what our children cost everybody else is part of what they cost.
fn by_user(requests: &[Request]) -> BTreeMap<&str, BTreeMap<String, usize>> {
    let mut users: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
    for request in requests.iter().filter(|r| r.is_write()) {
        users.entry(request.user()).or_default().push(request);
    }
    users.into_iter().map(|(user, requests)| (user, by_kind(&requests))).collect()
}

fn rss_mb(pid: u32) -> f64 {
    report::proc_mb(pid, "status", "VmRSS:")
}

/// A figure whose name ends with the number of objects.
fn figure(name: &str, n: usize, value: f64, unit: &str, at_most: Option<f64>, how: &str) {
    plain(&format!("{name}.{n}"), value, unit, at_most, how);
}

fn plain(name: &str, value: f64, unit: &str, at_most: Option<f64>, how: &str) {
    report::figure(name, value, unit, at_most.map(Goal::AtMost), how);
}
