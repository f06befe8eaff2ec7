//! Random histories: whatever users, pods, gateways and the operator's own death do, in whatever order, every write
//! keeps the invariants (see `sim/invariants.rs`), and what the newest spec asks for is there in the end.

use serde_json::{Value, json};

use crate::sim::{Rng, Sim};

/// Of each of the two tests, which run side by side; `HISTORIES` in the environment asks for another number.
const HISTORIES: u64 = 5_000;
const EVENTS: usize = 5;

fn strategies() -> Vec<Value> {
    let steps = |steps: Value| json!({ "canary": { "steps": steps } });
    vec![
        Value::Null,
        steps(json!([{ "setWeight": 10 }, { "pause": { "durationSeconds": 60 } }, { "setWeight": 50 }])),
        steps(json!([{ "setWeight": 0 }, { "pause": {} }])),
        steps(
            json!([{ "setCanaryScale": { "replicas": 2 } }, { "setWeight": 40 }, { "setWeight": 5 }, { "pause": {} }]),
        ),
        steps(json!([{ "shadow": { "percent": 20, "durationSeconds": 60 } }, { "setWeight": 30 }])),
        json!({ "replacement": "Recreate" }),
        json!({ "maxSurge": 1 }),
        json!({ "replacement": "InPlace" }),
        json!({ "replacement": "InPlace", "canary": { "steps": [{ "setWeight": 30 }, { "pause": {} }, { "setWeight": 60 }] } }),
        json!({ "maxSurge": 0, "maxUnavailable": 1 }),
        json!({ "replacement": "Surge", "maxSurge": "50%", "maxUnavailable": "34%" }),
        analysed(
            "Auto",
            json!([{ "setWeight": 10 }, { "pause": { "durationSeconds": 60 } }, { "setWeight": 50 }]),
        ),
        analysed("InPlace", json!([{ "setWeight": 10 }, { "pause": {} }, { "setWeight": 60 }])),
        analysed(
            "Surge",
            json!([{ "setCanaryScale": { "percent": 75 } }, { "setWeight": 30 }, { "pause": {} }]),
        ),
        analysed(
            "Auto",
            json!([{ "setWeight": 0 }, { "pause": {} }, { "setWeight": 30 }, { "setWeight": 60 }, { "setWeight": 80 }]),
        ),
    ]
}

fn analysed(replacement: &str, steps: Value) -> Value {
    let metrics = json!([{ "name": "errors", "type": "ErrorRate", "max": "0.05" }]);
    let canary = json!({ "steps": steps, "analysis": { "minRequests": 100, "metrics": metrics } });
    json!({ "replacement": replacement, "canary": canary })
}

/// One thing that happens.
fn happen(sim: &mut Sim, rng: &mut Rng, model: &mut usize, replicas: &mut i32) {
    const MODELS: [&str; 5] = ["1.onnx", "2.onnx", "3.onnx", "crashes.onnx", "large.onnx"];
    match rng.below(21) {
        0..=3 => *model = rng.below(MODELS.len()),
        4 => *replicas = rng.below(5) as i32,
        5 | 6 => {
            let all = strategies();
            return sim.set("strategy", all[rng.below(all.len())].clone());
        }
        7 => {
            let step = rng.below(4) as i32;
            return sim.promote(step);
        }
        8 => return sim.say_of_attempt("promote", "/full"),
        9 => return sim.say_of_attempt("abort", ""),
        10 => return sim.say_of_attempt("retry", ""),
        11 => return sim.set("paused", json!(rng.below(2) == 0)),
        12 => return sim.set("suspend", json!(rng.below(3) == 0)),
        13 => return sim.lose_pod(rng.below(8)),
        14 => return sim.restart_gateway(rng.below(3)),
        15 => return sim.annotate("modelwright.dev/restarted-at", &format!("time {}", rng.below(3))),
        16 | 17 => return sim.requests(rng.below(150) as u64, 0),
        18 => return sim.requests(100, rng.below(40) as u64),
        19 => return sim.lose_worker(rng.below(8)),
        _ => {
            sim.mute = rng.below(2) == 0;
            sim.capacity = 3 + rng.below(8);
            sim.crash_after = Some(sim.writes + 1 + rng.below(4));
            return;
        }
    }
    sim.apply(&format!("s3://models/fraud/{}", MODELS[*model]), *replicas);
}

fn history(seed: u64) {
    let mut rng = Rng(seed);
    let mut sim = Sim::new();
    sim.shuffle = Some(Rng(seed ^ 0x5eed));
    let (mut model, mut replicas) = (0, 1 + rng.below(3) as i32);
    sim.apply("s3://models/fraud/1.onnx", replicas);
    if seed.is_multiple_of(3) {
        sim.set("runtime", json!({ "executionProviders": [{ "name": "CUDA" }] }));
        sim.set("resources", json!({ "limits": { "nvidia.com/gpu": "1" } }));
    }
    for _ in 0..EVENTS {
        sim.steps(rng.below(18));
        happen(&mut sim, &mut rng, &mut model, &mut replicas);
    }
    // Everything works again, and nobody holds anything up.
    (sim.mute, sim.capacity) = (false, 100);
    sim.set("paused", json!(false));
    sim.set("suspend", json!(false));
    sim.apply("s3://models/fraud/4.onnx", 2);
    sim.settle();
    sim.say_of_attempt("promote", "/full");
    sim.settle();
    assert!(sim.is_serving(2), "seed {seed}\n{}", sim.transcript());
}

fn histories() -> u64 {
    std::env::var("HISTORIES").map_or(HISTORIES, |count| count.parse().expect("a number of histories"))
}

#[test]
fn every_history_with_an_even_seed_keeps_what_is_promised() {
    (0..histories()).for_each(|n| history(2 * n));
}

#[test]
fn every_history_with_an_odd_seed_keeps_what_is_promised() {
    (0..histories()).for_each(|n| history(2 * n + 1));
}
