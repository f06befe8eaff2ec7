//! Read your writes: a reconcile starts only when the watches have shown what the last one wrote. Otherwise it would
//! create twice, or take pods away on the word of a cache that is behind.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::Written;
use crate::observe::{Key, Meta, Snapshot};
use crate::plan::{Kind, Write};

/// A watch that shows nothing for so long has failed, or the object came and went between two events.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);

#[derive(Default)]
pub struct Expectations {
    open: Mutex<HashMap<Key, Vec<Expectation>>>,
}

struct Expectation {
    kind: Kind,
    name: String,
    written: Written,
    gone: bool,
    since: Option<Timestamp>,
}

impl Expectations {
    /// `key` names a ModelDeployment, or with an empty name its namespace's gateways.
    pub fn expect(&self, key: Key, write: &Write, written: Written) {
        if write.kind() == Kind::Event {
            return; // nothing watches events
        }
        let expectation = Expectation {
            kind: write.kind(),
            name: write.name().into(),
            written,
            gone: matches!(write, Write::Delete { .. }),
            since: None,
        };
        self.lock().entry(key).or_default().push(expectation);
    }

    /// True when everything written under this key has been seen, or has been waited for long enough. `find`: what the
    /// watches have of an object.
    pub fn met(&self, key: &Key, now: Timestamp, find: impl Fn(Kind, &str) -> Option<Meta>) -> bool {
        let mut open = self.lock();
        let Some(expectations) = open.get_mut(key) else { return true };
        expectations.retain_mut(|e| {
            let since = *e.since.get_or_insert(now);
            !e.met(find(e.kind, &e.name)) && now < since + PATIENCE
        });
        let met = expectations.is_empty();
        if met {
            open.remove(key);
        }
        met
    }

    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Vec<Expectation>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expectation {
    fn met(&self, found: Option<Meta>) -> bool {
        match found {
            // Deletion in the background: marked is enough, the plan leaves it alone then.
            Some(seen) if self.gone => seen.uid != self.written.uid || seen.deleting,
            None => self.gone,
            Some(seen) => seen.resource_version >= self.written.resource_version,
        }
    }
}

/// An object of a ModelDeployment.
pub fn find(snapshot: &Snapshot, kind: Kind, name: &str) -> Option<Meta> {
    let family = &snapshot.family;
    let mut metas: Box<dyn Iterator<Item = &Meta>> = match kind {
        Kind::ModelDeployment => {
            return Some(Meta::within(&snapshot.deployment.metadata, snapshot.name().into()));
        }
        Kind::ControllerRevision => Box::new(family.revisions.iter().map(|v| &v.meta)),
        Kind::ReplicaSet => Box::new(family.replica_sets.iter().map(|v| &v.meta)),
        Kind::ModelRoute => Box::new(family.route.iter().map(|v| &v.meta)),
        Kind::Service => Box::new(family.service.iter().map(|v| &v.meta)),
        Kind::PodDisruptionBudget => Box::new(family.budget.iter().map(|v| &v.meta)),
        Kind::Pod => Box::new(family.pods.iter().map(|v| &v.meta)),
        Kind::Event
        | Kind::Deployment
        | Kind::ServiceAccount
        | Kind::Role
        | Kind::RoleBinding
        | Kind::NetworkPolicy => return None,
    };
    metas.find(|meta| meta.name == name).cloned()
}

#[cfg(test)]
mod tests;
