//! Which replica may write. As client-go's leader election, and stricter in one thing: `held` is checked on the
//! monotonic clock before every write, so a leader that was stopped (SIGSTOP, a slow node) wakes up without a voice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::Stream;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

use super::{Metrics, Options};

/// Well inside the two seconds after a release in which the other replica takes over.
const RETRY: Duration = Duration::from_secs(1);
const REQUEST_DEADLINE: Duration = Duration::from_secs(3);

pub struct Lease {
    api: Api<Object>,
    name: String,
    identity: String,
    duration: Duration,
    start: Instant,
    /// Milliseconds after `start` until which writes are allowed.
    valid_until: AtomicU64,
    /// Counts elections won.
    terms: watch::Sender<u64>,
}

/// Another's lease as it was last seen to change: its own clock is not trusted.
#[derive(Default)]
struct Rival {
    version: String,
    since: Option<Instant>,
}

impl Lease {
    pub fn new(client: Client, options: &Options) -> Arc<Self> {
        Arc::new(Self {
            api: Api::namespaced(client, &options.lease_namespace),
            // Operators of different namespaces may live in one: each set of objects has a leader of its own.
            name: match &options.namespace {
                Some(watched) => format!("modelwright-operator-{watched}"),
                None => "modelwright-operator".into(),
            },
            identity: options.identity.clone(),
            duration: Duration::from_secs(options.lease_seconds),
            start: Instant::now(),
            valid_until: AtomicU64::new(0),
            terms: watch::channel(0).0,
        })
    }

    /// May this process write now?
    pub fn held(&self) -> bool {
        self.millis(Instant::now()) < self.valid_until.load(Ordering::Acquire)
    }

    /// One item an election won, the current one included.
    pub fn elections(&self) -> impl Stream<Item = ()> + Send + use<> {
        let mut terms = self.terms.subscribe();
        terms.mark_unchanged();
        let won_already = *terms.borrow() > 0;
        futures::stream::unfold((terms, won_already), |(mut terms, won)| async move {
            if !won {
                terms.changed().await.ok()?;
            }
            Some(((), (terms, false)))
        })
    }

    /// Acquires, renews, and on `stop` gives the lease back.
    pub async fn run(self: Arc<Self>, metrics: Arc<Metrics>, mut stop: watch::Receiver<bool>) {
        let mut rival = Rival::default();
        let renew_every = (self.duration / 4).min(Duration::from_secs(2));
        loop {
            let was_leader = self.held();
            let asked = Instant::now();
            match tokio::time::timeout(REQUEST_DEADLINE, self.acquire(&mut rival, asked)).await {
                Ok(Ok(true)) => {
                    // Counted from before the request: the API server's clock started later than that.
                    let until = self.millis(asked) + self.duration.as_millis() as u64;
                    self.valid_until.store(until, Ordering::Release);
                    if !was_leader {
                        tracing::info!(identity = self.identity, "leading");
                        self.terms.send_modify(|term| *term += 1);
                    }
                }
                Ok(Ok(false)) => self.valid_until.store(0, Ordering::Release),
                Ok(Err(error)) => tracing::warn!(%error, "the lease can't be renewed"),
                Err(_) => tracing::warn!("the API server did not answer about the lease"),
            }
            if was_leader && !self.held() {
                tracing::warn!("no longer leading");
            }
            metrics.leader.set(i64::from(self.held()));
            let pause = if self.held() { renew_every } else { RETRY };
            tokio::select! {
                _ = tokio::time::sleep(pause) => {}
                _ = stop.changed() => break,
            }
        }
        if self.held() {
            self.valid_until.store(0, Ordering::Release);
            match tokio::time::timeout(REQUEST_DEADLINE, self.release()).await {
                Ok(Ok(())) => tracing::info!("lease released"),
                Ok(Err(error)) => tracing::warn!(%error, "the lease could not be released"),
                Err(_) => tracing::warn!("the API server did not answer about the lease"),
            }
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_millis() as u64 + 1
    }

    /// True: ours. Every update carries the resourceVersion, so of two rivals one gets a conflict.
    async fn acquire(&self, rival: &mut Rival, asked: Instant) -> Result<bool, kube::Error> {
        let Some(mut object) = self.api.get_opt(&self.name).await? else {
            let object = Object {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..Default::default() },
                spec: Some(self.spec(1, None)),
            };
            return settled(self.api.create(&PostParams::default(), &object).await);
        };
        let spec = object.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or(0);
        if holder == self.identity {
            object.spec = Some(self.spec(transitions, spec.acquire_time));
            return settled(self.api.replace(&self.name, &PostParams::default(), &object).await);
        }
        let version = object.metadata.resource_version.clone().unwrap_or_default();
        if rival.version != version {
            // Not `asked`: the answer may be of a renewal that came later.
            *rival = Rival { version, since: Some(Instant::now()) };
        }
        let term = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).max(0) as u64);
        let expired = rival.since.is_some_and(|since| asked.saturating_duration_since(since) >= term);
        if !holder.is_empty() && !expired {
            return Ok(false);
        }
        object.spec = Some(self.spec(transitions + 1, None));
        settled(self.api.replace(&self.name, &PostParams::default(), &object).await)
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut object) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        if let Some(spec) =
            object.spec.as_mut().filter(|s| s.holder_identity.as_ref() == Some(&self.identity))
        {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.api.replace(&self.name, &PostParams::default(), &object).await?;
        }
        Ok(())
    }

    fn spec(&self, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.duration.as_secs() as i32),
            acquire_time: acquired.or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..Default::default()
        }
    }
}

/// A conflict is an answer: somebody else was faster.
fn settled(result: Result<Object, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
pub(super) mod tests;
