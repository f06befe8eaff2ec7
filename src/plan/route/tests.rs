use std::sync::Arc;

use serde_json::json;

use super::super::plan;
use super::super::tests::{mk_resolved, mk_snapshot};
use super::*;

#[test]
fn whom_the_gateways_answer_is_in_the_route_and_makes_no_revision() {
    let mut snapshot = mk_snapshot(json!({ "model": { "uri": "s3://models/fraud/8/model.onnx" } }));
    let data = children::revision_data(&snapshot, 1, mk_resolved(&snapshot));
    snapshot.family.revisions = vec![Arc::new(children::recorded(&snapshot, 1, data))];
    for (security, said) in [
        (json!({ "authentication": "APIKey" }), "APIKey"),
        (json!({ "authentication": "None" }), "None"),
        (json!({}), "None"),
    ] {
        let spec = json!({ "model": { "uri": "s3://models/fraud/8/model.onnx" }, "security": security });
        snapshot.deployment = mk_snapshot(spec).deployment;
        let plan = plan(&snapshot, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(plan.target, Some(1), "{security}");
        let route = plan.writes.iter().find_map(|write| match write {
            Write::Create { kind: Kind::ModelRoute, body, .. } => Some(body),
            _ => None,
        });
        assert_eq!(route.expect("a route")["spec"]["limits"]["authentication"], said);
    }
}
