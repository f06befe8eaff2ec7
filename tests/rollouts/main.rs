//! Rollouts told as stories: the real plan and status against a small model of the API server and its controllers,
//! in the usual order and in many seeded ones, with a crash after every write. The transcripts in
//! `tests/golden` are what a reviewer reads; `UPDATE_GOLDEN=1 cargo test --test rollouts` writes them anew.

mod histories;
mod sim;

use serde_json::json;
use sim::{Rng, Sim};

type Story = fn(&mut Sim);

const STORIES: &[(&str, Story)] = &[
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
    ("a_canary_goes_step_by_step_to_the_end", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 4);
        sim.settle();
        sim.set("strategy", canary());
        sim.apply("s3://models/fraud/2.onnx", 4);
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
    ("without_room_for_a_second_pod_requests_wait_for_the_new_one", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 1);
        sim.settle();
    }),
    ("without_room_for_a_surge_old_pods_go_one_by_one", |sim| {
        sim.capacity = 3;
        sim.apply("s3://models/fraud/1.onnx", 3);
        sim.settle();
        sim.apply("s3://models/fraud/2.onnx", 3);
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
    ("a_rollout_that_takes_too_long_is_given_up_where_that_is_wanted", |sim| {
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.set("progressDeadlineSeconds", json!(300));
        sim.set("progressDeadlineAbort", json!(true));
        sim.settle();
        sim.apply("s3://models/fraud/crashes.onnx", 1);
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
    ("the_last_gpu_is_taken_from_a_model_that_never_served", |sim| {
        sim.capacity = 1;
        sim.apply("s3://models/fraud/crashes.onnx", 1);
        sim.settle();
        sim.apply("s3://models/fraud/1.onnx", 1);
        sim.settle();
    }),
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

fn on_a_gpu(sim: &mut Sim) {
    sim.set("runtime", json!({ "executionProviders": [{ "name": "CUDA" }] }));
    sim.set("resources", json!({ "limits": { "nvidia.com/gpu": "1" } }));
}

fn scaling(part: serde_json::Value) -> serde_json::Value {
    let mut all = json!({
        "minReplicas": 0, "maxReplicas": 4, "metric": "RequestsPerSecond", "target": 10,
        "behavior": { "scaleDown": { "stabilizationWindowSeconds": 20 } },
    });
    all.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    all
}

/// Two weights, each with a pause, and an analysis through both.
fn analysed(metrics: serde_json::Value) -> serde_json::Value {
    json!({ "canary": {
        "steps": [{ "setWeight": 5 }, { "pause": { "durationSeconds": 300 } },
            { "setWeight": 50 }, { "pause": { "durationSeconds": 60 } }],
        "analysis": { "minRequests": 200, "failureLimit": 1, "metrics": metrics },
    } })
}

fn compared() -> serde_json::Value {
    let outputs = json!([{ "name": "score", "maxAbsolute": "0.01" }]);
    let metrics = json!([{ "name": "scores", "type": "OutputDifference", "outputs": outputs }]);
    json!({ "canary": {
        "steps": [{ "shadow": { "percent": 20, "durationSeconds": 300 } }, { "setWeight": 50 }],
        "analysis": { "minRequests": 200, "metrics": metrics },
    } })
}

fn canary() -> serde_json::Value {
    json!({ "canary": { "steps": [
        { "setWeight": 5 }, { "pause": { "durationSeconds": 300 } }, { "setWeight": 50 }, { "pause": {} },
    ] } })
}

#[test]
fn the_stories_read_as_they_did() {
    for (name, story) in STORIES {
        let mut sim = Sim::new();
        story(&mut sim);
        let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, sim.transcript()).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(sim.transcript(), golden, "{name}: see {path}");
    }
}

/// The invariants (see `sim`) are checked after every single write, and the end is the same.
#[test]
fn every_order_of_controllers_ends_the_same() {
    for (name, story) in STORIES {
        let mut reference = Sim::new();
        story(&mut reference);
        for seed in 1..=10 {
            let mut sim = Sim::new();
            sim.shuffle = Some(Rng(seed));
            story(&mut sim);
            assert_eq!(sim.end_state(), reference.end_state(), "{name}, seed {seed}\n{}", sim.transcript());
        }
    }
}

#[test]
fn a_crash_after_every_write_ends_the_same() {
    for (name, story) in STORIES {
        let mut reference = Sim::new();
        story(&mut reference);
        for n in 1..=reference.writes {
            let mut sim = Sim::new();
            sim.crash_after = Some(n);
            story(&mut sim);
            assert_eq!(
                sim.end_state(),
                reference.end_state(),
                "{name}, crash after write {n}\n{}",
                sim.transcript()
            );
        }
    }
}
