//! Journeys: a model that is served goes through every scene in turn, while requests come; in each scene the operator dies
//! at one of its writes, and another replica goes on.
//!
//! One journey without a crash is the reference: how many writes a scene has, and what there is at its end.

mod journey;
mod scenes;
mod service;
mod stage;
mod store;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

use crate::common::{Cluster, Identity, MOMENTS, State, panic_text, shuffle};
use journey::Journey;
use scenes::SCENES;
use store::Store;

pub struct World {
    cluster: Cluster,
    identity: Identity,
    store: Store,
}

/// The operator dies at this one of its writes in a scene.
#[derive(Clone, Copy, Debug)]
struct Crash {
    moment: &'static str,
    number: usize,
}

/// A scene without a crash.
struct Reference {
    state: State,
    writes: usize,
}

/// What came of all journeys.
#[derive(Debug, Default)]
pub struct Outcome {
    pub plans: usize,
    /// A status that says how far a rollout is may be left out in a quick run: then the write is not reached.
    pub crashed: usize,
    pub failures: Vec<String>,
    pub requests: usize,
    /// Lost, or answered twice.
    pub lost: usize,
    /// Another request's answer, or a version's that was not asked for.
    pub wrong: usize,
}

/// `journeys`: None for as many as it takes to crash at every write of every scene, in every moment.
pub async fn run(seed: usize, journeys: Option<usize>, parallel: usize) -> Outcome {
    let cluster = Cluster::open().await;
    let identity = cluster.administrator("crash-traffic", "operator").await;
    let store = Store::open(&cluster).await;
    let world = World { cluster, identity, store };
    let (tell, known) = watch::channel(Vec::new());
    let trials = async {
        let count = match journeys {
            Some(count) => count,
            None => {
                let known = known.clone();
                let all = wait_for(known, SCENES.len()).await;
                all.iter().map(|reference| plans(reference, seed, 0).len()).max().unwrap_or_default()
            }
        };
        let trials = futures::stream::iter(0..count).map(|index| trial(&world, seed, index, known.clone()));
        trials.buffer_unordered(parallel).collect::<Vec<Outcome>>().await
    };
    let (_, outcomes) = tokio::join!(reference(&world, tell), trials);
    let mut sum = Outcome::default();
    for outcome in outcomes {
        sum.plans += outcome.plans;
        sum.crashed += outcome.crashed;
        sum.failures.extend(outcome.failures);
        sum.requests += outcome.requests;
        sum.lost += outcome.lost;
        sum.wrong += outcome.wrong;
    }
    sum
}

type Known = watch::Receiver<Vec<Arc<Reference>>>;

async fn wait_for(mut known: Known, count: usize) -> Vec<Arc<Reference>> {
    known.wait_for(|known| known.len() >= count).await.expect("the reference comes to its end").clone()
}

/// Each write and moment of a scene, in the order in which journeys take them.
fn plans(reference: &Reference, seed: usize, scene: usize) -> Vec<Crash> {
    let mut plans: Vec<Crash> = Vec::new();
    for number in 1..=reference.writes {
        plans.extend(MOMENTS.map(|moment| Crash { moment, number }));
    }
    shuffle(&mut plans, seed * SCENES.len() + scene);
    plans
}

async fn reference(world: &World, tell: watch::Sender<Vec<Arc<Reference>>>) {
    let journey = Journey::begin(world, "crash-traffic-reference").await;
    for scene in &SCENES {
        let played = journey.play(scene, None, None).await;
        eprintln!("{}: {} writes; {}", scene.title, played.writes, played.verdict);
        assert!(played.verdict.is_clean(), "{}, without a crash: {}", scene.title, played.verdict);
        let reference = Reference { state: played.state, writes: played.writes };
        tell.send_modify(|known| known.push(Arc::new(reference)));
    }
    journey.end().await;
}

/// A journey with a crash in each scene. It ends with the first scene that has no good end.
async fn trial(world: &World, seed: usize, index: usize, known: Known) -> Outcome {
    let mut outcome = Outcome::default();
    let namespace = format!("crash-traffic-{index}");
    let begin = AssertUnwindSafe(Journey::begin(world, &namespace));
    let journey = match begin.catch_unwind().await {
        Ok(journey) => journey,
        Err(panic) => {
            outcome.failures.push(format!("journey {index}: {}", panic_text(&*panic)));
            return outcome;
        }
    };
    for (place, scene) in SCENES.iter().enumerate() {
        let references = wait_for(known.clone(), place + 1).await;
        let reference = &references[place];
        let plans = plans(reference, seed, place);
        let crash = plans[index % plans.len()];
        outcome.plans += 1;
        let what = format!("journey {index}, {}, {} write {}", scene.title, crash.moment, crash.number);
        let played = AssertUnwindSafe(journey.play(scene, Some(crash), Some(reference))).catch_unwind().await;
        let played = match played {
            Ok(played) => played,
            Err(panic) => {
                outcome.failures.push(format!("{what}: {}", panic_text(&*panic)));
                break;
            }
        };
        eprintln!("{what}{}: {}", if played.crashed { "" } else { " (not reached)" }, played.verdict);
        outcome.crashed += usize::from(played.crashed);
        outcome.requests += played.verdict.requests;
        outcome.lost += played.verdict.lost.len() + played.verdict.twice.len();
        outcome.wrong += played.verdict.wrong.len() + played.verdict.undeclared.len();
        if !played.verdict.is_clean() {
            outcome.failures.push(format!("{what}: {}", played.verdict));
        }
    }
    journey.end().await;
    outcome
}
