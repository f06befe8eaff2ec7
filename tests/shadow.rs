//! A real model and two others that were made of it, through real servers: one that was requantised passes, and one of
//! whose weights one is wrong is caught.

#[path = "gateway/support.rs"]
#[allow(dead_code)]
mod gateway;
mod server_support;

use std::ops::Range;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use modelwright::api::{AnalysisVerdict, OutputBudget, RouteShadow};
use modelwright::gateway::{PodView, RouteView, TrialView};
use modelwright::plan::difference::{Found, judge};
use serde_json::{Value, json};
use server_support::{Served, magika};

const REQUESTS: u64 = 60;
const OUTPUT: &str = "target_label";

/// A field of a protobuf message: its number, and where its bytes are.
fn fields(message: &[u8], within: Range<usize>) -> Vec<(u64, Range<usize>)> {
    let mut found = Vec::new();
    let mut at = within.start;
    let varint = |at: &mut usize| {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = message[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    };
    while at < within.end {
        let tag = varint(&mut at);
        let start = match tag & 7 {
            2 => {
                let length = varint(&mut at) as usize;
                at += length;
                at - length
            }
            0 => {
                let start = at;
                varint(&mut at);
                start
            }
            kind => {
                at += if kind == 5 { 4 } else { 8 };
                at - if kind == 5 { 4 } else { 8 }
            }
        };
        found.push((tag >> 3, start..at));
    }
    found
}

/// Every large tensor of FP32 among a model's weights: its name, and where its values are.
fn weights(model: &[u8]) -> Vec<(String, Range<usize>)> {
    let graph = fields(model, 0..model.len()).into_iter().find(|(number, _)| *number == 7).unwrap().1;
    let tensors = fields(model, graph).into_iter().filter(|(number, _)| *number == 5);
    let read = |(_, tensor): (u64, Range<usize>)| {
        let parts = fields(model, tensor);
        let part = |number| parts.iter().find(|(n, _)| *n == number).map(|(_, range)| range.clone());
        let is_float = part(2).is_some_and(|kind| model[kind] == [1]);
        let name = String::from_utf8_lossy(&model[part(8)?]).into_owned();
        let values = part(9).filter(|values| is_float && values.len() >= 1024)?;
        Some((name, values))
    };
    tensors.filter_map(read).collect()
}

/// Sixteen bits of each weight.
fn requantised(mut model: Vec<u8>) -> Vec<u8> {
    let weights = weights(&model);
    assert!(weights.len() > 5, "{weights:?}");
    for (_, values) in weights {
        for value in model[values].as_chunks_mut::<4>().0 {
            let bits = u32::from_le_bytes(*value);
            *value = (bits.wrapping_add(0x8000) & 0xffff_0000).to_le_bytes();
        }
    }
    model
}

/// One weight of the last layer.
fn perturbed(mut model: Vec<u8>) -> Vec<u8> {
    let (_, values) = weights(&model).into_iter().find(|(name, _)| name.ends_with("Const_24:0")).unwrap();
    let value = model[values].first_chunk_mut::<4>().unwrap();
    *value = (f32::from_le_bytes(*value) + 20.0).to_le_bytes();
    model
}

fn request(number: u64) -> Vec<u8> {
    let bytes: Vec<u64> = (0..2048).map(|i| (i * 7919 + number * (i % 13 + 1)) % 257).collect();
    let input = json!({"name": "bytes", "datatype": "INT32", "shape": [1, 2048], "data": bytes});
    let binary = json!([{"name": OUTPUT, "parameters": {"binary_data": true}}]);
    let mut request = json!({"inputs": [input]});
    // In both forms.
    request["outputs"] = if number.is_multiple_of(2) { binary } else { Value::Array(Vec::new()) };
    request.to_string().into_bytes()
}

fn pod(revision: i64, served: &Served) -> PodView {
    PodView {
        deployment: "m".into(),
        name: format!("m-r{revision}"),
        uid: format!("u{revision}"),
        slots: vec![(revision, ([127, 0, 0, 1], served.port()).into())],
        ready: true,
        starting: None,
    }
}

/// What the comparison of `candidate` with the model itself comes to.
async fn shadow(candidate: fn(Vec<u8>) -> Vec<u8>) -> Found {
    let model = std::fs::read(magika().join("model.onnx")).unwrap();
    let (stable, candidate) =
        tokio::join!(Served::new(&model, &[]), async { Served::new(&candidate(model.clone()), &[]).await });
    let gateway = gateway::gateway().await;
    gateway.table.set_pod(pod(1, &stable));
    gateway.table.set_pod(pod(2, &candidate));
    let view = TrialView { stable: 1, candidate: 2, attempt: 1, interval: Duration::from_secs(30) };
    gateway.table.set_route(RouteView {
        shadow: Some(RouteShadow { revision: 2, attempt: 1, percent: 100, since: Time(Default::default()) }),
        trial: Some(view),
        ..gateway::route("m", 1, &[(1, 100)])
    });
    let mut client = gateway::Rest::connect(gateway.address).await;
    let report = || gateway.table.trials()["m"].shadow.clone().unwrap();
    for number in 0..REQUESTS {
        let got = client.post("m", "/v2/models/m/infer", &request(number)).await.unwrap();
        assert_eq!(got.status, 200, "{}", got.text());
        // One after the other, so that none is dropped.
        gateway::until("it is compared", || report().compared + report().failed > number).await;
    }
    let report = report();
    assert_eq!((report.compared, report.outputs[OUTPUT].rows), (REQUESTS, REQUESTS), "{report:?}");
    let budget = OutputBudget {
        name: OUTPUT.into(),
        max_absolute: Some("0.05".into()),
        min_cosine: Some("0.99".into()),
        min_top1_agreement: Some("0.95".into()),
        ..Default::default()
    };
    judge(&[budget], &report, REQUESTS)
}

#[tokio::test]
async fn a_requantised_model_is_within_its_budget() {
    let found = shadow(requantised).await;
    assert_eq!(found.verdict, AnalysisVerdict::Passed, "{found:?}");
    assert_ne!(found.observed.as_deref(), Some("0"), "the candidate is the same model");
}

#[tokio::test]
async fn a_model_with_one_perturbed_weight_is_caught() {
    let found = shadow(perturbed).await;
    assert_eq!(found.verdict, AnalysisVerdict::Failed, "{found:?}");
}
