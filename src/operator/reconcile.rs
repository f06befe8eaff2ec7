//! One pass: observe, plan, apply, status.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;

use super::Context;
use crate::api::{ModelDeployment, RouteLimits};
use crate::apply::{self, WriteError};
use crate::observe::{Evidence, Family, PodPhase, PodView, Snapshot};
use crate::{plan, status};

/// A pass that failed for the moment is tried again after this.
const RETRY: Duration = Duration::from_secs(2);
/// Somebody else's object, or a rule of the cluster, is in the way: nothing tells us when it goes.
const RETRY_REFUSED: Duration = Duration::from_secs(15);
/// Watches can miss; nothing is left alone for longer.
const RESYNC: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the reconcile panicked: this is a bug")]
    Panicked,
}

pub(super) async fn reconcile(
    deployment: Arc<ModelDeployment>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    if !context.lease.held() || !context.shelves.synced() {
        return Ok(Action::requeue(if context.lease.held() { Duration::from_millis(100) } else { RESYNC }));
    }
    let started = Instant::now();
    // One poisonous object must not stop the others.
    let result = AssertUnwindSafe(pass(deployment, &context)).catch_unwind().await;
    context.metrics.seconds.observe(started.elapsed().as_secs_f64());
    let result = result.unwrap_or(Err(Error::Panicked));
    context.metrics.reconciled(if result.is_ok() { "ok" } else { "error" });
    result
}

async fn pass(deployment: Arc<ModelDeployment>, context: &Context) -> Result<Action, Error> {
    let now = Timestamp::now();
    let (snapshot, gone_at) = snapshot(deployment, context);
    let find = |kind, name: &str| apply::find(&snapshot, kind, name);
    if !context.expectations.met(&snapshot.key(), now, find) {
        return Ok(Action::requeue(Duration::from_secs(1))); // the watch event that is missing wakes us sooner
    }
    let plan = plan::plan(&snapshot, now);
    let applied = apply::apply(&context.writer, &context.expectations, &snapshot, &plan).await;
    let gone_at = gone_at.and_then(|left| SignedDuration::try_from(left).ok()).map(|left| now + left);
    let mut wake_at = [plan.wake_at, gone_at].into_iter().flatten().min();
    if snapshot.deployment.metadata.deletion_timestamp.is_none() {
        let namespace = snapshot.namespace();
        let failed = applied.failure.is_some();
        let later = if context.pod_states.incomplete(&snapshot.family.pods)
            || !failed && context.gateways.is_unheard(namespace, &context.shelves)
        {
            Some(now + SignedDuration::from_secs(1)) // the poll, or the stream, wakes us sooner
        } else {
            let status = status::derive(&snapshot, &plan, &applied, now);
            let (writer, expected) = (&context.writer, &context.expectations);
            let pass = match applied.done {
                _ if failed => status::Pass::Failed,
                0 => status::Pass::Nothing,
                _ => status::Pass::Wrote,
            };
            status::write(writer, expected, &context.budget, &snapshot, status, pass, now).await?
        };
        wake_at = [wake_at, later].into_iter().flatten().min();
    }
    match applied.failure {
        Some(error) => Err(error.into()),
        None => Ok(Action::requeue(until(wake_at, now))),
    }
}

fn until(wake_at: Option<Timestamp>, now: Timestamp) -> Duration {
    let wait = wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    wait.map_or(RESYNC, |wait| wait.max(Duration::from_millis(10)).min(RESYNC))
}

/// And when the next gateway is gone for long enough, which no event says.
pub(super) fn snapshot(deployment: Arc<ModelDeployment>, context: &Context) -> (Snapshot, Option<Duration>) {
    let metadata = &deployment.metadata;
    let key = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    let family = context.shelves.family(&key, metadata.uid.as_deref().unwrap_or_default());
    let route = family.route.as_ref();
    let timeout = route.map_or(RouteLimits::default().request_timeout_seconds, |route| {
        route.spec.limits.request_timeout_seconds
    });
    let timeout = Duration::from_secs(timeout.try_into().unwrap_or(0));
    let uid = route.map(|route| route.meta.uid.as_str());
    let (mut gateways, gone) = context.gateways.of(&key, uid, timeout, &context.shelves);
    gateways.fault = context.namespaces.fault(&key.0, context);
    let evidence = Evidence {
        counts: route.map(|route| context.gateways.counts(route)).unwrap_or_default(),
        measurements: route.map(|route| context.measurements.of(route)).unwrap_or_default(),
    };
    let mut snapshot = Snapshot {
        pod_states: if family.pods.is_empty() { HashMap::new() } else { context.pod_states.of(&family.pods) },
        gpu_holders: gpu_holders(context, &family),
        gateways,
        evidence,
        scaling: None,
        settings: context.settings.clone(),
        deployment,
        family,
    };
    match plan::scaling_settings(&snapshot) {
        Some(settings) => {
            let known = (settings, plan::scaling_pods(&snapshot));
            let decision = context.scaling.decide(Instant::now(), &key, known, &context.gateways);
            snapshot.scaling = Some(decision);
        }
        None => context.scaling.forget(&key),
    }
    (snapshot, gone)
}

/// Who has the devices that a pod of ours waits for, among the pods that this operator sees: its own.
fn gpu_holders(context: &Context, family: &Family) -> BTreeMap<String, BTreeMap<String, i64>> {
    let mut holders: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    let waits = |pod: &Arc<PodView>| pod.unschedulable.is_some() && !pod.devices.is_empty();
    if !family.pods.iter().any(waits) {
        return holders;
    }
    for pod in context.shelves.pods.all() {
        // One that has ended has given its devices back.
        if pod.scheduled_at.is_none() || matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed) {
            continue;
        }
        let (namespace, name) = &pod.meta.family;
        for (resource, count) in &pod.devices {
            *holders
                .entry(resource.clone())
                .or_default()
                .entry(format!("{namespace}/{name}"))
                .or_default() += count;
        }
    }
    holders
}

pub(super) fn error_policy(deployment: Arc<ModelDeployment>, error: &Error, _: Arc<Context>) -> Action {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    match error {
        // A newer view is on its way and wakes us; this is for the case that it is not.
        Error::Write(WriteError::Stale(_)) => Action::requeue(RETRY),
        Error::Write(WriteError::NotLeader) => Action::requeue(RESYNC),
        Error::Write(WriteError::NamespaceTerminating) => Action::await_change(),
        Error::Write(
            WriteError::NameConflict { .. }
            | WriteError::PodRefused { .. }
            | WriteError::Refused { code: 400..=428, .. },
        ) => {
            tracing::warn!(namespace, name, %error, "the pass failed");
            Action::requeue(RETRY_REFUSED)
        }
        Error::Write(_) => {
            tracing::warn!(namespace, name, %error, "the pass failed");
            Action::requeue(RETRY)
        }
        Error::Panicked => {
            tracing::error!(namespace, name, %error, "the pass failed");
            Action::requeue(RETRY_REFUSED)
        }
    }
}
