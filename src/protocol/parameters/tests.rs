use super::*;

fn read(json: &str) -> Result<Parameters, String> {
    serde_json::from_str(json).map_err(|e| e.to_string())
}

#[test]
fn known_parameters_are_read_and_others_read_past() {
    let parameters = read(
        r#"{"binary_data_size":16,"binary_data_output":true,"binary\u005fdata":false,"timeout":1500,"priority":2,
            "classification":0,"sequence_id":"a","content_type":"np","x":-1.5}"#,
    );
    let wanted = Parameters {
        binary_data_size: Some(16),
        binary_data_output: Some(true),
        binary_data: Some(false),
        timeout: Some(Duration::from_micros(1500)),
        priority: Some(2),
    };
    assert_eq!(parameters, Ok(wanted));
    assert_eq!(read(r#"{"timeout":0,"priority":0}"#), Ok(Parameters::default()), "0 is none, as on Triton");
}

#[test]
fn a_wrong_type_and_what_is_not_supported_are_refused_with_a_sentence() {
    for (json, message) in [
        (r#"{"binary_data_size":-1}"#, "parameter binary_data_size must be a number of bytes"),
        (r#"{"binary_data_size":1.5}"#, "parameter binary_data_size must be a number of bytes"),
        (r#"{"binary_data_size":"1"}"#, "parameter binary_data_size must be a number of bytes"),
        (r#"{"binary_data_output":1}"#, "parameter binary_data_output must be true or false"),
        (r#"{"binary_data":"true"}"#, "parameter binary_data must be true or false"),
        (r#"{"timeout":-5}"#, "parameter timeout must be a number of microseconds"),
        (r#"{"timeout":true}"#, "parameter timeout must be a number of microseconds"),
        (r#"{"priority":"high"}"#, "parameter priority must be a number from 0 to 9"),
        (r#"{"priority":10}"#, "parameter priority must be a number from 0 to 9"),
        (r#"{"priority":256}"#, "parameter priority must be a number from 0 to 9"),
        (
            r#"{"classification":3}"#,
            "parameter classification is not supported: ask for the tensor and sort it",
        ),
        (r#"{"shared_memory_region":"r"}"#, "parameter shared_memory_region is not supported"),
        (r#"{"x":null}"#, "expected a parameter's value: a string, a number, true or false"),
        (r#"{"x":[1]}"#, "expected a parameter's value: a string, a number, true or false"),
        (r#"{"x":{"y":1}}"#, "expected a parameter's value: a string, a number, true or false"),
        (r#"[1]"#, "expected an object of parameters"),
    ] {
        let error = read(json).unwrap_err();
        assert!(error.contains(message), "{json}\n said: {error}\n not: {message}");
    }
}
