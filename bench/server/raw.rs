//! The reference: ONNX Runtime alone, in a process of its own, a session a thread.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::Tensor;
use serde::{Deserialize, Serialize};

use crate::model::{Data, Model, VARIANTS, onnxruntime};
use crate::report::cpu_seconds;

/// Idle until it is told to run.
pub struct Raw {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// By variant: the outputs, one after the other.
    pub expected: Vec<Vec<f32>>,
}

#[derive(Clone, Copy)]
pub struct Reference {
    pub per_second: f64,
    pub cpu_ms: f64,
}

#[derive(Serialize, Deserialize)]
struct Ran {
    requests: u64,
    per_second: f64,
}

impl Raw {
    /// `intra`: threads of one run; 0: all cores, with ONNX Runtime's own defaults.
    pub fn start(model: Model, threads: usize, batch: usize, intra: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["raw", model.name()])
            .args([threads, batch, intra].map(|n| n.to_string()))
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary runs");
        let orders = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut raw = Self { child, orders, answers, expected: Vec::new() };
        raw.expected = serde_json::from_str(&raw.line()).expect("the reference's outputs");
        raw.run(Duration::from_millis(500));
        raw
    }

    pub fn run(&mut self, time: Duration) -> Reference {
        let before = cpu_seconds(self.child.id());
        writeln!(self.orders, "{}", time.as_secs_f64()).expect("the reference reads");
        let ran: Ran = serde_json::from_str(&self.line()).expect("the reference's answer");
        let cpu = cpu_seconds(self.child.id()) - before;
        Reference { per_second: ran.per_second, cpu_ms: 1000.0 * cpu / ran.requests as f64 }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).expect("the reference answers");
        assert!(read > 0, "the reference ended");
        line
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's side: `raw MODEL THREADS BATCH INTRA`.
pub fn child(arguments: &[String]) {
    let [model, threads, batch, intra] = arguments else { panic!("raw MODEL THREADS BATCH INTRA") };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let (model, batch) = (Model::named(model), number(batch));
    let environment = ort::init_from(onnxruntime())
        .unwrap_or_else(|e| panic!("ONNX Runtime can't be loaded: {e:?}"))
        .with_name("reference")
        .with_telemetry(false)
        .build()
        .expect("an environment");
    // As the server does: ort's callback is told everything otherwise, on every run, under a lock.
    environment.set_log_level(LogLevel::Warning);
    let mut sessions: Vec<Session> =
        (0..number(threads)).map(|_| open(&environment, model, number(intra))).collect();
    let mut run_one = |variant| run(&mut sessions[0], &options(model), &inputs(model, variant, 1), model);
    let expected: Vec<Vec<f32>> = (0..VARIANTS).map(&mut run_one).collect();
    answer(&expected);
    for line in std::io::stdin().lines() {
        let time = Duration::from_secs_f64(line.expect("a line").parse().expect("seconds"));
        let ran: Vec<Ran> = thread::scope(|scope| {
            let threads: Vec<_> = sessions
                .iter_mut()
                .enumerate()
                .map(|(variant, session)| scope.spawn(move || run_for(session, model, variant, batch, time)))
                .collect();
            threads.into_iter().map(|t| t.join().expect("a run")).collect()
        });
        answer(&Ran {
            requests: ran.iter().map(|r| r.requests).sum(),
            per_second: ran.iter().map(|r| r.per_second).sum(),
        });
    }
}

fn answer(value: &impl Serialize) {
    println!("{}", serde_json::to_string(value).expect("JSON"));
}

fn open(environment: &Environment, model: Model, intra: usize) -> Session {
    Session::builder(environment)
        .and_then(|builder| builder.with_intra_threads(intra)?.commit_from_file(model.path()))
        .unwrap_or_else(|e| panic!("{}: {e}", model.path().display()))
}

fn options(model: Model) -> RunOptions<ort::session::HasSelectedOutputs> {
    let selected = model.outputs().iter().fold(OutputSelector::no_default(), |s, name| s.with(*name));
    RunOptions::new().expect("run options").with_outputs(selected)
}

fn inputs(model: Model, variant: usize, batch: usize) -> Vec<SessionInputValue<'static>> {
    let value = |tensor: crate::model::Tensor| match tensor.data {
        Data::Int64(data) => Tensor::from_array((tensor.shape, data)).expect("a tensor").into(),
        Data::Fp32(data) => Tensor::from_array((tensor.shape, data)).expect("a tensor").into(),
    };
    model.inputs(variant, batch).into_iter().map(value).collect()
}

fn run(
    session: &mut Session,
    options: &RunOptions<ort::session::HasSelectedOutputs>,
    inputs: &[SessionInputValue<'static>],
    model: Model,
) -> Vec<f32> {
    let outputs = session.run_with_options(inputs, options).expect("a run");
    let floats = |name: &&str| outputs[*name].try_extract_tensor::<f32>().expect("floats").1.to_vec();
    model.outputs().iter().flat_map(floats).collect()
}

fn run_for(session: &mut Session, model: Model, variant: usize, batch: usize, time: Duration) -> Ran {
    let (options, inputs) = (options(model), inputs(model, variant, batch));
    let (started, mut runs) = (Instant::now(), 0);
    while started.elapsed() < time {
        session.run_with_options(&inputs[..], &options).expect("a run");
        runs += 1;
    }
    let requests = runs * batch as u64;
    Ran { requests, per_second: requests as f64 / started.elapsed().as_secs_f64() }
}
