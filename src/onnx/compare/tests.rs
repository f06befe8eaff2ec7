use super::*;

/// `FP32[batch,3]`; without brackets no shape.
fn tensor(name: &str, text: &str) -> TensorSignature {
    let (datatype, shape) = match text.split_once('[') {
        Some((datatype, dims)) => (datatype, Some(dims.trim_end_matches(']'))),
        None => (text, None),
    };
    let dims = |text: &str| text.split(',').filter(|d| !d.is_empty()).map(dim).collect();
    TensorSignature { name: name.into(), datatype: datatype.into(), shape: shape.map(dims) }
}

fn dim(text: &str) -> Dim {
    match text.parse() {
        Ok(size) => Dim::Fixed(size),
        Err(_) => Dim::Dynamic(text.trim_start_matches('?').into()),
    }
}

fn graph(inputs: &[(&str, &str)], outputs: &[(&str, &str)]) -> GraphSummary {
    let tensors = |list: &[(&str, &str)]| list.iter().map(|(name, text)| tensor(name, text)).collect();
    GraphSummary { inputs: tensors(inputs), outputs: tensors(outputs), ..Default::default() }
}

#[test]
fn a_client_of_the_old_model_is_served_by_the_new_one_or_told_what_broke() {
    type Tensors<'a> = &'a [(&'a str, &'a str)];
    type Row<'a> = (&'a str, Tensors<'a>, Tensors<'a>, Tensors<'a>, Tensors<'a>, &'a [&'a str]);
    #[rustfmt::skip]
    let table: &[Row] = &[
        ("the same", &[("x", "FP32[batch,3]")], &[("y", "FP32[batch,1]")],
            &[("x", "FP32[batch,3]")], &[("y", "FP32[batch,1]")], &[]),
        ("an axis under another name", &[("x", "FP32[batch,3]")], &[("y", "FP32[batch]")],
            &[("x", "FP32[N,3]")], &[("y", "FP32[?]")], &[]),
        ("a wider input", &[("x", "FP32[1,3]")], &[("y", "FP32[1]")],
            &[("x", "FP32[batch,3]")], &[("y", "FP32[batch]")], &[]),
        ("one more output", &[("x", "FP32[3]")], &[("y", "FP32[1]")],
            &[("x", "FP32[3]")], &[("y", "FP32[1]"), ("z", "FP32[1]")], &[]),
        ("a shape where there was none", &[("x", "FP32")], &[("y", "FP32")],
            &[("x", "FP32[1]")], &[("y", "FP32[1]")], &[]),
        ("another order", &[("a", "FP32[1]"), ("b", "INT64[1]")], &[],
            &[("b", "INT64[1]"), ("a", "FP32[1]")], &[], &[]),
        ("a narrower input", &[("x", "FP32[batch,3]")], &[], &[("x", "FP32[1,3]")], &[],
            &["input x was FP32[batch,3] and is FP32[1,3]"]),
        ("another size", &[("x", "FP32[1,3]")], &[("y", "FP32[10]")], &[("x", "FP32[1,4]")], &[("y", "FP32[12]")],
            &["input x was FP32[1,3] and is FP32[1,4]", "output y was FP32[10] and is FP32[12]"]),
        ("another rank", &[("x", "FP32[?,3]")], &[], &[("x", "FP32[?,3,1]")], &[],
            &["input x was FP32[?,3] and is FP32[?,3,1]"]),
        ("another type", &[("x", "INT64[1]")], &[("y", "FP32[1]")], &[("x", "INT32[1]")], &[("y", "FP16[1]")],
            &["input x was INT64[1] and is INT32[1]", "output y was FP32[1] and is FP16[1]"]),
        ("a renamed input", &[("x", "FP32[1]")], &[], &[("in", "FP32[1]")], &[],
            &["input x is gone", "input in is new: FP32[1]"]),
        ("a lost output", &[], &[("y", "FP32[1]")], &[], &[], &["output y is gone"]),
    ];
    for (what, inputs, outputs, new_inputs, new_outputs, expected) in table {
        let found = breaks(&graph(inputs, outputs), &graph(new_inputs, new_outputs));
        assert_eq!(found, *expected, "{what}");
    }
}

#[test]
fn what_was_cut_from_a_report_is_not_called_missing() {
    let stable = graph(&[("a", "FP32[1]"), ("b", "FP32[1]")], &[("y", "FP32[1]")]);
    let mut cut = graph(&[("a", "FP32[2]")], &[]);
    cut.truncated = true;
    assert_eq!(breaks(&stable, &cut), ["input a was FP32[1] and is FP32[2]"]);
}
