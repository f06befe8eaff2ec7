//! One namespace, its load, and the operator that dies there.

use std::convert::Infallible;
use std::time::Duration;

use kube::Api;
use kube::api::DeleteParams;
use modelwright::api::ModelRoute;

use super::scenes::Scene;
use super::service::Service;
use super::stage::{NAME, Play, Stage};
use super::{Crash, Reference, World};
use crate::common::{
    Abort, LONG_STILL, Operator, OperatorOptions, STILL, State, difference, settled_writes, shorten_drain,
    state, wait,
};
use crate::ledger::{Load, Pace, Verdict};

/// Two cores are shared by all journeys, and no verdict is on the time that an answer took.
const PACE: Pace = Pace { per_second: 50.0, patience: Duration::from_secs(240), retries: 0 };
/// Before and after a scene's change.
const REQUESTS: usize = 50;

pub struct Journey<'a> {
    world: &'a World,
    namespace: String,
    play: Play,
    service: Service,
    _drain: Abort,
}

/// What came of a scene.
pub struct Played {
    pub crashed: bool,
    pub writes: usize,
    pub state: State,
    pub verdict: Verdict,
}

impl<'a> Journey<'a> {
    /// A first version serves, and no operator runs.
    pub async fn begin(world: &'a World, namespace: &str) -> Self {
        world.cluster.create_namespace(namespace).await;
        let routes: Api<ModelRoute> = world.cluster.api(namespace);
        let drain = Abort(tokio::spawn(shorten_drain(routes, NAME)));
        let service = Service::open(&world.cluster, namespace, NAME).await;
        let play = Play::new(&world.store);
        let journey = Self { world, namespace: namespace.into(), play, service, _drain: drain };
        let mut operator = Operator::start(&journey.options("zeroth"));
        let load = Load::start(journey.service.target(), PACE);
        load.rest();
        Stage { world, namespace, load: &load, play: &journey.play }.first().await;
        journey.service.until_ready().await;
        settled_writes(&mut operator, STILL).await;
        operator.terminate().await;
        journey
    }

    fn options(&self, identity: &str) -> OperatorOptions {
        let options = OperatorOptions::of(self.world.identity.kubeconfig.clone(), &self.namespace);
        OperatorOptions {
            identity: identity.into(),
            loader_image: "process.test/modelwright-loader:1".into(),
            server_image: "process.test/modelwright-server".into(),
            ..options
        }
    }

    /// A scene under load. With a reference it must end like that.
    pub async fn play(&self, scene: &Scene, crash: Option<Crash>, reference: Option<&Reference>) -> Played {
        let load = Load::start(self.service.target(), PACE);
        let stage = Stage { world: self.world, namespace: &self.namespace, load: &load, play: &self.play };
        stage.declare_stable();
        stage.answered_more(REQUESTS).await; // the gateways need no operator
        let mut options = self.options("first");
        options.crash = crash.map(|crash| format!("{}:{}", crash.moment, crash.number));
        let mut operator = Operator::start(&options);
        let mut crashed = false;
        let script = async {
            (scene.act)(&stage).await;
            self.until_like(reference).await;
        };
        tokio::select! {
            () = script => {}
            never = self.replace(&mut operator, &mut crashed) => match never {},
        }
        let still = if reference.is_none() { LONG_STILL } else { STILL };
        let writes = settled_writes(&mut operator, still).await;
        if operator.ended().is_some() {
            // By one of the last writes, which nobody waits for.
            crashed = true;
            operator = Operator::start(&self.options("second"));
            operator.until_leading().await;
        }
        let script = async {
            self.until_like(reference).await;
            stage.answered_more(REQUESTS).await;
            stage.until_all_gateways().await;
            self.still_state().await
        };
        let state = tokio::select! {
            state = script => state,
            never = self.replace(&mut operator, &mut crashed) => match never {},
        };
        operator.terminate().await;
        // It waits for every answer, and other journeys go on.
        let verdict = tokio::task::spawn_blocking(move || load.stop()).await.expect("a verdict");
        Played { crashed, writes, state, verdict }
    }

    /// Another replica takes over when the first has died.
    async fn replace(&self, operator: &mut Operator, crashed: &mut bool) -> Infallible {
        loop {
            if let Some(status) = operator.ended() {
                assert!(!*crashed && !status.success(), "{}: it ended without a crash", self.namespace);
                *crashed = true;
                *operator = Operator::start(&self.options("second"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Pods that are on their way out count for nothing: they serve what they have for a while.
    async fn state(&self) -> Result<State, String> {
        let state = state(&self.world.cluster, &self.namespace).await.map_err(|e| e.to_string())?;
        Ok(state.into_iter().filter(|(key, _)| !key.ends_with("being deleted")).collect())
    }

    /// Once it has stood still: built-in controllers work on when the operator has done its part.
    async fn still_state(&self) -> State {
        let mut known = State::new();
        wait("still state", async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let former = std::mem::replace(&mut known, self.state().await?);
            let changed = difference(&former, &known);
            if changed.is_empty() { Ok(known.clone()) } else { Err(changed.join("\n  ")) }
        })
        .await
    }

    async fn until_like(&self, reference: Option<&Reference>) {
        let Some(reference) = reference else { return };
        wait("end like that of a run without a crash", async || {
            let differences = difference(&reference.state, &self.state().await?);
            if differences.is_empty() { Ok(()) } else { Err(differences.join("\n  ")) }
        })
        .await;
    }

    /// So that journeys do not pile up; nobody waits for it.
    pub async fn end(self) {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.world.cluster.client.clone());
        let _ = api.delete(&self.namespace, &DeleteParams::default()).await;
    }
}
