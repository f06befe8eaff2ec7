//! What a bad day brings: processes that die or stand still, a node that is emptied, another chart.

use std::process::{Command, Stdio};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::stage::Stage;
use crate::support::wait;

const OPERATOR: &str = "modelwright-system";
/// The client is on the other.
const DRAINED: &str = "node-2";
/// Of the operator's image, the gateways' too: `tests/e2e/images.sh` makes the second.
const TAGS: [&str; 2] = [env!("CARGO_PKG_VERSION"), "next"];

impl Stage<'_> {
    /// SIGKILL to a program in the first of these pods, from outside. It is started again by its kubelet.
    pub async fn kill(&self, selector: &str, program: &str) {
        let pods = self.pods(selector).await;
        // One that is on its way out may have ended by itself.
        let pod = pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
        let pod = pod.unwrap_or_else(|| panic!("no pod {selector}"));
        assert!(kill_in(pod, program) > 0, "no {program} in {:?}", pod.metadata.name);
    }

    /// A signal to the workers of a revision, until their pods' supervisors have started others.
    pub async fn replace_workers(&self, signal: &str, revision: &str) {
        let pods = self.pods(&self.serving()).await;
        let workers = || -> Vec<u32> {
            let of_revision = |arguments: &[&str]| {
                let named = arguments.windows(2).any(|pair| pair == ["--revision", revision]);
                named && arguments.get(1) == Some(&"worker")
            };
            pods.iter().flat_map(|pod| processes(pod, of_revision)).collect()
        };
        let former = workers();
        assert!(!former.is_empty(), "no worker of {revision}");
        former.iter().for_each(|pid| assert!(tell(*pid, signal)));
        wait(&format!("workers of {revision} after SIG{signal}"), async || {
            let now = workers();
            let replaced = now.len() == former.len() && now.iter().all(|pid| !former.contains(pid));
            replaced.then_some(()).ok_or(format!("{now:?}, and before {former:?}"))
        })
        .await;
    }

    pub async fn kill_operators(&self) {
        let api: Api<Pod> = Api::namespaced(self.space.client.clone(), OPERATOR);
        let selector = "app.kubernetes.io/name=modelwright-operator";
        let pods =
            api.list(&ListParams::default().labels(selector)).await.expect("the operator's pods").items;
        let killed: usize = pods.iter().map(|pod| kill_in(pod, "modelwright-operator")).sum();
        assert!(killed > 0, "no operator runs");
    }

    /// Nobody answers for the cluster's state while `work` goes on.
    pub async fn without_api_server(&self, work: impl Future<Output = ()>) {
        let cluster = |command: &str| {
            let [tool, name] =
                ["CLUSTER", "NAME"].map(|name| std::env::var(name).expect("of a local cluster"));
            let output = Command::new(tool).args([command, &name]).output().expect("it runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let processes = cluster("status");
        let pid = processes
            .lines()
            .find_map(|line| line.strip_prefix("process kube-apiserver ")?.split(' ').next());
        assert!(tell(pid.and_then(|pid| pid.parse().ok()).expect("its process"), "KILL"));
        work.await;
        cluster("up");
    }

    /// The other replica takes over when the lease has run out.
    pub async fn kill_leader(&self) {
        let leases: Api<Lease> = Api::namespaced(self.space.client.clone(), OPERATOR);
        let lease = leases.get("modelwright-operator").await.expect("the lease");
        let leader = lease.spec.and_then(|spec| spec.holder_identity).expect("a leader");
        let pods: Api<Pod> = Api::namespaced(self.space.client.clone(), OPERATOR);
        let pod = pods.get(&leader).await.expect("the leader's pod");
        assert!(kill_in(&pod, "modelwright-operator") > 0, "{leader} does not run");
    }

    /// Of serving pods and gateways: what the test itself has there may stay. The node is left cordoned.
    pub async fn drain_node(&self) {
        for selector in ["modelwright.dev/role=serve", "modelwright.dev/component=gateway"] {
            let there = self.pods(selector).await;
            let nodes: Vec<_> = there.iter().map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect();
            assert!(nodes.contains(&Some(DRAINED)), "nothing to drain: {selector} on {nodes:?}");
        }
        self.kubectl(&["cordon", DRAINED]);
        for selector in ["modelwright.dev/component=gateway", "modelwright.dev/role=serve"] {
            let only = format!("--pod-selector={selector}");
            self.kubectl_slow(&["drain", DRAINED, "--delete-emptydir-data", "--timeout=5m", &only]).await;
        }
    }

    pub fn uncordon(&self) {
        self.kubectl(&["uncordon", DRAINED]);
    }

    /// Another image of the operator, which is the gateways' too: the pods of both are replaced.
    pub async fn upgrade_chart(&self) {
        let deployments = self.space.api::<Deployment>();
        let image = async || {
            let gateways = deployments.get("modelwright-gateway").await.map_err(|e| e.to_string())?;
            let pod = gateways.spec.and_then(|spec| spec.template.spec).ok_or("no pod template")?;
            pod.containers.first().and_then(|container| container.image.clone()).ok_or("no image".to_string())
        };
        let former = image().await.expect("gateways");
        let tag = TAGS.into_iter().find(|tag| !former.ends_with(&format!(":{tag}"))).expect("two tags");
        let status = tokio::process::Command::new("helm")
            .args(["upgrade", "modelwright", "charts/modelwright", "--namespace", OPERATOR, "--reuse-values"])
            .args(["--set-string", &format!("image.tag={tag}"), "--wait", "--timeout", "5m"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status()
            .await;
        assert!(status.expect("helm runs").success(), "helm upgrade failed");
        wait("the gateways' new image", async || {
            let seen = image().await?;
            seen.ends_with(&format!(":{tag}")).then_some(()).ok_or(seen)
        })
        .await;
        self.until_gateways_rolled().await;
    }

    /// The old ones have gone to the end.
    pub async fn until_gateways_rolled(&self) {
        let status = ["rollout", "status", "deployment/modelwright-gateway", "--timeout=5m"];
        self.kubectl_slow(&status).await;
        wait("gateways of one template", async || {
            let pods = self.pods("modelwright.dev/component=gateway").await;
            let leaving = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
            (leaving == 0).then_some(()).ok_or(format!("{leaving} are leaving"))
        })
        .await;
    }
}

/// How many it killed.
fn kill_in(pod: &Pod, program: &str) -> usize {
    let of_program = |arguments: &[&str]| arguments.first().is_some_and(|first| first.ends_with(program));
    processes(pod, of_program).into_iter().filter(|pid| tell(*pid, "KILL")).count()
}

/// Those with such arguments in the pod's own control group.
fn processes(pod: &Pod, wanted: impl Fn(&[&str]) -> bool) -> Vec<u32> {
    let uid = pod.metadata.uid.as_deref().expect("a uid");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let line = read("cmdline");
        let arguments: Vec<&str> = line.split('\0').collect();
        if read("cgroup").contains(uid) && wanted(&arguments) {
            found.push(pid);
        }
    }
    found
}

fn tell(pid: u32, signal: &str) -> bool {
    let told = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
    told.is_ok_and(|status| status.success())
}
