use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::runtime::watcher::Event;

use super::*;
use crate::observe::{ContainerView, Meta};

const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn mk_pod(name: &str) -> PodView {
    PodView {
        meta: Meta {
            family: ("payments".into(), String::new()),
            name: name.into(),
            uid: format!("{name}-uid"),
            resource_version: 1,
            owner_uid: None,
            created: Timestamp::UNIX_EPOCH,
            deleting: false,
        },
        slots: vec![],
        proven: None,
        ends_by: None,
        phase: PodPhase::Running,
        failure: None,
        unschedulable: None,
        scheduled_at: None,
        ready: true,
        ready_at: None,
        ip: Some("10.0.0.1".into()),
        containers: vec![ContainerView {
            name: "gateway".into(),
            started_at: Some(Timestamp::UNIX_EPOCH),
            waiting: None,
            terminated: None,
            restarts: 0,
        }],
        devices: BTreeMap::new(),
    }
}

#[derive(Default)]
struct World {
    streams: GatewayStreams,
    shelves: Shelves,
}

impl World {
    fn shows(&self, pod: PodView) -> bool {
        self.shelves.gateways.pods.take(Event::Apply(Some(pod)));
        self.streams.look("payments", &self.shelves)
    }

    fn loses(&self, pod: PodView) {
        self.shelves.gateways.pods.take(Event::Delete(Some(pod)));
        self.streams.look("payments", &self.shelves);
    }

    fn says(&self, pod: &str, generation: i64) -> Vec<String> {
        let route = AppliedRoute { uid: "route".into(), generation };
        let report = GatewayReport {
            format_version: 1,
            routes: BTreeMap::from([("fraud".to_string(), route)]),
            removed: Vec::new(),
            ..GatewayReport::default()
        };
        self.streams.hear("payments", &format!("{pod}-uid"), report, false)
    }

    fn sees(&self, route: &str, timeout: Duration) -> Gateways {
        let key = ("payments".into(), "fraud".into());
        self.streams.of(&key, Some(route), timeout, &self.shelves).0
    }
}

#[test]
fn a_ready_gateway_is_heard_or_tried_before_anything_is_said_of_it() {
    let world = World::default();
    let unheard = || world.streams.is_unheard("payments", &world.shelves);
    assert!(!unheard(), "there is none");
    world.shows(PodView { ready: false, ..mk_pod("a") });
    assert!(!unheard(), "it is not ready");
    world.shows(mk_pod("a"));
    assert!(unheard());
    world.says("a", 1);
    assert!(!unheard());
    world.shows(mk_pod("b"));
    assert!(unheard(), "the other has said something");
    world.streams.lock().tried.insert("b-uid".into());
    assert!(!unheard(), "nobody waits for ever for one that does not answer");
}

#[test]
fn a_route_is_acknowledged_when_every_ready_gateway_has_said_so() {
    let world = World::default();
    world.shows(mk_pod("a"));
    world.shows(mk_pod("b"));
    assert!(!world.sees("route", TIMEOUT).acknowledged(2), "nothing was heard");
    assert_eq!(world.says("a", 2), ["fraud"]);
    assert!(world.says("a", 2).is_empty(), "no news");
    world.says("b", 1);
    assert_eq!(world.sees("route", TIMEOUT).count(2), (2, 1));
    world.says("b", 2);
    assert!(world.sees("route", TIMEOUT).acknowledged(2));
    assert!(!world.sees("another", TIMEOUT).acknowledged(2), "that was another route of the name");
}

#[test]
fn a_gateway_that_vanishes_counts_until_its_requests_are_over() {
    let world = World::default();
    world.shows(mk_pod("a"));
    world.says("a", 1);
    world.loses(mk_pod("a"));
    assert_eq!(world.sees("route", TIMEOUT).count(2), (1, 0));
    assert_eq!(world.sees("route", TIMEOUT).count(1), (1, 1), "what it had acknowledged stands");
    assert_eq!(world.sees("route", Duration::ZERO).count(2), (0, 0));
}

#[test]
fn a_gateway_that_is_not_ready_any_more_counts_until_its_requests_are_over() {
    let world = World::default();
    world.shows(mk_pod("a"));
    world.says("a", 1);
    world.streams.disconnected("a-uid");
    let unready = PodView { ready: false, ..mk_pod("a") };
    assert!(world.shows(unready.clone()));
    let key = ("payments".into(), "fraud".into());
    let (seen, again) = world.streams.of(&key, Some("route"), TIMEOUT, &world.shelves);
    assert_eq!((seen.ready(), seen.count(2)), (0, (1, 0)));
    assert!(again.is_some_and(|again| again <= TIMEOUT), "it is looked at again: {again:?}");
    assert_eq!(world.sees("route", TIMEOUT).count(1), (1, 1), "what it had acknowledged stands");
    assert_eq!(world.sees("route", Duration::ZERO).count(2), (0, 0));
    world.says("a", 2);
    assert_eq!(world.sees("route", Duration::ZERO).count(2), (1, 1), "it is heard again, so it runs");

    world.streams.disconnected("a-uid");
    let mut crashed = unready;
    crashed.containers[0].started_at = None;
    world.shows(crashed);
    assert_eq!(world.sees("route", TIMEOUT).count(3), (0, 0), "its process has ended");
}

#[test]
fn a_gateway_that_was_seen_to_end_counts_no_more() {
    let world = World::default();
    world.shows(mk_pod("a"));
    let mut ending = mk_pod("a");
    (ending.meta.deleting, ending.ready) = (true, false);
    assert!(world.shows(ending.clone()), "it leaves");
    assert_eq!(world.sees("route", TIMEOUT).count(1), (1, 0));
    ending.containers[0].started_at = None;
    world.shows(ending.clone());
    assert_eq!(world.sees("route", TIMEOUT).count(1), (0, 0));
    world.loses(ending);
    assert_eq!(world.sees("route", TIMEOUT).count(1), (0, 0));
}

#[test]
fn the_first_line_of_a_stream_replaces_what_was_known() {
    let world = World::default();
    world.shows(mk_pod("a"));
    world.says("a", 3);
    let nothing = GatewayReport {
        format_version: 1,
        held: BTreeMap::from([("fraud".to_string(), 2)]),
        ..GatewayReport::default()
    };
    assert_eq!(world.streams.hear("payments", "a-uid", nothing, true), ["fraud"]);
    let gateways = world.sees("route", TIMEOUT);
    assert_eq!((gateways.pods[0].applied, gateways.pods[0].held), (None, 2));
}

#[test]
fn an_image_that_cannot_be_pulled_is_the_fault() {
    let world = World::default();
    let status = serde_json::json!({
        "metadata": { "name": "modelwright-gateway", "namespace": "payments", "uid": "u",
            "labels": { "modelwright.dev/component": "gateway" } },
        "spec": { "replicas": 2 },
        "status": { "availableReplicas": 0 },
    });
    let deployment = serde_json::from_value(status).unwrap();
    let view = crate::observe::GatewayObject::deployment(deployment);
    world.shelves.gateways.deployments.take(Event::Apply(view));
    assert_eq!(fault("payments", &world.shelves), None);
    let mut pod = mk_pod("a");
    pod.containers[0].waiting = Some(("ImagePullBackOff".into(), "no such image".into()));
    world.shows(pod);
    let said = fault("payments", &world.shelves).unwrap();
    assert_eq!(said, "gateway pod a does not start: ImagePullBackOff: no such image");
}
