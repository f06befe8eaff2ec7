//! The chart's dashboard and alerts, on a real Prometheus that scrapes a real server with load on it: `make test-dashboard`.
#![cfg(all(feature = "server", feature = "e2e"))]

mod server_support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use server_support::onnx::{Message, model, node, types};
use server_support::*;

const DASHBOARD: &str = include_str!("../charts/modelwright/dashboards/modelwright.json");
const ALERTS: &str = "charts/modelwright/files/alerts.yaml";

/// Of all panels, with the variables as Grafana fills them in when All is chosen.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let fill = |target: &Value| {
        let variables = ["$namespace", "$deployment", "$revision"].into_iter();
        let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "10s");
        variables.fold(query, |query, variable| query.replace(variable, ".*"))
    };
    targets.map(fill).collect()
}

/// The metrics of a query, or of a text with queries.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named =
        words.filter(|word| word.starts_with("modelwright_") && !word.starts_with("modelwright_dev_"));
    named.map(str::to_string).collect()
}

fn prometheus(binary: &str) -> Command {
    Command::new(Path::new(&tool("prometheus.sh")).join(binary))
}

/// Running, with the server as its only target.
async fn start_prometheus(folder: &Path, server: u16) -> Process {
    let config = folder.join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: models, static_configs: [{{targets: ['127.0.0.1:{server}']}}]}}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let port = free_port();
    let child = prometheus("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--log.level=error")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process { child, port };
    until("Prometheus is ready", async || {
        matches!(get(port, "/-/ready").await, Some((200, _))).then_some(())
    })
    .await;
    process
}

/// The samples that a query finds.
async fn ask(prometheus: u16, query: &str) -> Vec<Value> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let (status, text) = get(prometheus, &format!("/api/v1/query?query={encoded}")).await.unwrap();
    assert_eq!(status, 200, "{query}: {text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["data"]["result"].as_array().unwrap().clone()
}

/// Two clients on REST and one on gRPC, until dropped; one in a while asks nonsense.
fn load(port: u16) -> tokio::task::JoinSet<()> {
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..2 {
        clients.spawn(async move {
            for round in 0.. {
                let name = if round % 8 == client { "nonsense" } else { "x" };
                infer(port, &json!({ "inputs": [fp32(name, &[1, 2], json!([1, 2]))] })).await;
            }
        });
    }
    clients.spawn(async move {
        use modelwright::protocol::grpc::proto::ModelInferRequest;
        use modelwright::protocol::grpc::proto::model_infer_request::InferInputTensor;
        let mut client = grpc::connect(port).await;
        loop {
            let input = InferInputTensor {
                name: "x".into(),
                datatype: "FP32".into(),
                shape: vec![1, 2],
                ..Default::default()
            };
            let request = ModelInferRequest {
                model_name: "m".into(),
                inputs: vec![input],
                raw_input_contents: vec![vec![0; 8].into()],
                ..Default::default()
            };
            client.model_infer(request).await.unwrap();
        }
    });
    clients
}

#[tokio::test]
async fn every_query_of_the_dashboard_is_understood_and_those_of_the_server_have_data() {
    let value = |name: &str| {
        let dims = ["batch", "n"].map(|dim| Message::default().text(2, dim));
        let tensor = Message::default().int(1, types::FLOAT).message(2, Message::default().all(1, dims));
        Message::default().text(1, name).message(2, Message::default().message(1, tensor))
    };
    let bytes = model(17, vec![node("Neg", "", &["x"], &["y"])], vec![value("x")], vec![value("y")]);
    let served = Served::new(&bytes, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let prometheus = start_prometheus(folder.path(), served.port()).await;
    let _clients = load(served.port());
    let queries = queries();
    assert!(queries.len() > 20, "{queries:?}");
    for query in queries {
        let of_the_operator = metrics(&query).iter().all(|name| name.starts_with("modelwright_operator_"));
        if of_the_operator {
            ask(prometheus.port, &query).await; // no operator is scraped: it parses
            continue;
        }
        let what = format!("{query} finds data");
        let samples = until(&what, async || {
            let samples = ask(prometheus.port, &query).await;
            let known = |sample: &Value| sample["value"][1].as_str().is_some_and(|value| value != "NaN");
            samples.iter().any(known).then_some(samples)
        })
        .await;
        assert!(!samples.is_empty());
    }
}

#[test]
fn the_alerts_are_understood() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(ALERTS);
    let output = prometheus("promtool").args(["check", "rules"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_dashboard_and_the_alerts_speak_of_metrics_that_exist() {
    let page = include_str!("../docs/metrics.md");
    let alerts = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(ALERTS)).unwrap();
    let used = metrics(DASHBOARD).into_iter().chain(metrics(&alerts));
    let family = |name: &str| {
        let end = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        end.unwrap_or(name).to_string()
    };
    let unknown: Vec<String> =
        used.filter(|name| !page.contains(&format!("| `{}` |", family(name)))).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not in docs/metrics.md");
}
