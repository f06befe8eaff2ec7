//! The gateway: `modelwright-gateway --help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use modelwright::formats::{paths, ports};
use modelwright::gateway::{Options, run};

/// Forwards the requests of one namespace's ModelDeployments.
#[derive(Parser)]
#[command(name = "modelwright-gateway", version)]
struct Arguments {
    /// Whose ModelRoutes and pods it follows.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// REST and gRPC.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// REST and gRPC over TLS, where there is a certificate.
    #[arg(long, default_value_t = ports::INFERENCE_TLS)]
    tls_port: u16,
    /// A mounted Secret of API keys; watched.
    #[arg(long, value_name = "FOLDER", default_value = paths::API_KEYS)]
    api_keys: PathBuf,
    /// A mounted Secret with tls.crt and tls.key; watched.
    #[arg(long, value_name = "FOLDER", default_value = paths::GATEWAY_TLS)]
    tls: PathBuf,
    /// Health, metrics, the stream to the operator.
    #[arg(long, default_value_t = 8081)]
    admin_port: u16,
    /// Serving pods say here that they are proven.
    #[arg(long, default_value_t = ports::ANNOUNCE)]
    announce_port: u16,
    /// After SIGTERM, connections are accepted for so long: until every node has forgotten this pod.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    drain_seconds: u64,
    /// After SIGTERM, everything has to be over: below terminationGracePeriodSeconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 340)]
    grace_seconds: u64,
    /// A connection this old is asked to end, a tenth more or less.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    connection_age_seconds: u64,
    /// Connections at a time; more wait in the kernel.
    #[arg(long, default_value_t = 16384)]
    max_connections: usize,
    /// Bytes of request bodies in memory. Absent: half of the container's memory.
    #[arg(long, value_name = "BYTES")]
    max_body_bytes: Option<usize>,
    /// One thread forwards some ten thousand requests a second, each for half of what it costs two that wake each other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    modelwright::telemetry::init();
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads.into())
        // They unpack compressed messages, each in as much memory as the message may have.
        .max_blocking_threads(4)
        .enable_all()
        .build()?;
    runtime.block_on(run(Options {
        namespace: arguments.namespace,
        port: arguments.port,
        tls_port: arguments.tls_port,
        admin_port: arguments.admin_port,
        announce_port: arguments.announce_port,
        api_keys: arguments.api_keys,
        tls: arguments.tls,
        drain: Duration::from_secs(arguments.drain_seconds),
        grace: Duration::from_secs(arguments.grace_seconds),
        connection_age: Duration::from_secs(arguments.connection_age_seconds),
        connections: arguments.max_connections,
        body_bytes: arguments.max_body_bytes,
    }))
}
