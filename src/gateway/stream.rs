//! `GET /modelwright/v1/stream`: what the operator hears of this gateway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::demand;
use super::pod::now;
use super::table::Table;
use crate::formats::{AppliedRoute, Demand, FORMAT_VERSION, GatewayReport, Trial};

/// Without news.
const PULSE: Duration = Duration::from_secs(1);
/// Requests that a candidate has answered are news so often: each is a look of the operator, and a status for people.
const COUNTS: Duration = Duration::from_secs(5);
/// Between two lines: what changes meanwhile comes in one.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two lines that tell the demand.
const DEMAND: Duration = Duration::from_millis(200);

/// What one reader has been told. Each line is made when the reader takes it: a slow one costs no more memory.
struct Reader {
    table: Arc<Table>,
    changes: watch::Receiver<()>,
    routes: BTreeMap<String, AppliedRoute>,
    held: BTreeMap<String, u64>,
    demand: BTreeMap<String, Demand>,
    /// When the demand was told.
    told: Option<Instant>,
    trials: BTreeMap<String, Trial>,
    /// When trials were looked at, and when all that had changed in them was told.
    looked: Option<Instant>,
    counted: Option<Instant>,
    first: bool,
    _slot: OwnedSemaphorePermit,
}

pub fn body(table: Arc<Table>, slot: OwnedSemaphorePermit) -> Body {
    let changes = table.changes();
    let reader = Reader {
        table,
        changes,
        routes: BTreeMap::new(),
        held: BTreeMap::new(),
        demand: BTreeMap::new(),
        told: None,
        trials: BTreeMap::new(),
        looked: None,
        counted: None,
        first: true,
        _slot: slot,
    };
    Body::from_stream(stream::unfold(reader, |mut reader| async {
        let line = reader.line().await;
        Some((line, reader))
    }))
}

impl Reader {
    async fn line(&mut self) -> Result<Bytes, serde_json::Error> {
        if !self.first {
            // A change, or the pulse.
            let _ = tokio::time::timeout(PULSE, self.changes.changed()).await;
            tokio::time::sleep(PAUSE).await;
        }
        self.changes.mark_unchanged();
        let mut line = serde_json::to_vec(&self.report())?;
        self.first = false;
        line.push(b'\n');
        Ok(line.into())
    }

    fn report(&mut self) -> GatewayReport {
        let routes = self.table.applied();
        let removed = self.routes.keys().filter(|name| !routes.contains_key(*name)).cloned().collect();
        let changed = routes.iter().filter(|(name, route)| self.routes.get(*name) != Some(route));
        let changed = changed.map(|(name, route)| (name.clone(), route.clone())).collect();
        let held = self.table.held();
        let ended = self.held.keys().filter(|name| !held.contains_key(*name)).map(|name| (name.clone(), 0));
        let news = held.iter().filter(|(name, count)| self.held.get(*name) != Some(count));
        let news = news.map(|(name, count)| (name.clone(), *count)).chain(ended).collect();
        self.routes = routes;
        self.held = held;
        let (past, past_seconds) = match self.first {
            true => (self.table.past(), now().as_secs().min(demand::MEMORY)),
            false => (BTreeMap::new(), 0),
        };
        GatewayReport {
            format_version: FORMAT_VERSION,
            routes: changed,
            removed,
            held: news,
            demand: self.demand(),
            past,
            past_seconds,
            trials: self.news_of_trials(),
        }
    }

    fn demand(&mut self) -> Option<BTreeMap<String, Demand>> {
        if self.told.is_some_and(|told| told.elapsed() < DEMAND) {
            return None;
        }
        self.told = Some(Instant::now());
        let now = self.table.demand();
        let changed = now.iter().filter(|(name, demand)| self.demand.get(*name) != Some(demand));
        let changed = changed.map(|(name, demand)| (name.clone(), *demand)).collect();
        self.demand = now;
        Some(changed)
    }

    fn news_of_trials(&mut self) -> BTreeMap<String, Trial> {
        let since = |last: Option<Instant>| last.map_or(COUNTS, |last| last.elapsed());
        if since(self.looked) < PULSE {
            return BTreeMap::new();
        }
        self.looked = Some(Instant::now());
        let all = since(self.counted) >= COUNTS;
        if all {
            self.counted = self.looked;
        }
        let mut trials = self.table.trials();
        self.trials.retain(|name, _| trials.contains_key(name));
        let bad = |trial: &Trial| trial.shadow.as_ref().map(|shadow| (shadow.mismatched, shadow.failed));
        trials.retain(|name, trial| match self.trials.get(name) {
            None => true,
            Some(told) if all => told != trial,
            // Good news can wait.
            Some(told) => {
                told.attempt != trial.attempt
                    || told.candidate != trial.candidate
                    || told.route != trial.route
                    || told.errors != trial.errors
                    || told.latencies != trial.latencies
                    || bad(told) != bad(trial)
            }
        });
        self.trials.extend(trials.clone());
        trials
    }
}
