//! Children by their ModelDeployment, so that a reconcile reads its own and not everybody's: kube's store would be
//! scanned whole for each, a million looks for a thousand objects. Only views are kept: a pod is 8 kB of JSON, its
//! view a few hundred bytes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::runtime::watcher::Event;

use super::{
    BudgetView, GatewayShelves, Meta, PodView, ReplicaSetView, RevisionView, RouteView, ServiceView,
};

/// Namespace and name of a ModelDeployment.
pub type Key = (String, String);

pub trait View: Send + Sync + 'static {
    fn meta(&self) -> &Meta;
}

/// The views of one kind.
pub struct Shelf<V> {
    inner: Mutex<Inner<V>>,
}

struct Inner<V> {
    /// Each in the order of names. A family has one or two of most kinds, and a map's first node is room for eleven.
    by_family: HashMap<Key, Vec<Arc<V>>>,
    /// While a (re)list runs: what it has shown so far. The rest is gone when it ends.
    listed: HashSet<(Key, String)>,
    synced: bool,
}

impl<V> Default for Shelf<V> {
    fn default() -> Self {
        let inner = Inner { by_family: HashMap::new(), listed: HashSet::new(), synced: false };
        Self { inner: Mutex::new(inner) }
    }
}

impl<V: View> Shelf<V> {
    fn lock(&self) -> MutexGuard<'_, Inner<V>> {
        // A panic elsewhere can't leave the maps half-changed: each change is one insert or remove.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a watch event and names the ModelDeployments that it touches.
    pub fn take(&self, event: Event<Option<V>>) -> Vec<Key> {
        let mut inner = self.lock();
        match event {
            Event::Apply(Some(view)) => vec![inner.insert(view)],
            Event::InitApply(Some(view)) => {
                let place = (view.meta().family.clone(), view.meta().name.clone());
                inner.listed.insert(place);
                vec![inner.insert(view)]
            }
            Event::Delete(Some(view)) => {
                let key = view.meta().family.clone();
                inner.remove(&key, &view.meta().name);
                vec![key]
            }
            Event::Apply(None) | Event::InitApply(None) | Event::Delete(None) => Vec::new(),
            Event::Init => {
                inner.listed.clear();
                Vec::new()
            }
            Event::InitDone => {
                inner.synced = true;
                let listed = std::mem::take(&mut inner.listed);
                let gone: Vec<(Key, String)> = inner
                    .by_family
                    .iter()
                    .flat_map(|(key, views)| views.iter().map(move |v| (key.clone(), v.meta().name.clone())))
                    .filter(|place| !listed.contains(place))
                    .collect();
                for (key, name) in &gone {
                    inner.remove(key, name);
                }
                gone.into_iter().map(|(key, _)| key).collect()
            }
        }
    }

    pub fn family(&self, key: &Key) -> Vec<Arc<V>> {
        self.lock().by_family.get(key).cloned().unwrap_or_default()
    }

    pub fn synced(&self) -> bool {
        self.lock().synced
    }

    pub fn all(&self) -> Vec<Arc<V>> {
        self.lock().by_family.values().flatten().cloned().collect()
    }
}

impl<V: View> Inner<V> {
    fn insert(&mut self, view: V) -> Key {
        let key = view.meta().family.clone();
        let views = self.by_family.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
        match position(views, &view.meta().name) {
            Ok(at) => views[at] = Arc::new(view),
            Err(at) => views.insert(at, Arc::new(view)),
        }
        key
    }

    fn remove(&mut self, key: &Key, name: &str) {
        if let Some(views) = self.by_family.get_mut(key) {
            if let Ok(at) = position(views, name) {
                views.remove(at);
            }
            if views.is_empty() {
                self.by_family.remove(key);
            }
        }
    }
}

fn position<V: View>(views: &[Arc<V>], name: &str) -> Result<usize, usize> {
    views.binary_search_by(|view| view.meta().name.as_str().cmp(name))
}

/// One shelf a kind.
#[derive(Default)]
pub struct Shelves {
    pub revisions: Shelf<RevisionView>,
    pub replica_sets: Shelf<ReplicaSetView>,
    pub routes: Shelf<RouteView>,
    pub services: Shelf<ServiceView>,
    pub budgets: Shelf<BudgetView>,
    pub pods: Shelf<PodView>,
    pub gateways: GatewayShelves,
}

/// Everything that carries one ModelDeployment's label, and is owned by it or by a ReplicaSet of it.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// By number, ascending.
    pub revisions: Vec<Arc<RevisionView>>,
    pub replica_sets: Vec<Arc<ReplicaSetView>>,
    pub route: Option<Arc<RouteView>>,
    pub service: Option<Arc<ServiceView>>,
    pub budget: Option<Arc<BudgetView>>,
    pub pods: Vec<Arc<PodView>>,
}

impl Family {
    /// Pods were assigned anew, so that a ReplicaSet does not say what its pods serve.
    fn is_reassigned(&self) -> bool {
        self.pods.iter().any(|pod| pod.proven.is_some() && !pod.meta.deleting)
    }

    /// Pods that answer for one of these revisions.
    pub fn available(&self, revisions: &BTreeSet<u64>) -> i32 {
        if self.is_reassigned() {
            let answers = |pod: &PodView| pod.ready && revisions.iter().any(|number| pod.serves(*number));
            return self.pods.iter().filter(|pod| answers(pod) && !pod.meta.deleting).count() as i32;
        }
        let sets = self.replica_sets.iter().filter(|set| revisions.contains(&set.number));
        sets.map(|set| set.available).sum()
    }

    /// Pods that serve a revision, or will.
    pub fn live(&self, revision: u64) -> i32 {
        if self.is_reassigned() {
            return self.pods.iter().filter(|pod| pod.holds(revision) && !pod.meta.deleting).count() as i32;
        }
        self.replica_sets.iter().filter(|set| set.number == revision).map(|set| set.live).sum()
    }
}

impl Shelves {
    pub fn synced(&self) -> bool {
        self.revisions.synced()
            && self.replica_sets.synced()
            && self.routes.synced()
            && self.services.synced()
            && self.budgets.synced()
            && self.pods.synced()
            && self.gateways.synced()
    }

    /// What `uid` owns. A former ModelDeployment of the same name had another uid: its children are the garbage
    /// collector's.
    pub fn family(&self, key: &Key, uid: &str) -> Family {
        let mut revisions = owned(self.revisions.family(key), uid);
        revisions.sort_by_key(|r| r.number);
        let mut replica_sets = owned(self.replica_sets.family(key), uid);
        replica_sets.sort_by_key(|r| r.number);
        let parents: HashSet<&str> =
            replica_sets.iter().map(|r| r.meta.uid.as_str()).chain(std::iter::once(uid)).collect();
        let mut pods = self.pods.family(key);
        pods.retain(|p| p.meta.owner_uid.as_deref().is_some_and(|owner| parents.contains(owner)));
        Family {
            route: owned(self.routes.family(key), uid).into_iter().next(),
            service: owned(self.services.family(key), uid).into_iter().next(),
            budget: owned(self.budgets.family(key), uid).into_iter().next(),
            revisions,
            replica_sets,
            pods,
        }
    }
}

fn owned<V: View>(mut views: Vec<Arc<V>>, uid: &str) -> Vec<Arc<V>> {
    views.retain(|view| view.meta().owner_uid.as_deref() == Some(uid));
    views
}
