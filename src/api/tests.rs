use super::*;

#[test]
fn group_kind_plural_and_short_name_stand_for_ever() {
    use kube::CustomResourceExt;
    let crd = ModelDeployment::crd();
    assert_eq!(crd.metadata.name.as_deref(), Some("modeldeployments.modelwright.dev"));
    assert_eq!(crd.spec.names.kind, "ModelDeployment");
    assert_eq!(crd.spec.names.short_names, Some(vec!["mdep".into()]));
    assert_eq!(crd.spec.scope, "Namespaced");
}

#[test]
fn no_field_that_a_pod_sees_has_a_schema_default() {
    use kube::CustomResourceExt;
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
