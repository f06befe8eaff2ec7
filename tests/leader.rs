//! Two replicas, one leader: who writes, who takes over, and who keeps silent.

mod common;

use std::time::Instant;

use common::{Cluster, Identity, Operator, OperatorOptions, wait};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

/// One test stops the API server under the feet of the others.
static TURN: Mutex<()> = Mutex::const_new(());

/// Two operators of one namespace, each a user of its own, so that the audit log tells them apart.
struct Pair {
    cluster: Cluster,
    namespace: &'static str,
    identities: [Identity; 2],
    _turn: MutexGuard<'static, ()>,
}

impl Pair {
    async fn open(namespace: &'static str) -> Self {
        let turn = TURN.lock().await;
        let cluster = Cluster::open().await;
        let identities =
            [cluster.administrator(namespace, "one").await, cluster.administrator(namespace, "two").await];
        Self { cluster, namespace, identities, _turn: turn }
    }

    fn options(&self, which: usize, lease_seconds: u64) -> OperatorOptions {
        let options = OperatorOptions::of(self.identities[which].kubeconfig.clone(), self.namespace);
        OperatorOptions { identity: format!("replica-{which}"), lease_seconds, ..options }
    }

    /// The first leads, the second stands by with full caches.
    async fn start(&self, lease_seconds: u64) -> (Operator, Operator) {
        let mut first = Operator::start(&self.options(0, lease_seconds));
        first.until_leading().await;
        let second = Operator::start(&self.options(1, lease_seconds));
        wait("standby that is ready", async || match second.readiness().await.as_deref() {
            Some("standing by\n") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        (first, second)
    }

    async fn create(&self, name: &str) {
        let api = self.cluster.deployments(self.namespace);
        api.create(&PostParams::default(), &common::deployment(name)).await.expect("create");
    }

    async fn until_ready(&self, name: &str) {
        let api = self.cluster.deployments(self.namespace);
        wait("Ready", async || {
            let deployment = api.get(name).await.map_err(|e| e.to_string())?;
            let condition = common::condition(&deployment, "Ready");
            if common::ready(&deployment) { Ok(()) } else { Err(format!("{condition:?}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_killed_leader_is_replaced_when_its_lease_has_run_out() {
    let pair = Pair::open("leader-killed").await;
    let (first, mut second) = pair.start(8).await;
    pair.create("before").await;
    pair.until_ready("before").await;
    assert!(!second.leads().await, "two lead");

    let start = Instant::now();
    first.kill().await;
    pair.create("after").await;
    second.until_leading().await;
    eprintln!("taken over {:.1} s after SIGKILL, with a lease of 8 s", start.elapsed().as_secs_f64());
    pair.until_ready("after").await;
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over() {
    let pair = Pair::open("leader-stopped").await;
    // So long that nobody could wait for it to run out.
    let (first, mut second) = pair.start(600).await;
    let start = Instant::now();
    first.terminate().await;
    second.until_leading().await;
    eprintln!("taken over {:.1} s after SIGTERM", start.elapsed().as_secs_f64());
    pair.create("after").await;
    pair.until_ready("after").await;
}

#[tokio::test]
async fn a_leader_that_slept_past_its_lease_wakes_up_without_a_voice() {
    let pair = Pair::open("leader-slept").await;
    // Long enough that an API server which is slow for a while does not end the second's, too.
    let (first, mut second) = pair.start(10).await;
    pair.create("model").await;
    pair.until_ready("model").await;

    first.signal("STOP");
    second.until_leading().await;
    // Work that the first would like to do as well: it will hear of all of it when it wakes up.
    for i in 0..10 {
        pair.create(&format!("model-{i}")).await;
    }
    for i in 0..10 {
        pair.until_ready(&format!("model-{i}")).await;
    }
    let mut audit = pair.cluster.audit();
    first.signal("CONT");
    wait("first that knows", async || {
        let metrics = first.metrics().await.ok_or("no answer")?;
        let leads = metrics.get("modelwright_operator_leader").copied();
        if leads == Some(0.0) { Ok(()) } else { Err(format!("leader {leads:?}")) }
    })
    .await;
    pair.create("after").await;
    pair.until_ready("after").await;
    wait("second that leads", async || second.leads().await.then_some(()).ok_or_else(String::new)).await;
    let mut requests = audit.read();
    requests.retain(|r| r.is_write());
    let of = |which: usize| requests.iter().filter(|r| r.user() == pair.identities[which].user).count();
    assert_eq!(of(0), 0, "the first wrote: {requests:?}");
    assert!(of(1) > 0, "the log lacks the second's writes");
}

#[tokio::test]
async fn a_lease_that_somebody_deletes_ends_with_one_leader() {
    let pair = Pair::open("leader-lease").await;
    let (first, second) = pair.start(3).await;
    let leases: Api<Lease> = pair.cluster.api(pair.namespace);
    leases.delete("modelwright-operator-leader-lease", &DeleteParams::default()).await.expect("delete");
    wait("one leader, whom the lease names", async || {
        let lease = leases.get("modelwright-operator-leader-lease").await.map_err(|e| e.to_string())?;
        let holder = lease.spec.and_then(|s| s.holder_identity).unwrap_or_default();
        match (first.leads().await, second.leads().await) {
            (true, false) if holder == "replica-0" => Ok(()),
            (false, true) if holder == "replica-1" => Ok(()),
            leading => Err(format!("{leading:?}, the lease names {holder:?}")),
        }
    })
    .await;
    pair.create("after").await;
    pair.until_ready("after").await;
}

#[tokio::test]
async fn an_api_server_restart_is_ridden_out() {
    let pair = Pair::open("leader-restart").await;
    let (mut first, mut second) = pair.start(3).await;
    pair.create("before").await;
    pair.until_ready("before").await;

    let start = Instant::now();
    let pid = pair.cluster.pid_of("kube-apiserver").to_string();
    assert!(std::process::Command::new("kill").args(["-s", "KILL", &pid]).status().expect("kill").success());
    pair.cluster.repair().await;
    let api = pair.cluster.deployments(pair.namespace);
    let replicas = json!({ "spec": { "replicas": 2 } });
    wait("API server", async || {
        let patched = api.patch("before", &PatchParams::default(), &Patch::Merge(&replicas)).await;
        patched.map(drop).map_err(|e| e.to_string())
    })
    .await;
    pair.create("after").await;
    pair.until_ready("before").await;
    pair.until_ready("after").await;
    eprintln!("at work again {:.1} s after the API server was killed", start.elapsed().as_secs_f64());
    assert!(first.ended().is_none() && second.ended().is_none(), "an operator ended");
    wait("one leader", async || match (first.leads().await, second.leads().await) {
        (true, false) | (false, true) => Ok(()),
        leading => Err(format!("{leading:?}")),
    })
    .await;
}

#[tokio::test]
async fn operators_of_two_namespaces_lead_side_by_side() {
    let pair = Pair::open("leader-side").await;
    pair.cluster.create_namespace("leader-side-other").await;
    // So long that none runs out.
    let mut first = Operator::start(&pair.options(0, 600));
    first.until_leading().await;
    let other = OperatorOptions { namespace: Some("leader-side-other".into()), ..pair.options(1, 600) };
    let mut second = Operator::start(&other);
    second.until_leading().await;
    // Had the second taken the lease, no patience would help.
    first.until_leading().await;
}
