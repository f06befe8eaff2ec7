//! After everything else has run: what the operator was granted and what it did with it, from the API server's audit
//! log. On a cluster that is not ours there is none to read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::{Api, Client};
use serde::Deserialize;

const NAMESPACE: &str = "modelwright-system";
const NAME: &str = "modelwright";
/// Lines of the operator, told from the rest before they are parsed: the log of a whole run has hundreds of megabytes.
const USER: &str = "system:serviceaccount:modelwright-system:modelwright";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
    #[serde(rename = "requestURI")]
    uri: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    name: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// Group, resource with its subresource, verb.
type Right = (String, String, String);

/// Where the log is: the tool that has started the cluster knows.
fn log() -> Option<PathBuf> {
    let (tool, name) = (std::env::var_os("CLUSTER")?, std::env::var_os("NAME")?);
    let output = Command::new(tool).arg("status").arg(name).output().expect("cluster status");
    let facts = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = format!("kubeconfig {}", std::env::var("KUBECONFIG").ok()?);
    if !facts.lines().any(|fact| fact == ours) {
        return None;
    }
    facts.lines().find_map(|fact| fact.strip_prefix("audit-log ")).map(PathBuf::from)
}

fn events() -> Option<Vec<Event>> {
    let Some(path) = log() else {
        eprintln!("CLUSTER and NAME name no cluster with an audit log: nothing to read");
        return None;
    };
    let file = BufReader::new(File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    let lines = file.lines().map(|line| line.expect("a line"));
    let ours = lines.filter(|line| line.contains(USER) || line.contains("pod-security.kubernetes.io"));
    // The API server may be in the middle of the last one.
    Some(ours.filter_map(|line| serde_json::from_str(&line).ok()).collect())
}

fn rights(rules: &[PolicyRule]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    assert!(![group, resource, verb].iter().any(|part| part.contains('*')), "{rule:?}");
                    rights.insert((group.clone(), resource.clone(), verb.clone()));
                }
            }
        }
    }
    rights
}

#[tokio::test]
async fn the_operator_uses_every_right_it_has_and_asks_for_no_other() {
    let Some(events) = events() else { return };
    let client = Client::try_default().await.expect("KUBECONFIG names a cluster");
    let cluster_roles: Api<ClusterRole> = Api::all(client.clone());
    let roles: Api<Role> = Api::namespaced(client, NAMESPACE);
    let cluster_role = cluster_roles.get(&format!("{NAME}-operator")).await.expect("the chart's ClusterRole");
    let role = roles.get(&format!("{NAME}-lease")).await.expect("the chart's Role");
    let mut granted = rights(&cluster_role.rules.unwrap_or_default());
    granted.extend(rights(&role.rules.unwrap_or_default()));
    assert!(granted.iter().all(|(_, resource, _)| resource != "secrets"), "{granted:?}");

    let mut used = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for event in events.iter().filter(|event| event.user.username == USER) {
        let Object { api_group, resource, subresource, name } = &event.object_ref;
        if resource.is_empty() {
            continue; // discovery
        }
        let slash = if subresource.is_empty() { "" } else { "/" };
        used.insert((api_group.clone(), format!("{resource}{slash}{subresource}"), event.verb.clone()));
        // A namespace that is being deleted refuses everybody.
        let may = event.annotations.get("authorization.k8s.io/decision").map(String::as_str);
        if event.response_status.code == 403 && may != Some("allow") {
            refused.insert(format!("{} {} ({name})", event.verb, event.uri));
        }
    }
    assert!(refused.is_empty(), "refused: {refused:#?}");
    let idle: Vec<_> = granted.difference(&used).collect();
    assert!(idle.is_empty(), "granted, and used by nothing: {idle:#?}");
}

#[tokio::test]
async fn no_pod_broke_the_restricted_standard() {
    let Some(events) = events() else { return };
    let violations: BTreeSet<_> = events
        .iter()
        .filter_map(|e| {
            let said = e.annotations.get("pod-security.kubernetes.io/audit-violations")?;
            Some(format!("{} {}: {said}", e.verb, e.uri))
        })
        .filter(|said| !said.contains("e2e-volumes"))
        .collect();
    assert!(violations.is_empty(), "{violations:#?}");
}
