//! The pages for users leave nothing out.
#![cfg(feature = "operator")]

use kube::CustomResourceExt;
use modelwright::api::{ConditionType, ModelDeployment, Reason};
use serde_json::Value;

const API: &str = include_str!("../docs/api.md");
const CONDITIONS: &str = include_str!("../docs/conditions.md");

fn is_named(page: &str, name: &str) -> bool {
    page.match_indices(name).any(|(at, _)| {
        let before = page[..at].chars().next_back();
        let after = page[at + name.len()..].chars().next();
        before.is_some_and(|c| "`.".contains(c)) && after.is_some_and(|c| "`.".contains(c))
    })
}

/// Down to the level that the page describes: what a toleration is, Kubernetes says.
fn fields(schema: &Value, depth: usize, out: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        out.push(name.clone());
        if depth > 1 {
            fields(field, depth - 1, out);
        }
    }
}

#[test]
fn the_reference_names_every_field() {
    let crd = serde_json::to_value(ModelDeployment::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut all = Vec::new();
    fields(&schema["spec"], 3, &mut all);
    fields(&schema["status"], 1, &mut all);
    let missing: Vec<_> = all.iter().filter(|name| !is_named(API, name)).collect();
    assert!(missing.is_empty(), "docs/api.md does not name {missing:?}");
}

#[test]
fn the_table_names_every_condition_and_reason() {
    let conditions = ConditionType::ALL.iter().map(|c| c.as_str());
    let mut all = conditions.chain(Reason::ALL.iter().map(|r| r.as_str()));
    let missing: Vec<_> = all.by_ref().filter(|name| !is_named(CONDITIONS, name)).collect();
    assert!(missing.is_empty(), "docs/conditions.md does not name {missing:?}");
}
