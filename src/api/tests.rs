use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::*;

/// What a path of a column finds, as kubectl would print it: fields, and the one condition of a type.
fn found<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let (fields, rest) = match path.split_once("[?(@.type==\"") {
        Some((fields, rest)) => (fields, Some(rest.split_once("\")]").expect("a filter"))),
        None => (path, None),
    };
    let place = fields.split('.').skip(1).try_fold(object, |place, field| place.get(field))?;
    match rest {
        None => Some(place),
        Some((kind, rest)) => found(place.as_array()?.iter().find(|one| one["type"] == kind)?, rest),
    }
}

/// Name, type and what is found of each column.
fn columns(crd: impl serde::Serialize, object: &Value) -> Vec<(String, String, Option<Value>)> {
    let crd = serde_json::to_value(crd).unwrap();
    let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let read = |column: &Value| {
        let value = found(object, column["jsonPath"].as_str().unwrap());
        (text(&column["name"]), text(&column["type"]), value.cloned())
    };
    columns.iter().map(read).collect()
}

fn expect(wanted: &[(&str, &str, Value)]) -> Vec<(String, String, Option<Value>)> {
    wanted
        .iter()
        .map(|(name, kind, value)| (name.to_string(), kind.to_string(), Some(value.clone())))
        .collect()
}

#[test]
fn each_column_of_a_model_deployment_shows_what_its_name_says() {
    let time = || Time("2026-01-01T00:00:00Z".parse().unwrap());
    let condition = |kind: ConditionType, status: &str| StatusCondition {
        type_: kind.as_str().into(),
        status: status.into(),
        reason: format!("{status}Reason"),
        message: format!("{status} message"),
        last_transition_time: time(),
        observed_generation: Some(1),
    };
    let spec = json!({ "model": { "uri": "s3://a/b" } });
    let mut deployment = ModelDeployment::new("fraud", serde_json::from_value(spec).unwrap());
    deployment.metadata.creation_timestamp = Some(time());
    deployment.status = Some(ModelDeploymentStatus {
        url: Some("http://fraud.ns.svc.cluster.local".into()),
        stable_revision: Some("fraud-r1".into()),
        updated_revision: Some("fraud-r2".into()),
        device: Some("CUDA".into()),
        // Each number another, so that none passes for its neighbour.
        desired_replicas: 5,
        replicas: 6,
        ready_replicas: 4,
        available_replicas: 3,
        updated_replicas: 2,
        rollout: Some(RolloutStatus {
            id: "fraud-r2.1".into(),
            from: Some("fraud-r1".into()),
            to: "fraud-r2".into(),
            replacement: None,
            replacement_reason: None,
            current_step_index: 1,
            step_count: 7,
            weight: 25,
            start_time: None,
            pause_end_time: None,
            analysis: None,
        }),
        conditions: vec![
            condition(ConditionType::Available, "True"),
            condition(ConditionType::Ready, "Unknown"),
            condition(ConditionType::Degraded, "False"),
        ],
        ..Default::default()
    });
    let shown = columns(ModelDeployment::crd(), &serde_json::to_value(deployment).unwrap());
    let wanted = [
        ("Ready", "string", json!("Unknown")),
        ("Reason", "string", json!("UnknownReason")),
        ("Stable", "string", json!("fraud-r1")),
        ("Updated", "string", json!("fraud-r2")),
        ("Weight", "integer", json!(25)),
        ("Desired", "integer", json!(5)),
        ("Available", "integer", json!(3)),
        ("Device", "string", json!("CUDA")),
        ("Age", "date", json!("2026-01-01T00:00:00Z")),
        ("URL", "string", json!("http://fraud.ns.svc.cluster.local")),
        ("Message", "string", json!("Unknown message")),
    ];
    assert_eq!(shown, expect(&wanted));
}

#[test]
fn each_column_of_a_route_shows_what_its_name_says() {
    let rollout =
        RolloutRecord { stable: Some(1), candidate: Some(2), attempt: 3, step: 4, ..Default::default() };
    let spec = ModelRouteSpec { mode: RouteMode::Hold, rollout, ..Default::default() };
    let mut route = ModelRoute::new("fraud", spec);
    route.metadata.generation = Some(5);
    route.metadata.creation_timestamp = Some(Time("2026-01-01T00:00:00Z".parse().unwrap()));
    let shown = columns(ModelRoute::crd(), &serde_json::to_value(route).unwrap());
    let wanted = [
        ("Mode", "string", json!("Hold")),
        ("Stable", "integer", json!(1)),
        ("Candidate", "integer", json!(2)),
        ("Step", "integer", json!(4)),
        ("Generation", "integer", json!(5)),
        ("Age", "date", json!("2026-01-01T00:00:00Z")),
    ];
    assert_eq!(shown, expect(&wanted));
}

#[test]
fn group_kind_plural_and_short_name_stand_for_ever() {
    let crd = ModelDeployment::crd();
    assert_eq!(crd.metadata.name.as_deref(), Some("modeldeployments.modelwright.dev"));
    assert_eq!(crd.spec.names.kind, "ModelDeployment");
    assert_eq!(crd.spec.names.short_names, Some(vec!["mdep".into()]));
    assert_eq!(crd.spec.scope, "Namespaced");
}

#[test]
fn no_field_that_a_pod_sees_has_a_schema_default() {
    let crd = serde_json::to_value(ModelDeployment::crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    assert!(!spec.to_string().contains("\"default\""), "{spec}");
}

#[test]
fn a_reason_reads_back_from_its_name() {
    for reason in Reason::ALL {
        assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
    }
    assert_eq!(Reason::parse("Nonsense"), None);
}
