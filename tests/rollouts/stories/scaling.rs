//! Pods that follow the demand.

use serde_json::json;

use super::{Story, canary};

pub const STORIES: &[(&str, Story)] = &[
    ("pods_follow_the_demand_to_zero_and_back", |sim| {
        sim.autoscale("s3://models/fraud/1.onnx", scaling(json!({ "scaleToZeroAfterSeconds": 30 })));
        sim.settle();
        sim.demand(40, 35.0, 3, 0);
        sim.demand(60, 5.0, 1, 0);
        sim.demand(40, 0.0, 0, 0);
        sim.demand(1, 1.0, 0, 1);
        sim.demand(5, 5.0, 1, 0);
    }),
    ("a_request_that_is_held_in_the_gap_stops_the_way_to_zero", |sim| {
        sim.autoscale("s3://models/fraud/1.onnx", scaling(json!({ "scaleToZeroAfterSeconds": 30 })));
        sim.settle();
        sim.demand(5, 1.0, 1, 0);
        sim.mute = true;
        sim.demand(35, 0.0, 0, 0);
        sim.demand(1, 1.0, 0, 1);
        sim.mute = false;
        sim.demand(5, 1.0, 1, 0);
    }),
    ("a_burst_at_zero_starts_as_many_pods_as_drain_it", |sim| {
        sim.autoscale("s3://models/fraud/1.onnx", scaling(json!({ "scaleToZeroAfterSeconds": 30 })));
        sim.settle();
        sim.demand(80, 0.0, 0, 0);
        sim.demand(1, 100.0, 0, 100);
        sim.demand(10, 1.0, 1, 0);
    }),
    ("a_silent_gateway_keeps_the_pods_and_none_at_all_too", |sim| {
        sim.autoscale("s3://models/fraud/1.onnx", scaling(json!({})));
        sim.settle();
        sim.demand(40, 35.0, 3, 0);
        sim.silent = 1;
        sim.demand(100, 5.0, 1, 0);
        sim.silent = 2;
        sim.demand(100, 0.0, 0, 0);
        sim.silent = 0;
        sim.demand(40, 5.0, 1, 0);
    }),
    ("a_new_leader_shrinks_nothing_before_it_knows_the_window", |sim| {
        sim.autoscale("s3://models/fraud/1.onnx", scaling(json!({})));
        sim.settle();
        sim.demand(40, 35.0, 3, 0);
        sim.new_leader();
        sim.demand(15, 5.0, 1, 0);
        sim.demand(30, 5.0, 1, 0);
    }),
    ("a_canary_goes_on_while_pods_follow_the_demand", |sim| {
        sim.autoscale("s3://models/fraud/1.onnx", scaling(json!({ "minReplicas": 1 })));
        sim.settle();
        sim.set("strategy", canary());
        sim.autoscale("s3://models/fraud/2.onnx", scaling(json!({ "minReplicas": 1 })));
        sim.demand(40, 35.0, 3, 0);
        sim.demand(60, 5.0, 1, 0);
        sim.promote(1);
        sim.demand(40, 15.0, 1, 0);
        sim.promote(3);
        sim.demand(100, 15.0, 1, 0);
    }),
    ("without_room_fewer_pods_are_asked_for_until_there_is_some", |sim| {
        sim.capacity = 1;
        sim.autoscale("s3://models/fraud/1.onnx", scaling(json!({})));
        sim.settle();
        sim.demand(60, 35.0, 3, 0);
        sim.capacity = 100;
        sim.demand(20, 35.0, 3, 0);
    }),
    ("a_model_that_never_was_ready_is_not_given_up_for_lack_of_demand", |sim| {
        sim.autoscale("s3://models/fraud/crashes.onnx", scaling(json!({ "scaleToZeroAfterSeconds": 10 })));
        sim.demand(60, 0.0, 0, 0);
        sim.autoscale("s3://models/fraud/1.onnx", scaling(json!({ "scaleToZeroAfterSeconds": 10 })));
        sim.demand(60, 0.0, 0, 0);
        sim.autoscale("s3://models/fraud/2.onnx", scaling(json!({ "scaleToZeroAfterSeconds": 10 })));
        sim.demand(20, 0.0, 0, 0);
        sim.demand(1, 1.0, 0, 1);
        sim.demand(5, 1.0, 1, 0);
    }),
];

fn scaling(part: serde_json::Value) -> serde_json::Value {
    let mut all = json!({
        "minReplicas": 0, "maxReplicas": 4, "metric": "RequestsPerSecond", "target": 10,
        "behavior": { "scaleDown": { "stabilizationWindowSeconds": 20 } },
    });
    all.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    all
}
