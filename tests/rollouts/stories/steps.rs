//! Canary, blue/green, shadow and analysis.

use serde_json::{Value, json};

use super::{Story, canary};

pub const STORIES: &[(&str, Story)] = &[
    ("a_canary_goes_step_by_step_to_the_end", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 4);
        sim.settle();
        sim.set("strategy", canary());
        sim.apply("s3://models/fraud/2.onnx", 4);
        sim.settle();
        sim.promote(3);
        sim.settle();
    }),
    ("a_canary_has_the_pods_that_set_canary_scale_says_from_there_on", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 4);
        sim.settle();
        let scale = |scale: Value| json!({ "setCanaryScale": scale });
        let (more, less) = (scale(json!({ "replicas": 3 })), scale(json!({ "percent": 50 })));
        let pause = json!({ "pause": {} });
        let steps = json!([more, { "setWeight": 10 }, pause, less, { "setWeight": 80 }, pause]);
        sim.set("strategy", json!({ "canary": { "steps": steps } }));
        sim.apply("s3://models/fraud/2.onnx", 4);
        sim.settle();
        sim.promote(2);
        sim.settle();
        sim.promote(5);
        sim.settle();
    }),
    ("a_pause_may_be_longer_than_the_deadline", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.set("progressDeadlineSeconds", json!(60));
        sim.set("progressDeadlineAbort", json!(true));
        sim.settle();
        sim.set("strategy", canary());
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.wait(100_000);
        sim.settle();
        sim.promote(3);
        sim.settle();
    }),
    ("a_candidate_gets_copies_of_the_requests_before_it_gets_any_of_its_own", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 4);
        sim.settle();
        let shadow = json!({ "shadow": { "percent": 20, "durationSeconds": 300 } });
        sim.set("strategy", json!({ "canary": { "steps": [shadow, { "setWeight": 50 }] } }));
        sim.apply("s3://models/fraud/2.onnx", 4);
        sim.settle();
    }),
    ("a_candidate_whose_answers_are_near_enough_goes_on_when_enough_are_compared", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("strategy", compared());
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.compared(134, 0.0031);
        sim.settle();
        sim.compared(100, 0.002);
        sim.settle();
    }),
    ("a_candidate_whose_answers_differ_is_given_up_before_anybody_gets_them", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("strategy", compared());
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.steps(14);
        sim.compared(3, 0.25);
        sim.settle();
    }),
    ("a_canary_is_aborted_and_tried_again", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("strategy", canary());
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.annotate("modelwright.dev/abort", "fraud-r2.1");
        sim.settle();
        sim.annotate("modelwright.dev/retry", "fraud-r2.1");
        sim.settle();
        sim.annotate("modelwright.dev/promote", "fraud-r2.1/full");
        sim.settle();
        sim.annotate("modelwright.dev/promote", "fraud-r2.2/full");
        sim.settle();
    }),
    ("a_canary_that_is_promoted_past_all_steps_gets_more_when_it_has_the_pods", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 4);
        sim.settle();
        let steps = json!([{ "setWeight": 25 }, { "pause": {} }, { "setWeight": 75 }, { "pause": {} }]);
        sim.set("strategy", json!({ "canary": { "steps": steps } }));
        sim.apply("s3://models/fraud/2.onnx", 4);
        sim.settle();
        sim.say_of_attempt("promote", "/full");
        sim.settle();
    }),
    ("blue_green_is_promoted_and_rolled_back_without_steps", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("strategy", json!({ "canary": { "steps": [{ "setWeight": 0 }, { "pause": {} }] } }));
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.promote(1);
        sim.steps(10);
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
    }),
    ("a_spec_that_changes_mid_canary_starts_from_the_stable_revision", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("strategy", canary());
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/3.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
    }),
    ("steps_without_room_say_so_and_are_promoted_in_full", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.set("resources", json!({ "limits": { "memory": "1Gi" } }));
        sim.set("strategy", canary());
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
        sim.annotate("modelwright.dev/promote", "fraud-r2.1/full");
        sim.settle();
    }),
    ("a_canary_goes_on_when_its_analysis_has_enough_requests", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("strategy", analysed(json!([{ "name": "errors", "type": "ErrorRate", "max": "0.001" }])));
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.requests(134, 0);
        sim.settle();
        sim.requests(100, 0);
        sim.settle();
    }),
    ("a_canary_that_fails_is_aborted_by_its_analysis", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("strategy", analysed(json!([{ "name": "errors", "type": "ErrorRate", "max": "0.001" }])));
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.requests(134, 9);
        sim.settle();
        sim.say_of_attempt("retry", "");
        sim.settle();
        sim.apply("s3://models/fraud/3.onnx", 2);
        sim.settle();
    }),
    ("a_canary_without_requests_holds_until_somebody_promotes_it", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("progressDeadlineSeconds", json!(300));
        sim.set("progressDeadlineAbort", json!(true));
        let metrics = json!([{ "name": "errors", "type": "ErrorRate", "max": "0.001" }]);
        let steps = json!([{ "setWeight": 5 }, { "setWeight": 50 }, { "setWeight": 80 }]);
        sim.set("strategy", json!({ "canary": { "steps": steps, "analysis": { "metrics": metrics } } }));
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.promote(1);
        sim.settle();
        sim.wait(100_000);
        sim.requests(200, 0);
        sim.settle();
        sim.apply("s3://models/fraud/3.onnx", 2);
        sim.settle();
        sim.say_of_attempt("promote", "/full");
        sim.settle();
    }),
    ("a_query_of_prometheus_may_fail_as_often_as_is_allowed", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set(
            "strategy",
            analysed(json!([{ "name": "chargebacks", "type": "Prometheus", "max": "0.02",
                "prometheus": { "address": "http://prometheus:9090", "query": "chargebacks" } }])),
        );
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.measure("chargebacks", Err("the query finds nothing"), false);
        sim.settle();
        sim.measure("chargebacks", Ok(0.03), true);
        sim.settle();
        sim.measure("chargebacks", Ok(0.05), true);
        sim.settle();
    }),
    ("an_analysis_holds_what_is_left_after_the_last_step", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        let metrics = json!([{ "name": "errors", "type": "ErrorRate", "max": "0.001" }]);
        let steps = json!([{ "setWeight": 50 }]);
        sim.set("strategy", json!({ "canary": { "steps": steps, "analysis": { "metrics": metrics } } }));
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.requests(500, 0);
        sim.settle();
    }),
];

/// Two weights, each with a pause, and an analysis through both.
fn analysed(metrics: Value) -> Value {
    json!({ "canary": {
        "steps": [{ "setWeight": 5 }, { "pause": { "durationSeconds": 300 } },
            { "setWeight": 50 }, { "pause": { "durationSeconds": 60 } }],
        "analysis": { "minRequests": 200, "failureLimit": 1, "metrics": metrics },
    } })
}

fn compared() -> Value {
    let outputs = json!([{ "name": "score", "maxAbsolute": "0.01" }]);
    let metrics = json!([{ "name": "scores", "type": "OutputDifference", "outputs": outputs }]);
    json!({ "canary": {
        "steps": [{ "shadow": { "percent": 20, "durationSeconds": 300 } }, { "setWeight": 50 }],
        "analysis": { "minRequests": 200, "metrics": metrics },
    } })
}
