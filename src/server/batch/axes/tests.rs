use super::*;

fn tensor(name: &str, dims: &[&str]) -> TensorAxes {
    let dim = |text: &&str| text.parse().map_or_else(|_| Dim::Dynamic(text.to_string()), Dim::Fixed);
    TensorAxes { name: name.into(), datatype: Datatype::Fp32, dims: dims.iter().map(dim).collect() }
}

fn found(inputs: &[TensorAxes], outputs: &[TensorAxes]) -> Result<(Vec<usize>, Vec<usize>), String> {
    BatchAxes::find(inputs, outputs, &[]).map(|axes| (axes.inputs, axes.outputs))
}

#[test]
fn the_one_name_that_all_tensors_share_is_the_batch_wherever_it_stands() {
    let silero = [tensor("input", &["batch", "samples"]), tensor("state", &["2", "batch", "128"])];
    let outputs = [tensor("output", &["batch", "1"]), tensor("stateN", &["2", "batch", "128"])];
    assert_eq!(found(&silero, &outputs), Ok((vec![0, 1], vec![0, 1])));
}

#[test]
fn of_several_shared_names_the_first_is_the_batch() {
    let ids = [tensor("ids", &["batch", "seq"]), tensor("mask", &["batch", "seq"])];
    assert_eq!(found(&ids, &[tensor("hidden", &["batch", "seq", "384"])]), Ok((vec![0, 0], vec![0])));
    let layers = [tensor("x", &["2", "batch", "n"])];
    assert_eq!(found(&layers, &[tensor("y", &["batch", "2", "n"])]), Ok((vec![1], vec![0])));
}

#[test]
fn axes_that_are_dynamic_and_first_in_all_tensors_are_taken_whatever_their_names() {
    let magika = [tensor("bytes", &["batch_size", "2048"])];
    assert_eq!(found(&magika, &[tensor("target", &["unk__7", "214"])]), Ok((vec![0], vec![0])));
    assert_eq!(found(&[tensor("x", &["", "4"])], &[tensor("y", &["", "4"])]), Ok((vec![0], vec![0])));
}

#[test]
fn a_tensor_without_a_batch_axis_is_named() {
    let audio = [tensor("input", &["batch", "n"]), tensor("sr", &[])];
    assert_eq!(found(&audio, &[tensor("y", &["batch"])]), Err("\"sr\" has no axis 0".into()));
    let fixed = found(&[tensor("image", &["1", "3", "h", "w"])], &[tensor("y", &["1", "10"])]);
    assert_eq!(fixed, Err("axis 0 of \"image\" is fixed to 1".into()));
}

#[test]
fn a_name_that_stands_twice_in_a_tensor_is_no_batch() {
    let square = [tensor("distances", &["n", "n"])];
    assert_eq!(found(&square, &[tensor("y", &["1", "n"])]), Err("axis 0 of \"y\" is fixed to 1".into()));
}

#[test]
fn an_axis_that_is_set_wins_and_must_exist() {
    let inputs = [tensor("x", &["t", "b", "8"])];
    let outputs = [tensor("y", &["b", "8"])];
    let set = |name: &str, axis| BatchAxes::find(&inputs, &outputs, &[(name.into(), axis)]);
    assert_eq!(set("x", 1).unwrap(), BatchAxes { inputs: vec![1], outputs: vec![0] });
    assert_eq!(set("x", 2), Err("axis 2 of \"x\" is fixed to 8".into()));
    assert_eq!(set("z", 0), Err("a batch axis is set for \"z\", which is no input or output".into()));
}

#[test]
fn strings_are_put_together_along_the_first_axis_only() {
    let mut text = tensor("text", &["2", "b"]);
    text.datatype = Datatype::Bytes;
    assert_eq!(found(&[text], &[tensor("y", &["b"])]), Err("\"text\" has strings along axis 1".into()));
}
