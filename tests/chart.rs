//! What the chart renders, with the helm on PATH (`make test` brings one). That it works: tests/chart_e2e.sh.
#![cfg(all(feature = "operator", feature = "e2e"))]

use std::path::Path;
use std::process::{Command, Output};

use serde::Deserialize;
use serde_json::Value;

const EVERYTHING: &[&str] = &[
    "--set=networkPolicy.enabled=true,podMonitor.enabled=true,imagePullSecrets={mirror}",
    "--set=priorityClassName=x,dashboard.enabled=true,alerts.enabled=true,nodeCache.enabled=true",
];
const NAMESPACED: &[&str] = &["--set=watchNamespace=models,crds.enabled=false"];

fn helm(arguments: &[&str], flags: &[&str]) -> Output {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/modelwright");
    let mut command = Command::new("helm");
    command.args(arguments).arg(chart).args(flags);
    command.output().expect("helm is on PATH: eval \"$(make -s cluster-env)\"")
}

fn render(flags: &[&str]) -> Vec<Value> {
    let output = helm(&["template", "modelwright", "--namespace=modelwright-system"], flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text).map(|d| Value::deserialize(d).unwrap());
    documents.filter(|document| !document.is_null()).collect()
}

fn of<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn rules(objects: &[Value], kind: &str) -> Vec<Value> {
    of(objects, kind).iter().flat_map(|role| role["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn lint_is_clean() {
    for flags in [&[] as &[&str], EVERYTHING, NAMESPACED] {
        let output = helm(&["lint", "--strict", "--quiet"], flags);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_chart_has_the_version_of_the_package() {
    let chart: Value = serde_yaml::from_str(include_str!("../charts/modelwright/Chart.yaml")).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_definitions_are_the_committed_ones_and_stay_at_uninstall() {
    let objects = render(&[]);
    let definitions = of(&objects, "CustomResourceDefinition");
    let committed = [include_str!("../crds/modeldeployments.yaml"), include_str!("../crds/modelroutes.yaml")];
    assert_eq!(definitions.len(), committed.len());
    for (rendered, committed) in definitions.into_iter().zip(committed) {
        let mut rendered = rendered.clone();
        let annotations = rendered["metadata"]["annotations"].as_object_mut().unwrap();
        assert_eq!(annotations.remove("helm.sh/resource-policy"), Some(Value::from("keep")));
        rendered["metadata"].as_object_mut().unwrap().remove("labels");
        assert_eq!(plain(rendered), plain(serde_yaml::from_str(committed).unwrap()));
    }
}

/// Helm writes 10 for 10.0.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, plain(value))).collect(),
        other => other,
    }
}

#[test]
fn the_operator_has_no_secrets_and_no_wildcard() {
    for flags in [&[] as &[&str], EVERYTHING, NAMESPACED] {
        let objects = render(flags);
        for rule in rules(&objects, "ClusterRole").into_iter().chain(rules(&objects, "Role")) {
            let text = rule.to_string();
            for banned in
                ["*", "secrets", "serviceaccounts/token", "pods/exec", "escalate", "bind", "impersonate"]
            {
                assert!(!text.contains(&format!("\"{banned}\"")), "{text}");
            }
        }
    }
}

/// Otherwise the API server would refuse to let it write that Role: it may not escalate.
#[test]
fn the_operator_may_do_all_that_its_gateways_may() {
    let rules = rules(&render(&[]), "ClusterRole");
    for (group, resource) in [("modelwright.dev", "modelroutes"), ("", "pods")] {
        let rule = rules.iter().find(|rule| {
            rule["apiGroups"][0] == group && rule["resources"].as_array().unwrap().contains(&resource.into())
        });
        let verbs = rule.unwrap()["verbs"].as_array().unwrap();
        assert!(["list", "watch"].iter().all(|verb| verbs.contains(&(*verb).into())), "{resource}");
    }
}

#[test]
fn the_gateways_settings_reach_the_operator() {
    let objects = render(&[
        "--set=gateway.replicas=3,gateway.image=mirror/gateway:2,gateway.resources.limits.memory=1Gi",
    ]);
    let container = &of(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap();
    let resources =
        r#"--gateway-resources={"limits":{"memory":"1Gi"},"requests":{"cpu":"100m","memory":"64Mi"}}"#;
    for wanted in ["--gateway-replicas=3", "--gateway-image=mirror/gateway:2", resources] {
        assert!(arguments.contains(&wanted.into()), "{arguments:?}");
    }
}

#[test]
fn the_node_cache_has_room_for_its_files_and_more_and_may_ask_one_thing() {
    assert!(of(&render(&[]), "DaemonSet").is_empty(), "it is off unless asked for");
    let objects =
        render(&["--set=nodeCache.enabled=true,nodeCache.sizeGiB=100", "--set=clusterDomain=k.test"]);
    let pod = &of(&objects, "DaemonSet")[0]["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["args"],
        serde_json::json!(["--max-bytes=107374182400", "--min-free-percent=20"])
    );
    assert_eq!(pod["volumes"][0]["emptyDir"]["sizeLimit"], "110Gi");
    let service = of(&objects, "Service")[0];
    assert_eq!(service["spec"]["internalTrafficPolicy"], "Local");
    let container = &of(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    let address = "--node-cache=http://modelwright-node-cache.modelwright-system.svc.k.test.:8080";
    assert!(container["args"].as_array().unwrap().contains(&address.into()), "{container}");
    let roles = of(&objects, "ClusterRole").into_iter();
    let role = roles.filter(|role| role["metadata"]["name"] == "modelwright-node-cache");
    let rules: Vec<_> = role.flat_map(|role| role["rules"].as_array().unwrap()).collect();
    assert_eq!(rules.len(), 1);
    assert_eq!(
        (&rules[0]["resources"][0], &rules[0]["verbs"]),
        (&"tokenreviews".into(), &serde_json::json!(["create"]))
    );
}

#[test]
fn a_namespaced_install_has_nothing_outside_namespaces() {
    let objects = render(NAMESPACED);
    for object in &objects {
        assert!(object["metadata"]["namespace"].is_string(), "{} is cluster-wide", object["kind"]);
    }
    let operator = of(&objects, "Role").into_iter().find(|role| role["metadata"]["namespace"] == "models");
    assert!(operator.is_some(), "the operator's rights are in the watched namespace");
}

#[test]
fn a_user_of_a_namespace_gets_model_deployments_with_view_edit_and_admin() {
    let objects = render(&[]);
    let verbs = |label: &str, resource: &str| -> Vec<String> {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{label}");
        let roles = of(&objects, "ClusterRole").into_iter();
        let roles = roles.filter(|role| role["metadata"]["labels"][&label] == "true");
        let rules = roles.flat_map(|role| role["rules"].as_array().unwrap());
        let rules = rules.filter(|rule| rule["resources"].as_array().unwrap().contains(&resource.into()));
        let mut verbs: Vec<String> = rules
            .flat_map(|rule| {
                rule["verbs"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_string())
            })
            .collect();
        verbs.sort();
        verbs
    };
    let read = ["get", "list", "watch"];
    let write = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    assert_eq!(verbs("view", "modeldeployments"), read);
    assert_eq!(verbs("edit", "modeldeployments"), write);
    assert_eq!(verbs("admin", "modeldeployments"), write);
    assert_eq!(verbs("view", "modeldeployments/scale"), read);
    assert_eq!(verbs("edit", "modeldeployments/scale"), ["get", "list", "patch", "update", "watch"]);
    assert_eq!(verbs("edit", "modeldeployments/status"), read, "status is the operator's");
}

/// A digest takes the place of the tag, and the loader is the same image.
#[test]
fn the_image_is_pinned_by_digest() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let objects =
        render(&[&format!("--set=image.repository=mirror.example/modelwright,image.digest={digest}")]);
    let container = &of(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    let image = format!("mirror.example/modelwright@{digest}");
    assert_eq!(container["image"], image.as_str());
    assert!(container["args"].as_array().unwrap().contains(&format!("--loader-image={image}").into()));
}

#[test]
fn the_servers_images_are_pinned_by_digest() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let objects = render(&[&format!("--set=server.digests.cuda={digest}")]);
    let container = &of(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
    let digests: Vec<&str> = arguments.filter(|a| a.starts_with("--server-digest")).collect();
    assert_eq!(digests, [format!("--server-digest=cuda={digest}")]);
}

#[test]
fn the_servers_environment_reaches_the_operator() {
    let objects = render(&[
        "--set-string=server.env.OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317,server.env.B=c=d",
    ]);
    let container = &of(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap();
    for wanted in ["--server-env=OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317", "--server-env=B=c=d"] {
        assert!(arguments.contains(&wanted.into()), "{arguments:?}");
    }
}

#[test]
fn a_lease_belongs_to_what_is_watched() {
    let leases = |flags| -> Vec<Value> {
        let objects = render(flags);
        let rules = rules(&objects, "Role").into_iter();
        rules.filter_map(|rule| rule.get("resourceNames").map(|names| names[0].clone())).collect()
    };
    assert_eq!(leases(&[]), ["modelwright-operator"]);
    assert_eq!(leases(NAMESPACED), ["modelwright-operator-models"]);
}

#[test]
fn the_dashboard_and_the_alerts_are_rendered_as_they_are_committed() {
    let objects = render(EVERYTHING);
    let map = of(&objects, "ConfigMap")[0];
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let rendered: Value = serde_json::from_str(map["data"]["modelwright.json"].as_str().unwrap()).unwrap();
    let committed = include_str!("../charts/modelwright/dashboards/modelwright.json");
    assert_eq!(rendered, serde_json::from_str::<Value>(committed).unwrap());
    let alerts: Value =
        serde_yaml::from_str(include_str!("../charts/modelwright/files/alerts.yaml")).unwrap();
    assert_eq!(of(&objects, "PrometheusRule")[0]["spec"], alerts);
    assert!(of(&render(&[]), "ConfigMap").is_empty() && of(&render(&[]), "PrometheusRule").is_empty());
}

#[test]
fn a_value_that_nothing_reads_is_refused() {
    for wrong in [
        "replica=3",
        "image.tga=x",
        "leaseSeconds=1",
        "image.digest=abc",
        "podMonitor.interval=often",
        "server.digests.cpu=abc",
    ] {
        let output = helm(&["template", "modelwright"], &[&format!("--set={wrong}")]);
        assert!(!output.status.success(), "{wrong} was taken");
    }
}
