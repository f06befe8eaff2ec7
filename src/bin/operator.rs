//! The operator: `modelwright-operator --help`.

use std::net::SocketAddr;

use clap::Parser;
use modelwright::observe::{GatewaySettings, Settings};
use modelwright::operator::{Options, run};

/// Manages ModelDeployments.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Image of resolver and loader.
    #[arg(long, env = "MODELWRIGHT_LOADER_IMAGE")]
    loader_image: String,
    /// Image of the server, without a tag.
    #[arg(long, env = "MODELWRIGHT_SERVER_IMAGE")]
    server_image: String,
    /// `cpu`, `cuda` or `tensorrt`, `=sha256:…`: pins the image of the runtime version below; may be repeated.
    #[arg(long, value_parser = server_digest)]
    server_digest: Vec<(String, String)>,
    /// `NAME=VALUE`, for the server in new revisions; may be repeated. Earlier ones may be used by $(NAME).
    #[arg(long, value_parser = variable)]
    server_env: Vec<(String, String)>,
    /// Tag of the server's image where `runtime.version` is absent.
    #[arg(long, env = "MODELWRIGHT_RUNTIME_VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    runtime_version: String,
    /// Where loaders in new revisions reach the cache of their node: http://host:port.
    #[arg(long, env = "MODELWRIGHT_NODE_CACHE")]
    node_cache: Option<String>,
    /// Image of the gateways. Absent: the loader's, which is the same.
    #[arg(long, env = "MODELWRIGHT_GATEWAY_IMAGE")]
    gateway_image: Option<String>,
    /// In each namespace that has a ModelDeployment.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..=50))]
    gateway_replicas: i32,
    /// Requests and limits of a gateway, as JSON.
    #[arg(
        long,
        default_value = r#"{"requests":{"cpu":"100m","memory":"64Mi"},"limits":{"memory":"512Mi"}}"#,
        value_parser = resources
    )]
    gateway_resources: serde_json::Value,
    /// After SIGTERM, a gateway finishes what it holds and forwards within so many seconds: the longest queue timeout, the
    /// request timeout, and 10.
    #[arg(long, default_value_t = 340, value_parser = clap::value_parser!(i64).range(10..=86400))]
    gateway_grace_seconds: i64,
    #[arg(long, default_value = "IfNotPresent")]
    image_pull_policy: String,
    /// Added to every pod; may be repeated.
    #[arg(long)]
    image_pull_secret: Vec<String>,
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Watch this namespace only. Absent: the whole cluster.
    #[arg(long)]
    namespace: Option<String>,
    /// Where the lease is.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=600))]
    lease_seconds: u64,
    /// Unique among replicas.
    #[arg(long, env = "POD_NAME", default_value_t = format!("pid-{}", std::process::id()))]
    identity: String,
    /// For health and metrics.
    #[arg(long, default_value = "0.0.0.0:8080")]
    address: SocketAddr,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("want NAME=VALUE".into()),
    }
}

fn resources(text: &str) -> Result<serde_json::Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(_) => Err("want a JSON object with requests and limits".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn server_digest(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((flavour @ ("cpu" | "cuda" | "tensorrt"), digest)) if digest.starts_with("sha256:") => {
            Ok((flavour.into(), digest.into()))
        }
        _ => Err("want cpu=sha256:…, cuda=sha256:… or tensorrt=sha256:…".into()),
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    modelwright::telemetry::init();
    let arguments = Arguments::parse();
    run(Options {
        gateway: GatewaySettings {
            image: arguments.gateway_image.unwrap_or_else(|| arguments.loader_image.clone()),
            replicas: arguments.gateway_replicas,
            resources: arguments.gateway_resources,
            grace_seconds: arguments.gateway_grace_seconds,
            image_pull_policy: arguments.image_pull_policy.clone(),
            image_pull_secrets: arguments.image_pull_secret.clone(),
        },
        settings: Settings {
            loader_image: arguments.loader_image,
            server_image: arguments.server_image,
            server_digests: arguments.server_digest.into_iter().collect(),
            server_environment: arguments.server_env,
            runtime_version: arguments.runtime_version,
            node_cache: arguments.node_cache,
            image_pull_policy: arguments.image_pull_policy,
            image_pull_secrets: arguments.image_pull_secret,
            cluster_domain: arguments.cluster_domain,
            crd_outdated: false,
        },
        namespace: arguments.namespace,
        lease_namespace: arguments.lease_namespace,
        lease_seconds: arguments.lease_seconds,
        identity: arguments.identity,
        address: arguments.address,
    })
    .await?;
    Ok(())
}
