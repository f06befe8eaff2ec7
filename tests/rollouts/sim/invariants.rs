//! What must hold after every single write.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use modelwright::api::{MetricType, ModelRouteSpec, Replacement, RolloutRecord, RouteMode};
use modelwright::observe::{PodView, ReplicaSetView};
use modelwright::plan::{Kind, Write, desired};
use serde_json::{Value, json};

use super::gist::slots;
use super::{Sim, parse};

const MOST_SETS: usize = 4;

impl Sim {
    /// Pods that answer, and that no write so far has given up.
    pub(super) fn capacity_in_use(&self) -> i32 {
        let family = &self.family;
        let Some(route) = family.route.as_ref().filter(|route| route.spec.mode == RouteMode::Forward) else {
            return 0;
        };
        let record = &route.spec.rollout;
        // With a step to go, the candidate's pods are beside a full stable set: extra.
        let extra = record
            .candidate
            .filter(|_| record.stable.is_some() && (record.step as usize) < record.steps.len());
        let weighted = route.spec.backends.iter().filter(|b| b.weight > 0 && Some(b.revision) != extra);
        let weighted: Vec<u64> = weighted.map(|b| b.revision as u64).collect();
        // A pod that serves two of them is one.
        let in_set = |set: &ReplicaSetView| {
            let pods = family.pods.iter().filter(|pod| pod.meta.owner_uid.as_ref() == Some(&set.meta.uid));
            let drained = |pod: &PodView, number: u64| {
                let drained = route.spec.drained.as_ref();
                drained.is_some_and(|d| d.pod == pod.meta.name && d.revision == number as i64)
            };
            let answers = |pod: &&Arc<PodView>| {
                let mut asked = weighted.iter().filter(|number| !drained(pod, **number));
                pod.ready && asked.any(|number| pod.serves(*number))
            };
            (pods.filter(answers).count() as i32).min(set.replicas)
        };
        family.replica_sets.iter().map(|set| in_set(set)).sum()
    }

    fn ready_pods(&self, number: u64) -> i32 {
        let pods = &self.family.pods;
        pods.iter().filter(|pod| pod.serves(number) && pod.ready).count() as i32
    }

    pub(super) fn check_write(&self, write: &Write) {
        match write {
            Write::Delete { kind: Kind::ReplicaSet, name, .. } => self.check_end_of(name),
            Write::Apply { kind: Kind::ReplicaSet, name, body } if body["spec"]["replicas"] == 0 => {
                self.check_end_of(name);
            }
            Write::Create { kind: Kind::ModelRoute, body, .. }
            | Write::Apply { kind: Kind::ModelRoute, body, .. } => {
                self.check_route(&parse(&body["spec"]));
            }
            Write::Apply { kind: Kind::Pod, name, body } => self.check_assignment(name, body),
            _ => {}
        }
    }

    /// What a pod gives up is asked of it by nobody; what it is said to serve is proven.
    fn check_assignment(&self, name: &str, body: &Value) {
        let pod = self.family.pods.iter().find(|pod| pod.meta.name == name).unwrap();
        assert_eq!(body["metadata"]["uid"], json!(pod.meta.uid));
        let kept = slots(body);
        assert!((1..=2).contains(&kept.len()), "{kept:?}\n{}", self.transcript());
        assert!(kept.len() < 2 || kept[0].port != kept[1].port, "{kept:?}\n{}", self.transcript());
        let run = kept.iter().filter(|slot| !slot.fetch_only).count();
        let most = if self.uses_gpu() { 1 } else { 2 };
        assert!((1..=most).contains(&run), "a GPU has room for one: {kept:?}\n{}", self.transcript());
        for slot in pod.slots.iter().filter(|slot| pod.serves(slot.revision)) {
            let now = kept.iter().find(|kept| kept.revision == slot.revision);
            assert!(now.is_none_or(|now| now.port == slot.port), "a worker keeps its port");
            if now.is_some_and(|now| !now.fetch_only) {
                continue;
            }
            for route in self.gateway_routes().filter(|route| route.spec.mode == RouteMode::Forward) {
                let used = route.spec.backends.iter().any(|b| b.revision as u64 == slot.revision);
                let drained = route.spec.drained.as_ref();
                let drained = drained.is_some_and(|d| d.pod == name && d.revision as u64 == slot.revision);
                assert!(
                    !used || drained,
                    "a gateway still sends r{} to {name}\n{}",
                    slot.revision,
                    self.transcript()
                );
            }
        }
        let proven = body["metadata"]["labels"]["modelwright.dev/serves"].as_str().unwrap();
        let workers = &self.objects[&("Pod", name.to_string())]["status"]["workers"];
        for revision in proven.split('.').filter(|revision| !revision.is_empty()) {
            let number = revision[1..].parse().unwrap();
            let told = workers[format!("fraud-{revision}")] == "";
            assert!(
                told || workers.is_null() && pod.serves(number),
                "{revision} is not proven\n{}",
                self.transcript()
            );
        }
    }

    /// No gateway forwards to a revision that loses its pods.
    fn check_end_of(&self, name: &str) {
        let family = &self.family;
        let number = family.replica_sets.iter().find(|set| set.meta.name == name).unwrap().number as i64;
        let direct = family.service.as_ref().and_then(|service| service.number);
        assert_ne!(direct, Some(number as u64), "the Service leads to {name}\n{}", self.transcript());
        for route in self.gateway_routes().filter(|route| route.spec.mode == RouteMode::Forward) {
            let used = route.spec.backends.iter().any(|b| b.revision == number);
            assert!(!used, "a gateway still forwards to {name}\n{}", self.transcript());
        }
    }

    fn check_route(&self, new: &ModelRouteSpec) {
        let sum: i32 = new.backends.iter().map(|b| b.weight).sum();
        assert_eq!(sum, 100, "weights\n{}", self.transcript());
        let family = &self.family;
        if let Some(shadow) = &new.shadow {
            let known = family.route.as_ref().and_then(|route| route.spec.shadow.as_ref());
            let ready = self.ready_pods(shadow.revision as u64) > 0;
            assert!(known == Some(shadow) || ready, "nothing to mirror to\n{}", self.transcript());
            let stable = new.rollout.stable;
            assert!(stable.is_some() && stable != Some(shadow.revision), "a mirror\n{}", self.transcript());
        }
        let old = |revision: i64| {
            let route = family.route.as_ref()?;
            route.spec.backends.iter().find(|b| b.revision == revision).map(|b| b.weight)
        };
        self.check_raise(new);
        let any_ready = new.backends.iter().any(|b| self.ready_pods(b.revision as u64) > 0);
        for backend in &new.backends {
            let raised = backend.weight > old(backend.revision).unwrap_or(0);
            let mute = self.ready_pods(backend.revision as u64) == 0;
            assert!(
                !(raised && mute && any_ready),
                "weight on r{} that has no ready pod\n{}",
                backend.revision,
                self.transcript()
            );
        }
    }

    /// A candidate that is analysed gets more than it has only after enough requests, or by a person's word.
    fn check_raise(&self, new: &ModelRouteSpec) {
        let Some(route) = self.family.route.as_ref() else { return };
        let (record, attempt) = (&route.spec.rollout, route.spec.rollout.attempt);
        let (Some(candidate), Some(analysis)) = (record.candidate, &record.analysis) else { return };
        // Answers that were compared before it got any request have nothing more to say.
        if analysis.metrics.iter().all(|metric| metric.type_ == MetricType::OutputDifference) {
            return;
        }
        let share = |spec: &ModelRouteSpec| {
            spec.backends.iter().filter(|b| b.revision == candidate).map(|b| b.weight).sum::<i32>()
        };
        let before = share(&route.spec);
        let promoted = format!("promote=fraud-r{candidate}.{attempt}/");
        let is_promoted = new.rollout.obeyed.iter().any(|verb| verb.starts_with(&promoted));
        let requests = self.evidence().counts.requests as i64;
        assert!(
            before == 0 || share(new) <= before || is_promoted || Some(requests) >= analysis.min_requests,
            "r{candidate} gets {} % after {requests} requests\n{}",
            share(new),
            self.transcript()
        );
    }

    fn uses_gpu(&self) -> bool {
        self.deployment.as_ref().is_some_and(|deployment| deployment.spec.runtime.is_some())
    }

    fn desired(&self) -> i32 {
        let spec = &self.deployment.as_ref().unwrap().spec;
        match &spec.autoscaling {
            None => spec.replicas.unwrap_or(1),
            Some(_) => desired(&self.snapshot()),
        }
    }

    /// Pods that may be missing: by the strategy of the rollout that is on its way, or for lack of room.
    pub(super) fn missing(&self) -> i32 {
        let Some(record) = self.family.route.as_ref().map(|route| &route.spec.rollout) else { return 0 };
        let allowed = match &record.max_unavailable {
            Some(IntOrString::Int(count)) => *count,
            Some(IntOrString::String(percent)) => {
                self.desired() * percent.trim_end_matches('%').parse::<i32>().unwrap() / 100
            }
            None => 0,
        };
        allowed.max(i32::from(record.replacement_reason.is_some() || record.exclusive))
    }

    /// Serving pods that are wanted, of every revision.
    pub(super) fn wanted(&self) -> i32 {
        self.family.replica_sets.iter().map(|set| set.replicas).sum()
    }

    /// The most of them that a rollout may bring about, by what the API says, not by what the planner computes.
    pub(super) fn ceiling(&self, record: &RolloutRecord) -> i32 {
        let suspended = self.deployment.as_ref().unwrap().spec.suspend == Some(true);
        let desired = if suspended { 0 } else { self.desired() };
        let share = |percent: i32| (desired * percent + 99) / 100;
        let squeezed = record.replacement_reason.as_deref() == Some("SurgeUnschedulable");
        let surge = match &record.max_surge {
            _ if record.replacement != Replacement::Surge || squeezed => 0,
            Some(IntOrString::Int(count)) => *count,
            Some(IntOrString::String(percent)) => share(percent.trim_end_matches('%').parse().unwrap()),
            None => desired,
        };
        let new = record.candidate.filter(|_| record.stable.is_some() && record.aborted.is_none());
        let step = record.steps.get(record.step as usize);
        let beside = match step {
            _ if new.is_none() || record.replacement != Replacement::Surge => 0,
            // The last old one stays until the new one can take over.
            _ if squeezed => i32::from(desired == 1),
            None if record.steps.is_empty() => surge,
            None => desired,
            Some(step) => {
                let before = &record.steps[..record.step as usize];
                let mut known = before.iter().chain([step]).rev();
                let reached = before.iter().rev().find_map(|step| step.set_weight);
                let pods = match known.find_map(|step| step.set_canary_scale.as_ref()) {
                    Some(scale) => scale.replicas.unwrap_or_else(|| share(scale.percent.unwrap())),
                    None => share(reached.max(step.set_weight).unwrap_or(0)),
                };
                pods.max(1)
            }
        };
        // Others go when every gateway has said that it asks them no more; then they are kept within the surge.
        let own = [record.stable, new];
        let others = self.family.replica_sets.iter().filter(|set| !own.contains(&Some(set.number as i64)));
        let route = self.family.route.as_deref();
        let heard = route.is_some_and(|route| self.gateway_views().acknowledged(route.generation));
        let asked = |number: u64| {
            let mut backends = route.into_iter().flat_map(|route| &route.spec.backends);
            !heard || backends.any(|b| b.revision == number as i64)
        };
        let (asked, kept): (Vec<_>, Vec<_>) = others.partition(|set| asked(set.number));
        let asked: i32 = asked.iter().map(|set| set.replicas).sum();
        let within = if kept.is_empty() { 0 } else { surge };
        desired + asked + beside.max(within)
    }

    /// A write brings about no more pods than the rollout allows. What was there before goes in its time.
    pub(super) fn check_ceiling(&self, before: i32, ceiling: i32) {
        let after = self.wanted();
        assert!(
            after <= before.max(ceiling),
            "{after} pods are wanted, {before} were, and {ceiling} are allowed\n{}",
            self.transcript()
        );
    }

    /// `before`: what answered, and `missing`: what might be missing, before the write. A rollout that ends leaves what
    /// its own strategy allowed.
    pub(super) fn check(&self, before: i32, missing: i32) {
        let family = &self.family;
        let forwards = family.route.as_ref().is_some_and(|route| route.spec.mode == RouteMode::Forward);
        let after = self.capacity_in_use();
        let desired = self.desired() - missing.max(self.missing());
        assert!(
            !forwards || after >= before.min(desired),
            "{before} pods answered, now {after} of {desired}\n{}",
            self.transcript()
        );
        let sets = family.replica_sets.len();
        assert!(sets <= MOST_SETS, "{sets} ReplicaSets at once\n{}", self.transcript());
    }
}
