use super::*;

fn build(datatype: Datatype, shape: &[i64], data: &[u8]) -> Result<Tensor, Error> {
    Tensor::new("x".into(), datatype, shape.to_vec(), Bytes::copy_from_slice(data))
}

#[test]
fn a_tensor_is_built_when_its_data_fits_its_shape() {
    for (datatype, shape, data, length) in [
        (Datatype::Fp32, &[2, 1][..], &[0; 8][..], 2),
        (Datatype::Fp32, &[], &[0; 4], 1),
        (Datatype::Int64, &[3, 0], &[], 0),
        (Datatype::Bool, &[2], &[0, 1], 2),
        (Datatype::Bytes, &[2], &[1, 0, 0, 0, b'a', 0, 0, 0, 0], 2),
        (Datatype::Bytes, &[0], &[], 0),
    ] {
        let tensor = build(datatype, shape, data).unwrap();
        assert_eq!((tensor.len(), tensor.is_empty()), (length, length == 0));
    }
}

#[test]
fn a_tensor_is_refused_with_a_sentence_that_names_it() {
    for (datatype, shape, data, message) in [
        (Datatype::Fp32, &[2][..], &[0; 7][..], "FP32 [2] has 2 elements, 8 bytes, but 7 bytes came"),
        (Datatype::Fp32, &[-1], &[], "shape [-1] has a negative axis"),
        (Datatype::Uint8, &[1 << 40, 1 << 40], &[], "has more elements than can be addressed"),
        (Datatype::Uint8, &[0, 1 << 40, 1 << 40], &[], "has more elements than can be addressed"),
        (Datatype::Uint8, &[1; 33], &[0], "33 axes are more than 32"),
        (Datatype::Bool, &[2], &[0, 2], "a BOOL byte is neither 0 nor 1"),
        (Datatype::Bytes, &[1], &[9, 0, 0, 0, b'a'], "the length of element 0 reaches beyond the data"),
        (Datatype::Bytes, &[1], &[0, 0, 0], "the length of element 0 reaches beyond the data"),
        (Datatype::Bytes, &[1], &[0xff; 4], "the length of element 0 reaches beyond the data"),
        (Datatype::Bytes, &[2], &[0, 0, 0, 0], "BYTES [2] has 2 elements, but 1 came"),
    ] {
        let error = build(datatype, shape, data).unwrap_err();
        assert!(error.message.starts_with("tensor \"x\": ") && error.message.contains(message), "{error}");
    }
}
