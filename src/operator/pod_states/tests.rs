use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::observe::Meta;

fn mk_pod(revisions: &[u64]) -> Arc<PodView> {
    let slots = revisions.iter().zip([8080, 8082]);
    let slots = slots.map(|(revision, port)| Slot { revision: *revision, port, fetch_only: false });
    Arc::new(PodView {
        meta: Meta {
            family: ("payments".into(), "fraud".into()),
            name: "fraud-r1-x".into(),
            uid: "p0".into(),
            resource_version: 1,
            owner_uid: None,
            created: Timestamp::UNIX_EPOCH,
            deleting: false,
        },
        slots: slots.collect(),
        proven: None,
        ends_by: None,
        phase: PodPhase::Running,
        failure: None,
        unschedulable: None,
        scheduled_at: None,
        ready: true,
        ready_at: None,
        ip: Some("10.0.0.1".into()),
        containers: vec![],
        devices: BTreeMap::new(),
    })
}

fn mk_state(phases: &[(&str, &str)]) -> Option<PodState> {
    let revisions = phases
        .iter()
        .map(|(revision, phase)| json!({ "deployment": "fraud", "revision": revision, "phase": phase }));
    let revisions: Vec<_> = revisions.collect();
    Some(
        serde_json::from_value(json!({ "formatVersion": 1, "ready": true, "revisions": revisions })).unwrap(),
    )
}

/// As if the pause between two questions were over.
fn is_due(states: &PodStates, pod: &Arc<PodView>) -> bool {
    if let Some(heard) = states.lock().get_mut("p0") {
        heard.asked = None;
    }
    !states.due(vec![pod.clone()], &Scaling::default()).is_empty()
}

#[test]
fn a_pod_is_asked_until_what_it_holds_is_proven_and_again_when_it_is_assigned_anew() {
    let (states, one, both) = (PodStates::default(), mk_pod(&[1]), mk_pod(&[1, 2]));
    assert!(is_due(&states, &one));
    states.hear(&one, mk_state(&[("fraud-r1", "Proven")]));
    assert!(!is_due(&states, &one));
    assert!(is_due(&states, &both));
    states.hear(&both, mk_state(&[("fraud-r1", "Proven"), ("fraud-r2", "Proven")]));
    assert!(is_due(&states, &both), "either worker may fail alone");
    assert!(is_due(&states, &one), "the second is still there");
    states.hear(&one, mk_state(&[("fraud-r1", "Proven"), ("fraud-r2", "Draining")]));
    assert!(is_due(&states, &one));
    states.hear(&one, mk_state(&[("fraud-r1", "Proven")]));
    assert!(!is_due(&states, &one));
}

#[test]
fn what_a_pod_said_before_it_was_assigned_anew_counts_no_more() {
    let (states, both) = (PodStates::default(), mk_pod(&[1, 2]));
    states.hear(&both, mk_state(&[("fraud-r1", "Proven"), ("fraud-r2", "Proven")]));
    assert!(states.of(&[both]).contains_key("p0"));
    assert!(states.of(&[mk_pod(&[1])]).is_empty());
}

#[test]
fn the_start_of_a_pod_is_counted_once_and_by_the_leader_that_saw_it() {
    let (states, pod) = (PodStates::default(), mk_pod(&[1]));
    let starts = |since: Timestamp| states.starts(std::slice::from_ref(&pod), since);
    let before = Timestamp::UNIX_EPOCH;
    assert!(starts(before).is_empty(), "it was not heard yet");
    states.hear(&pod, mk_state(&[("fraud-r1", "WarmingUp")]));
    assert!(starts(before).is_empty());
    let mut state = mk_state(&[("fraud-r1", "Proven")]).unwrap();
    state.revisions[0].seconds = [("load".to_string(), 0.2)].into();
    states.hear(&pod, Some(state));
    assert!(starts(Timestamp::from_second(1).unwrap()).is_empty(), "the leader before has counted it");
    assert_eq!(starts(before), [[("load".to_string(), 0.2)]]);
    states.hear(&pod, mk_state(&[("fraud-r1", "Proven")]));
    assert!(starts(before).is_empty());
}
