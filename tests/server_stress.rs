//! The unsafe corner: one session run by many threads, whose answers outlive it. `make test-asan` runs this under
//! AddressSanitizer; alone it finds wrong answers and crashes.
#![cfg(feature = "server")]

mod server_support;

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use modelwright::protocol::{Datatype, Tensor};
use modelwright::server::batch::{BatchAxes, Limits};
use modelwright::server::engine::ort::{LoadOptions, load};
use modelwright::server::engine::{Loaded, RunError, Runner};
use modelwright::server::metrics::Metrics;
use modelwright::server::queue::{Batching, Deadline, Queue, Request};
use server_support::onnx::{model, node, types, value};
use server_support::onnxruntime;

const THREADS: usize = 8;

/// In a process of its own: ONNX Runtime's telemetry is switched off by the environment alone.
fn alone(test: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env("ORT_DISABLE_TELEMETRY", "1")
        .env("ORT_DYLIB_PATH", onnxruntime())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
}

#[test]
fn many_threads_on_one_session_get_their_own_answers_which_outlive_it() {
    alone("runs_and_drops");
}

#[test]
fn clients_that_leave_take_nothing_with_them() {
    alone("cancellations");
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

/// `twice` = x + x, `x` and `s` passed through, `t` = s, `r` = x in the shape `i`, which may not fit.
fn everything() -> (tempfile::TempDir, Loaded) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let floats = |name: &str| value(name, types::FLOAT, &[-1, -1]);
    let strings = |name: &str| value(name, types::STRING, &[-1]);
    let nodes = vec![
        node("Add", "", &["x", "x"], &["twice"]),
        node("Identity", "", &["s"], &["t"]),
        node("Reshape", "", &["x", "i"], &["r"]),
    ];
    let inputs = vec![floats("x"), strings("s"), value("i", types::INT64, &[2])];
    let outputs = vec![floats("twice"), floats("x"), strings("s"), strings("t"), floats("r")];
    std::fs::write(&path, model(17, nodes, inputs, outputs)).unwrap();
    let loaded = load(&LoadOptions { model: path, cpus: THREADS, ..Default::default() }).unwrap();
    assert_eq!(loaded.runners.len(), THREADS);
    (folder, loaded)
}

/// At an address that suits no number, as a body's slice may be.
fn askew(data: &[u8]) -> Bytes {
    Bytes::from([&[0], data].concat()).slice(1..)
}

fn tensor(name: &str, datatype: Datatype, shape: &[usize], data: &[u8]) -> Tensor {
    let shape = shape.iter().map(|n| *n as i64).collect();
    Tensor::new(name.into(), datatype, shape, askew(data)).unwrap()
}

/// What one run is asked, and what must come of it.
struct Question {
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
    /// Empty: a refusal.
    answers: Vec<Vec<u8>>,
}

fn question(random: &mut Random) -> Question {
    let (rows, columns) = (random.below(40), random.below(40));
    let x: Vec<f32> = (0..rows * columns).map(|_| random.below(1000) as f32).collect();
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let count = random.below(20);
    let mut strings = Vec::new();
    for _ in 0..count {
        let length = if random.below(10) == 0 { 5000 } else { random.below(20) };
        strings.extend((length as u32).to_le_bytes());
        strings.extend((0..length).map(|_| random.below(256) as u8));
    }
    let fits = random.below(4) != 0;
    let target: [i64; 2] = match fits {
        true if rows * columns > 0 => [columns as i64, rows as i64],
        // In `Reshape`, 0 is the axis of the input.
        true => [rows as i64, columns as i64],
        false => [7, rows as i64 * columns as i64 + 1],
    };
    let mut outputs: Vec<usize> = (0..5).filter(|_| random.below(2) == 0).collect();
    if outputs.is_empty() {
        outputs.push(random.below(5));
    }
    // ONNX Runtime runs every node, whatever is asked for.
    let is_refused = !fits;
    let answer = |output: &usize| match output {
        0 => bytes(&x.iter().map(|v| v + v).collect::<Vec<_>>()),
        1 | 4 => bytes(&x),
        _ => strings.clone(),
    };
    let answers = if is_refused { vec![] } else { outputs.iter().map(answer).collect() };
    let inputs = vec![
        tensor("x", Datatype::Fp32, &[rows, columns], &bytes(&x)),
        tensor("s", Datatype::Bytes, &[count], &strings),
        tensor("i", Datatype::Int64, &[2], &target.map(i64::to_le_bytes).concat()),
    ];
    Question { inputs, outputs, answers }
}

type Shelf = Mutex<Vec<(Tensor, Vec<u8>)>>;

fn ask(mut runner: Box<dyn Runner>, seed: u64, shelf: &Shelf) {
    let mut random = Random(seed);
    for round in 0..500 {
        let Question { inputs, outputs, answers } = question(&mut random);
        let shapes: Vec<Vec<i64>> = inputs.iter().map(|t| t.shape.clone()).collect();
        let result = runner.run(&inputs, &outputs);
        drop(inputs);
        match result {
            Ok(tensors) => {
                assert_eq!(tensors.len(), answers.len(), "seed {seed}, round {round}");
                let mut shelf = shelf.lock().unwrap();
                shelf.extend(tensors.into_iter().zip(answers));
                // Some answers are kept for long, and dropped by another thread than made them.
                while shelf.len() > 200 {
                    let index = random.below(shelf.len());
                    let (tensor, answer) = shelf.swap_remove(index);
                    assert_eq!(tensor.data()[..], answer, "seed {seed}, round {round}: {tensor:?}");
                }
            }
            Err(RunError::Refused(_)) => assert!(answers.is_empty(), "seed {seed}, round {round}"),
            Err(error) => panic!("seed {seed}, round {round}, outputs {outputs:?} of {shapes:?}: {error:?}"),
        }
    }
}

#[test]
#[ignore = "run by many_threads_on_one_session_get_their_own_answers_which_outlive_it"]
fn runs_and_drops() {
    let (_folder, loaded) = everything();
    let shelf = Arc::new(Shelf::default());
    let threads = loaded.runners.into_iter().zip(1u64..).map(|(runner, seed)| {
        let shelf = shelf.clone();
        std::thread::spawn(move || ask(runner, 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed), &shelf))
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    // Every runner is gone; only the answers hold the session.
    let left = std::mem::take(&mut *shelf.lock().unwrap());
    assert!(!left.is_empty());
    for (tensor, answer) in left {
        assert_eq!(tensor.data()[..], answer, "{tensor:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by clients_that_leave_take_nothing_with_them"]
async fn cancellations() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let rows = |name: &str| value(name, types::FLOAT, &[-1, 8]);
    let bytes = model(17, vec![node("Add", "", &["x", "x"], &["y"])], vec![rows("x")], vec![rows("y")]);
    std::fs::write(&path, bytes).unwrap();
    let loaded = load(&LoadOptions { model: path, cpus: 4, ..Default::default() }).unwrap();
    let axes = BatchAxes { inputs: vec![0], outputs: vec![0] };
    let batching = Batching { axes, max_rows: Some(16), delay: Duration::ZERO };
    let limits = Limits { requests: 10_000, bytes: 1 << 30 };
    let queue = Arc::new(Queue::start(loaded.runners, Some(batching), limits, Metrics::new("m")).unwrap());
    let mut random = Random(42);
    for _ in 0..50 {
        let mut clients = Vec::new();
        for _ in 0..60 {
            let rows = 1 + random.below(3);
            let values: Vec<f32> = (0..rows * 8).map(|_| random.below(1000) as f32).collect();
            let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let inputs = vec![tensor("x", Datatype::Fp32, &[rows, 8], &data)];
            let deadline = Deadline::new(Instant::now(), Duration::from_secs(600));
            let request = Request { inputs, outputs: vec![0], priority: 0, deadline };
            let queue = queue.clone();
            let client = tokio::spawn(async move {
                let answer = queue.run(request).await.unwrap().unwrap();
                let twice: Vec<u8> = values.iter().flat_map(|v| (v + v).to_le_bytes()).collect();
                assert_eq!(answer[0].data()[..], twice);
            });
            clients.push((client, random.below(3) == 0));
        }
        for (client, leaves) in &clients {
            if *leaves {
                client.abort();
            }
        }
        for (client, leaves) in clients {
            match client.await {
                Err(e) if e.is_cancelled() => assert!(leaves),
                ended => ended.unwrap(),
            }
        }
    }
}
