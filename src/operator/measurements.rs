//! The Prometheus queries of analyses: asked while a candidate has traffic, first after one interval of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::mpsc;

use super::{Lease, Trigger, prometheus};
use crate::api::{AnalysisMetric, AnalysisSpec, INTERVAL_SECONDS, RolloutRecord};
use crate::observe::{Measurement, RouteView, Shelves};

const EVERY: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 32;

pub(crate) struct Measurements {
    /// By the ModelRoute's uid.
    attempts: Mutex<HashMap<String, Attempt>>,
    /// Of one query.
    deadline: Duration,
    allow_loopback: bool,
}

impl Default for Measurements {
    fn default() -> Self {
        Self { attempts: Mutex::default(), deadline: DEADLINE, allow_loopback: false }
    }
}

struct Attempt {
    candidate: Option<i64>,
    attempt: i64,
    asked: Instant,
    found: BTreeMap<String, Measurement>,
}

impl Measurements {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn of(&self, route: &RouteView) -> BTreeMap<String, Measurement> {
        let record = &route.spec.rollout;
        let known = self.lock();
        let known = known.get(&route.meta.uid).filter(|known| known.is_of(record));
        known.map(|known| known.found.clone()).unwrap_or_default()
    }

    pub(super) async fn poll(
        self: Arc<Self>,
        shelves: Arc<Shelves>,
        lease: Arc<Lease>,
        trigger: mpsc::Sender<Trigger>,
    ) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            if !lease.held() {
                self.lock().clear();
                continue;
            }
            let due = self.due(shelves.routes.all(), Instant::now());
            let (deadline, allow_loopback) = (self.deadline, self.allow_loopback);
            let answers = futures::stream::iter(due).map(|(route, metric)| async move {
                let answer = match &metric.prometheus {
                    Some(asked) => {
                        let query = fill(&asked.query, &route);
                        prometheus::ask(&asked.address, &query, deadline, allow_loopback).await
                    }
                    None => Err("no query".into()),
                };
                (route, metric, answer)
            });
            let mut answers = answers.buffer_unordered(AT_ONCE);
            while let Some((route, metric, answer)) = answers.next().await {
                self.take(&route, &metric, answer);
                let (namespace, name) = &route.meta.family;
                // Closed only when the process ends.
                let _ = trigger.send(Trigger::new(name).within(namespace)).await;
            }
        }
    }

    /// What is to be asked now.
    fn due(&self, routes: Vec<Arc<RouteView>>, now: Instant) -> Vec<(Arc<RouteView>, AnalysisMetric)> {
        let mut known = self.lock();
        let analysed: Vec<_> = routes.iter().filter_map(|route| Some((route, analysis(route)?))).collect();
        let uids: HashSet<&str> = analysed.iter().map(|(route, _)| route.meta.uid.as_str()).collect();
        known.retain(|uid, _| uids.contains(uid.as_str()));
        let mut due = Vec::new();
        for (route, analysis) in analysed {
            let record = &route.spec.rollout;
            let begun = || Attempt {
                candidate: record.candidate,
                attempt: record.attempt,
                asked: now,
                found: BTreeMap::new(),
            };
            let known = known.entry(route.meta.uid.clone()).or_insert_with(begun);
            if !known.is_of(record) {
                *known = begun();
            }
            let interval = analysis.interval_seconds.unwrap_or(INTERVAL_SECONDS);
            if now.saturating_duration_since(known.asked)
                < Duration::from_secs(interval.try_into().unwrap_or(1))
            {
                continue;
            }
            known.asked = now;
            let asked = analysis.metrics.iter().filter(|metric| metric.prometheus.is_some());
            due.extend(asked.map(|metric| (route.clone(), metric.clone())));
        }
        due
    }

    fn take(&self, route: &RouteView, metric: &AnalysisMetric, answer: Result<f64, String>) {
        let mut known = self.lock();
        let known = known.get_mut(&route.meta.uid).filter(|known| known.is_of(&route.spec.rollout));
        let Some(known) = known else { return };
        let found = known.found.entry(metric.name.clone()).or_default();
        match answer {
            Ok(value) => {
                found.values += 1;
                // The schema lets only decimals in.
                let max = metric.max.as_deref().and_then(|max| max.parse::<f64>().ok());
                found.failures += u64::from(max.is_some_and(|max| value > max));
                found.last = Some(value);
                found.error = None;
            }
            Err(error) => found.error = Some(error),
        }
    }
}

impl Attempt {
    fn is_of(&self, record: &RolloutRecord) -> bool {
        self.candidate == record.candidate && self.attempt == record.attempt
    }
}

/// While the candidate has traffic.
fn analysis(route: &RouteView) -> Option<&AnalysisSpec> {
    let record = &route.spec.rollout;
    let candidate = record.candidate.filter(|_| record.aborted.is_none() && record.stable.is_some())?;
    let shares = route.spec.backends.iter().any(|b| b.revision == candidate && b.weight > 0);
    let analysis = record.analysis.as_ref().filter(|_| shares)?;
    analysis.metrics.iter().any(|metric| metric.prometheus.is_some()).then_some(analysis)
}

fn fill(query: &str, route: &RouteView) -> String {
    let (namespace, name) = &route.meta.family;
    let record = &route.spec.rollout;
    let revision = |number: Option<i64>| format!("{name}-r{}", number.unwrap_or_default());
    query
        .replace("{{revision}}", &revision(record.candidate))
        .replace("{{stable}}", &revision(record.stable))
        .replace("{{name}}", name)
        .replace("{{namespace}}", namespace)
}

#[cfg(test)]
mod tests;
