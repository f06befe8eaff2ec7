//! Models and their sources, replicas, verbs: rollouts without steps.

use serde_json::json;

use super::{Story, canary};

pub const STORIES: &[(&str, Story)] = &[
    ("a_model_is_served", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
    }),
    ("a_new_model_takes_over_and_is_rolled_back", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
    }),
    ("revisions_beyond_the_history_limit_go_and_their_numbers_are_not_used_again", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.set("revisionHistoryLimit", json!(0));
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
    ("a_broken_model_leaves_the_old_one_serving_until_the_spec_is_mended", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/crashes.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/3.onnx", 2);
        sim.settle();
    }),
    ("a_missing_source_is_named_and_found_again", |sim| {
        sim.apply("s3://models/fraud/missing.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
    ("a_resolve_pod_that_is_evicted_is_made_again_after_a_pause", |sim| {
        sim.evictions = 2;
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
    ("a_quota_that_refuses_the_resolve_pod_holds_up_nothing_else", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.refusal = Some(
            "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4",
        );
        sim.apply("s3://models/fraud/2.onnx", 3);
        sim.settle();
        sim.refusal = None;
        sim.settle();
    }),
    ("a_spec_that_changes_mid_rollout_drops_the_candidate", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/crashes.onnx", 1);
        sim.steps(4);
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
    }),
    ("a_model_that_breaks_its_clients_gets_no_pod_unless_that_is_wanted", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.apply("s3://models/fraud/renamed.onnx", 2);
        sim.settle();
        let model = json!({ "uri": "s3://models/fraud/renamed.onnx", "compatibility": "AllowBreaking" });
        sim.set("model", model);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
    }),
    ("replicas_follow_the_spec_without_a_new_revision", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 3);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 0);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
    ("suspended_requests_are_refused_and_then_wait_for_the_first_pod", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("suspend", json!(true));
        sim.settle();
        sim.set("suspend", json!(false));
        sim.settle();
    }),
    ("gateways_that_never_answer_hold_up_the_rollout_and_lose_nothing", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.mute = true;
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 0);
        sim.settle();
        sim.mute = false;
        sim.settle();
    }),
    ("a_gateway_is_replaced_in_the_middle_of_a_rollout", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.steps(12);
        sim.restart_gateway(0);
        sim.settle();
    }),
    ("paused_freezes_a_rollout_and_nothing_else", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 2);
        sim.settle();
        sim.set("strategy", canary());
        sim.apply("s3://models/fraud/2.onnx", 2);
        sim.steps(30);
        sim.set("paused", json!(true));
        sim.apply("s3://models/fraud/2.onnx", 3);
        sim.settle();
        sim.set("paused", json!(false));
        sim.settle();
    }),
    ("an_older_operators_service_leads_to_the_gateways_once_they_can_answer", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.forget_gateways("r1");
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
        sim.add_gateway();
        sim.settle();
    }),
    ("restarted_at_rolls_the_same_model_once", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.annotate("modelwright.dev/restarted-at", "monday");
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
    ("resolve_at_finds_the_same_bytes_and_then_others", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.annotate("modelwright.dev/resolve-at", "monday");
        sim.settle();
        sim.etag = "other".into();
        sim.annotate("modelwright.dev/resolve-at", "tuesday");
        sim.settle();
    }),
];
