use super::*;

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

#[test]
fn the_example_is_a_request_that_the_server_takes() {
    let inputs = [spec("ids", Datatype::Int64, &[-1, 2]), spec("text", Datatype::Bytes, &[-1])];
    let body = example(&inputs).unwrap();
    let request = crate::protocol::rest::decode(&body.clone().into(), None).unwrap();
    assert_eq!(request.inputs.len(), 2);
    assert_eq!(request.inputs[0].shape, [1, 2]);
    assert!(!body.contains('\''), "it stands in single quotes");
}

#[test]
fn a_long_example_is_left_out() {
    assert_eq!(example(&[spec("bytes", Datatype::Int32, &[-1, 2048])]), None);
    assert_eq!(example(&[spec("x", Datatype::Fp16, &[1])]), None);
}
