//! A namespace of one test, and what a user does in it.

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::process::Command;
use std::time::Instant;

use futures::FutureExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use modelwright::api::ModelDeployment;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use super::{Helper, S3, says, wait};

/// The cluster has one GPU: whoever wants it waits here.
pub static GPU: Mutex<()> = Mutex::const_new(());

static SHARED: OnceCell<()> = OnceCell::const_new();

pub struct Space {
    pub client: Client,
    /// The namespace.
    pub name: String,
    pub helper: Helper,
}

/// Runs a test in a namespace of its own. After a failure it prints what a person would look at first.
pub async fn in_namespace(name: &str, test: impl AsyncFnOnce(&Space)) {
    let client = Client::try_default().await.expect("KUBECONFIG names a cluster");
    let name = format!("e2e-{name}-{}", std::process::id());
    create_namespace(&client, &name).await;
    SHARED
        .get_or_init(async || {
            load_images();
            Helper::start(&client).await;
        })
        .await;
    let space = Space { helper: Helper::of(&client), client, name };
    let start = Instant::now();
    let result = AssertUnwindSafe(test(&space)).catch_unwind().await;
    println!("{} took {:.1} s", space.name, start.elapsed().as_secs_f64());
    if result.is_err() {
        println!("{}", space.kubectl(&["get", "mdep,all,controllerrevisions", "-o", "wide"]));
        println!("{}", space.kubectl(&["describe", "mdep"]));
        println!("{}", space.kubectl(&["get", "events", "--sort-by=.lastTimestamp"]));
    }
    if std::env::var_os("KEEP_NAMESPACES").is_none() {
        let namespaces: Api<Namespace> = Api::all(space.client.clone());
        namespaces.delete(&space.name, &DeleteParams::background()).await.expect("the namespace goes");
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Into the cluster that `make` has started. Any other must be able to pull them.
fn load_images() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(tool), Some(name)) = (variable("CLUSTER"), variable("NAME")) else { return };
    let status = Command::new(&tool).arg("status").arg(&name).output().expect("cluster status");
    let ours = variable("KUBECONFIG").map(|path| format!("kubeconfig {path}"));
    if !String::from_utf8_lossy(&status.stdout).lines().any(|fact| Some(fact) == ours.as_deref()) {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/images.sh");
    let loaded = Command::new(script).args([&tool, &name, env!("CARGO_PKG_VERSION")]).status();
    assert!(loaded.expect("images.sh").success(), "images.sh failed");
}

/// With the `restricted` Pod Security Standard; violations would show in the audit log too.
pub(super) async fn create_namespace(client: &Client, name: &str) {
    let mut labels = serde_json::Map::new();
    for mode in ["enforce", "warn", "audit"] {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), json!("restricted"));
        labels.insert(format!("pod-security.kubernetes.io/{mode}-version"), json!("latest"));
    }
    let body = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels },
    });
    create(&Api::<Namespace>::all(client.clone()), &body).await;
    until_pods_may_come(client, name).await;
}

/// A new namespace admits no pod before it has its ServiceAccount `default`.
pub async fn until_pods_may_come(client: &Client, namespace: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    wait("ServiceAccount default", async || {
        let found = accounts.get_opt("default").await.map_err(|e| e.to_string())?;
        found.map(drop).ok_or_else(|| format!("none in {namespace}"))
    })
    .await;
}

/// Creates it, unless it is there.
pub(super) async fn create<K>(api: &Api<K>, body: &Value)
where
    K: Resource + Clone + DeserializeOwned + serde::Serialize + Debug,
{
    let object: K = serde_json::from_value(body.clone()).expect("an object");
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("{body}: {error}"),
    }
}

impl Space {
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub async fn s3(&self) -> S3 {
        S3::shared(&self.client, &self.helper).await
    }

    pub async fn create<K>(&self, body: &Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + serde::Serialize
            + Debug,
    {
        create(&self.api::<K>(), body).await;
    }

    /// Puts a file where only this test looks, and says its address.
    pub async fn file(&self, path: &str, bytes: &[u8]) -> String {
        self.file_with(path, bytes, &[]).await
    }

    pub async fn file_with(&self, path: &str, bytes: &[u8], headers: &[(&str, &str)]) -> String {
        let path = format!("{}/{path}", self.name);
        self.helper.put_with(&path, bytes.to_vec(), headers).await;
        Helper::url(&path)
    }

    /// A model at this address, and a server small enough that many fit the node.
    pub fn spec(&self, uri: &str) -> Value {
        json!({
            "model": { "uri": uri, "insecureHTTP": true },
            "resources": { "requests": { "cpu": "10m", "memory": "64Mi" }, "limits": { "memory": "384Mi" } },
        })
    }

    pub async fn try_apply(&self, name: &str, spec: &Value) -> Result<ModelDeployment, kube::Error> {
        let body = json!({
            "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": { "name": name }, "spec": spec,
        });
        let params = PatchParams::apply("test").force();
        self.api::<ModelDeployment>().patch(name, &params, &Patch::Apply(&body)).await
    }

    pub async fn apply(&self, name: &str, spec: &Value) {
        self.try_apply(name, spec).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Of any type; a field that it has not is an error.
    pub async fn apply_object(&self, body: &Value) {
        let object: DynamicObject = serde_json::from_value(body.clone()).expect("an object");
        let types = object.types.as_ref().expect("its type");
        let resource = ApiResource::from_gvk(&types.try_into().expect("a type"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.name, &resource);
        let params = PatchParams::apply("test").force().validation_strict();
        let name = object.metadata.name.as_deref().expect("a name");
        api.patch(name, &params, &Patch::Apply(body)).await.unwrap_or_else(|e| panic!("{body}: {e}"));
    }

    pub async fn annotate(&self, name: &str, key: &str, value: &str) {
        let body = json!({ "metadata": { "annotations": { key: value } } });
        let api = self.api::<ModelDeployment>();
        api.patch(name, &PatchParams::default(), &Patch::Merge(&body)).await.expect("an annotation");
    }

    pub async fn get(&self, name: &str) -> ModelDeployment {
        self.api::<ModelDeployment>().get(name).await.expect("the ModelDeployment")
    }

    pub async fn until(
        &self,
        name: &str,
        fits: impl Fn(&ModelDeployment) -> Result<(), String>,
    ) -> ModelDeployment {
        let api = self.api::<ModelDeployment>();
        wait("such status", async || {
            let deployment = api.get(name).await.map_err(|e| e.to_string())?;
            fits(&deployment).map(|()| deployment)
        })
        .await
    }

    /// Waits until the newest spec is served.
    pub async fn until_ready(&self, name: &str) -> ModelDeployment {
        self.until(name, |d| says(d, "Ready", "True", "Serving", &[])).await
    }

    /// Waits until a user reads this in `kubectl get mdep -o wide`: Ready=False and Degraded=True with one reason and
    /// one message.
    pub async fn until_degraded(&self, name: &str, reason: &str, parts: &[&str]) -> ModelDeployment {
        let deployment = self
            .until(name, |d| {
                says(d, "Ready", "False", reason, parts)?;
                says(d, "Degraded", "True", reason, parts)
            })
            .await;
        println!("{}", self.kubectl(&["get", "mdep", name, "-o", "wide"]));
        deployment
    }

    /// A model that serves: `y = Relu(x)` as revision 1.
    pub async fn serve_first(&self, name: &str) -> Value {
        let uri = self.file("first/model.onnx", &super::relu()).await;
        let spec = self.spec(&uri);
        self.apply(name, &spec).await;
        self.until_ready(name).await;
        self.answers(name, 1, RELU).await;
        spec
    }

    /// A spec like one that serves but for its source.
    pub fn with_uri(&self, spec: &Value, uri: &str) -> Value {
        let mut spec = spec.clone();
        spec["model"]["uri"] = json!(uri);
        spec
    }

    /// The address answers by this revision, with these numbers for -1, 2, -3, 4. Waits for kube-proxy, which applies
    /// a change up to a second late.
    pub async fn answers(&self, name: &str, revision: u32, expected: [f64; 4]) {
        wait("such answer", async || self.ask(name, revision, expected).await).await;
    }

    /// The revision that served before has not stopped to.
    pub async fn serves_on(&self, name: &str, revision: u32, expected: [f64; 4]) {
        self.ask(name, revision, expected).await.expect("it serves on");
    }

    async fn ask(&self, name: &str, revision: u32, expected: [f64; 4]) -> Result<(), String> {
        let url = self.inference_url(name);
        let headers = [("Content-Type".to_string(), "application/json".to_string())];
        let answer = self.helper.call("POST", &url, &headers, question().to_string().as_bytes()).await;
        let said = format!("{url}: {} {} {}", answer.status, answer.error, answer.text());
        let served_by = answer.headers.get("modelwright-revision").cloned().unwrap_or_default();
        if answer.status != 200 || served_by != format!("{name}-r{revision}") {
            return Err(format!("{said}, from {served_by:?}"));
        }
        let body: Value = serde_json::from_slice(&answer.body()).map_err(|e| format!("{said}: {e}"))?;
        let data: Vec<f64> = serde_json::from_value(body["outputs"][0]["data"].clone()).expect("numbers");
        assert_eq!(data, expected, "{said}");
        Ok(())
    }

    pub fn inference_url(&self, name: &str) -> String {
        format!("http://{name}.{}.svc.cluster.local/v2/models/{name}/infer", self.name)
    }

    pub async fn pods(&self, selector: &str) -> Vec<Pod> {
        let list = self.api::<Pod>().list(&ListParams::default().labels(selector)).await;
        list.expect("pods").items
    }

    /// As a user would see it.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = Command::new("kubectl").arg("--namespace").arg(&self.name).args(arguments).output();
        match output {
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                format!("$ kubectl {}\n{}", arguments.join(" "), String::from_utf8_lossy(&text))
            }
            Err(error) => format!("kubectl: {error}"),
        }
    }
}

/// What `y = Relu(x)` says to the question.
pub const RELU: [f64; 4] = [0.0, 2.0, 0.0, 4.0];
/// What `y = -x` says.
pub const NEG: [f64; 4] = [1.0, -2.0, 3.0, -4.0];

pub fn question() -> Value {
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 4], "data": [-1.0, 2.0, -3.0, 4.0] }] })
}
