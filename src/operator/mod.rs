//! Wires the pipeline to a cluster: watches, lease, reconcile, pod states, health and metrics.

mod gateways;
mod http;
mod lease;
mod measurements;
mod metrics;
mod namespaces;
mod pod_states;
pub mod prometheus;
mod reconcile;
mod scaling;
mod trials;
mod watches;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::runtime::controller::{self, ReconcileRequest};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::api::{ModelDeployment, SCHEMA_REVISION, annotations};
use crate::apply::{Expectations, Writer};
use crate::observe::{GatewaySettings, Settings, Shelves};
use crate::status::StatusBudget;

use gateways::GatewayStreams;
pub use lease::Lease;
use measurements::Measurements;
pub use metrics::Metrics;
use namespaces::Namespaces;
use pod_states::PodStates;
use scaling::Scaling;

/// Reconciles at once. kube's default is unbounded, which has ended operators in the field (pgroles#209). Most wait in
/// `create Service`: the API server gives out addresses under one lock, and with 16 places other objects waited too.
const CONCURRENCY: u16 = 64;
/// Triggers waiting for the queue; it merges those of one object.
const TRIGGERS: usize = 1024;

/// What the process is told.
#[derive(Clone, Debug)]
pub struct Options {
    pub settings: Settings,
    pub gateway: GatewaySettings,
    /// Absent: the whole cluster.
    pub namespace: Option<String>,
    pub lease_namespace: String,
    pub lease_seconds: u64,
    /// Unique among replicas: the pod's name.
    pub identity: String,
    pub address: SocketAddr,
}

/// Everything that a reconcile needs.
pub(crate) struct Context {
    shelves: Arc<Shelves>,
    pod_states: Arc<PodStates>,
    gateways: Arc<GatewayStreams>,
    scaling: Arc<Scaling>,
    measurements: Arc<Measurements>,
    namespaces: Arc<Namespaces>,
    writer: Writer,
    expectations: Expectations,
    budget: StatusBudget,
    lease: Arc<Lease>,
    metrics: Arc<Metrics>,
    settings: Arc<Settings>,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("no way to the API server: {0}")]
    Config(#[from] kube::config::InferConfigError),
    #[error("the API server refused: {0}")]
    Kube(#[from] kube::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Runs until SIGTERM or SIGINT: then gives the lease back, so that the other replica goes on at once.
pub async fn run(options: Options) -> Result<(), RunError> {
    let mut config = Config::infer().await?;
    config.default_retry = false; // one numbered write is one request; the queue retries
    config.read_timeout = Some(Duration::from_secs(295)); // above the watch's own 290 s
    let client = Client::try_from(config)?;
    let mut settings = options.settings.clone();
    settings.crd_outdated = crd_is_outdated(&client).await;

    let metrics = Arc::new(Metrics::default());
    let shelves = Arc::new(Shelves::default());
    let (stop, stopped) = watch::channel(false);
    let lease = Lease::new(client.clone(), &options);
    let pod_states = Arc::new(PodStates::default());
    let (trigger, triggers) = mpsc::channel(TRIGGERS);
    let (wake, wakes) = mpsc::channel(TRIGGERS);
    let streams = Arc::new(GatewayStreams::default());
    let scaling = Arc::new(Scaling::default());
    let measurements = Arc::new(Measurements::default());
    let context = Arc::new(Context {
        shelves: shelves.clone(),
        pod_states: pod_states.clone(),
        gateways: streams.clone(),
        scaling: scaling.clone(),
        measurements: measurements.clone(),
        namespaces: Arc::default(),
        writer: Writer::new(client.clone(), lease.clone(), metrics.clone()),
        expectations: Expectations::default(),
        budget: StatusBudget::default(),
        lease: lease.clone(),
        metrics: metrics.clone(),
        settings: Arc::new(settings),
    });

    let listener = tokio::net::TcpListener::bind(options.address).await?;
    let (store, reflected) = reflector::store();
    tokio::spawn(http::serve(listener, shelves.clone(), metrics.clone(), lease.clone(), store.clone()));
    watches::start(&client, &options, &shelves, &trigger);
    watches::start_gateways(&client, &options, &context, &trigger, &wake);
    tokio::spawn(scaling.clone().run(streams.clone(), lease.clone(), trigger.clone()));
    tokio::spawn(streams.run(shelves.clone(), lease.clone(), trigger.clone()));
    let gateways =
        namespaces::run(context.clone(), options.gateway.clone(), store.clone(), wakes, trigger.clone());
    let gateways = tokio::spawn(gateways);
    tokio::spawn(pod_states.clone().poll(
        shelves.clone(),
        lease.clone(),
        scaling.clone(),
        metrics.clone(),
        trigger.clone(),
    ));
    tokio::spawn(measurements.poll(shelves.clone(), lease.clone(), trigger.clone()));
    let lease_task = tokio::spawn(lease.clone().run(metrics.clone(), stopped));

    let controller = tokio::spawn(control(client, options, context, (store, reflected), triggers, wake));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    // First nothing writes any more, then the lease goes.
    controller.abort();
    gateways.abort();
    let _ = (controller.await, gateways.await);
    let _ = stop.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(5), lease_task).await;
    Ok(())
}

type Trigger = reflector::ObjectRef<ModelDeployment>;

async fn control(
    client: Client,
    options: Options,
    context: Arc<Context>,
    (store, reflected): (reflector::Store<ModelDeployment>, reflector::store::Writer<ModelDeployment>),
    triggers: mpsc::Receiver<Trigger>,
    wake: mpsc::Sender<String>,
) {
    let api: Api<ModelDeployment> = match &options.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let (known, shared, listed) = (store.clone(), context.clone(), context.namespaces.clone());
    let deployments = watcher(api, watcher::Config::default().page_size(watches::PAGE))
        .default_backoff()
        .modify(slim)
        .reflect(reflected)
        .inspect(move |event| {
            if matches!(event, Ok(watcher::Event::InitDone)) {
                listed.listed();
            }
        })
        .touched_objects()
        .filter_map(move |object| {
            let (known, shared, wake) = (known.clone(), shared.clone(), wake.clone());
            async move {
                let object = object
                    .inspect_err(|error| {
                        tracing::warn!(%error, "the watch of ModelDeployments failed, it starts again");
                    })
                    .ok()?;
                let trigger = Trigger::from_obj(&object);
                let present = known.get(&trigger).is_some();
                if shared.namespaces.seen(&object, present, &shared.expectations) {
                    let _ = wake.send(trigger.namespace.clone().unwrap_or_default()).await;
                }
                Some(trigger)
            }
        });
    let triggers = futures::stream::unfold(triggers, |mut rx| async { rx.recv().await.map(|t| (t, rx)) });
    // A new leader looks at everything: what its predecessor left half done has no event coming.
    let elected = {
        let store = store.clone();
        context.lease.elections().flat_map(move |()| {
            let all: Vec<Trigger> = store.state().iter().map(|d| Trigger::from_obj(&**d)).collect();
            futures::stream::iter(all)
        })
    };
    let queue = futures::stream::select(
        futures::stream::select(deployments.boxed(), triggers.boxed()),
        elected.boxed(),
    )
    .map(|trigger| Ok::<_, std::convert::Infallible>(ReconcileRequest::from(trigger)));
    controller::applier(
        |deployment, context| Box::pin(reconcile::reconcile(deployment, context)),
        reconcile::error_policy,
        context.clone(),
        store,
        queue,
        controller::Config::default().concurrency(CONCURRENCY),
    )
    .for_each(async |result| {
        // Errors were logged where they arose; a trigger of an object that is gone is no error.
        if let Err(controller::Error::ObjectNotFound(gone)) = result {
            let key = (gone.namespace.clone().unwrap_or_default(), gone.name.clone());
            context.expectations.forget(&key);
            context.budget.settle(&key);
            context.scaling.forget(&key);
        }
    })
    .await;
}

/// What is kept of each object for as long as it exists. A list that was read from JSON has room for four at least.
fn slim(object: &mut ModelDeployment) {
    if let Some(owners) = &mut object.metadata.managed_fields {
        owners.retain_mut(scales);
        owners.shrink_to_fit();
    }
    if let Some(status) = &mut object.status {
        status.revisions.shrink_to_fit();
        status.conditions.shrink_to_fit();
    }
}

/// It owns `spec.replicas`. Of the rest of the managed fields nothing is read.
fn scales(entry: &mut ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.take();
    fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
}

async fn crd_is_outdated(client: &Client) -> bool {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    is_outdated(&api, "modeldeployments.modelwright.dev").await
        || is_outdated(&api, "modelroutes.modelwright.dev").await
}

async fn is_outdated(api: &Api<CustomResourceDefinition>, name: &str) -> bool {
    let get = api.get(name);
    let crd = match tokio::time::timeout(Duration::from_secs(10), get).await {
        Ok(Ok(crd)) => crd,
        Ok(Err(error)) => {
            tracing::warn!(name, %error, "the CustomResourceDefinition can't be read, its schema is not checked");
            return false;
        }
        Err(_) => return false,
    };
    let revision =
        crd.metadata.annotations.and_then(|a| a.get(annotations::SCHEMA_REVISION)?.parse::<u32>().ok());
    revision.unwrap_or(0) < SCHEMA_REVISION
}

#[cfg(test)]
mod tests;
