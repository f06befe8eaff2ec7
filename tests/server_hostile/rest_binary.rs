//! Requests with binary tensors: JSON of a length that a header gives, then the tensors' bytes.

use crate::raw::{exchange, post};
use crate::table::{Target, refuses};

/// A request whose first part is `json`.
fn binary(json: &str, data: &[u8]) -> Vec<u8> {
    announced(&json.len().to_string(), json, data)
}

fn announced(length: &str, json: &str, data: &[u8]) -> Vec<u8> {
    post(&format!("inference-header-content-length: {length}\r\n"), [json.as_bytes(), data].concat())
}

fn x(datatype: &str, shape: &str, size: &str) -> String {
    format!(
        r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"parameters":{{"binary_data_size":{size}}}}}]}}"#
    )
}

/// A BYTES tensor that announces `length` and holds `rest`.
fn bytes(shape: &str, length: u32, rest: &[u8]) -> Vec<u8> {
    let data = [&length.to_le_bytes(), rest].concat();
    binary(&x("BYTES", shape, &data.len().to_string()), &data)
}

#[tokio::test]
async fn binary_requests_that_contradict_themselves_are_refused() {
    let target = Target::new(&[]).await;
    let good = x("FP32", "[1,2]", "8");
    let both = good.replace("\"parameters\"", "\"data\":[1,2],\"parameters\"");
    let (one, eight) = ([0; 1], [0; 8]);
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (
            "a length that is a word",
            announced("x", &good, &eight),
            400,
            "Inference-Header-Content-Length is not a number",
        ),
        ("a negative length", announced("-1", &good, &eight), 400, "is not a number"),
        ("an empty length", announced("", &good, &eight), 400, "is not a number"),
        ("a length beyond 64 bits", announced("18446744073709551616", &good, &eight), 400, "is not a number"),
        (
            "the largest length",
            announced("18446744073709551615", &good, &eight),
            400,
            "but the body has 101 bytes",
        ),
        ("a length above the body's", announced("999", &good, &eight), 400, "is 999, but the body has"),
        ("a length of zero", announced("0", &good, &eight), 400, "the request is not JSON"),
        (
            "a length one short",
            announced(&(good.len() - 1).to_string(), &good, &eight),
            400,
            "the request is not JSON",
        ),
        (
            "a length one long",
            announced(&(good.len() + 1).to_string(), &good, &eight),
            400,
            "the request is not JSON",
        ),
        ("no length", post("", [good.as_bytes(), &eight].concat()), 400, "the request is not JSON"),
        ("a size without a length", post("", &good), 400, "needs the header Inference-Header-Content-Length"),
        (
            "two lengths",
            post(
                "inference-header-content-length: 93\r\ninference-header-content-length: 1\r\n",
                [good.as_bytes(), &eight].concat(),
            ),
            400,
            "Inference-Header-Content-Length is given twice",
        ),
        (
            "a negative size",
            binary(&x("FP32", "[1,2]", "-8"), &eight),
            400,
            "binary_data_size must be a number of bytes",
        ),
        (
            "a size that is a string",
            binary(&x("FP32", "[1,2]", "\"8\""), &eight),
            400,
            "must be a number of bytes",
        ),
        (
            "a size that is a fraction",
            binary(&x("FP32", "[1,2]", "8.5"), &eight),
            400,
            "must be a number of bytes",
        ),
        (
            "a size beyond 63 bits",
            binary(&x("FP32", "[1,2]", "9223372036854775808"), &eight),
            400,
            "binary_data_size",
        ),
        (
            "a size above what is left",
            binary(&x("FP32", "[1,2]", "9"), &eight),
            400,
            "is 9, but 8 bytes are left",
        ),
        (
            "a size below the shape's",
            binary(&x("FP32", "[1,2]", "4"), &eight[..4]),
            400,
            "8 bytes, but 4 bytes came",
        ),
        (
            "a size above the shape's",
            binary(&x("FP32", "[1,2]", "8"), &[0; 9]),
            400,
            "1 bytes follow the last tensor's",
        ),
        (
            "data after JSON tensors",
            binary(r#"{"inputs":[]}"#, &one),
            400,
            "1 bytes follow the last tensor's",
        ),
        ("data and a size", binary(&both, &eight), 400, "has both data and binary_data_size"),
        (
            "a shape that overflows",
            binary(&x("FP32", "[4611686018427387904,4]", "8"), &eight),
            400,
            "than can be addressed",
        ),
        ("a negative axis", binary(&x("FP32", "[-1,2]", "8"), &eight), 400, "has a negative axis"),
        ("half a number", binary(&x("FP32", "[1,2]", "7"), &eight[..7]), 400, "8 bytes, but 7 bytes came"),
        ("a BOOL of 2", binary(&x("BOOL", "[1]", "1"), &[2]), 400, "a BOOL byte is neither 0 nor 1"),
        (
            "a string that is longer than the data",
            bytes("[1]", 100, b"abc"),
            400,
            "element 0 reaches beyond the data",
        ),
        ("a string of 4 GiB", bytes("[1]", u32::MAX, b"abc"), 400, "element 0 reaches beyond the data"),
        (
            "a string without its length",
            binary(&x("BYTES", "[1]", "3"), b"abc"),
            400,
            "element 0 reaches beyond the data",
        ),
        ("more strings than the shape", bytes("[1]", 0, &[0; 4]), 400, "has 1 elements, but 2 came"),
        ("fewer strings than the shape", bytes("[3]", 0, &[0; 4]), 400, "has 3 elements, but 2 came"),
        ("2^60 strings", bytes("[1152921504606846975]", 0, &[]), 400, "elements, but 1 came"),
        (
            "FP16 for FP32",
            binary(&x("FP16", "[1,2]", "4"), &eight[..4]),
            400,
            "input \"x\" is FP16 [1,2], the model expects",
        ),
        (
            "an output as \"binary\"",
            binary(
                &good.replacen('{', r#"{"outputs":[{"name":"y","parameters":{"binary_data":"yes"}}],"#, 1),
                &eight,
            ),
            400,
            "parameter binary_data must be true or false",
        ),
        (
            "all outputs as 1",
            binary(&good.replacen('{', r#"{"parameters":{"binary_data_output":1},"#, 1), &eight),
            400,
            "parameter binary_data_output must be true or false",
        ),
    ];
    refuses(&target, cases, async |port, request| exchange(port, request).await).await;
}

#[tokio::test]
async fn answers_that_json_can_not_carry_are_refused() {
    let target = Target::new(&[]).await;
    let values =
        |a: f32, b: f32| binary(&x("FP32", "[1,2]", "8"), &[a.to_le_bytes(), b.to_le_bytes()].concat());
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("NaN", values(0.0, f32::NAN), 400, "holds NaN or infinity, which JSON can't carry"),
        ("infinity", values(f32::NEG_INFINITY, 0.0), 400, "holds NaN or infinity, which JSON can't carry"),
    ];
    refuses(&target, cases, async |port, request| exchange(port, request).await).await;
}
