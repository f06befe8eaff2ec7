use serde_json::json;

use super::*;

fn parsed(changes: serde_json::Value) -> Option<PodView> {
    let mut object = json!({
        "metadata": {
            "name": "m-r3-x", "uid": "u", "resourceVersion": "9", "managedFields": [{"manager": "kubelet"}],
            "labels": {"modelwright.dev/deployment": "m", "modelwright.dev/set": "r3", "modelwright.dev/role": "serve"}
        },
        "spec": {"containers": []},
        "status": {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True", "reason": "x"}]}
    });
    for (pointer, value) in changes.as_object().unwrap() {
        *object.pointer_mut(pointer).unwrap() = value.clone();
    }
    pod(serde_json::from_value(object).unwrap())
}

#[test]
fn a_pod_is_usable_when_it_is_ready_and_stays() {
    let view = parsed(json!({})).unwrap();
    assert_eq!((view.deployment.as_str(), view.ready), ("m", true));
    assert_eq!(view.slots, [(3, "10.0.0.7:8080".parse().unwrap())]);
    assert!(!parsed(json!({"/status/conditions/0/status": "False"})).unwrap().ready);
    assert!(!parsed(json!({"/status": {}})).unwrap().ready);
    let leaving = json!({"name": "m", "uid": "u", "deletionTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"modelwright.dev/deployment": "m", "modelwright.dev/set": "r3"}});
    assert!(!parsed(json!({"/metadata": leaving})).unwrap().ready);
    assert_eq!(
        parsed(json!({"/metadata/labels": {"modelwright.dev/deployment": "m"}})),
        None,
        "of no revision"
    );
    assert_eq!(
        parsed(json!({"/status/podIP": "fd00::7"})).unwrap().slots,
        [(3, "[fd00::7]:8080".parse().unwrap())]
    );
}

#[test]
fn a_pod_that_holds_two_revisions_serves_those_that_its_label_names() {
    let assigned = json!({"formatVersion": 1, "assignments": [
        {"deployment": "m", "revision": "m-r3", "modelVersion": "3", "port": 8080, "source": {}},
        {"deployment": "m", "revision": "m-r4", "modelVersion": "4", "port": 8082, "source": {}},
    ]});
    let slots = |serves: Option<&str>| {
        let mut metadata = json!({"name": "m", "uid": "u",
            "annotations": {"modelwright.dev/assignment": assigned.to_string()},
            "labels": {"modelwright.dev/deployment": "m", "modelwright.dev/set": "r3"}});
        if let Some(serves) = serves {
            metadata["labels"]["modelwright.dev/serves"] = json!(serves);
        }
        parsed(json!({ "/metadata": metadata })).unwrap().slots
    };
    let (first, second) = ((3, "10.0.0.7:8080".parse().unwrap()), (4, "10.0.0.7:8082".parse().unwrap()));
    assert_eq!(slots(Some("r3")), [first]);
    assert_eq!(slots(Some("r3.r4")), [first, second]);
    assert_eq!(slots(Some("r4.r7")), [second], "r7 is not assigned");
    assert_eq!(slots(Some("")), []);
    assert_eq!(slots(None), [first, second], "as the template said");
}

#[test]
fn a_pod_with_one_revision_that_is_not_ready_may_announce_it() {
    let starting = |changes| parsed(changes).unwrap().starting;
    assert_eq!(starting(json!({"/status": {}})), Some((3, 8080)));
    assert_eq!(starting(json!({"/status/conditions/0/status": "False"})), Some((3, 8080)));
    assert_eq!(starting(json!({})), None, "it is ready");
    let metadata = |labels, deleted: Option<&str>, assignments| {
        json!({"/metadata": {"name": "m", "uid": "u", "labels": labels, "deletionTimestamp": deleted,
            "annotations": {"modelwright.dev/assignment": json!({ "assignments": assignments }).to_string()}},
            "/status": {}})
    };
    let labels = json!({"modelwright.dev/deployment": "m", "modelwright.dev/set": "r3"});
    let one = json!([{"modelVersion": "3", "port": 8080}]);
    let two = json!([{"modelVersion": "3", "port": 8080}, {"modelVersion": "4", "port": 8082}]);
    assert_eq!(starting(metadata(labels.clone(), None, one.clone())), Some((3, 8080)));
    assert_eq!(starting(metadata(labels.clone(), Some("2026-01-02T03:04:05Z"), one)), None, "it leaves");
    assert_eq!(starting(metadata(labels, None, two)), None, "which of them is proven?");
}

#[test]
fn a_revision_is_the_sole_one_where_nothing_is_rolled_out() {
    let sole_of = |stable, candidate, backends: &[(i64, i32)]| {
        let backends = backends.iter().map(|&(revision, weight)| Backend { revision, weight });
        let rollout = Rollout { stable, candidate, ..Default::default() };
        sole(&RouteSpec { backends: backends.collect(), rollout, ..Default::default() })
    };
    assert_eq!(sole_of(Some(3), None, &[(3, 100)]), Some(3));
    assert_eq!(sole_of(Some(3), None, &[(3, 100), (2, 0)]), Some(3), "who goes has no requests");
    assert_eq!(sole_of(Some(3), None, &[(3, 50), (2, 50)]), None);
    assert_eq!(sole_of(Some(3), Some(4), &[(3, 100)]), None);
    assert_eq!(sole_of(None, Some(1), &[(1, 100)]), None, "never proven");
}

#[test]
fn a_route_is_read_whatever_a_newer_operator_records_of_the_rollout() {
    let read = |spec| {
        let metadata = json!({"name": "m", "uid": "u", "generation": 7});
        route(serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()).unwrap()
    };
    let view = read(json!({
        "mode": "Forward", "backends": [{"revision": 3, "weight": 90}, {"revision": 4, "weight": 10}],
        "rollout": {"stable": 3, "candidate": 4, "attempt": 2, "replacement": "Teleport", "steps": [{"leap": 5}],
            "aborted": null, "analysis": {"intervalSeconds": 5, "metrics": [{"type": "Vibes"}]}, "tried": {}}
    }));
    assert_eq!((view.generation, view.backends.len(), view.sole), (7, 2, None));
    let trial = view.trial.unwrap();
    assert_eq!((trial.stable, trial.candidate, trial.attempt), (3, 4, 2));
    assert_eq!(trial.interval, Duration::from_secs(5));
    let given_up = json!({"stable": 3, "candidate": 4, "aborted": {"reason": "Bored"}, "analysis": {}});
    assert_eq!(read(json!({"mode": "Forward", "rollout": given_up})).trial, None);
}

fn named(name: &str) -> DeserializeGuard<Pod> {
    DeserializeGuard(Ok(Pod {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        status: Status::default(),
    }))
}

#[test]
fn what_can_t_be_read_stays_as_it_was_known() {
    let unreadable: DeserializeGuard<Route> =
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"mode": "Teleport"}})).unwrap();
    let mut listing = Listing::default();
    let mut told = Vec::new();
    let mut take = |event| {
        take(event, &mut listing, route, |name, view| {
            told.push((name.to_string(), view.is_some()));
        })
    };
    take(Event::Apply(unreadable.clone()));
    take(Event::Init);
    take(Event::InitApply(unreadable));
    assert!(take(Event::InitDone), "the list is whole");
    take(Event::Init);
    take(Event::InitDone);
    assert_eq!(told, [("a".to_string(), false)], "only when it was deleted");
}

#[test]
fn what_a_new_list_does_not_show_is_gone() {
    let mut listing = Listing::default();
    let mut told = Vec::new();
    let mut take = |event| {
        take(
            event,
            &mut listing,
            |pod: Pod| pod.metadata.name,
            |name, view| {
                told.push((name.to_string(), view.is_some()));
            },
        )
    };
    assert!(!take(Event::Init));
    assert!(!take(Event::InitApply(named("a"))));
    assert!(!take(Event::InitApply(named("b"))));
    assert!(take(Event::InitDone));
    assert!(!take(Event::Apply(named("c"))));
    assert!(!take(Event::Delete(named("b"))));
    // The watch broke; what it had shown stays until the list is read whole.
    assert!(!take(Event::Init));
    assert!(!take(Event::InitApply(named("c"))));
    assert!(take(Event::InitDone));
    let told: Vec<(&str, bool)> = told.iter().map(|(name, there)| (name.as_str(), *there)).collect();
    assert_eq!(told, [("a", true), ("b", true), ("c", true), ("b", false), ("c", true), ("a", false)]);
}
