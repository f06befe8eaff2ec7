use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn request(input: Value) -> Bytes {
    json!({"inputs": [input]}).to_string().into()
}

fn one(body: &Bytes) -> Result<Tensor, Error> {
    decode(body, None).map(|mut r| r.inputs.remove(0))
}

fn fp32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn data_is_read_flat_or_nested_whatever_stands_first() {
    let wanted = fp32(&[1.0, 2.0, -3.5, 4.0]);
    for body in [
        r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,2,-3.5,4e0]}]}"#,
        r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[[1,2],[-3.5,4]]}]}"#,
        r#"{"inputs":[{"data":[[1,2],[-3.5,4]],"shape":[2,2],"datatype":"FP32","name":"x","new":{"a":[1]}}]}"#,
    ] {
        let tensor = one(&Bytes::from(body)).unwrap();
        assert_eq!((&tensor.shape[..], &tensor.data()[..]), (&[2, 2][..], &wanted[..]), "{body}");
    }
}

#[test]
fn empty_tensors_and_scalars_have_forms() {
    for (shape, data) in [(json!([]), json!([7])), (json!([0]), json!([])), (json!([2, 0]), json!([[], []]))]
    {
        let tensor = one(&request(json!({"name": "x", "datatype": "INT8", "shape": shape, "data": data})));
        assert!(tensor.is_ok(), "{tensor:?}");
    }
}

#[test]
fn strings_become_length_and_bytes() {
    let tensor =
        one(&request(json!({"name": "x", "datatype": "BYTES", "shape": [2], "data": ["ü", ""]}))).unwrap();
    assert_eq!(tensor.data()[..], [2, 0, 0, 0, 0xc3, 0xbc, 0, 0, 0, 0]);
}

#[test]
fn binary_data_follows_the_json_in_the_order_of_the_inputs() {
    let json = json!({
        "id": "7",
        "parameters": {"binary_data_output": true},
        "inputs": [
            {"name": "a", "datatype": "FP16", "shape": [1], "parameters": {"binary_data_size": 2}},
            {"name": "b", "datatype": "UINT8", "shape": [1], "data": [9]},
            {"name": "c", "datatype": "UINT8", "shape": [3], "parameters": {"binary_data_size": 3}},
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": false}}],
    })
    .to_string();
    let mut body = BytesMut::from(json.as_bytes());
    body.extend_from_slice(&[1, 2, 3, 4, 5]);
    let request = decode(&body.freeze(), Some(json.len())).unwrap();
    let data: Vec<&[u8]> = request.inputs.iter().map(|t| &t.data()[..]).collect();
    assert_eq!(data, [&[1, 2][..], &[9], &[3, 4, 5]]);
    assert_eq!(
        (request.id.as_str(), request.binary_output, request.outputs[0].binary),
        ("7", true, Some(false))
    );
}

#[test]
fn a_bad_request_is_refused_with_a_sentence() {
    let input = |datatype: &str, shape: Value, data: Value| {
        json!({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]}).to_string()
    };
    let deep = format!("{}{}", "[".repeat(250_000), "]".repeat(250_000));
    let cases: Vec<(String, &str)> = vec![
        ("".into(), "the request is not JSON"),
        ("[".into(), "the request must be a JSON object"),
        ("{}".into(), "missing field `inputs`"),
        ("{\"inputs\":[]} x".into(), "the request is not JSON"),
        (r#"{"inputs":[],"outputs":[["y"]]}"#.into(), "expected an object"),
        (r#"{"inputs":[["x"]]}"#.into(), "expected a tensor"),
        (r#"{"inputs":[],"inputs":[]}"#.into(), "duplicate field `inputs`"),
        (r#"{"inputs":[{"name":"x","name":"y"}]}"#.into(), "duplicate field `name`"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}"#.into(), "neither data nor binary_data_size"),
        (r#"{"inputs":[{"datatype":"FP32","shape":[1],"data":[1]}]}"#.into(), "missing field `name`"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","data":[1]}]}"#.into(), "missing field `shape`"),
        (r#"{"inputs":[{"name":"x","shape":[1],"data":[1]}]}"#.into(), "missing field `datatype`"),
        (r#"{"inputs":[{"name":"\ud800","datatype":"FP32","shape":[1],"data":[1]}]}"#.into(), "not JSON"),
        (input("FP31", json!([1]), json!([1])), "unknown datatype \"FP31\""),
        (input("FP32", json!([1.5]), json!([1])), "expected i64"),
        (input("FP32", json!([-1]), json!([1])), "negative axis"),
        (input("FP32", json!([3]), json!([1])), "data holds 1 elements, shape is [3]"),
        (input("FP32", json!([2, 2]), json!([[1, 2, 3, 4]])), "data holds arrays of [1, 4], shape is [2, 2]"),
        (input("FP32", json!([2, 2]), json!([[1], [2, 3, 4]])), "ragged"),
        (input("FP32", json!([2, 2]), json!([1, [2, 3], 4])), "ragged"),
        (input("FP32", json!([2, 2]), json!([[1, 2], 3])), "ragged"),
        (input("FP32", json!([1]), json!(1)), "expected an array"),
        (input("FP32", json!([1]), json!({"a": 1})), "expected an array"),
        (input("FP32", json!([1]), json!([{"a": 1}])), "expected a number that fits FP32"),
        (input("FP32", json!([1]), json!([null])), "null is not a number that fits FP32"),
        (input("FP32", json!([1]), json!(["NaN"])), "a string is not a number that fits FP32"),
        (input("FP32", json!([1]), json!([1e39])), "is not a number that fits FP32"),
        (input("FP32", json!([1]), json!([true])), "true is not a number"),
        (r#"{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1e400]}]}"#.into(), "out of range"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}"#.into(), "not JSON"),
        (input("INT8", json!([1]), json!([128])), "128 is not an integer that fits INT8"),
        (input("INT8", json!([1]), json!([-129])), "-129 is not an integer that fits INT8"),
        (input("UINT64", json!([1]), json!([-1])), "-1 is not an integer that fits UINT64"),
        (input("INT32", json!([1]), json!([1.0])), "is not an integer that fits INT32"),
        (input("BOOL", json!([1]), json!([1])), "1 is not true or false"),
        (input("BYTES", json!([1]), json!([1])), "1 is not a string"),
        (input("FP16", json!([1]), json!([1])), "FP16 has no form in JSON"),
        (input("BF16", json!([1]), json!([1])), "BF16 has no form in JSON"),
        (format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1],"data":{deep}}}]}}"#), "nested deeper"),
        (format!(r#"{{"inputs":[{{"name":"x","shape":[1],"data":{deep},"datatype":"FP32"}}]}}"#), "nested deeper"),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}"#.into(),
            "needs the header Inference-Header-Content-Length",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4},"data":[1]}]}"#
                .into(),
            "has both data and binary_data_size",
        ),
        (r#"{"inputs":[],"parameters":{"binary_data_output":1}}"#.into(), "binary_data_output must be true or false"),
        (
            r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"binary_data":"x"}}]}"#.into(),
            "parameter binary_data must be true or false",
        ),
    ];
    for (body, message) in cases {
        let error = decode(&Bytes::from(body.clone()), None).expect_err(&body[..body.len().min(200)]);
        let body = &body[..body.len().min(120)];
        assert!(error.message.contains(message), "{body}\n  said: {error}\n  not:  {message}");
    }
}

#[test]
fn bad_binary_data_is_refused_with_a_sentence() {
    let with = |size: i64| {
        json!({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": size}}]})
            .to_string()
    };
    for (json, tail, length, message) in [
        (with(2), &[1, 2, 3][..], None, "1 bytes follow the last tensor's binary data"),
        (with(2), &[1], None, "binary_data_size is 2, but 1 bytes are left"),
        (with(3), &[1, 2, 3], None, "2 elements, 2 bytes, but 3 bytes came"),
        (with(-1), &[], None, "parameter binary_data_size must be a number of bytes"),
        (with(2), &[1, 2], Some(10_000), "Inference-Header-Content-Length is 10000, but the body has"),
        (with(2), &[1, 2], Some(0), "the request is not JSON"),
        (with(2), &[1, 2], Some(10), "the request is not JSON"),
    ] {
        let body: Bytes = [json.as_bytes(), tail].concat().into();
        let error = decode(&body, Some(length.unwrap_or(json.len()))).unwrap_err();
        assert!(error.message.contains(message), "said: {error}\n not: {message}");
    }
}

proptest! {
    #[test]
    fn numbers_survive_json(floats: Vec<f32>, doubles: Vec<f64>, longs: Vec<i64>, bytes: Vec<u8>, strings: Vec<String>) {
        let floats: Vec<f32> = floats.into_iter().filter(|v| v.is_finite()).collect();
        let doubles: Vec<f64> = doubles.into_iter().filter(|v| v.is_finite()).collect();
        let read = |datatype: &str, length: usize, data: Value| {
            let tensor = one(&request(json!({"name": "x", "datatype": datatype, "shape": [length], "data": data})));
            tensor.map(|t| t.data().to_vec())
        };
        let le = |v: &[f32]| fp32(v);
        prop_assert_eq!(read("FP32", floats.len(), json!(floats)).unwrap(), le(&floats));
        prop_assert_eq!(
            read("FP64", doubles.len(), json!(doubles)).unwrap(),
            doubles.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()
        );
        prop_assert_eq!(
            read("INT64", longs.len(), json!(longs)).unwrap(),
            longs.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()
        );
        prop_assert_eq!(read("UINT8", bytes.len(), json!(bytes)).unwrap(), bytes);
        let data = read("BYTES", strings.len(), json!(strings)).unwrap();
        let back: Vec<&[u8]> = crate::protocol::bytes_elements(&data).collect();
        prop_assert_eq!(back, strings.iter().map(|s| s.as_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn no_body_is_a_panic(body: Vec<u8>, length: Option<u16>) {
        let _ = decode(&body.into(), length.map(usize::from));
    }

    #[test]
    fn no_mutation_of_a_request_is_a_panic(at in 0usize..90, byte: u8) {
        let mut body = br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[[1,2],[-3.5,4]]}],"id":"7"}"#.to_vec();
        let at = at.min(body.len() - 1);
        body[at] = byte;
        let _ = decode(&body.into(), None);
    }
}
