//! Every example says only what the schema knows, and the operator finds something to do for it.
#![cfg(feature = "operator")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use modelwright::api::ModelDeployment;
use modelwright::observe::{Family, Settings, Snapshot};
use modelwright::plan::{Kind, plan};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

fn objects() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let objects = files.flat_map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let documents = serde_yaml::Deserializer::from_str(&text);
        let objects = documents.map(|document| (name.clone(), Value::deserialize(document).unwrap()));
        objects.collect::<Vec<_>>()
    });
    objects.collect()
}

fn examples() -> Vec<(String, Value)> {
    let examples: Vec<_> =
        objects().into_iter().filter(|(_, object)| object["kind"] == "ModelDeployment").collect();
    assert!(examples.len() >= 8, "the examples are gone");
    examples
}

/// A field that no type knows is lost on the way through the type.
fn lost(written: &Value, read: &Value, at: &str, out: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                match read.get(key) {
                    Some(known) => lost(value, known, &format!("{at}.{key}"), out),
                    None => out.push(format!("{at}.{key}")),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            for (i, (value, known)) in written.iter().zip(read).enumerate() {
                lost(value, known, &format!("{at}[{i}]"), out);
            }
        }
        _ => {}
    }
}

fn unknown<T: DeserializeOwned + Serialize>(file: &str, written: &Value) -> Vec<String> {
    let read: T = serde_json::from_value(written.clone()).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut unknown = Vec::new();
    lost(written, &serde_json::to_value(read).unwrap(), "", &mut unknown);
    unknown
}

#[test]
fn an_example_has_no_field_that_the_schema_lacks() {
    for (file, written) in objects() {
        let unknown = match written["kind"].as_str() {
            Some("ModelDeployment") => unknown::<ModelDeployment>(&file, &written),
            Some("HorizontalPodAutoscaler") => unknown::<HorizontalPodAutoscaler>(&file, &written),
            Some("Service") => unknown::<Service>(&file, &written),
            // Of KEDA: a cluster that has it is strict, in tests/e2e/scaling.rs.
            Some("ScaledObject") => Vec::new(),
            other => panic!("{file}: {other:?}"),
        };
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn an_example_is_first_resolved() {
    for (file, mut written) in examples() {
        written["metadata"]["namespace"] = "demo".into();
        written["metadata"]["uid"] = "0b9e5c9e-7c1f-4f3b-8f6e-2d1d9a3f0c11".into();
        let snapshot = Snapshot {
            deployment: Arc::new(serde_json::from_value(written).unwrap()),
            family: Family::default(),
            pod_states: HashMap::new(),
            evidence: Default::default(),
            gateways: Default::default(),
            scaling: None,
            gpu_holders: BTreeMap::new(),
            settings: Arc::new(Settings {
                loader_image: "modelwright:1".into(),
                server_image: "modelwright-server".into(),
                server_digests: BTreeMap::new(),
                server_environment: Vec::new(),
                runtime_version: "1".into(),
                node_cache: None,
                image_pull_policy: "IfNotPresent".into(),
                image_pull_secrets: Vec::new(),
                cluster_domain: "cluster.local".into(),
                crd_outdated: false,
            }),
        };
        let plan = plan(&snapshot, "2026-11-22T12:00:00Z".parse().unwrap());
        assert!(plan.writes.iter().any(|write| write.kind() == Kind::Pod), "{file}: {:?}", plan.writes);
    }
}
