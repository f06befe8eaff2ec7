use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fixture::*;
use super::*;
use crate::formats::Dim;

/// Walks over bytes in memory, `step` bytes a supply at most; counts ranges and bytes, and checks each range.
fn walk_in(bytes: &[u8], step: usize) -> Result<(Model, usize, u64), OnnxError> {
    let mut walk = Walk::new(bytes.len() as u64)?;
    let (mut reads, mut last) = (0, 0);
    while let Some(range) = walk.wanted()? {
        let (from, to) = (range.offset as usize, range.offset as usize + range.len);
        assert!(range.len > 0 && range.len <= MAX_READ && to <= bytes.len(), "{range:?} of {}", bytes.len());
        assert!(range.offset >= last, "{range:?} goes back before {last}");
        let to = to.min(from + step);
        last = to as u64;
        walk.supply(&bytes[from..to])?;
        reads += 1;
    }
    let read = walk.bytes_read();
    Ok((walk.finish()?, reads, read))
}

fn walk(bytes: &[u8]) -> Result<Model, OnnxError> {
    walk_in(bytes, MAX_READ).map(|(model, ..)| model)
}

fn refusal(bytes: &[u8]) -> String {
    let error = walk(bytes).unwrap_err();
    assert_eq!(error.reason(), "ModelInvalid");
    error.to_string()
}

#[test]
fn a_rich_model_is_read_whole() {
    let (model, reads, _) = walk_in(&rich(), MAX_READ).unwrap();
    assert_eq!(reads, 1, "a small model needs one read");
    assert_eq!((model.ir_version, model.producer.as_str()), (8, "fixture"));
    assert_eq!(model.opsets, BTreeMap::from([("ai.onnx".into(), 17), ("com.acme".into(), 1)]));
    let summary = model.summary();
    let batch = Some(vec![Dim::Dynamic("batch".into()), Dim::Fixed(4)]);
    assert_eq!(summary.inputs.len(), 1, "w is an initializer: {:?}", summary.inputs);
    assert_eq!((summary.inputs[0].name.as_str(), &summary.inputs[0].shape), ("x", &batch));
    assert_eq!((summary.outputs[0].name.as_str(), summary.outputs[0].datatype.as_str()), ("y", "FP32"));
    assert_eq!(summary.unknown_domains, BTreeMap::from([("com.acme".into(), "Frobnicate".into())]));
    // Six of the graph, one of each branch, one of the function.
    assert_eq!(summary.nodes, 9);
    let file = &model.external["w/far.bin"];
    assert_eq!((file.tensor.as_str(), file.end), ("\"far\"", 4096 + 4000));
    // w, c, inner and c twice, training: six of 48; two sparse of 56; typed 8; far 4000.
    assert_eq!(summary.weight_bytes, 7 * 48 + 2 * 56 + 8 + 4000);
    assert!(model.supported_by(&ONNX_RUNTIME).is_ok());
}

#[test]
fn payloads_are_not_read() {
    let tensors: Vec<Msg> =
        (0..400).map(|i| tensor(&format!("w{i}"), &[64, 64]).bytes(9, &vec![7; 16384])).collect();
    let bytes = model(graph(&[node("", "Relu", &[])], &tensors)).0;
    let (model, reads, read) = walk_in(&bytes, MAX_READ).unwrap();
    assert_eq!(model.weight_bytes, 400 * 16384);
    assert!(reads <= 410, "{reads} reads");
    assert!(read <= 410 * 512 + 8192, "{read} bytes of {}", bytes.len());
}

#[test]
fn external_data_is_found_wherever_it_stands() {
    let at = |name: &str| external(tensor(name, &[4]), &[("location", name), ("length", "16")]);
    let sparse = |name: &str| msg().msg(1, at(name)).msg(2, tensor("i", &[1]).bytes(9, &[0; 4]));
    let constant = |attribute: Msg| node("", "Constant", &[attribute]);
    let inner = msg().msg(1, constant(msg().msg(5, at("deep")))).msg(5, at("inner"));
    let nodes = [
        constant(msg().msg(5, at("constant"))),
        constant(msg().msg(10, at("list"))),
        constant(msg().msg(22, sparse("sparse"))),
        constant(msg().msg(23, sparse("sparses"))),
        node("", "Loop", &[msg().msg(6, inner.clone())]),
        node("", "Loop", &[msg().msg(11, msg().msg(15, sparse("subgraph")))]),
    ];
    let function = msg()
        .text(1, "F")
        .msg(7, constant(msg().msg(5, at("function"))))
        .msg(11, msg().msg(5, at("default")));
    let bytes = model(graph(&nodes, &[at("./initializer")]).msg(15, sparse("sparse-initializer")))
        .msg(25, function)
        .msg(20, msg().msg(2, msg().msg(5, at("training"))));
    let found: Vec<String> = walk(&bytes.0).unwrap().external.into_keys().collect();
    let expected = "constant deep default function initializer inner list sparse sparse-initializer sparses subgraph training";
    assert_eq!(found.join(" "), expected);
}

#[test]
fn a_location_outside_the_folder_is_refused_by_tensor_and_rule() {
    for (location, rule) in [
        ("/etc/passwd", "is an absolute path"),
        ("../secret", "has a \"..\" component"),
        ("a/../../b", "has a \"..\" component"),
        ("a/..", "has a \"..\" component"),
        ("..\\b", "has a backslash"),
        ("C:/b", "is an absolute path"),
        ("a\0b", "has a control character"),
        ("", "is empty"),
        (".", "names a folder"),
        ("a/", "names a folder"),
        ("*/_ORT_MEM_ADDR_/*", "is a memory address, which no file may hold"),
    ] {
        assert_eq!(check_location(location), Err(rule));
        for is_external in [true, false] {
            let tensor = external(tensor("w", &[1]), &[("location", location)]).int(14, is_external.into());
            let error = walk(&model(graph(&[], &[tensor])).0).unwrap_err();
            assert!(matches!(&error, OnnxError::Escapes { tensor, .. } if tensor == "\"w\""), "{error}");
            assert!(error.to_string().ends_with(rule), "{error}");
        }
    }
    assert_eq!(check_location("./a//b/c.bin").as_deref(), Ok("a/b/c.bin"));
    assert_eq!(check_location("a..b").as_deref(), Ok("a..b"));
}

#[test]
fn impossible_tensors_are_refused_by_name() {
    let with = |tensor: Msg| model(graph(&[], &[tensor])).0;
    let at = |entries: &[(&str, &str)]| with(external(tensor("w", &[4]), entries));
    for (bytes, what) in [
        (with(tensor("w", &[-1])), "has a negative dimension"),
        (with(tensor("w", &[i64::MAX, 3])), "has dimensions whose product overflows"),
        (with(tensor("w", &[i64::MAX, 2, 1])), "has dimensions whose product overflows"),
        (with(tensor("w", &[2, 2]).bytes(9, &[0; 12])), "has 12 bytes of raw data, and its shape needs 16"),
        (at(&[("location", "f"), ("length", "12")]), "has 12 bytes of external data, and its shape needs 16"),
        (at(&[("location", "f"), ("offset", "-1")]), "has external data with the impossible offset \"-1\""),
        (at(&[("location", "f"), ("length", "+16")]), "has external data with the impossible length \"+16\""),
        (at(&[("location", "f"), ("offset", "99999999999999999999")]), "impossible offset"),
        (at(&[("location", "f"), ("colour", "red")]), "has external data with the unknown key \"colour\""),
        (at(&[("location", "f"), ("location", "g")]), "names its external data file twice"),
        (at(&[("offset", "0")]), "is said to be external data, without a location"),
    ] {
        let error = refusal(&bytes);
        assert!(error.starts_with("tensor \"w\" ") && error.contains(what), "{error}");
    }
    assert!(walk(&at(&[("location", "f"), ("checksum", "ab"), ("prepacked_0", "x|0|1")])).is_ok());
    assert!(walk(&with(msg().int(1, 3).int(2, 22).text(8, "int4").bytes(9, &[0; 2]))).is_ok());
}

#[test]
fn a_file_shorter_than_its_tensors_is_refused() {
    let far = external(tensor("far", &[4]), &[("location", "f"), ("offset", "100")]);
    let model = walk(&model(graph(&[], &[far])).0).unwrap();
    assert!(model.check_files(|_| Some(116)).is_ok());
    let error = model.check_files(|_| Some(115)).unwrap_err().to_string();
    assert_eq!(error, "external data file \"f\" has 115 bytes, and tensor \"far\" ends at byte 116");
}

#[test]
fn subgraphs_ten_thousand_deep_are_an_error_and_thirty_one_are_not() {
    let nested = |depth: usize| {
        // From the inside out, so that building does not recurse either.
        let inner = (0..depth).fold(msg().msg(1, node("", "Relu", &[])), |inner, _| {
            msg().msg(1, node("", "If", &[msg().msg(6, inner)]))
        });
        model(inner.msg(12, value("y", 1, &[]))).0
    };
    assert_eq!(walk(&nested(31)).unwrap().nodes, 32);
    let error = refusal(&nested(10_000));
    assert!(error.contains("nested deeper than 100 messages"), "{error}");
}

#[test]
fn newer_than_the_runtime_is_unsupported() {
    let versions = |ir: i64, onnx: i64, ml: i64| {
        let bytes =
            msg().int(1, ir).msg(7, graph(&[], &[])).msg(8, opset("", onnx)).msg(8, opset("ai.onnx.ml", ml));
        walk(&bytes.0).unwrap().supported_by(&ONNX_RUNTIME)
    };
    assert_eq!(versions(13, 26, 5), Ok(()));
    for (error, what) in [
        (versions(8, 27, 5), "opset 27 of ai.onnx, and ONNX Runtime 1.31 reads up to 26"),
        (versions(8, 26, 6), "opset 6 of ai.onnx.ml, and ONNX Runtime 1.31 reads up to 5"),
        (versions(14, 26, 5), "IR version 14, and ONNX Runtime 1.31 reads up to 13"),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.reason(), "OpsetUnsupported");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn an_unknown_standard_operator_is_reported() {
    assert!(operators::is_sorted());
    let bytes =
        model(graph(&[node("", "Relu", &[]), node("ai.onnx", "Gemm", &[]), node("", "Frob", &[])], &[])).0;
    let unknown = walk(&bytes).unwrap().unknown_domains;
    assert_eq!(unknown, BTreeMap::from([("ai.onnx".into(), "Frob".into())]));
}

#[test]
fn what_is_no_model_is_named() {
    let mut tar = vec![0; 600];
    tar[257..262].copy_from_slice(b"ustar");
    let safetensors = [&64u64.to_le_bytes()[..], b"{\"w\":{\"dtype\":\"F32\"}}"].concat();
    let cases: &[(&[u8], &str)] = &[
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"\n <Error><Code>AccessDenied</Code></Error>", "HTML or XML"),
        (b"PK\x03\x04aaaaaaaaaaaaaaaa", "zip archive"),
        (b"\x80\x04\x95aaaa", "pickle"),
        (b"\x1f\x8b\x08\0aaaa", "gzip"),
        (b"\x89HDF\r\n\x1a\nabc", "HDF5"),
        (b"\x1c\0\0\0TFL3aaaa", "TensorFlow Lite"),
        (b"\x1c\0\0\0ORTMaaaa", "ORT-format"),
        (b"{\"error\": \"Repository not found\"}", "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"Repository not found, sorry", "it is text"),
        (&safetensors, "safetensors"),
        (&tar, "tar archive"),
        (&[0xff; 64], "more than 64 bits"),
        (&[0x0b, 1, 2, 3], "group"),
        (&[0x3a, 0xff, 0xff, 0x03, 0, 0], "longer than the file"),
        (&[0x08, 0x08], "no graph"),
        (&[0x42, 0x02, 0x10, 0x11], "no IR version"),
    ];
    for (bytes, what) in cases {
        let error = refusal(bytes);
        assert!(error.starts_with("this is not an ONNX model: ") && error.contains(what), "{what}: {error}");
    }
}

#[test]
fn a_cut_file_says_so() {
    let whole = rich();
    let error = refusal(&whole[..whole.len() / 2]);
    assert!(
        error.contains("cut short") && error.contains(&format!("ends at {}", whole.len() / 2)),
        "{error}"
    );
}

#[test]
fn damage_is_found() {
    let in_graph = |graph: Msg| model(graph).0;
    for (bytes, what) in [
        (in_graph(msg().int(1, 5)), "wrong wire type"),
        (in_graph(msg().bytes(1, &[0x22, 0x7f])), "longer than its message"),
        (in_graph(msg().bytes(1, &[0x22])), "ends with its message"),
        (in_graph(msg().bytes(1, &[0x0f])), "impossible wire type"),
        (in_graph(msg().bytes(1, &[0x00, 0x00])), "impossible number"),
        (in_graph(msg().msg(1, msg().text(4, &"o".repeat(5000)))), "longer than 4096 bytes"),
        (in_graph(msg().msg(1, msg().bytes(4, &[0xff]))), "not UTF-8"),
        (in_graph(msg().msg(5, msg().bytes(1, &[0x80]))), "a dimension is no number"),
        (in_graph(msg().msg(5, tensor("w", &[1]).bytes(9, &[0; 4]).bytes(9, &[0; 4]))), "raw data twice"),
        (model(graph(&[], &[])).msg(7, graph(&[], &[])).0, "stands twice"),
    ] {
        let error = refusal(&bytes);
        assert!(error.contains(what), "{what}: {error}");
    }
    assert_eq!(refusal(&in_graph(msg().msg(11, value("x", 1, &[])))), "the graph has no outputs");
}

#[test]
fn what_is_kept_is_bounded() {
    let long = |i: usize| format!("{i}{}", "n".repeat(4000));
    let nodes: Vec<Msg> = (0..5000).map(|i| node("com.acme", &long(i), &[])).collect();
    assert!(refusal(&model(graph(&nodes, &[])).0).contains("names alone"));
    let tensors = msg().bytes(5, &[]).0.repeat(limits::TENSORS + 1);
    assert!(refusal(&model(Msg(tensors)).0).contains("more than 1048576 tensors"));
}

/// A model with tensors large enough that windows move.
fn large() -> Vec<u8> {
    let tensors: Vec<Msg> = (0..6)
        .map(|i| tensor(&format!("w{i}"), &[i * 700]).bytes(9, &vec![i as u8; i as usize * 2800]))
        .chain([external(tensor("e", &[3]), &[("location", "e.bin")])])
        .collect();
    let nodes: Vec<Msg> = (0..200).map(|i| node("com.acme", &format!("Op{i}"), &[])).collect();
    model(graph(&nodes, &tensors)).0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = walk(&bytes);
    }

    #[test]
    fn mutations_never_panic_and_reads_are_bounded(
        is_large in any::<bool>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = if is_large { large() } else { rich() };
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Ranges only go forward, so no byte is asked for twice.
        if let Ok((_, _, read)) = walk_in(&bytes, MAX_READ) {
            prop_assert!(read <= bytes.len() as u64);
        }
    }

    #[test]
    fn windows_do_not_matter(step in 1usize..700, is_large in any::<bool>()) {
        let bytes = if is_large { large() } else { rich() };
        let expected = walk(&bytes).unwrap();
        prop_assert_eq!(walk_in(&bytes, step).unwrap().0, expected);
    }

    #[test]
    fn every_truncation_is_an_error(cut in any::<prop::sample::Index>()) {
        let bytes = large();
        let cut = cut.index(bytes.len());
        // The opset import stands last: without it the model is whole but says too little.
        prop_assert!(walk(&bytes[..cut]).is_err());
    }
}
