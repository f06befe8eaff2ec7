//! Where new pods find room, and what happens without.

use serde_json::json;

use super::{Sim, Story, canary};

pub const STORIES: &[(&str, Story)] = &[
    ("without_room_for_a_second_pod_requests_wait_for_the_new_one", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
    }),
    ("without_room_for_a_surge_the_running_pods_take_the_new_model_one_by_one", |sim| {
        sim.capacity = 3;
        sim.apply("s3://models/fraud/1.onnx", 3);
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 3);
        sim.settle();
    }),
    ("without_room_for_a_surge_old_pods_go_one_by_one", |sim| {
        sim.capacity = 4;
        sim.apply("s3://models/fraud/1.onnx", 4);
        sim.settle();
        sim.set("strategy", json!({ "surgeTimeoutSeconds": 60 }));
        sim.set("resources", json!({ "limits": { "memory": "1Gi" } }));
        sim.settle();
    }),
    ("a_rollout_without_room_that_is_scaled_to_one_pod_recreates_it", |sim| {
        sim.capacity = 2;
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("strategy", json!({ "surgeTimeoutSeconds": 60 }));
        sim.set("resources", json!({ "limits": { "memory": "1Gi" } }));
        // Old pods are to go first from now on, and none has gone.
        for _ in 0..100 {
            if !sim.transcript().contains("SurgeUnschedulable") {
                sim.steps(1);
            }
        }
        sim.capacity = 1;
        sim.set("replicas", json!(1));
        sim.settle();
    }),
    ("without_room_for_a_second_pod_what_is_more_than_a_new_model_is_recreated", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.set("strategy", json!({ "surgeTimeoutSeconds": 60 }));
        sim.set("resources", json!({ "limits": { "memory": "1Gi" } }));
        sim.settle();
    }),
    ("a_surge_that_was_asked_for_waits_for_room_however_long", |sim| {
        sim.capacity = 2;
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.set("strategy", json!({ "replacement": "Surge", "maxSurge": 1 }));
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.wait(100_000);
        sim.settle();
        sim.capacity = 3;
        sim.settle();
    }),
    ("a_rollout_that_takes_too_long_says_so_and_ends_when_it_can", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.set("progressDeadlineSeconds", json!(300));
        sim.settle();
        sim.mute = true;
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.wait(100_000);
        sim.settle();
        sim.mute = false;
        sim.settle();
    }),
    ("a_rollout_has_its_time_again_after_it_was_frozen_or_suspended", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.set("progressDeadlineSeconds", json!(300));
        sim.set("progressDeadlineAbort", json!(true));
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.steps(9);
        sim.set("paused", json!(true));
        sim.settle();
        sim.wait(100_000);
        sim.settle();
        sim.set("paused", json!(false));
        sim.settle();
        sim.apply("s3://models/fraud/3.onnx", 2);
        sim.steps(9);
        sim.set("suspend", json!(true));
        sim.settle();
        sim.wait(100_000);
        sim.settle();
        sim.set("suspend", json!(false));
        sim.settle();
    }),
    ("recreate_holds_the_requests_while_pods_are_exchanged", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.set("strategy", json!({ "replacement": "Recreate" }));
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
    }),
    ("a_new_model_is_swapped_inside_the_running_pods_and_back", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.set("strategy", json!({ "replacement": "InPlace" }));
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
    }),
    ("without_room_for_a_second_pod_the_running_one_takes_the_new_model", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
        sim.capacity = 2;
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
    ("a_canary_shares_one_pod_with_the_stable_revision", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.set("strategy", canary());
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
        sim.annotate("modelwright.dev/abort", "fraud-r2.1");
        sim.settle();
    }),
    ("a_broken_model_in_a_running_pod_leaves_the_old_one_serving", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.set("strategy", json!({ "replacement": "InPlace" }));
        sim.settle();
        sim.apply("s3://models/fraud/crashes.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/3.onnx", 2);
        sim.settle();
    }),
    ("where_two_models_find_no_memory_one_takes_the_place_of_the_other", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.set("strategy", json!({ "replacement": "InPlace" }));
        sim.settle();
        sim.apply("s3://models/fraud/large.onnx", 1);
        sim.settle();
    }),
    ("with_the_one_gpu_taken_the_new_model_takes_the_old_ones_place_in_the_pod", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/1.onnx", 1);
        on_a_gpu(sim);
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
    }),
    ("a_broken_model_in_the_place_of_the_old_one_gives_it_back", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/1.onnx", 1);
        on_a_gpu(sim);
        sim.set("strategy", json!({ "replacement": "InPlace" }));
        sim.settle();
        sim.apply("s3://models/fraud/crashes.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/3.onnx", 1);
        sim.settle();
    }),
    ("with_every_gpu_taken_a_new_model_comes_into_one_pod_after_the_other", |sim| {
        sim.capacity = 3;
        sim.apply("s3://models/fraud/1.onnx", 3);
        on_a_gpu(sim);
        sim.set("strategy", json!({ "replacement": "InPlace" }));
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 3);
        sim.settle();
    }),
    ("with_every_gpu_taken_a_canary_has_pods_of_both_and_goes_back", |sim| {
        sim.capacity = 2;
        sim.apply("s3://models/fraud/1.onnx", 2);
        on_a_gpu(sim);
        sim.settle();
        sim.set("strategy", canary());
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.say_of_attempt("abort", "");
        sim.settle();
        sim.say_of_attempt("retry", "");
        sim.settle();
        sim.promote(3);
        sim.settle();
    }),
    ("a_rollout_that_turns_back_gets_its_gpus_back_one_by_one", |sim| {
        sim.capacity = 4;
        sim.apply("s3://models/fraud/1.onnx", 4);
        on_a_gpu(sim);
        sim.set("strategy", json!({ "replacement": "InPlace" }));
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 4);
        sim.steps(50);
        sim.apply("s3://models/fraud/1.onnx", 4);
        sim.settle();
    }),
    ("steps_on_the_one_gpu_say_so_and_are_promoted_in_full", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/1.onnx", 1);
        on_a_gpu(sim);
        sim.settle();
        sim.set("strategy", canary());
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
        sim.say_of_attempt("promote", "/full");
        sim.settle();
    }),
    ("what_is_more_than_a_new_model_gets_new_pods", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.set("strategy", json!({ "replacement": "InPlace" }));
        sim.settle();
        sim.set("resources", json!({ "limits": { "memory": "1Gi" } }));
        sim.settle();
    }),
    ("a_bounded_surge_exchanges_pods_one_by_one", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 3);
        sim.set("strategy", json!({ "maxSurge": 1 }));
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 3);
        sim.settle();
    }),
    ("a_rollout_that_takes_too_long_is_given_up_where_that_is_wanted", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.set("progressDeadlineSeconds", json!(300));
        sim.set("progressDeadlineAbort", json!(true));
        sim.settle();
        sim.apply("s3://models/fraud/crashes.onnx", 1);
        sim.settle();
    }),
    ("the_last_gpu_is_taken_from_a_model_that_never_served", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/crashes.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
];

fn on_a_gpu(sim: &mut Sim) {
    sim.set("runtime", json!({ "executionProviders": [{ "name": "CUDA" }] }));
    sim.set("resources", json!({ "limits": { "nvidia.com/gpu": "1" } }));
}
