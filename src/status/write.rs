use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::events::{Note, condition, transitions};
use crate::api::{ConditionType, GROUP, ModelDeploymentStatus};
use crate::apply::{Expectations, WriteError, Writer};
use crate::observe::{Key, Snapshot};
use crate::plan::{Kind, Write};

/// When a progress status, which only says how far a rollout is, may be written: it must have stood for a moment
/// (pods pass through five stages in a second), and it waits its turn, since four such writes for each of a thousand
/// objects would take the API server from the work itself. Verdicts never wait.
pub struct StatusBudget {
    bucket: Mutex<Bucket>,
}

struct Bucket {
    tokens: f64,
    filled: Option<Timestamp>,
    /// Since when an object's written status is behind.
    behind: HashMap<Key, Timestamp>,
    /// Since when it is available, and the written status does not say so.
    available: HashMap<Key, Timestamp>,
    /// Whose status was left to the next pass.
    put_off: HashSet<Key>,
}

const BURST: f64 = 20.0;
const PER_SECOND: f64 = 2.0;
const STANDS: SignedDuration = SignedDuration::from_millis(500);
/// When a progress status that found no token is tried again.
const LATER: SignedDuration = SignedDuration::from_secs(5);

impl Bucket {
    fn take(&mut self, now: Timestamp) -> bool {
        let passed = self.filled.map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
        self.tokens = (self.tokens + passed * PER_SECOND).min(BURST);
        // Passes end in another order than they start: going back would fill the same seconds twice.
        self.filled = self.filled.max(Some(now));
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

impl Default for StatusBudget {
    fn default() -> Self {
        Self {
            bucket: Mutex::new(Bucket {
                tokens: BURST,
                filled: None,
                behind: HashMap::new(),
                available: HashMap::new(),
                put_off: HashSet::new(),
            }),
        }
    }
}

impl StatusBudget {
    /// None: write now. Some: not before then.
    fn ask(&self, key: &Key, now: Timestamp) -> Option<Timestamp> {
        let mut bucket = self.lock();
        let since = *bucket.behind.entry(key.clone()).or_insert(now);
        if now < since + STANDS {
            return Some(since + STANDS);
        }
        if bucket.take(now) { None } else { Some(now + LATER) }
    }

    /// None: it has been available for a moment, and still is not ready. Some: not before then.
    fn ask_available(&self, key: &Key, now: Timestamp) -> Option<Timestamp> {
        let until = *self.lock().available.entry(key.clone()).or_insert(now) + STANDS;
        (now < until).then_some(until)
    }

    /// May an event be written that only tells of a success?
    fn affords(&self, now: Timestamp) -> bool {
        self.lock().take(now)
    }

    /// True: leave it to the next pass, which sees what this one `wrote`. Not twice in a row: an object that somebody else
    /// changes back for ever has a status, too.
    fn puts_off(&self, key: &Key, wrote: bool) -> bool {
        let mut bucket = self.lock();
        if !wrote {
            bucket.put_off.remove(key);
            return false;
        }
        bucket.put_off.insert(key.clone())
    }

    /// The written status says what is so.
    pub fn settle(&self, key: &Key) {
        let mut bucket = self.lock();
        bucket.behind.remove(key);
        bucket.available.remove(key);
        bucket.put_off.remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the pass has done to the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Nothing,
    /// Something, so that another pass follows.
    Wrote,
    /// Not all that it wanted: the next may be a while.
    Failed,
}

/// Writes the status if it says something new, and the events that go with it. Some: look again then.
pub async fn write(
    writer: &Writer,
    expectations: &Expectations,
    budget: &StatusBudget,
    snapshot: &Snapshot,
    mut status: ModelDeploymentStatus,
    pass: Pass,
    now: Timestamp,
) -> Result<Option<Timestamp>, WriteError> {
    let none = ModelDeploymentStatus::default();
    let old = snapshot.deployment.status.as_ref().unwrap_or(&none);
    keep_times(old, &mut status);
    let key = snapshot.key();
    if *old == status {
        budget.settle(&key);
        return Ok(None);
    }
    let puts_off = budget.puts_off(&key, pass == Pass::Wrote);
    match turned(old, &status) {
        Turned::Verdict => {}
        _ if puts_off => return Ok(Some(now + STANDS)),
        Turned::Service => {}
        Turned::Available if pass == Pass::Failed => {}
        Turned::Available => {
            if let Some(later) = budget.ask_available(&key, now) {
                return Ok(Some(later));
            }
        }
        Turned::Progress => {
            if let Some(later) = budget.ask(&key, now) {
                return Ok(Some(later));
            }
        }
    }
    let write = Write::Apply {
        kind: Kind::ModelDeployment,
        name: snapshot.name().into(),
        body: json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": "ModelDeployment",
            "metadata": { "name": snapshot.name(), "namespace": snapshot.namespace(), "uid": snapshot.uid() },
            "status": status,
        }),
    };
    let written = writer.send(snapshot.namespace(), &write).await?;
    expectations.expect(key.clone(), &write, written);
    budget.settle(&key);
    for (index, note) in transitions(old, &status).into_iter().enumerate() {
        if note.warning {
            tracing::warn!(
                namespace = snapshot.namespace(),
                name = snapshot.name(),
                reason = note.reason,
                message = note.message,
                "degraded"
            );
        } else {
            tracing::info!(
                namespace = snapshot.namespace(),
                name = snapshot.name(),
                reason = note.reason,
                message = note.message,
                "progressed"
            );
        }
        // An event is a courtesy: losing one must not fail the pass, and in a crowd a good one is left out.
        if !note.warning && !budget.affords(now) {
            continue;
        }
        let _ = writer.send(snapshot.namespace(), &event(snapshot, &note, index, now)).await;
    }
    Ok(None)
}

/// A condition that did not turn keeps its time; a failure that is the same keeps its own.
fn keep_times(old: &ModelDeploymentStatus, new: &mut ModelDeploymentStatus) {
    for condition in &mut new.conditions {
        let former = old.conditions.iter().find(|c| c.type_ == condition.type_);
        if let Some(former) = former.filter(|c| c.status == condition.status) {
            condition.last_transition_time = former.last_transition_time.clone();
        }
    }
    match (&old.last_failure, &mut new.last_failure) {
        (Some(former), Some(failure))
            if former.reason == failure.reason && former.message == failure.message =>
        {
            failure.time = former.time.clone();
        }
        // What went wrong last stays to be read after it is mended.
        (Some(former), none @ None) => *none = Some(former.clone()),
        _ => {}
    }
}

/// What a status says that the written one does not.
#[derive(Debug, PartialEq, Eq)]
enum Turned {
    /// It is ready, or not, or somebody is needed.
    Verdict,
    /// By what requests are answered, or that none are any more.
    Service,
    /// Requests are answered: most often it is ready a moment later, and one write says both.
    Available,
    /// How far it is.
    Progress,
}

fn turned(old: &ModelDeploymentStatus, new: &ModelDeploymentStatus) -> Turned {
    let turned = |kind| {
        let key = |s| condition(s, kind).map(|c| (c.status.clone(), c.reason.clone()));
        let (before, after) = (key(old), key(new));
        before != after && [before, after].iter().flatten().any(|(status, _)| status != "Unknown")
    };
    let degraded = |s| condition(s, ConditionType::Degraded).is_some_and(|c| c.status == "True");
    if turned(ConditionType::Ready) || degraded(old) != degraded(new) {
        return Turned::Verdict;
    }
    let available = |s| condition(s, ConditionType::Available).map_or("False", |c| &c.status);
    let promoted = old.stable_revision.is_some() && old.stable_revision != new.stable_revision;
    match available(new) {
        _ if promoted => Turned::Service,
        after if after == available(old) => Turned::Progress,
        "True" => Turned::Available,
        _ => Turned::Service,
    }
}

/// `index`: among those of the same pass, which would have one name otherwise.
fn event(snapshot: &Snapshot, note: &Note, index: usize, now: Timestamp) -> Write {
    let name = format!("{}.{:x}", snapshot.name(), now.as_nanosecond() as u64 + index as u64);
    let body = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": snapshot.namespace() },
        "eventTime": format!("{now:.6}"),
        "type": if note.warning { "Warning" } else { "Normal" },
        "reason": note.reason,
        "note": note.message.chars().take(1000).collect::<String>(),
        "action": "Reconcile",
        "reportingController": "modelwright.dev/operator",
        "reportingInstance": "modelwright-operator",
        "regarding": {
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": "ModelDeployment",
            "namespace": snapshot.namespace(),
            "name": snapshot.name(),
            "uid": snapshot.uid(),
            "resourceVersion": snapshot.deployment.metadata.resource_version,
        },
    });
    Write::Create { kind: Kind::Event, name, body }
}

#[cfg(test)]
mod tests;
