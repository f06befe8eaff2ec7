use serde_json::json;

use super::*;
use crate::protocol::Datatype;

fn described(max_batch_size: Option<usize>) -> serde_json::Value {
    let identity = Identity { name: "m".into(), version: "3".into(), revision: None, digest: None };
    let spec =
        |name: &str, datatype, shape: &[i64]| TensorSpec { name: name.into(), datatype, shape: shape.into() };
    let (inputs, outputs) = ([spec("x", Datatype::Bytes, &[-1, 4])], [spec("y", Datatype::Bf16, &[-1])]);
    serde_json::to_value(config(&identity, &inputs, &outputs, max_batch_size)).unwrap()
}

#[test]
fn a_model_without_batches_is_described_with_all_its_axes() {
    assert_eq!(
        described(None),
        json!({
            "name": "m", "platform": "onnxruntime_onnx", "backend": "onnxruntime",
            "version_policy": {"latest": {"num_versions": 1}}, "max_batch_size": 0,
            "input": [{"name": "x", "data_type": "TYPE_STRING", "dims": [-1, 4]}],
            "output": [{"name": "y", "data_type": "TYPE_BF16", "dims": [-1]}],
            "default_model_filename": "model.onnx",
        })
    );
}

#[test]
fn a_model_with_batches_is_described_without_the_first_axis() {
    let config = described(Some(8));
    assert_eq!((&config["max_batch_size"], &config["input"][0]["dims"]), (&json!(8), &json!([4])));
    assert_eq!(config["output"][0]["dims"], json!([]));
    assert_eq!(
        config["dynamic_batching"],
        json!({"preferred_batch_size": [], "max_queue_delay_microseconds": 0})
    );
}
