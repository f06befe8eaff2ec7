//! Files that are no models, or hostile ones: the process says why in a sentence, and ends by itself.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::onnx::{Message, identity, model, model_with, node, types, value};
use crate::support::{command, free_port};
use crate::table::indiscretion;

/// The exit code of a model that can't be served.
const REFUSED: Option<i32> = Some(3);

/// Serves `folder/model.onnx` until it ends, or answers: the exit code, and the last complaint of the log.
fn serve(folder: &Path) -> (Option<i32>, String) {
    let port = free_port().to_string();
    let model = folder.join("model.onnx");
    let mut child =
        command().args(["--port", &port, "--model"]).arg(model).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut complaint = String::from("nothing");
    for line in log.lines().map_while(Result::ok) {
        let Ok(line) = serde_json::from_str::<Value>(&line) else {
            complaint = line;
            continue;
        };
        if line["phase"] == "Proven" {
            complaint = format!("it serves: {line}");
            child.kill().unwrap();
        }
        if let (Some(reason), Some(message)) = (line["reason"].as_str(), line["message"].as_str()) {
            complaint = format!("{reason}: {message}");
        }
    }
    (child.wait().unwrap().code(), complaint)
}

fn refuses(cases: Vec<(&str, Vec<u8>, &str)>) {
    let mut wrong = Vec::new();
    for (name, bytes, text) in cases {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("model.onnx"), bytes).unwrap();
        wrong.extend(refusal(name, folder.path(), text));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn refusal(name: &str, folder: &Path, text: &str) -> Option<String> {
    let (code, said) = serve(folder);
    let folder = folder.display().to_string();
    let secret = indiscretion(&said).or_else(|| said.contains(&folder).then_some(folder));
    let right = code == REFUSED && said.contains(text) && secret.is_none() && said.len() < 1200;
    (!right)
        .then(|| format!("{name}: exit code {code:?}, tells {secret:?}\n  it said {said}\n  not     {text}"))
}

fn floats(name: &str, shape: &[i64]) -> Message {
    value(name, types::FLOAT, shape)
}

/// `y = x + w`, where `w` is this tensor.
fn plus(w: Message) -> Vec<u8> {
    model_with(
        17,
        vec![node("Add", "", &["x", "w"], &["y"])],
        vec![floats("x", &[4])],
        vec![floats("y", &[4])],
        vec![w],
    )
}

fn tensor(dims: &[i64], element: i64) -> Message {
    dims.iter().fold(Message::default(), |m, dim| m.int(1, *dim)).int(2, element).text(8, "w")
}

fn external(dims: &[i64], entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| Message::default().text(1, key).text(2, value);
    plus(tensor(dims, types::FLOAT).all(13, entries.iter().map(entry)).int(14, 1))
}

#[test]
fn files_that_are_no_models_are_refused() {
    let random: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let whole = identity(types::FLOAT, &[-1]);
    refuses(vec![
        ("nothing", vec![], "ModelInvalid: "),
        ("HTML", b"<!DOCTYPE html><html><body>404</body></html>".to_vec(), "ModelInvalid: "),
        ("JSON", br#"{"error":"no such key"}"#.to_vec(), "ModelInvalid: "),
        ("a zip archive", [b"PK\x03\x04", &[0; 100][..]].concat(), "ModelInvalid: "),
        ("a pickle", [&[0x80, 4], &[b'x'; 100][..]].concat(), "ModelInvalid: "),
        (
            "a Git LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec(),
            "ModelInvalid: ",
        ),
        ("random bytes", random, "ModelInvalid: "),
        ("zeros", vec![0; 4096], "ModelInvalid: "),
        ("half a model", whole[..whole.len() / 2].to_vec(), "ModelInvalid: "),
        ("a model but for a byte", whole[..whole.len() - 1].to_vec(), "ModelInvalid: "),
        ("an ORT-format model", [b"\x1c\0\0\0ORTM", &[0; 100][..]].concat(), "ModelInvalid: "),
    ]);
}

#[test]
fn graphs_that_make_no_sense_are_refused() {
    let (x, y) = (|| vec![floats("x", &[4])], || vec![floats("y", &[4])]);
    let one = |nodes| model(17, nodes, x(), y());
    let deep = (0..10_000).fold(Message::default(), |inner, _| {
        let graph = Message::default().message(1, inner);
        Message::default()
            .text(4, "If")
            .message(5, Message::default().text(1, "then_branch").int(20, 5).message(6, graph))
    });
    let cycle = vec![
        node("Add", "", &["x", "b"], &["a"]),
        node("Neg", "", &["a"], &["b"]),
        node("Neg", "", &["a"], &["y"]),
    ];
    let twice = vec![node("Neg", "", &["x"], &["y"]), node("Abs", "", &["x"], &["y"])];
    let bytes = |dims: &[i64], raw: usize| plus(tensor(dims, types::FLOAT).bytes(9, &vec![0; raw]));
    let typed = |element: i64| plus(tensor(&[4], element).bytes(9, &[0; 16]));
    refuses(vec![
        (
            "an unknown operator",
            one(vec![node("Frobnicate", "", &["x"], &["y"])]),
            "operator Frobnicate is not known",
        ),
        (
            "an unknown domain",
            one(vec![node("F", "com.example", &["x"], &["y"])]),
            "operator F of domain com.example",
        ),
        ("opset 99", model(99, vec![node("Neg", "", &["x"], &["y"])], x(), y()), "OpsetUnsupported: "),
        ("no nodes", one(vec![]), "ModelInvalid: "),
        ("no outputs", model(17, vec![node("Neg", "", &["x"], &["y"])], x(), vec![]), "ModelInvalid: "),
        (
            "an output that nothing makes",
            model(17, vec![node("Neg", "", &["x"], &["z"])], x(), y()),
            "ModelInvalid: ",
        ),
        ("an input that nothing makes", one(vec![node("Neg", "", &["z"], &["y"])]), "ModelInvalid: "),
        ("a cycle", one(cycle), "ModelInvalid: "),
        ("a name made twice", one(twice), "ModelInvalid: "),
        ("too few inputs", one(vec![node("Add", "", &["x"], &["y"])]), "ModelInvalid: "),
        ("subgraphs 10,000 deep", one(vec![deep]), "ModelInvalid: "),
        ("a negative axis", bytes(&[-4], 16), "ModelInvalid: "),
        ("axes that overflow", bytes(&[1 << 62, 4], 16), "ModelInvalid: "),
        ("more axes than data", bytes(&[1 << 40], 16), "ModelInvalid: "),
        ("less data than axes", bytes(&[4], 15), "ModelInvalid: "),
        ("no data", bytes(&[4], 0), "ModelInvalid: "),
        ("an unknown element type", typed(99), "ModelInvalid: "),
        ("an element type of nothing", typed(0), "ModelInvalid: "),
        ("another element type", typed(types::INT64), "ModelInvalid: "),
        (
            "a sequence as input",
            model(17, vec![node("Neg", "", &["x"], &["y"])], vec![sequence("x")], y()),
            "ModelInvalid: ",
        ),
    ]);
}

fn sequence(name: &str) -> Message {
    let element = Message::default().message(1, Message::default().int(1, types::FLOAT));
    Message::default()
        .text(1, name)
        .message(2, Message::default().message(4, Message::default().message(1, element)))
}

/// Below a folder of its own, so that there is something beside it to reach for.
#[test]
fn data_outside_of_the_model_s_folder_is_refused() {
    let at = |location: &str| external(&[4], &[("location", location)]);
    let long = "a/".repeat(2000) + "w";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("the folder above", at("../secret")),
        ("by a detour", at("a/../../secret")),
        ("the root", at("/etc/hostname")),
        ("an absolute path", at("SECRET")),
        ("a link", at("link")),
        ("below a linked folder", at("up/secret")),
        ("a file that is not there", at("nothing")),
        ("a folder", at("a")),
        ("no location", external(&[4], &[])),
        ("an empty location", at("")),
        ("a location of 4 kB", at(&long)),
        ("a device", at("/dev/zero")),
        ("a memory address", at("*/_ORT_MEM_ADDR_/*")),
        (
            "a memory address with an offset",
            external(&[4], &[("location", "*/_ORT_MEM_ADDR_/*"), ("offset", "94000000000000")]),
        ),
        ("an offset beyond the end", external(&[4], &[("location", "w"), ("offset", "4096")])),
        ("a negative offset", external(&[4], &[("location", "w"), ("offset", "-16")])),
        ("an offset that overflows", external(&[4], &[("location", "w"), ("offset", "9223372036854775807")])),
        ("an offset that is a word", external(&[4], &[("location", "w"), ("offset", "zero")])),
        ("a length beyond the end", external(&[4], &[("location", "w"), ("length", "4096")])),
        ("a negative length", external(&[4], &[("location", "w"), ("length", "-16")])),
        ("2^40 elements", external(&[1 << 40], &[("location", "w")])),
    ];
    let mut wrong = Vec::new();
    for (name, model) in cases {
        let outer = TempDir::new().unwrap();
        let folder = outer.path().join("model");
        fs::create_dir_all(folder.join("a")).unwrap();
        fs::write(outer.path().join("secret"), [0; 16]).unwrap();
        fs::write(folder.join("w"), [0; 16]).unwrap();
        symlink("../secret", folder.join("link")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        fs::write(folder.join("model.onnx"), model).unwrap();
        wrong.extend(refusal(name, &folder, "ModelInvalid: "));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
