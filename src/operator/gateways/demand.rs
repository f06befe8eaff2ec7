//! What is asked of each ModelDeployment, by what its gateways count.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::{GatewayStreams, Inner, is_alive};
use crate::formats::{Demand, PastDemand};
use crate::observe::Key;
use crate::plan::scale::{Gateways, Sample};

#[derive(Clone, Copy, Default)]
pub(super) struct Counted {
    arrivals: u64,
    request_seconds: f64,
}

/// What is asked of one ModelDeployment: the counts only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    pub arrivals: u64,
    pub request_seconds: f64,
    pub in_flight: u64,
    pub held: u64,
    pub gateways: Gateways,
}

/// What a gateway said of the time before we listened.
pub(super) struct Past {
    at: Instant,
    seconds: u64,
    demand: BTreeMap<String, Vec<PastDemand>>,
}

type Told = (u64, BTreeMap<String, Vec<PastDemand>>);

/// A line of the stream. `past`: of the first one.
pub(super) fn count(
    inner: &mut Inner,
    (namespace, uid): (&str, &str),
    demand: BTreeMap<String, Demand>,
    past: Option<Told>,
) {
    let heard = inner.heard.entry(uid.to_string()).or_default();
    let first = past.is_some();
    if let Some((seconds, demand)) = past {
        heard.past = Some(Past { at: Instant::now(), seconds, demand });
    }
    let known = heard.demand.get_or_insert_default();
    for (name, demand) in demand {
        let key = (namespace.to_string(), name.clone());
        // What a gateway had counted before we listened is its past; one that began anew counts from nothing.
        let before = known.get(&name).copied().unwrap_or(if first { demand } else { Demand::default() });
        let before = if demand.arrivals < before.arrivals { Demand::default() } else { before };
        let counted = inner.counted.entry(key.clone()).or_default();
        counted.arrivals += demand.arrivals - before.arrivals;
        counted.request_seconds += (demand.request_seconds - before.request_seconds).max(0.0);
        known.insert(name, demand);
        inner.news.insert(key);
    }
}

impl GatewayStreams {
    /// For tests: one ready gateway, which has said nothing.
    #[cfg(test)]
    pub fn with_gateway(namespace: &str, uid: &str) -> Self {
        let streams = Self::default();
        let pod = super::tests::mk_pod(uid);
        let pods = BTreeMap::from([(uid.to_string(), std::sync::Arc::new(pod))]);
        streams.lock().seen.insert(namespace.to_string(), pods);
        streams
    }

    pub fn asked(&self, key: &Key) -> Asked {
        let inner = self.lock();
        let (namespace, name) = key;
        let counted = inner.counted.get(key).copied().unwrap_or_default();
        let mut asked = Asked {
            arrivals: counted.arrivals,
            request_seconds: counted.request_seconds,
            ..Asked::default()
        };
        for (uid, pod) in inner.seen.get(namespace).into_iter().flatten() {
            let heard = inner.heard.get(uid).filter(|heard| heard.connected);
            asked.gateways.all += u32::from(pod.ready && is_alive(pod) && !pod.meta.deleting);
            let Some(heard) = heard else { continue };
            asked.held += heard.held.get(name).copied().unwrap_or(0);
            let Some(demand) = &heard.demand else { continue };
            asked.gateways.reporting += 1;
            asked.in_flight += demand.get(name).map_or(0, |demand| demand.in_flight);
        }
        // One that leaves reports on, and is not missed.
        asked.gateways.all = asked.gateways.all.max(asked.gateways.reporting);
        asked
    }

    /// Whose demand has changed since the last call.
    pub fn news(&self) -> HashSet<Key> {
        std::mem::take(&mut self.lock().news)
    }

    /// The time before we listened, as far as every gateway knows it: for how long, and how long ago each sample ends.
    pub fn past(&self, (namespace, name): &Key, now: Instant) -> (Duration, Vec<(Duration, Sample)>) {
        let inner = self.lock();
        let pods = inner.seen.get(namespace).into_iter().flatten();
        let told = pods.filter_map(|(uid, pod)| Some((pod, inner.heard.get(uid)?.past.as_ref())));
        let told: Vec<_> = told.filter(|(pod, _)| is_alive(pod)).map(|(_, past)| past).collect();
        let known = told.iter().map(|past| past.map_or(0, |past| past.seconds)).min().unwrap_or(0);
        // By slot of the time before now: gateways begin theirs at different moments.
        let mut slots: BTreeMap<u64, Counted> = BTreeMap::new();
        for past in told.into_iter().flatten() {
            let late = now.duration_since(past.at).as_secs();
            for slot in past.demand.get(name).into_iter().flatten() {
                let ended = (u64::from(slot.seconds_ago) + late).saturating_sub(PastDemand::SECONDS);
                if ended + PastDemand::SECONDS <= known {
                    let sum = slots.entry(ended / PastDemand::SECONDS).or_default();
                    sum.arrivals += slot.arrivals;
                    sum.request_seconds += slot.request_seconds;
                }
            }
        }
        let sample = |counted: &Counted| Sample {
            arrivals: counted.arrivals as f64,
            concurrency: counted.request_seconds / PastDemand::SECONDS as f64,
            in_flight: 0,
            held: 0,
        };
        let oldest = known / PastDemand::SECONDS;
        let none = Counted::default();
        let samples = (0..oldest).rev().map(|slot| {
            let ago = Duration::from_secs(slot * PastDemand::SECONDS);
            (ago, sample(slots.get(&slot).unwrap_or(&none)))
        });
        (Duration::from_secs(known), samples.collect())
    }
}
