use proptest::prelude::*;

use super::proto::model_infer_request::InferInputTensor;
use super::proto::{InferTensorContents, ModelInferRequest};
use super::*;

fn request(
    datatype: &str,
    shape: &[i64],
    contents: Option<InferTensorContents>,
    raw: &[&[u8]],
) -> ModelInferRequest {
    ModelInferRequest {
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            contents,
            ..Default::default()
        }],
        raw_input_contents: raw.iter().map(|r| Bytes::copy_from_slice(r)).collect(),
        ..Default::default()
    }
}

fn ints(values: &[i32]) -> Option<InferTensorContents> {
    Some(InferTensorContents { int_contents: values.to_vec(), ..Default::default() })
}

#[test]
fn raw_and_typed_contents_mean_the_same() {
    let raw = decode(request("INT16", &[2], None, &[&[1, 0, 0xff, 0xff]])).unwrap();
    let typed = decode(request("INT16", &[2], ints(&[1, -1]), &[])).unwrap();
    assert_eq!(raw.inputs, typed.inputs);
    assert_eq!((raw.binary_output, typed.binary_output), (true, false));
}

#[test]
fn a_bad_request_is_refused_with_a_sentence() {
    let uints = Some(InferTensorContents { uint_contents: vec![1], ..Default::default() });
    for (request, message) in [
        (request("INT31", &[1], ints(&[1]), &[]), "input \"x\": unknown datatype \"INT31\""),
        (request("INT8", &[1], ints(&[128]), &[]), "input \"x\": 128 does not fit INT8"),
        (request("INT8", &[2], ints(&[1]), &[]), "INT8 [2] has 2 elements, 2 bytes, but 1 bytes came"),
        (
            request("INT8", &[1], uints, &[]),
            "input \"x\": INT8 belongs into int_contents, but uint_contents is filled",
        ),
        (request("INT8", &[1], ints(&[1]), &[&[1]]), "input \"x\": has both contents and raw_input_contents"),
        (request("INT8", &[1], None, &[&[1], &[2]]), "raw_input_contents has 2 entries for 1 inputs"),
        (request("INT8", &[1], None, &[&[1, 2]]), "1 elements, 1 bytes, but 2 bytes came"),
        (request("INT8", &[1], None, &[]), "1 elements, 1 bytes, but 0 bytes came"),
        (request("FP16", &[1], None, &[]), "FP16 has no typed contents: send it in raw_input_contents"),
        (request("BYTES", &[1], None, &[&[9, 0, 0, 0]]), "the length of element 0 reaches beyond the data"),
        (request("INT8", &[-1], ints(&[1]), &[]), "shape [-1] has a negative axis"),
    ] {
        let error = decode(request).unwrap_err();
        assert!(error.message.contains(message), "said: {error}\n not: {message}");
    }
}

#[test]
fn answers_take_the_request_s_form_but_half_precision_is_always_raw() {
    let tensor = |datatype| Tensor::new("y".into(), datatype, vec![1], Bytes::from_static(&[1, 2])).unwrap();
    let answer = |datatype, binary_output| {
        let response = InferResponse { outputs: vec![tensor(datatype)], ..Default::default() };
        encode(response, &InferRequest { binary_output, ..Default::default() })
    };
    assert_eq!(answer(Datatype::Int16, false).outputs[0].contents.as_ref().unwrap().int_contents, [513]);
    assert_eq!(answer(Datatype::Int16, true).raw_output_contents, [Bytes::from_static(&[1, 2])]);
    assert_eq!(answer(Datatype::Fp16, false).raw_output_contents.len(), 1);
}

#[test]
fn an_answer_is_read_as_it_was_written() {
    for datatype in [Datatype::Int16, Datatype::Fp16] {
        let tensor = Tensor::new("y".into(), datatype, vec![1], Bytes::from_static(&[1, 2])).unwrap();
        let response = InferResponse { outputs: vec![tensor.clone()], ..Default::default() };
        for binary_output in [false, true] {
            let request = InferRequest { binary_output, ..Default::default() };
            let message = encode(response.clone(), &request).encode_to_vec();
            assert_eq!(decode_response(message.into()).unwrap(), std::slice::from_ref(&tensor));
        }
    }
    let unknown = proto::ModelInferResponse {
        outputs: vec![InferOutputTensor { name: "y".into(), datatype: "FP8".into(), ..Default::default() }],
        ..Default::default()
    };
    let error = decode_response(unknown.encode_to_vec().into()).unwrap_err();
    assert_eq!(error.message, "output \"y\": unknown datatype \"FP8\"");
    // Two bytes a tensor on the wire, and more in memory than that is worth.
    let error = decode_response([0x2a, 0].repeat(crate::protocol::MAX_PARTS + 1).into()).unwrap_err();
    assert!(error.message.contains("more than 16384 tensors"), "{error}");
}

#[cfg(feature = "server")]
#[test]
fn every_kind_of_error_has_its_code() {
    use tonic::Code;

    use crate::protocol::Kind;
    for (kind, code) in [
        (Kind::Invalid, Code::InvalidArgument),
        (Kind::NotFound, Code::NotFound),
        (Kind::TooLarge, Code::ResourceExhausted),
        (Kind::Unavailable, Code::Unavailable),
        (Kind::DeadlineExceeded, Code::DeadlineExceeded),
        (Kind::Internal, Code::Internal),
    ] {
        assert_eq!(tonic::Status::from(Error::new(kind, "x")).code(), code);
    }
}

fn any_datatype() -> impl Strategy<Value = Datatype> {
    prop::sample::select(Datatype::ALL.to_vec())
}

proptest! {
    #[test]
    fn typed_contents_survive(datatype in any_datatype(), bytes: Vec<u8>) {
        let data: Vec<u8> = match datatype {
            Datatype::Fp16 | Datatype::Bf16 => return Ok(()),
            Datatype::Bool => bytes.iter().map(|b| b & 1).collect(),
            Datatype::Bytes => bytes.chunks(3).flat_map(|e| [&(e.len() as u32).to_le_bytes()[..], e].concat()).collect(),
            _ => bytes[..bytes.len() / datatype.size().unwrap() * datatype.size().unwrap()].to_vec(),
        };
        let count = datatype.size().map_or(bytes.chunks(3).len(), |size| data.len() / size);
        let tensor = Tensor::new("x".into(), datatype, vec![count as i64], data.into()).unwrap();
        let back = contents::decode(datatype, contents::encode(&tensor)).unwrap();
        prop_assert_eq!(&back, tensor.data());
    }
}
