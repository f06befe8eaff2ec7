use bytes::Bytes;

use super::*;
use crate::protocol::{Datatype, RequestedOutput};

fn specs() -> Vec<TensorSpec> {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.into(),
        datatype,
        shape: shape.to_vec(),
    };
    vec![spec("a", Datatype::Uint8, &[-1, 2]), spec("b", Datatype::Bool, &[])]
}

fn tensor(name: &str, datatype: Datatype, shape: &[i64]) -> Tensor {
    let size = shape.iter().product::<i64>() as usize * datatype.size().unwrap();
    Tensor::new(name.into(), datatype, shape.to_vec(), Bytes::from(vec![0; size])).unwrap()
}

#[test]
fn inputs_come_into_the_model_s_order() {
    let given = vec![tensor("b", Datatype::Bool, &[]), tensor("a", Datatype::Uint8, &[7, 2])];
    let names: Vec<String> = arrange(&specs(), given).unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn inputs_that_do_not_fit_are_named_with_what_is_expected() {
    let (a, b) = (|| tensor("a", Datatype::Uint8, &[1, 2]), || tensor("b", Datatype::Bool, &[]));
    for (inputs, message) in [
        (vec![a()], "input \"b\" is missing: the model expects BOOL []"),
        (vec![], "input \"a\" is missing: the model expects UINT8 [-1,2]"),
        (vec![a(), a(), b()], "input \"a\" is given twice"),
        (
            vec![a(), b(), tensor("c", Datatype::Bool, &[])],
            "unknown input \"c\": the model has \"a\" UINT8 [-1,2], \"b\" BOOL []",
        ),
        (
            vec![tensor("a", Datatype::Uint8, &[1, 3]), b()],
            "input \"a\" is UINT8 [1,3], the model expects UINT8 [-1,2]",
        ),
        (
            vec![tensor("a", Datatype::Uint8, &[2]), b()],
            "input \"a\" is UINT8 [2], the model expects UINT8 [-1,2]",
        ),
        (
            vec![tensor("a", Datatype::Fp32, &[1, 2]), b()],
            "input \"a\" is FP32 [1,2], the model expects UINT8 [-1,2]",
        ),
    ] {
        assert_eq!(arrange(&specs(), inputs).unwrap_err(), Error::invalid(message));
    }
}

#[test]
fn outputs_are_chosen_by_name_once_each() {
    let request = |names: &[&str]| InferRequest {
        outputs: names.iter().map(|n| RequestedOutput { name: n.to_string(), binary: None }).collect(),
        ..Default::default()
    };
    assert_eq!(choose(&specs(), &request(&[])).unwrap(), [0, 1]);
    assert_eq!(choose(&specs(), &request(&["b", "a"])).unwrap(), [1, 0]);
    let many = vec!["b"; 10_000];
    for (names, message) in [
        (&["c"][..], "unknown output \"c\": the model has \"a\" UINT8 [-1,2], \"b\" BOOL []"),
        (&["a", "a"], "output \"a\" is asked for twice"),
        (&many, "output \"b\" is asked for twice"),
    ] {
        assert_eq!(choose(&specs(), &request(names)).unwrap_err(), Error::invalid(message));
    }
}

#[test]
fn names_and_versions_are_checked() {
    let identity = Identity { name: "m".into(), version: "8".into(), revision: None, digest: None };
    let server = Server::new(identity, Duration::from_secs(1), 1, None, Metrics::new("m-r8"));
    for (name, version, kind) in [
        ("m", None, None),
        ("m", Some(""), None),
        ("m", Some("8"), None),
        ("m", Some("9"), Some(Kind::NotFound)),
        ("n", None, Some(Kind::NotFound)),
        ("", None, Some(Kind::Invalid)),
        ("../x", None, Some(Kind::Invalid)),
        ("..", None, Some(Kind::Invalid)),
        ("a b", None, Some(Kind::Invalid)),
        (&"m".repeat(4096), None, Some(Kind::Invalid)),
    ] {
        assert_eq!(server.check_name(name, version).err().map(|e| e.kind), kind, "{name:?} {version:?}");
    }
    assert_eq!(server.model_metadata().unwrap_err().kind, Kind::Unavailable, "it is still loading");
}
