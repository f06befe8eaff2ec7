use axum::extract::State;
use axum::http::Method;
use axum::{Json, Router};
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::tests::{mk_context, mk_deployment};
use super::*;

/// What was written, as the API server stores it.
type Stored = Arc<Mutex<Vec<(Method, Value)>>>;

async fn store(State(stored): State<Stored>, method: Method, body: axum::body::Bytes) -> Json<Value> {
    let mut object: Value = serde_json::from_slice(&body).unwrap();
    let mut stored = stored.lock().unwrap();
    object["metadata"]["uid"] = json!("uid");
    object["metadata"]["namespace"] = json!("team");
    object["metadata"]["resourceVersion"] = json!((stored.len() + 1).to_string());
    stored.push((method, object.clone()));
    Json(object)
}

struct Cluster {
    stored: Stored,
    context: Arc<Context>,
    settings: GatewaySettings,
    deployments: Writer<ModelDeployment>,
}

impl Cluster {
    fn new() -> Self {
        let stored = Stored::default();
        let api_server = Router::new().fallback(store).with_state(stored.clone());
        let settings = GatewaySettings {
            image: "modelwright:1".into(),
            replicas: 2,
            resources: json!({ "limits": { "memory": "1Gi" } }),
            grace_seconds: 340,
            image_pull_policy: "IfNotPresent".into(),
            image_pull_secrets: Vec::new(),
        };
        let context = mk_context(api_server, Default::default());
        Self { stored, context, settings, deployments: Writer::default() }
    }

    fn comes(&mut self, object: &ModelDeployment) {
        self.deployments.apply_watcher_event(&Event::Apply(object.clone()));
        self.context.namespaces.seen(object, true, &self.context.expectations);
    }

    fn goes(&mut self, object: &ModelDeployment) {
        self.deployments.apply_watcher_event(&Event::Delete(object.clone()));
        self.context.namespaces.seen(object, false, &self.context.expectations);
    }

    /// What it has written.
    async fn pass(&self) -> (Vec<String>, Option<Duration>) {
        let before = self.stored.lock().unwrap().len();
        let again = pass(&self.context, &self.settings, &self.deployments.as_reader(), "team").await;
        let stored = self.stored.lock().unwrap();
        let said =
            |(method, object): &(Method, Value)| format!("{method} {}", object["kind"].as_str().unwrap());
        (stored[before..].iter().map(said).collect(), again)
    }

    /// The watches catch up, but for `late`.
    fn show(&self, late: &str) {
        let shelves = &self.context.shelves.gateways;
        for (_, object) in self.stored.lock().unwrap().iter() {
            match object["kind"].as_str().unwrap() {
                kind if kind == late => {}
                "Deployment" => put(&shelves.deployments, object, GatewayObject::deployment),
                "ServiceAccount" => put(&shelves.service_accounts, object, GatewayObject::service_account),
                "Role" => put(&shelves.roles, object, GatewayObject::role),
                "RoleBinding" => put(&shelves.role_bindings, object, GatewayObject::role_binding),
                "PodDisruptionBudget" => put(&shelves.budgets, object, GatewayObject::budget),
                "NetworkPolicy" => put(&shelves.policies, object, GatewayObject::network_policy),
                "Service" => put(&shelves.services, object, GatewayObject::service),
                other => panic!("{other}"),
            }
        }
    }
}

fn put<K: DeserializeOwned>(
    shelf: &Shelf<GatewayObject>,
    object: &Value,
    view: fn(K) -> Option<GatewayObject>,
) {
    let view = view(serde_json::from_value(object.clone()).unwrap());
    shelf.take(Event::Apply(Some(view.expect("ours"))));
}

#[tokio::test]
async fn nothing_is_made_twice_while_the_watches_do_not_show_it_yet() {
    let mut cluster = Cluster::new();
    cluster.comes(&mk_deployment("team", "fraud"));
    let (made, _) = cluster.pass().await;
    assert_eq!((made.len(), made.last().map(String::as_str)), (7, Some("POST Deployment")));
    assert_eq!(cluster.pass().await, (vec![], Some(RETRY)));
    cluster.show("Deployment");
    assert_eq!(cluster.pass().await, (vec![], Some(RETRY)), "one of them is not shown");
    cluster.show("");
    assert_eq!(cluster.pass().await, (vec![], None), "all stands");
    // Another owner is a change, which waits for what it has written too.
    cluster.comes(&mk_deployment("team", "other"));
    let (changed, _) = cluster.pass().await;
    assert_eq!((changed.len(), changed[0].as_str()), (7, "PATCH ServiceAccount"));
    assert_eq!(cluster.pass().await, (vec![], Some(RETRY)));
    cluster.show("");
    assert_eq!(cluster.pass().await, (vec![], None));
}

#[tokio::test]
async fn what_came_and_went_between_two_passes_is_made_again_at_once() {
    let mut cluster = Cluster::new();
    let (first, second) = (mk_deployment("team", "fraud"), mk_deployment("team", "other"));
    cluster.comes(&first);
    cluster.comes(&second);
    cluster.pass().await;
    cluster.goes(&first);
    assert_eq!(cluster.pass().await, (vec![], Some(RETRY)), "they have an owner still");
    // The garbage collector takes all of them with the last.
    cluster.goes(&second);
    cluster.comes(&mk_deployment("team", "third"));
    let (made, _) = cluster.pass().await;
    assert_eq!((made.len(), made[0].as_str()), (7, "POST ServiceAccount"));
}
