//! `spec.autoscaling` and what was measured of the pods, for the decision in `scale`; and what it says, for the plan.

use serde::{Deserialize, Serialize};

use super::rollout::pods_of;
use super::scale::{Pods, Settings, Target, Tuning};
use super::strategy::{candidate, stable};
use super::{Plan, children};
use crate::api::{AutoscalingSpec, RolloutRecord, ScalingMetric};
use crate::formats::Capacity;
use crate::observe::{PodView, RevisionView, Snapshot};

/// Of a revision's pods: kept with the revision, for the time when none is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// Seconds from a pod's creation until it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
}

impl Measured {
    /// Each figure of ours, or else the other's.
    fn or(self, other: Self) -> Self {
        Self { cold_start: self.cold_start.or(other.cold_start), capacity: self.capacity.or(other.capacity) }
    }
}

/// A figure that changes by less is no news: each would be a write.
const NEWS: f64 = 2.0;
/// The API server tells times in whole seconds.
const RESOLUTION: f64 = 2.0;

/// The number of pods that are to serve.
pub fn desired(snapshot: &Snapshot) -> i32 {
    let spec = &snapshot.deployment.spec;
    let Some(autoscaling) = &spec.autoscaling else { return spec.replicas.unwrap_or(1) };
    let decided = snapshot.scaling.as_ref().map(|decision| decision.desired);
    let desired = decided.unwrap_or_else(|| pods(snapshot).all()) as i32;
    let least = least(autoscaling);
    desired.clamp(least, autoscaling.max_replicas.max(least))
}

/// Pods that must be ready for the model to be called so, with autoscaling.
pub(super) fn enough(snapshot: &Snapshot, desired: i32) -> Option<i32> {
    let autoscaling = snapshot.deployment.spec.autoscaling.as_ref()?;
    Some(desired.min(least(autoscaling).max(1)))
}

fn least(autoscaling: &AutoscalingSpec) -> i32 {
    autoscaling.min_replicas.unwrap_or(1)
}

/// None: the number is the user's.
pub fn settings(snapshot: &Snapshot) -> Option<Settings> {
    let autoscaling = snapshot.deployment.spec.autoscaling.as_ref()?;
    let measured = measured(snapshot);
    let tuning = Tuning::default();
    let target = match (autoscaling.metric, autoscaling.target, measured.capacity) {
        (Some(ScalingMetric::Concurrency), Some(target), _) => Target::Concurrency(target.into()),
        (_, Some(target), _) => Target::RequestsPerSecond(target.into()),
        (_, None, None) => Target::Unmeasured,
        (Some(ScalingMetric::Concurrency), None, Some(capacity)) => {
            Target::Concurrency((capacity.concurrency * tuning.utilization).max(1.0))
        }
        (_, None, Some(capacity)) => {
            Target::Measured { concurrency: capacity.concurrency, per_second: capacity.per_second }
        }
    };
    let seconds = |seconds: Option<i32>| seconds.map(f64::from);
    let down = autoscaling.behavior.as_ref().and_then(|behavior| behavior.scale_down.as_ref());
    Some(Settings {
        min: least(autoscaling) as u32,
        max: autoscaling.max_replicas as u32,
        target,
        cold_start: measured.cold_start,
        stabilization_window: seconds(down.and_then(|down| down.stabilization_window_seconds)),
        scale_to_zero_after: seconds(autoscaling.scale_to_zero_after_seconds),
        is_measured: autoscaling.target.is_none(),
        proven: record(snapshot).is_some_and(|record| record.stable.is_some()),
        tuning,
    })
}

/// Of the revision that serves: a candidate's come and go with its steps.
pub fn pods(snapshot: &Snapshot) -> Pods {
    let none = Pods { starting: 1, ..Pods::default() };
    let Some(record) = record(snapshot) else { return none };
    let Some(number) = stable(record).or(candidate(record)) else { return none };
    let sets = snapshot.family.replica_sets.iter().filter(|set| !set.meta.deleting);
    let sets: Vec<_> =
        sets.filter(|set| [stable(record), candidate(record)].contains(&Some(set.number))).collect();
    if sets.is_empty() && stable(record).is_none() {
        return none;
    }
    // In a bounded rolling update both have a part.
    let asked = sets.iter().map(|set| set.replicas).max().unwrap_or(0);
    let refused = sets.iter().filter(|set| set.number == number && set.failure.is_some());
    let refused: i32 = refused.map(|set| (set.replicas - set.live).max(0)).sum();
    let count =
        |which: fn(&PodView) -> bool| pods_of(snapshot, number).filter(|pod| which(pod)).count() as u32;
    let ready = count(|pod| pod.ready);
    let unschedulable = count(|pod| pod.unschedulable.is_some()) + refused as u32;
    Pods { ready, starting: (asked as u32).saturating_sub(ready + unschedulable), unschedulable }
}

/// How long requests wait for the first pod where the user does not say: three times what one was seen to take.
pub(super) fn patience(snapshot: &Snapshot) -> Option<i64> {
    snapshot.deployment.spec.autoscaling.as_ref()?;
    let cold_start = serving(snapshot)?.measured?.cold_start?;
    Some((3.0 * cold_start / 60.0).ceil() as i64 * 60)
}

fn record(snapshot: &Snapshot) -> Option<&RolloutRecord> {
    snapshot.family.route.as_ref().map(|route| &route.spec.rollout)
}

/// The revision whose pods the number is of.
fn serving(snapshot: &Snapshot) -> Option<&RevisionView> {
    let record = record(snapshot)?;
    let number = stable(record).or(candidate(record))?;
    snapshot.family.revisions.iter().find(|revision| revision.number == number).map(|revision| &**revision)
}

fn measured(snapshot: &Snapshot) -> Measured {
    let Some(revision) = serving(snapshot) else { return Measured::default() };
    seen(snapshot, revision).or(revision.measured.unwrap_or_default())
}

/// The median of the pods that are ready.
fn seen(snapshot: &Snapshot, revision: &RevisionView) -> Measured {
    let ready = || pods_of(snapshot, revision.number).filter(|pod| pod.ready);
    let starts = ready().filter_map(|pod| cold_start(snapshot, pod, &revision.meta.name));
    let state = |pod| snapshot.revision_state(pod, &revision.meta.name);
    let capacities = ready().filter_map(|pod| state(pod)?.capacity);
    Measured {
        cold_start: median(starts.collect(), |seconds| *seconds),
        capacity: median(capacities.collect(), |capacity: &Capacity| capacity.per_second),
    }
}

/// Of the API server's times and the pod's own phases the shorter: a pod that was unready for a moment has a late time,
/// and phases overlap.
fn cold_start(snapshot: &Snapshot, pod: &PodView, revision: &str) -> Option<f64> {
    if pod.containers.iter().any(|container| container.restarts > 0) {
        return None;
    }
    let since = |at: jiff::Timestamp| at.duration_since(pod.meta.created).as_secs_f64().max(0.0);
    let ready = pod.ready_at.map(since)?;
    let server = pod.container("server").and_then(|server| server.started_at).map(since);
    let phases = snapshot.revision_state(pod, revision).map(|state| state.seconds.values().sum::<f64>());
    let told = server.zip(phases).map(|(server, phases)| server + phases);
    Some(told.map_or(ready, |told| told.min(ready)).max(0.1))
}

fn median<T: Copy>(mut values: Vec<T>, by: impl Fn(&T) -> f64) -> Option<T> {
    values.sort_by(|a, b| by(a).total_cmp(&by(b)));
    values.get(values.len() / 2).copied()
}

/// Keeps what was measured with the revision.
pub(super) fn note(snapshot: &Snapshot, plan: &mut Plan) {
    if snapshot.deployment.spec.autoscaling.is_none() {
        return;
    }
    let Some(revision) = serving(snapshot).filter(|revision| revision.data.is_some()) else { return };
    let (seen, kept) = (seen(snapshot, revision), revision.measured.unwrap_or_default());
    let differs = |new: Option<f64>, old: Option<f64>, least: f64| match (new, old) {
        (Some(new), Some(old)) => {
            let (new, old) = (new.max(least), old.max(least));
            new > NEWS * old || old > NEWS * new
        }
        (new, old) => new.is_some() && old.is_none(),
    };
    let rate = |capacity: Option<Capacity>| capacity.map(|capacity| capacity.per_second);
    if differs(seen.cold_start, kept.cold_start, RESOLUTION)
        || differs(rate(seen.capacity), rate(kept.capacity), 0.0)
    {
        plan.writes.push(children::note_measured(snapshot, revision, &seen.or(kept)));
    }
}

#[cfg(test)]
mod tests;
