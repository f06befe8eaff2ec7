//! Requests that share runs of a real model: what each gets is its own.
#![cfg(feature = "server")]

mod server_support;

use serde_json::{Value, json};
use server_support::onnx::{Message, model, node, types};
use server_support::*;

/// A value whose axes bear these names; a number is a fixed axis.
fn named(name: &str, dims: &[&str]) -> Message {
    let dims = dims.iter().map(|dim| match dim.parse() {
        Ok(length) => Message::default().int(1, length),
        Err(_) => Message::default().text(2, dim),
    });
    let tensor = Message::default().int(1, types::FLOAT).message(2, Message::default().all(1, dims));
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

fn write(folder: &std::path::Path, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn question(shape: &[i64], value: f32) -> Value {
    let count = shape.iter().product::<i64>() as usize;
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": shape, "data": vec![value; count] }] })
}

async fn ask(port: u16, body: Value) -> Value {
    let (status, answer) = infer(port, &body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// How many runs had at most so many rows.
async fn runs(port: u16, rows: &str) -> u64 {
    let (_, text) = get(port, "/metrics").await.unwrap();
    let bucket = format!("modelwright_batch_rows_bucket{{revision=\"m\",le=\"{rows}\"");
    let line =
        text.lines().find(|line| line.starts_with(&bucket)).unwrap_or_else(|| panic!("{bucket}: {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn requests_of_one_shape_share_a_run_and_each_gets_its_own_answer() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = model(
        17,
        vec![node("Neg", "", &["x"], &["y"])],
        vec![named("x", &["2", "batch", "n"])],
        vec![named("y", &["2", "batch", "n"])],
    );
    // An idle thread waits for four.
    let flags = ["--max-batch-size=4", "--max-queue-delay-microseconds=1000000"];
    let server = serve(&write(folder.path(), &bytes), &flags).await;
    let port = server.port;
    // On a busy machine they may not come within that second: not every time.
    for _ in 0..20 {
        let answers = (0..4).map(|i| tokio::spawn(ask(port, question(&[2, 1, 3], i as f32))));
        for (i, answer) in answers.collect::<Vec<_>>().into_iter().enumerate() {
            let answer = answer.await.unwrap();
            assert_eq!(answer["outputs"][0]["shape"], json!([2, 1, 3]));
            assert_eq!(answer["outputs"][0]["data"], json!(vec![-(i as f32); 6]));
        }
        if runs(port, "4.0").await > runs(port, "3.0").await {
            return;
        }
    }
    panic!("no run of four rows");
}

#[tokio::test]
async fn many_clients_of_many_shapes_get_their_own_answers() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = model(
        17,
        vec![node("Neg", "", &["x"], &["y"])],
        vec![named("x", &["batch", "n"])],
        vec![named("y", &["batch", "n"])],
    );
    let server = serve(&write(folder.path(), &bytes), &[]).await;
    let port = server.port;
    let clients = (0..32).map(|client| {
        tokio::spawn(async move {
            for round in 0..16 {
                let (rows, length) = (1 + (client + round) % 3, 1 + client % 4);
                let value = (100 * client + round) as f32;
                let answer = ask(port, question(&[rows, length], value)).await;
                assert_eq!(answer["outputs"][0]["shape"], json!([rows, length]));
                assert_eq!(answer["outputs"][0]["data"], json!(vec![-value; (rows * length) as usize]));
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_model_whose_scale_comes_from_the_whole_batch_is_not_batched_and_answers_as_it_does_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = model(
        17,
        vec![
            node("DynamicQuantizeLinear", "", &["x"], &["q", "scale", "zero"]),
            node("DequantizeLinear", "", &["q", "scale", "zero"], &["y"]),
        ],
        vec![named("x", &["batch", "n"])],
        vec![named("y", &["batch", "n"])],
    );
    let server = serve(&write(folder.path(), &bytes), &["--max-queue-delay-microseconds=500000"]).await;
    let port = server.port;
    let alone = ask(port, question(&[1, 2], 0.3)).await;
    let beside = tokio::join!(ask(port, question(&[1, 2], 1000.0)), ask(port, question(&[1, 2], 0.3)));
    assert_eq!(beside.1, alone);
    assert_eq!(runs(port, "1.0").await, runs(port, "64.0").await);
}
