//! JSON requests.

use crate::raw::{exchange, post};
use crate::table::{LIMIT, Target, refuses};

/// A request with one input, `x`.
fn x(datatype: &str, shape: &str, data: &str) -> String {
    input(&format!(r#""name":"x","datatype":"{datatype}","shape":{shape},"data":{data}"#))
}

fn input(fields: &str) -> String {
    format!(r#"{{"inputs":[{{{fields}}}]}}"#)
}

/// A good request, and more fields.
fn and(fields: &str) -> String {
    x("FP32", "[1,2]", "[1,2]").replacen('{', &format!("{{{fields},"), 1)
}

fn nested(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

fn list(item: &str, count: usize) -> String {
    format!("[{}]", vec![item; count].join(","))
}

async fn check(cases: Vec<(&str, String, u16, &str)>) {
    let target = Target::new(&[]).await;
    refuses(&target, cases, async |port, body| exchange(port, post("", body)).await).await;
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let no = "the request is not JSON";
    check(vec![
        ("nothing", "".into(), 400, no),
        ("blanks", " \n\t".into(), 400, no),
        ("text", "hello".into(), 400, no),
        ("a truncated object", r#"{"inputs":[{"name":"#.into(), 400, no),
        ("a truncated string", r#"{"inputs":[{"name":"x"#.into(), 400, no),
        (
            "a truncated number",
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1."#.into(),
            400,
            no,
        ),
        ("two documents", format!("{0}{0}", x("FP32", "[1,2]", "[1,2]")), 400, no),
        ("a comment", format!("/* */{}", x("FP32", "[1,2]", "[1,2]")), 400, no),
        ("single quotes", "{'inputs':[]}".into(), 400, no),
        ("a trailing comma", x("FP32", "[1,2]", "[1,2,]"), 400, no),
        ("a byte-order mark", format!("\u{feff}{}", x("FP32", "[1,2]", "[1,2]")), 400, no),
        ("NaN", x("FP32", "[1,2]", "[1,NaN]"), 400, no),
        ("Infinity", x("FP32", "[1,2]", "[1,-Infinity]"), 400, no),
        ("a hexadecimal number", x("INT32", "[1,2]", "[1,0x7f]"), 400, no),
        ("a leading zero", x("INT32", "[1,2]", "[1,01]"), 400, no),
        ("a plus sign", x("INT32", "[1,2]", "[1,+1]"), 400, no),
        ("a bare point", x("FP32", "[1,2]", "[1,.5]"), 400, no),
        ("1e400", x("FP64", "[1,2]", "[1,1e400]"), 400, "number out of range"),
        (
            "100,000 digits",
            x("FP32", "[1,2]", &format!("[1,{}]", "9".repeat(100_000))),
            400,
            "number out of range",
        ),
        ("a lone surrogate", x("BYTES", "[1]", r#"["\ud800"]"#), 400, no),
        ("a raw control character", x("BYTES", "[1]", "[\"\u{1}\"]"), 400, no),
        ("an unknown escape", x("BYTES", "[1]", r#"["\x41"]"#), 400, no),
        ("250,000 brackets", "[".repeat(250_000), 400, "must be a JSON object"),
        (
            "250,000 brackets of data",
            x("FP32", "[1]", &nested(250_000)),
            400,
            "data is nested deeper than 32",
        ),
        ("250,000 open braces", r#"{"a":"#.repeat(250_000), 400, no),
    ])
    .await;
}

#[tokio::test]
async fn what_is_no_text_is_refused() {
    let target = Target::new(&[]).await;
    let utf16: Vec<u8> = "{\"inputs\":[]}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("UTF-16", utf16, 400, "the request is not JSON"),
        (
            "a name that is not UTF-8",
            b"{\"inputs\":[{\"name\":\"\xff\"}]}".to_vec(),
            400,
            "the request is not JSON",
        ),
        ("a NUL", vec![0], 400, "the request is not JSON"),
        ("zeros", vec![0; 100_000], 400, "the request is not JSON"),
    ];
    refuses(&target, cases, async |port, body| exchange(port, post("", body)).await).await;
}

#[tokio::test]
async fn documents_of_another_form_are_refused() {
    let good = r#""name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]"#;
    check(vec![
        ("a number", "1".into(), 400, "invalid type: integer `1`, expected a JSON object"),
        ("a request by position", format!("[null,null,{},null]", list("7", 2)), 400, "must be a JSON object"),
        ("a string", "\"inputs\"".into(), 400, "invalid type: string"),
        ("null", "null".into(), 400, "invalid type: null, expected a JSON object"),
        ("no inputs", "{}".into(), 400, "missing field `inputs`"),
        ("null inputs", r#"{"inputs":null}"#.into(), 400, "invalid type: null, expected a list"),
        ("inputs by name", r#"{"inputs":{"x":[1,2]}}"#.into(), 400, "invalid type: map, expected a list"),
        ("an input that is a number", r#"{"inputs":[7]}"#.into(), 400, "invalid type: integer `7`"),
        ("inputs twice", and(r#""inputs":[]"#), 400, "duplicate field `inputs`"),
        ("a name twice", input(&format!(r#"{good},"name":"x""#)), 400, "duplicate field `name`"),
        ("a shape twice", input(&format!(r#"{good},"shape":[1,2]"#)), 400, "duplicate field `shape`"),
        (
            "a datatype twice",
            input(&format!(r#"{good},"datatype":"FP32""#)),
            400,
            "duplicate field `datatype`",
        ),
        ("data twice", input(&format!(r#"{good},"data":[1,2]"#)), 400, "duplicate field `data`"),
        ("no name", input(r#""datatype":"FP32","shape":[1],"data":[1]"#), 400, "missing field `name`"),
        ("no datatype", input(r#""name":"x","shape":[1],"data":[1]"#), 400, "missing field `datatype`"),
        ("no shape", input(r#""name":"x","datatype":"FP32","data":[1]"#), 400, "missing field `shape`"),
        (
            "no data",
            input(r#""name":"x","datatype":"FP32","shape":[1]"#),
            400,
            "neither data nor binary_data_size",
        ),
        (
            "a name that is a number",
            input(r#""name":7"#),
            400,
            "invalid type: integer `7`, expected a string",
        ),
        ("an id that is a number", and(r#""id":7"#), 400, "invalid type: integer `7`, expected a string"),
        ("parameters that are a list", and(r#""parameters":[]"#), 400, "expected an object of parameters"),
        (
            "a parameter that is a list",
            and(r#""parameters":{"a":[1]}"#),
            400,
            "expected a parameter's value: a string, a number",
        ),
        ("a deep parameter", and(&format!(r#""parameters":{{"a":{}}}"#, nested(250_000))), 400, ""),
        (
            "an output that is a name",
            and(r#""outputs":["y"]"#),
            400,
            "invalid type: string \"y\", expected an object",
        ),
        ("an output without a name", and(r#""outputs":[{}]"#), 400, "missing field `name`"),
    ])
    .await;
}

#[tokio::test]
async fn tensors_that_contradict_themselves_are_refused() {
    let wide = list("1", 33);
    let fits = "more elements than can be addressed";
    check(vec![
        ("an unknown datatype", x("FLOAT", "[1]", "[1]"), 400, "unknown datatype \"FLOAT\""),
        ("a datatype in small letters", x("fp32", "[1]", "[1]"), 400, "unknown datatype \"fp32\""),
        ("a negative axis", x("FP32", "[-1,2]", "[1,2]"), 400, "has a negative axis"),
        ("the smallest axis", x("FP32", "[-9223372036854775808]", "[]"), 400, "has a negative axis"),
        ("the largest axis", x("FP32", "[9223372036854775807]", "[1]"), 400, fits),
        ("a product that overflows", x("FP32", "[4611686018427387904,4]", "[1]"), 400, fits),
        ("an overflow behind a zero", x("FP32", "[0,4611686018427387904,4]", "[]"), 400, fits),
        (
            "an axis beyond 64 bits",
            x("FP32", "[18446744073709551616]", "[1]"),
            400,
            "invalid type: floating point",
        ),
        ("half an axis", x("FP32", "[1.5]", "[1]"), 400, "invalid type: floating point"),
        ("an axis that is a name", x("FP32", "[\"n\"]", "[1]"), 400, "invalid type: string"),
        ("33 axes", x("FP32", &wide, "[1]"), 400, "33 axes are more than 32"),
        (
            "data for another shape",
            x("FP32", "[1,2]", "[1,2,3]"),
            400,
            "data holds 3 elements, shape is [1, 2]",
        ),
        ("too little data", x("FP32", "[2,2]", "[1]"), 400, "data holds 1 elements, shape is [2, 2]"),
        ("a huge promise", x("FP32", "[1000000000,2]", "[1]"), 400, "data holds 1 elements"),
        ("nested the wrong way", x("FP32", "[1,2]", "[[1],[2]]"), 400, "data holds arrays of [2, 1]"),
        ("ragged rows", x("FP32", "[2,2]", "[[1,2],[3]]"), 400, "ragged"),
        ("a number among rows", x("FP32", "[2,2]", "[[1,2],3,4]"), 400, "ragged"),
        ("a row among numbers", x("FP32", "[1,2]", "[1,[2]]"), 400, "ragged"),
        ("33 levels", x("FP32", "[1]", &nested(33)), 400, "nested deeper than 32"),
        (
            "data that is a number",
            x("FP32", "[1,2]", "1"),
            400,
            "invalid type: integer `1`, expected an array",
        ),
        (
            "data that is a string",
            x("BYTES", "[1]", "\"a\""),
            400,
            "invalid type: string \"a\", expected an array",
        ),
        ("data that is null", x("FP32", "[1,2]", "null"), 400, "invalid type: null, expected an array"),
        ("data that is an object", x("FP32", "[1,2]", "{}"), 400, "invalid type: map, expected"),
        ("an element that is null", x("FP32", "[1,2]", "[1,null]"), 400, "null is not a number"),
        ("an element that is an object", x("FP32", "[1,2]", "[1,{}]"), 400, "invalid type: map"),
    ])
    .await;
}

#[tokio::test]
async fn values_that_do_not_fit_their_datatype_are_refused() {
    check(vec![
        ("true as FP32", x("FP32", "[1,2]", "[1,true]"), 400, "true is not a number that fits FP32"),
        ("a string as FP32", x("FP32", "[1,2]", "[1,\"2\"]"), 400, "a string is not a number that fits FP32"),
        ("1e39 as FP32", x("FP32", "[1,2]", "[1,1e39]"), 400, "is not a number that fits FP32"),
        ("128 as INT8", x("INT8", "[1]", "[128]"), 400, "128 is not an integer that fits INT8"),
        ("-129 as INT8", x("INT8", "[1]", "[-129]"), 400, "-129 is not an integer that fits INT8"),
        ("-1 as UINT8", x("UINT8", "[1]", "[-1]"), 400, "-1 is not an integer that fits UINT8"),
        ("65536 as UINT16", x("UINT16", "[1]", "[65536]"), 400, "65536 is not an integer that fits UINT16"),
        ("2^31 as INT32", x("INT32", "[1]", "[2147483648]"), 400, "is not an integer that fits INT32"),
        (
            "2^63 as INT64",
            x("INT64", "[1]", "[9223372036854775808]"),
            400,
            "is not an integer that fits INT64",
        ),
        ("-1 as UINT64", x("UINT64", "[1]", "[-1]"), 400, "is not an integer that fits UINT64"),
        (
            "2^64 as UINT64",
            x("UINT64", "[1]", "[18446744073709551616]"),
            400,
            "is not an integer that fits UINT64",
        ),
        ("1.5 as INT32", x("INT32", "[1]", "[1.5]"), 400, "1.5 is not an integer that fits INT32"),
        ("1 as BOOL", x("BOOL", "[1]", "[1]"), 400, "1 is not true or false"),
        ("\"true\" as BOOL", x("BOOL", "[1]", "[\"true\"]"), 400, "a string is not true or false"),
        ("7 as BYTES", x("BYTES", "[1]", "[7]"), 400, "7 is not a string"),
        ("FP16 in JSON", x("FP16", "[1]", "[1]"), 400, "FP16 has no form in JSON"),
        ("BF16 in JSON", x("BF16", "[1]", "[1]"), 400, "BF16 has no form in JSON"),
        (
            "data before its datatype",
            input(r#""data":[300],"shape":[1],"datatype":"INT8","name":"x""#),
            400,
            "300 is",
        ),
        (
            "deep data before its datatype",
            input(&format!(r#""data":{},"shape":[1],"datatype":"INT8","name":"x""#, nested(99_999))),
            400,
            "nested deeper than 32",
        ),
    ])
    .await;
}

#[tokio::test]
async fn requests_that_the_model_does_not_know_are_refused() {
    let name = |n: &str| format!(r#"{{"name":"{n}","datatype":"FP32","shape":[1,2],"data":[1,2]}}"#);
    let inputs = |inputs: String| format!(r#"{{"inputs":{inputs}}}"#);
    let long = "n".repeat(1 << 20);
    check(vec![
        (
            "no input at all",
            inputs("[]".into()),
            400,
            "input \"x\" is missing: the model expects FP32 [-1,2]",
        ),
        ("an unknown input", inputs(format!("[{},{}]", name("x"), name("z"))), 400, "unknown input \"z\""),
        ("an input twice", inputs(list(&name("x"), 2)), 400, "input \"x\" is given twice"),
        ("10,000 inputs", inputs(list(&name("x"), 10_000)), 400, ""),
        ("a name of 1 MiB", inputs(format!("[{},{}]", name("x"), name(&long))), 400, "unknown input \"nnn"),
        (
            "a name with NUL",
            inputs(format!("[{},{}]", name("x"), name("\\u0000"))),
            400,
            "unknown input \"\\0\"",
        ),
        (
            "another datatype",
            x("FP64", "[1,2]", "[1,2]"),
            400,
            "input \"x\" is FP64 [1,2], the model expects FP32",
        ),
        (
            "another rank",
            x("FP32", "[2]", "[1,2]"),
            400,
            "input \"x\" is FP32 [2], the model expects FP32 [-1,2]",
        ),
        (
            "another fixed axis",
            x("FP32", "[2,1]", "[1,2]"),
            400,
            "input \"x\" is FP32 [2,1], the model expects",
        ),
        ("an unknown output", and(r#""outputs":[{"name":"z"}]"#), 400, "unknown output \"z\""),
        (
            "an output of 1 MiB",
            and(&format!(r#""outputs":[{{"name":"{long}"}}]"#)),
            400,
            "unknown output \"nnn",
        ),
        ("10,000 outputs", and(&format!(r#""outputs":{}"#, list(r#"{"name":"y"}"#, 10_000))), 400, ""),
        ("a datatype of 1 MiB", x(&long, "[1]", "[1]"), 400, "unknown datatype"),
        ("a shape of 1 M axes", x("FP32", &list("1", 1 << 20), "[1]"), 400, "1048576 axes are more than 32"),
    ])
    .await;
}

#[tokio::test]
async fn what_is_small_to_send_is_not_large_to_hold() {
    let most = LIMIT - 1000;
    let tiny = r#"{"name":"x","datatype":"BOOL","shape":[0],"data":[]}"#;
    let promise = r#"{"name":"x","datatype":"FP64","shape":[65536],"data":[]}"#;
    let parameters: Vec<String> = (0..most / 12).map(|i| format!(r#""{i:x}":1"#)).collect();
    let parameters = format!(r#""parameters":{{{}}}"#, parameters.join(","));
    check(vec![
        (
            "as many inputs as fit",
            format!(r#"{{"inputs":{}}}"#, list(tiny, most / (tiny.len() + 1))),
            400,
            "more than 16384 tensors",
        ),
        (
            "as many outputs as fit",
            and(&format!(r#""outputs":{}"#, list(r#"{"name":""}"#, most / 12))),
            400,
            "more than 16384 tensors",
        ),
        ("as many parameters as fit", and(&parameters), 200, "outputs"),
        ("as many parameters of an input as fit", input(&parameters), 400, ""),
        (
            "promises of 64 Ki numbers",
            format!(r#"{{"inputs":{}}}"#, list(promise, 10_000)),
            400,
            "data holds",
        ),
        ("as many strings as fit", x("BYTES", "[1]", &list("\"\"", most / 3)), 400, "data holds"),
        ("as many numbers as fit", x("FP64", "[1]", &list("1", most / 2)), 400, "data holds"),
        ("as many axes as fit", x("FP64", &list("1", most / 2), "[1]"), 400, "axes are more than 32"),
        ("as many brackets as fit", x("FP32", "[1]", &"[".repeat(most)), 400, "nested deeper than 32"),
        (
            "unread brackets",
            and(&format!(r#""unknown":{}"#, "[".repeat(most))),
            400,
            "the request is not JSON",
        ),
        ("a body above the limit", "1".repeat(LIMIT + 1), 413, "larger than the limit of 4194304 bytes"),
    ])
    .await;
}
