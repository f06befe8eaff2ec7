//! `make bench ONLY=perf-analyzer`: Triton's own load client, unchanged, against our server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::connection::Target;
use crate::model::{Form, Model, VARIANTS, tool};
use crate::process::{Server, free_port, until_answered};
use crate::raw::Raw;
use crate::report::{Goal, figure, say};

const MODEL: Model = Model::Real;
const CONNECTIONS: &str = "8";

pub fn run() {
    let analyzer = tool("perf-analyzer.sh");
    let expected = Arc::new(Raw::start(MODEL, 1, 1, 1).expected.clone());
    let port = free_port();
    let _server = Server::serve(&MODEL.path(), port, &[]);
    until_answered(&Target { port, name: "m", model: MODEL, form: Form::Binary, expected });

    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data.json");
    std::fs::write(&data, input_data(batches(port)).to_string()).expect("the input data");
    for protocol in ["http", "grpc"] {
        let mut command = Command::new(&analyzer);
        command.args(["-m", "m", "-i", protocol, "-u", &format!("127.0.0.1:{port}")]);
        command
            .args(["--concurrency-range", CONNECTIONS, "--measurement-interval", "3000"])
            .arg("--input-data")
            .arg(&data);
        let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let text = String::from_utf8_lossy(&output.stdout);
        say(&format!("{command:?}\n{text}{}", String::from_utf8_lossy(&output.stderr)));
        let throughput = text
            .lines()
            .find_map(|l| l.trim().strip_prefix("Throughput: ")?.split(' ').next()?.parse::<f64>().ok());
        let passes = output.status.success() && throughput.is_some_and(|t| t > 0.0);
        let how =
            format!("perf_analyzer -i {protocol}, {CONNECTIONS} at a time, ends well and counts answers");
        let name = format!("perf_analyzer.{protocol}");
        figure(
            &format!("{name}.passes"),
            f64::from(u8::from(passes)),
            "0 or 1",
            Some(Goal::AtLeast(1.0)),
            &how,
        );
        figure(&format!("{name}.throughput"), throughput.unwrap_or(0.0), "requests/s", None, "its own count");
    }
}

/// Whether shapes leave out the batch axis, as they do for Triton where max_batch_size is above 0.
fn batches(port: u16) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    write!(stream, "GET /v2/models/m/config HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let config = answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str::<Value>(body).ok());
    config.is_some_and(|c| c["max_batch_size"].as_i64().is_some_and(|size| size > 0))
}

fn input_data(batches: bool) -> Value {
    let request = |variant| {
        let mut inputs = Map::new();
        for tensor in MODEL.inputs(variant, 1) {
            let shape = &tensor.shape[usize::from(batches)..];
            inputs.insert(tensor.name.into(), json!({"content": tensor.json(), "shape": shape}));
        }
        Value::from(inputs)
    };
    json!({ "data": (0..VARIANTS).map(request).collect::<Vec<_>>() })
}
