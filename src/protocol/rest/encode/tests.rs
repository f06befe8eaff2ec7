use serde_json::{Value, json};

use super::*;
use crate::protocol::RequestedOutput;

fn tensor(datatype: Datatype, shape: &[i64], data: &[u8]) -> Tensor {
    Tensor::new("y".into(), datatype, shape.to_vec(), Bytes::copy_from_slice(data)).unwrap()
}

fn response(tensor: Tensor) -> InferResponse {
    InferResponse { model_name: "m".into(), model_version: "3".into(), id: "7".into(), outputs: vec![tensor] }
}

#[test]
fn every_type_with_a_json_form_is_written() {
    for (datatype, data, wanted) in [
        (Datatype::Bool, vec![0, 1], json!([false, true])),
        (Datatype::Uint8, vec![1, 255], json!([1, 255])),
        (Datatype::Int8, vec![1, 255], json!([1, -1])),
        (Datatype::Uint16, vec![1, 0, 255, 255], json!([1, 65535])),
        (Datatype::Int16, vec![1, 0, 255, 255], json!([1, -1])),
        (Datatype::Fp32, [1.5f32, -2.0].map(f32::to_le_bytes).concat(), json!([1.5, -2.0])),
        (Datatype::Fp64, [0.1f64, -2.0].map(f64::to_le_bytes).concat(), json!([0.1, -2.0])),
        (Datatype::Uint64, [u64::MAX, 0].map(u64::to_le_bytes).concat(), json!([u64::MAX, 0])),
        (Datatype::Int64, [i64::MIN, 0].map(i64::to_le_bytes).concat(), json!([i64::MIN, 0])),
        (Datatype::Bytes, vec![1, 0, 0, 0, b'"', 0, 0, 0, 0], json!(["\"", ""])),
    ] {
        let encoded = encode(&response(tensor(datatype, &[2], &data)), &InferRequest::default()).unwrap();
        assert_eq!(encoded.header_length, None);
        let body: Value = serde_json::from_slice(&encoded.body).unwrap();
        let output = json!({"name": "y", "datatype": datatype.name(), "shape": [2], "data": wanted});
        assert_eq!(body, json!({"model_name": "m", "model_version": "3", "id": "7", "outputs": [output]}));
    }
}

#[test]
fn an_answer_is_read_as_it_was_written() {
    let written = response(tensor(Datatype::Int16, &[2], &[1, 2, 3, 4]));
    for binary_output in [false, true] {
        let request = InferRequest { binary_output, ..Default::default() };
        let encoded = encode(&written, &request).unwrap();
        let read = crate::protocol::rest::decode_response(&encoded.body, encoded.header_length).unwrap();
        assert_eq!(read, written.outputs);
    }
    for (body, message) in [
        ("[]", "expected an object"),
        ("{}", "missing field `outputs`"),
        (
            r#"{"outputs":[{"name":"y","datatype":"INT8","shape":[2],"data":[1]}]}"#,
            "output \"y\": data holds",
        ),
    ] {
        let error = crate::protocol::rest::decode_response(&body.into(), None).unwrap_err();
        assert!(error.message.contains(message), "{error}");
    }
}

#[test]
fn what_json_can_not_carry_is_refused_and_the_way_out_is_named() {
    for (datatype, data, message) in [
        (Datatype::Fp16, vec![0, 0], "output \"y\" is FP16"),
        (Datatype::Bf16, vec![0, 0], "output \"y\" is BF16"),
        (Datatype::Fp32, f32::NAN.to_le_bytes().to_vec(), "output \"y\" holds NaN or infinity"),
        (Datatype::Fp64, f64::INFINITY.to_le_bytes().to_vec(), "output \"y\" holds NaN or infinity"),
        (Datatype::Bytes, vec![1, 0, 0, 0, 0xff], "output \"y\" holds a string that is not UTF-8"),
    ] {
        let response = response(tensor(datatype, &[1], &data));
        let error = encode(&response, &InferRequest::default()).err().unwrap();
        assert!(
            error.message.starts_with(message) && error.message.ends_with("the parameter binary_data"),
            "{error}"
        );
        let binary = InferRequest { binary_output: true, ..Default::default() };
        let encoded = encode(&response, &binary).unwrap();
        assert_eq!(encoded.body[encoded.header_length.unwrap()..], data[..]);
    }
}

#[test]
fn an_output_s_own_wish_goes_before_the_request_s() {
    let response = response(tensor(Datatype::Uint8, &[1], &[9]));
    for (general, own, is_binary) in
        [(true, None, true), (true, Some(false), false), (false, Some(true), true)]
    {
        let outputs = vec![RequestedOutput { name: "y".into(), binary: own }];
        let request = InferRequest { binary_output: general, outputs, ..Default::default() };
        assert_eq!(encode(&response, &request).unwrap().header_length.is_some(), is_binary);
    }
}
