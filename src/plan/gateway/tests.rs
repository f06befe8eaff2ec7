use super::*;
use crate::observe::objects;

fn mk_settings() -> GatewaySettings {
    GatewaySettings {
        image: "example.test/modelwright:1".into(),
        replicas: 2,
        resources: json!({ "requests": { "cpu": "0.1", "memory": "64Mi" }, "limits": { "memory": "1Gi" } }),
        grace_seconds: 340,
        image_pull_policy: "IfNotPresent".into(),
        image_pull_secrets: Vec::new(),
    }
}

fn mk_namespace(owners: &[&str]) -> Namespace {
    Namespace {
        name: "payments".into(),
        owners: owners.iter().map(|name| (name.to_string(), format!("{name}-uid"))).collect(),
        may_roll: true,
        ..Default::default()
    }
}

/// As the API server would store them.
fn store(namespace: &mut Namespace, writes: &[Write], change: impl Fn(&mut Value)) {
    for write in writes {
        let (Write::Create { kind, body, .. } | Write::Apply { kind, body, .. }) = write else { continue };
        let mut body = body.clone();
        body["metadata"]["uid"] = json!(format!("{}-uid", kind.as_str()));
        body["metadata"]["resourceVersion"] = json!("7");
        change(&mut body);
        let view = match kind {
            Kind::Deployment => GatewayObject::deployment(parse(&body)),
            Kind::ServiceAccount => GatewayObject::service_account(parse(&body)),
            Kind::Role => GatewayObject::role(parse(&body)),
            Kind::RoleBinding => GatewayObject::role_binding(parse(&body)),
            Kind::PodDisruptionBudget => GatewayObject::budget(parse::<objects::GatewayBudget>(&body)),
            Kind::NetworkPolicy => GatewayObject::network_policy(parse(&body)),
            Kind::Service => GatewayObject::service(parse(&body)),
            other => panic!("{other:?}"),
        };
        namespace.objects.insert(*kind, Arc::new(view.expect("ours")));
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &Value) -> T {
    serde_json::from_value(body.clone()).expect("an object")
}

fn kinds(plan: &GatewayPlan) -> Vec<(&'static str, Kind)> {
    plan.writes.iter().map(|w| (w.verb(), w.kind())).collect()
}

#[test]
fn the_first_model_deployment_brings_the_gateways_and_their_rights_come_before_the_pods() {
    let plan = gateway(&mk_namespace(&["fraud"]), &mk_settings());
    let order = [
        Kind::ServiceAccount,
        Kind::Role,
        Kind::RoleBinding,
        Kind::NetworkPolicy,
        Kind::Service,
        Kind::PodDisruptionBudget,
        Kind::Deployment,
    ];
    assert_eq!(kinds(&plan), order.map(|kind| ("create", kind)));
}

#[test]
fn both_secrets_are_mounted_whether_they_are_there_or_not() {
    let plan = gateway(&mk_namespace(&["fraud"]), &mk_settings());
    let Some(Write::Create { body, .. }) = plan.writes.last() else { panic!("{plan:?}") };
    let pod = &body["spec"]["template"]["spec"];
    let secret = |name: &str| json!({ "secretName": name, "optional": true });
    assert_eq!(
        pod["volumes"],
        json!([
            { "name": "api-keys", "secret": secret("modelwright-api-keys") },
            { "name": "tls", "secret": secret("modelwright-gateway-tls") },
        ])
    );
    assert_eq!(
        pod["containers"][0]["volumeMounts"],
        json!([
            { "name": "api-keys", "mountPath": "/etc/modelwright/api-keys", "readOnly": true },
            { "name": "tls", "mountPath": "/etc/modelwright/tls", "readOnly": true },
        ])
    );
}

#[test]
fn a_namespace_without_model_deployments_gets_nothing() {
    assert!(gateway(&mk_namespace(&[]), &mk_settings()).writes.is_empty());
}

#[test]
fn what_stands_is_left_alone_whatever_the_api_server_adds() {
    let mut namespace = mk_namespace(&["fraud"]);
    let plan = gateway(&namespace, &mk_settings());
    store(&mut namespace, &plan.writes, |body| {
        if body["spec"].is_object() {
            body["spec"]["defaulted"] = json!("Always");
        }
        body["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("1");
        if let Some(cpu) = body.pointer_mut("/spec/template/spec/containers/0/resources/requests/cpu") {
            *cpu = json!("100m");
        }
    });
    assert_eq!(kinds(&gateway(&namespace, &mk_settings())), []);
}

#[test]
fn every_model_deployment_is_an_owner_and_one_that_goes_costs_no_write() {
    let mut namespace = mk_namespace(&["fraud"]);
    let plan = gateway(&namespace, &mk_settings());
    store(&mut namespace, &plan.writes, |_| {});
    namespace.owners.insert("churn".into(), "churn-uid".into());
    let plan = gateway(&namespace, &mk_settings());
    assert_eq!(plan.writes.len(), 7);
    for write in &plan.writes {
        let Write::Apply { body, .. } = write else { panic!("{write:?}") };
        let owners = body["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!(owners.len(), 2);
        assert!(owners.iter().all(|owner| owner.get("controller").is_none()));
        assert!(body["metadata"]["uid"].is_string());
    }
    store(&mut namespace, &plan.writes, |_| {});
    namespace.owners.remove("fraud");
    assert_eq!(kinds(&gateway(&namespace, &mk_settings())), []);
}

#[test]
fn a_new_image_waits_for_its_turn_and_a_new_owner_does_not() {
    let mut namespace = mk_namespace(&["fraud"]);
    let plan = gateway(&namespace, &mk_settings());
    store(&mut namespace, &plan.writes, |_| {});
    namespace.may_roll = false;
    let settings = GatewaySettings { image: "example.test/modelwright:2".into(), ..mk_settings() };
    let plan = gateway(&namespace, &settings);
    assert!(plan.waits && plan.writes.is_empty());
    namespace.may_roll = true;
    assert_eq!(kinds(&gateway(&namespace, &settings)), [("apply", Kind::Deployment)]);

    namespace.may_roll = false;
    namespace.owners.insert("churn".into(), "churn-uid".into());
    assert_eq!(gateway(&namespace, &mk_settings()).writes.len(), 7);
}

#[test]
fn what_somebody_else_changed_is_put_back() {
    let mut namespace = mk_namespace(&["fraud"]);
    let plan = gateway(&namespace, &mk_settings());
    store(&mut namespace, &plan.writes, |body| {
        if body["kind"] == "Deployment" {
            body["spec"]["replicas"] = json!(0);
        }
    });
    assert_eq!(kinds(&gateway(&namespace, &mk_settings())), [("apply", Kind::Deployment)]);
}
