//! Against the real ONNX Runtime, in a process of its own: its telemetry is switched off by the environment alone.

use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::onnx::fixture::{Msg, msg, opset, value};
use crate::server::engine::assignment;

const FLOAT: i64 = 1;
const STRING: i64 = 8;

/// Runs an ignored test of this file.
fn alone(test: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/onnxruntime.sh");
    let library = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(library.status.success());
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", &format!("server::engine::raw::tests::{test}")])
        .env("ORT_DISABLE_TELEMETRY", "1")
        .env("ORT_DYLIB_PATH", String::from_utf8(library.stdout).unwrap().trim())
        .status()
        .unwrap();
    assert!(status.success(), "{test}");
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Msg {
    let node = inputs.iter().fold(msg(), |node, name| node.text(1, name));
    node.text(2, output).text(4, operator)
}

/// sum = x + x; same = x; words = t.
fn session(profile: Option<&Path>) -> Arc<SharedSession> {
    let graph = msg()
        .msg(1, node("Add", &["x", "x"], "sum"))
        .msg(1, node("Identity", &["x"], "same"))
        .msg(1, node("Identity", &["t"], "words"))
        .text(2, "g");
    let graph = graph.msg(11, value("x", FLOAT, &[-1, 2])).msg(11, value("t", STRING, &[-1]));
    let graph = [("sum", FLOAT, vec![-1, 2]), ("same", FLOAT, vec![-1, 2]), ("words", STRING, vec![-1])]
        .iter()
        .fold(graph, |graph, (name, datatype, dims)| graph.msg(12, value(name, *datatype, dims)));
    let model = msg().int(1, 8).msg(7, graph).msg(8, opset("", 17));
    let library = std::env::var_os("ORT_DYLIB_PATH").unwrap();
    let environment = ort::init_from(library).unwrap().with_telemetry(false).build().unwrap();
    let mut builder = Session::builder(&environment)
        .unwrap()
        .with_config_entry("session.record_ep_graph_assignment_info", "1")
        .unwrap();
    if let Some(profile) = profile {
        builder = builder.with_profiling(profile).unwrap();
    }
    let session = builder.commit_from_memory(&model.0).unwrap();
    let outputs = [("sum", Datatype::Fp32), ("same", Datatype::Fp32), ("words", Datatype::Bytes)];
    let outputs: Vec<_> = outputs.map(|(name, datatype)| (name.to_string(), datatype)).into();
    SharedSession::new(session, &["x".into(), "t".into()], &outputs).unwrap()
}

fn inputs(rows: i64) -> Vec<Tensor> {
    let numbers: Vec<u8> = (0..rows * 2).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let words: Vec<u8> = (0..rows).flat_map(|i| [2, 0, 0, 0, b'w', b'0' + i as u8]).collect();
    vec![
        Tensor::new("x".into(), Datatype::Fp32, vec![rows, 2], numbers.into()).unwrap(),
        Tensor::new("t".into(), Datatype::Bytes, vec![rows], words.into()).unwrap(),
    ]
}

#[test]
fn a_bound_session_answers_as_a_shared_one() {
    alone("bound");
}

#[test]
#[ignore = "run by a_bound_session_answers_as_a_shared_one"]
fn bound() {
    let shared = session(None);
    let mut bound = BoundSession::new(shared.clone()).unwrap();
    let options = RunOptions::new().unwrap();
    let mut kept = Vec::new();
    for (rows, outputs) in [(1, vec![0, 1, 2]), (3, vec![2, 0]), (2, vec![1])] {
        let inputs = inputs(rows);
        let answer = bound.run(&inputs, &outputs, &options).unwrap();
        assert_eq!(answer, shared.run(&inputs, &outputs, &options).unwrap());
        kept.push(answer);
    }
    // What one run gave is not touched by the next, nor by the end of the request.
    let sum: Vec<u8> = [0f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(kept[0][0].data()[..], sum);
    assert_eq!(kept[0][1].data(), inputs(1)[0].data());

    let bad = Tensor::new("x".into(), Datatype::Fp32, vec![1, 3], vec![0; 12].into()).unwrap();
    let refused = [bad, inputs(1).remove(1)];
    assert!(bound.run(&refused, &[0], &options).unwrap_err().contains("dimensions"));
    assert!(bound.run(&refused[..1], &[0], &options).is_err());
    assert_eq!(
        bound.run(&inputs(2), &[1], &options).unwrap()[0].shape,
        [2, 2],
        "an error leaves nothing behind"
    );
}

#[test]
fn a_session_tells_its_nodes_and_what_ran() {
    alone("told");
}

#[test]
#[ignore = "run by a_session_tells_its_nodes_and_what_ran"]
fn told() {
    let folder = tempfile::TempDir::new().unwrap();
    let session = session(Some(&folder.path().join("profile")));
    let nodes = session.nodes().unwrap();
    assert_eq!(assignment::counts(&nodes), [("CPU".to_string(), 3)].into());
    assert!(nodes.iter().any(|n| n.operator == "Add" && n.domain.is_empty()), "{nodes:?}");
    let options = RunOptions::new().unwrap();
    session.run(&inputs(1), &[0, 1, 2], &options).unwrap();
    let profile = session.end_profiling().unwrap();
    let kernels = assignment::kernels(&std::fs::read_to_string(profile).unwrap()).unwrap();
    let add = kernels.iter().find(|k| k.operator == "Add").unwrap();
    let float = assignment::Seen { is_integer: false, rank: 2 };
    assert_eq!((add.provider.as_str(), &add.outputs[..]), ("CPUExecutionProvider", &[float][..]));
    session.run(&inputs(1), &[0], &options).unwrap();
}
