use std::time::Duration;

use serde_json::json;

use super::stage::{Stage, open, target};
use crate::ledger::{Load, Pace, Verdict};
use crate::support::in_namespace;

/// New models and rollbacks in turn while requests come, until there were enough of both.
pub struct Marathon {
    pub requests: usize,
    pub rollouts: usize,
    pub per_second: f64,
}

impl Marathon {
    /// How many rollouts there were, and what became of the requests.
    pub async fn run(&self, say: impl Fn(&str)) -> (usize, Verdict) {
        let mut ran = None;
        in_namespace("marathon", async |space| {
            let mut play = open(space, "model", &json!({ "replicas": 2 }), 1).await;
            let pace = Pace { per_second: self.per_second, ..Pace::default() };
            let load = Load::start(target(space, play.name).await, pace);
            let stage = Stage::new(space, &load, &mut play);
            let (mut rollouts, mut former) = (0, None);
            while rollouts < self.rollouts || load.answered() < self.requests {
                let serves = stage.version();
                match former.take() {
                    Some(version) => stage.back_to(version).await,
                    None => {
                        stage.roll().await;
                        former = Some(serves);
                    }
                }
                rollouts += 1;
                say(&format!("{rollouts} rollouts, {} requests", load.answered()));
                // The requests are spread evenly over the rollouts.
                let share = self.requests * rollouts / self.rollouts.max(1);
                while load.answered() < share.min(self.requests) {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            ran = Some((rollouts, load.stop()));
        })
        .await;
        ran.expect("it ran")
    }
}
