//! What a namespace holds, without what differs from run to run: uids, versions, times, addresses.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::ListParams;
use kube::{Api, Resource};
use modelwright::api::{ModelDeployment, ModelRoute};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Cluster;

/// `<kind>/<name>` to what is comparable of the object; pods by owner, since most names are random.
pub type State = BTreeMap<String, Value>;

pub async fn state(cluster: &Cluster, namespace: &str) -> Result<State, kube::Error> {
    let mut state = State::new();
    take::<ModelDeployment>(cluster, namespace, &mut state).await?;
    take::<ControllerRevision>(cluster, namespace, &mut state).await?;
    take::<ReplicaSet>(cluster, namespace, &mut state).await?;
    take::<Service>(cluster, namespace, &mut state).await?;
    take::<PodDisruptionBudget>(cluster, namespace, &mut state).await?;
    take::<ModelRoute>(cluster, namespace, &mut state).await?;
    take::<Deployment>(cluster, namespace, &mut state).await?;
    take::<Role>(cluster, namespace, &mut state).await?;
    take::<RoleBinding>(cluster, namespace, &mut state).await?;
    take::<NetworkPolicy>(cluster, namespace, &mut state).await?;
    let pods: Api<Pod> = cluster.api(namespace);
    for pod in pods.list(&ListParams::default()).await? {
        let pod = json!(pod);
        let owner = &pod["metadata"]["ownerReferences"][0];
        let deleting = if pod["metadata"]["deletionTimestamp"].is_null() { "" } else { ", being deleted" };
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        let key = match owner["kind"].as_str() {
            Some(kind) => format!("pods of {kind}/{}: {phase}{deleting}", text(&owner["name"])),
            None => format!("Pod/{}: {phase}{deleting}", text(&pod["metadata"]["name"])),
        };
        let count = state.get(&key).and_then(Value::as_u64).unwrap_or(0) + 1;
        state.insert(key, json!(count));
    }
    Ok(state)
}

async fn take<K>(cluster: &Cluster, namespace: &str, state: &mut State) -> Result<(), kube::Error>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let api: Api<K> = cluster.api(namespace);
    for object in api.list(&ListParams::default()).await? {
        let name = object.meta().name.clone().unwrap_or_default();
        state.insert(format!("{}/{name}", K::kind(&())), comparable(json!(object), namespace));
    }
    Ok(())
}

fn comparable(object: Value, namespace: &str) -> Value {
    let metadata = &object["metadata"];
    let owners: Vec<String> = metadata["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|o| format!("{}/{} controller={}", text(&o["kind"]), text(&o["name"]), o["controller"]))
        .collect();
    let mut kept = json!({
        "labels": metadata["labels"],
        "owners": owners,
        "deleting": !metadata["deletionTimestamp"].is_null(),
    });
    for field in ["spec", "data", "revision", "rules", "roleRef", "subjects"] {
        if !object[field].is_null() {
            kept[field] = object[field].clone();
        }
    }
    // The verdicts of our own object; the status of the others is their controllers'.
    if object["kind"] == "ModelDeployment" || object["spec"]["model"].is_object() {
        kept["status"] = object["status"].clone();
    }
    strip(&mut kept);
    let text = kept.to_string().replace(namespace, "<namespace>");
    serde_json::from_str(&text).unwrap_or_default()
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| {
                !matches!(
                    key.as_str(),
                    "clusterIP"
                        | "clusterIPs"
                        | "lastTransitionTime"
                        | "time"
                        | "coldStartSeconds"
                        | "observedGeneration"
                        | "startedAt"
                        | "stepStartedAt"
                        | "movedAt"
                        | "routeGeneration"
                        // A record that is made when the pods are ready already skips the first attempt.
                        | "attempt"
                        | "tried"
                        // It stays, whatever passing trouble a slow machine had.
                        | "lastFailure"
                )
            });
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// Where two states differ, one line for each object.
pub fn difference(wanted: &State, found: &State) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    keys.into_iter()
        .filter_map(|key| match (wanted.get(key), found.get(key)) {
            (Some(_), None) => Some(format!("{key} is missing")),
            (None, Some(_)) => Some(format!("{key} is too many")),
            (Some(wanted), Some(found)) if wanted != found => {
                Some(format!("{key} differs:\n    wanted {wanted}\n    found  {found}"))
            }
            _ => None,
        })
        .collect()
}
