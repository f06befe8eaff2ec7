use super::*;
use crate::api::StatusCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn status(
    ready: (&str, &str),
    available: &str,
    degraded: &str,
    stable: Option<&str>,
) -> ModelDeploymentStatus {
    let condition = |kind: ConditionType, status: &str, reason: &str| StatusCondition {
        type_: kind.as_str().into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    };
    ModelDeploymentStatus {
        conditions: vec![
            condition(ConditionType::Ready, ready.0, ready.1),
            condition(ConditionType::Available, available, ""),
            condition(ConditionType::Degraded, degraded, ""),
        ],
        stable_revision: stable.map(Into::into),
        ..Default::default()
    }
}

#[test]
fn what_scripts_wait_for_is_told_from_how_far_it_is() {
    let none = ModelDeploymentStatus::default;
    let starting = || status(("Unknown", "Starting"), "False", "False", None);
    let ready = || status(("True", "Serving"), "True", "False", Some("r1"));
    for (old, new, wanted) in [
        (none(), starting(), Turned::Progress),
        (starting(), status(("Unknown", "RolloutInProgress"), "False", "False", None), Turned::Progress),
        (starting(), status(("Unknown", "Starting"), "True", "False", None), Turned::Available),
        (status(("Unknown", "Starting"), "True", "False", None), starting(), Turned::Service),
        (starting(), ready(), Turned::Verdict),
        (starting(), status(("Unknown", "Starting"), "False", "True", None), Turned::Verdict),
        (ready(), status(("True", "Serving"), "True", "False", Some("r2")), Turned::Service),
        (ready(), status(("False", "ModelInvalid"), "True", "False", Some("r1")), Turned::Verdict),
    ] {
        assert_eq!(turned(&old, &new), wanted, "{old:?}\n{new:?}");
    }
}

#[test]
fn that_requests_are_answered_waits_a_moment_for_what_else_there_is_to_say_and_for_no_turn() {
    let (budget, key) = (StatusBudget::default(), ("team".to_string(), "model".to_string()));
    let at = |millis: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_millis(millis);
    (0..20).for_each(|_| assert!(budget.affords(at(0))));
    assert_eq!(budget.ask(&key, at(0)), Some(at(500)), "it has been starting for long by now");
    assert_eq!(budget.ask_available(&key, at(10)), Some(at(510)));
    assert_eq!(budget.ask_available(&key, at(509)), Some(at(510)));
    assert_eq!(budget.ask_available(&key, at(510)), None);
    budget.settle(&key);
    assert_eq!(budget.ask_available(&key, at(600)), Some(at(1100)), "the next time");
}

#[test]
fn a_status_is_left_to_the_next_pass_once_and_not_for_ever() {
    let (budget, key) = (StatusBudget::default(), ("team".to_string(), "model".to_string()));
    assert!(!budget.puts_off(&key, false), "nothing was written");
    assert!(budget.puts_off(&key, true));
    assert!(!budget.puts_off(&key, true), "whoever changes back what was written hides no status");
    assert!(!budget.puts_off(&key, false));
    assert!(budget.puts_off(&key, true), "a pass that wrote nothing was between");
    budget.settle(&key);
    assert!(budget.puts_off(&key, true));
}

#[test]
fn a_fault_that_halts_a_rollout_is_one_event() {
    let reason = "SignatureIncompatible";
    let serving = status(("True", "Serving"), "True", "False", Some("r1"));
    let mut halted = status(("False", reason), "True", "True", Some("r1"));
    halted.conditions[2].reason = reason.into();
    let progressing = StatusCondition {
        type_: ConditionType::Progressing.as_str().into(),
        status: "False".into(),
        ..halted.conditions[2].clone()
    };
    halted.conditions.push(progressing);
    let reasons: Vec<_> = transitions(&serving, &halted).into_iter().map(|note| note.reason).collect();
    assert_eq!(reasons, [reason]);
}
