use prost::Message;

use super::*;
use crate::protocol::grpc::proto::model_infer_request::InferInputTensor;
use crate::protocol::grpc::proto::{InferTensorContents, ModelInferRequest};

fn with(inputs: Vec<InferInputTensor>) -> Vec<u8> {
    ModelInferRequest { model_name: "m".into(), inputs, ..Default::default() }.encode_to_vec()
}

#[test]
fn what_a_model_may_need_passes() {
    let contents = InferTensorContents { bytes_contents: vec!["a".into(); 1000], ..Default::default() };
    let input =
        InferInputTensor { shape: vec![i64::MAX; 32], contents: Some(contents), ..Default::default() };
    assert_eq!(check(&with(vec![input; 1000])), Ok(()));
    assert_eq!(check(&[]), Ok(()));
}

#[test]
fn parts_strings_and_axes_are_counted_wherever_they_stand() {
    let many = |field: u8, count: usize| [field << 3 | 2, 0].repeat(count);
    let inside = |field: u8, parts: &[u8]| {
        let mut message = vec![field << 3 | 2];
        prost::encoding::encode_varint(parts.len() as u64, &mut message);
        message.extend(parts);
        message
    };
    let strings = |count| inside(5, &many(8, count));
    for (message, refusal) in [
        (many(4, MAX_PARTS + 1), "tensors, outputs and parameters"),
        (many(5, MAX_PARTS + 1), "tensors, outputs and parameters"),
        (many(6, MAX_PARTS + 1), "tensors, outputs and parameters"),
        (many(7, MAX_PARTS + 1), "tensors, outputs and parameters"),
        (inside(5, &many(4, MAX_PARTS + 1)), "tensors, outputs and parameters"),
        (inside(6, &many(2, MAX_PARTS + 1)), "tensors, outputs and parameters"),
        (inside(5, &strings(MAX_STRINGS + 1)), "strings: send them in raw_input_contents"),
        // protobuf adds up what stands twice.
        (inside(5, &[strings(MAX_STRINGS), strings(1)].concat()), "strings: send them in raw_input_contents"),
        (inside(5, &many(3, MAX_RANK + 1)), "more than 32 axes"),
        (inside(5, &inside(3, &[1; 331])), "more than 32 axes"),
        // A group before it hides nothing.
        ([&[0x83, 1, 0x84, 1][..], &many(5, MAX_PARTS + 1)].concat(), "damaged"),
        (vec![0x2a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "damaged"),
    ] {
        let said = check(&message).unwrap_err();
        assert!(said.contains(refusal), "{said}, not {refusal}");
    }
}
