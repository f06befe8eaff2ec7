use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;

const TERM: Duration = Duration::from_secs(15);

fn lease(api_server: Router) -> Lease {
    Lease {
        api: Api::namespaced(Client::new(api_server, "ns"), "ns"),
        name: "l".into(),
        identity: "we".into(),
        duration: TERM,
        start: Instant::now(),
        valid_until: AtomicU64::new(0),
        terms: watch::channel(0).0,
    }
}

/// Ours as long as a test runs.
pub(in crate::operator) fn held() -> Arc<Lease> {
    let lease = lease(Router::new());
    lease.valid_until.store(u64::MAX, Ordering::Release);
    Arc::new(lease)
}

pub(in crate::operator) fn lost() -> Arc<Lease> {
    Arc::new(lease(Router::new()))
}

#[tokio::test]
async fn anothers_term_runs_from_when_its_lease_was_seen_not_from_when_it_was_asked_for() {
    let (answered, answers) = watch::channel(Instant::now());
    let held = move || async move {
        answered.send_replace(Instant::now());
        Json(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "l", "namespace": "ns", "resourceVersion": "7"},
            "spec": {"holderIdentity": "another", "leaseDurationSeconds": TERM.as_secs()},
        }))
    };
    let path = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l";
    let lease = lease(Router::new().route(path, get(held).put(|object: Json<Value>| async move { object })));
    let mut rival = Rival::default();
    assert!(!lease.acquire(&mut rival, Instant::now()).await.unwrap());
    let seen = *answers.borrow();
    let just_before = seen + TERM - Duration::from_nanos(1);
    assert!(!lease.acquire(&mut rival, just_before).await.unwrap(), "it may still write");
    assert!(lease.acquire(&mut rival, Instant::now() + TERM).await.unwrap());
}
