use serde_json::json;

use super::*;
use crate::telemetry::page;

fn deployment(reason: Option<&str>) -> ModelDeployment {
    let conditions: Vec<_> = reason
        .into_iter()
        .map(|reason| {
            json!({ "type": "Ready", "status": "True", "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z" })
        })
        .collect();
    serde_json::from_value(json!({
        "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelDeployment", "metadata": { "name": "m" },
        "spec": { "model": { "uri": "s3://a/b" } }, "status": { "conditions": conditions },
    }))
    .unwrap()
}

#[test]
fn deployments_are_counted_by_reason_and_anew_each_time() {
    let metrics = Metrics::default();
    let samples = || -> Vec<String> {
        let text = metrics.render();
        let mut lines: Vec<_> =
            text.lines().filter(|l| l.starts_with("modelwright_modeldeployments{")).collect();
        lines.sort_unstable();
        lines.iter().map(|line| line["modelwright_modeldeployments".len()..].to_string()).collect()
    };
    let reasons = [Some("Serving"), Some("Serving"), Some("OutOfMemory"), None, Some("OfALaterOperator")];
    metrics.count(&reasons.map(deployment));
    let wanted = ["{reason=\"OutOfMemory\"} 1", "{reason=\"Serving\"} 2", "{reason=\"Unknown\"} 2"];
    assert_eq!(samples(), wanted);
    metrics.count(&[deployment(Some("Serving"))]);
    assert_eq!(samples(), ["{reason=\"Serving\"} 1"]);
}

#[test]
fn the_page_lists_exactly_what_is_served() {
    let metrics = Metrics::default();
    metrics.wrote(Kind::Service, "create", true);
    metrics.reconciled("ok");
    metrics.count(&[deployment(None)]);
    metrics.started(&[("load".into(), 0.2), ("of a later server".into(), 1.0)]);
    let listed = page::listed(include_str!("../../../docs/metrics.md"), "## The operator");
    assert_eq!(page::served(&metrics.render(), &[]), listed);
}
