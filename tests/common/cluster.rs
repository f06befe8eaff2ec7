//! The cluster, the custom resource in it, and who asks it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Config, Resource};
use modelwright::api::{ModelDeployment, ModelRoute};
use modelwright::formats::{
    FORMAT_VERSION, GraphSummary, PinnedFile, PinnedSource, PodState, ResolveReport, Resolved, SourceRequest,
};
use serde_json::{Value, json};

use super::{Audit, wait};

pub struct Cluster {
    pub client: Client,
    pub kubeconfig: PathBuf,
    tool: PathBuf,
    name: String,
}

/// A user of the API server.
#[derive(Clone, Debug)]
pub struct Identity {
    /// As the audit log calls it.
    pub user: String,
    pub kubeconfig: PathBuf,
}

impl Cluster {
    /// The one that `make` has started; its fake kubelet answers from now on as a healthy resolver and server would.
    pub async fn open() -> Self {
        let variable = |name: &str| {
            std::env::var(name)
                .unwrap_or_else(|_| panic!("{name} is not set: run make test-operator or make bench"))
        };
        let mut config = Config::infer().await.expect("a kubeconfig");
        config.read_timeout = Some(Duration::from_secs(295));
        let cluster = Self {
            client: Client::try_from(config).expect("a client"),
            kubeconfig: variable("KUBECONFIG").into(),
            tool: variable("CLUSTER").into(),
            name: variable("NAME"),
        };
        let fakes = PathBuf::from(variable("FAKES"));
        std::fs::create_dir_all(&fakes).expect("a folder for what the fake kubelet answers");
        std::fs::write(fakes.join("message"), resolved()).expect("write");
        let state = PodState {
            format_version: FORMAT_VERSION,
            ready: true,
            fetches_only: true,
            revisions: Vec::new(),
        };
        std::fs::write(fakes.join("state"), json!(state).to_string()).expect("write");
        cluster.install_crd().await;
        cluster
    }

    async fn install_crd(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in ["crds/modeldeployments.yaml", "crds/modelroutes.yaml"] {
            let text = std::fs::read_to_string(root.join(file)).expect("the CRD");
            let crd: Value = serde_yaml::from_str(&text).expect("the CRD");
            let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
            let name = crd["metadata"]["name"].as_str().expect("a name").to_string();
            let applied = api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&crd)).await;
            applied.expect("the CRD is taken");
        }
        wait("established CRD", async || {
            let deployments: Api<ModelDeployment> = Api::namespaced(self.client.clone(), "default");
            let routes: Api<ModelRoute> = Api::namespaced(self.client.clone(), "default");
            routes.list(&Default::default()).await.map_err(|e| e.to_string())?;
            deployments.list(&Default::default()).await.map_err(|e| e.to_string())
        })
        .await;
    }

    /// Prints one line for each fact: `process kube-apiserver 4711 …`.
    fn status(&self) -> Vec<Vec<String>> {
        let output = Command::new(&self.tool).args(["status", &self.name]).output().expect("cluster status");
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| line.split(' ').map(str::to_string).collect()).collect()
    }

    pub fn audit(&self) -> Audit {
        let facts = self.status();
        let path = facts.iter().find(|f| f[0] == "audit-log").and_then(|f| f.get(1));
        Audit::from_now(path.expect("a cluster with an audit log").into())
    }

    pub fn pid_of(&self, process: &str) -> u32 {
        let facts = self.status();
        let fact = facts.iter().find(|f| f[0] == "process" && f[1] == process);
        fact.and_then(|f| f[2].parse().ok()).unwrap_or_else(|| panic!("no running {process}"))
    }

    /// Starts again whatever has ended.
    pub async fn repair(&self) {
        let mut up = tokio::process::Command::new(&self.tool);
        let status = up.args(["up", &self.name]).stdout(std::process::Stdio::null()).status().await;
        assert!(status.expect("cluster up").success(), "cluster up {} failed", self.name);
    }

    pub async fn create_namespace(&self, name: &str) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let namespace = Namespace {
            metadata: kube::api::ObjectMeta { name: Some(name.into()), ..Default::default() },
            ..Default::default()
        };
        match api.create(&PostParams::default(), &namespace).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("namespace {name}: {error}"),
        }
        // Before it is there no pod is admitted.
        let accounts: Api<ServiceAccount> = self.api(name);
        wait("ServiceAccount default", async || {
            let found = accounts.get_opt("default").await.map_err(|e| e.to_string())?;
            found.map(drop).ok_or_else(|| format!("none in {name}"))
        })
        .await;
    }

    pub fn deployments(&self, namespace: &str) -> Api<ModelDeployment> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A ServiceAccount with all rights, so that the audit log tells its requests from the test's.
    pub async fn administrator(&self, namespace: &str, name: &str) -> Identity {
        let identity = self.service_account(namespace, name).await;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": format!("{namespace}-{name}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": name }],
        });
        self.apply::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>(Api::all(self.client.clone()), &binding)
            .await;
        identity
    }

    /// The operator's own ServiceAccount, with the rights that the chart gives it and no others.
    pub async fn operator_identity(&self, namespace: &str) -> Identity {
        self.chart_identity(namespace, "").await
    }

    /// Of an operator that watches its own namespace only.
    pub async fn namespaced_identity(&self, namespace: &str) -> Identity {
        self.chart_identity(namespace, namespace).await
    }

    async fn chart_identity(&self, namespace: &str, watched: &str) -> Identity {
        self.create_namespace(namespace).await;
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/modelwright");
        let template =
            ["template", "modelwright", "--namespace", namespace, "--show-only", "templates/rbac.yaml"];
        let watched = format!("--set=watchNamespace={watched}");
        let manifest = run(Command::new("helm").args(template).arg(watched).arg(chart), "");
        run(Command::new("kubectl").args(["apply", "-f", "-"]), &manifest);
        self.token(namespace, "modelwright").await
    }

    pub async fn service_account(&self, namespace: &str, name: &str) -> Identity {
        self.create_namespace(namespace).await;
        let accounts: Api<ServiceAccount> = self.api(namespace);
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name } });
        self.apply(accounts, &account).await;
        self.token(namespace, name).await
    }

    async fn token(&self, namespace: &str, name: &str) -> Identity {
        let accounts: Api<ServiceAccount> = self.api(namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(24 * 3600), ..Default::default() },
            ..Default::default()
        };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
        let token = answer.expect("a token").status.expect("a token").token;
        let text = std::fs::read_to_string(&self.kubeconfig).expect("the kubeconfig");
        let mut config: Value = serde_yaml::from_str(&text).expect("the kubeconfig");
        config["users"][0]["user"] = json!({ "token": token });
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{namespace}-{name}.kubeconfig"));
        std::fs::write(&file, config.to_string()).expect("write");
        Identity { user: format!("system:serviceaccount:{namespace}:{name}"), kubeconfig: file }
    }

    pub async fn apply<K>(&self, api: Api<K>, object: &Value)
    where
        K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let applied = api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await;
        applied.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// What the command printed.
fn run(command: &mut Command, input: &str) -> String {
    use std::io::Write;
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// What the resolve pod of a small model leaves.
fn resolved() -> String {
    let request = SourceRequest {
        uri: super::uri("any", 1),
        digest: None,
        s3: None,
        hf: None,
        insecure_http: false,
        secret_name: None,
        ca_bundle_name: None,
    };
    let file = PinnedFile { path: "model.onnx".into(), size: 3_200_000, pin: None };
    let source = PinnedSource { request, files: vec![file], immutable: true, sha256: None };
    let report = ResolveReport::Resolved(Box::new(Resolved { source, graph: GraphSummary::default() }));
    report.encode().expect("a small report")
}
