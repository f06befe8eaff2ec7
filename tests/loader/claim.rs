//! A claim whose writer is hostile.

use std::path::Path;

use modelwright::loader::Env;

use crate::*;

fn link(to: impl AsRef<Path>, from: &Path) {
    std::os::unix::fs::symlink(to, from).unwrap();
}

#[tokio::test]
async fn a_claim_is_read_without_following_links() {
    let root = temp();
    let env = env(root.path());
    let (model, weights) = with_external_data(2, 1);
    write(&env.claim.join("a/model.onnx"), &model);
    write(&env.claim.join("a/weights.bin"), vec![1; weights as usize]);
    for uri in ["pvc://models/a/model.onnx", "pvc://models/a", "pvc://models/a/"] {
        let source = pinned(&request(uri), &env).await;
        assert!(!source.immutable && source.sha256.is_some() && source.files.len() == 2, "{source:?}");
    }
    write(&root.path().join("outside/model.onnx"), &model);
    write(&root.path().join("outside/weights.bin"), "secret");
    link("../outside/model.onnx", &env.claim.join("final.onnx"));
    link("../outside", &env.claim.join("parent"));
    write(&env.claim.join("b/model.onnx"), &model);
    link("../../outside/weights.bin", &env.claim.join("b/weights.bin"));
    write(&env.claim.join("c/model.onnx"), &model);
    std::process::Command::new("mkfifo").arg(env.claim.join("c/weights.bin")).status().unwrap();
    write(&env.claim.join("d/readme.txt"), "x");
    for (uri, reason, text) in [
        ("pvc://models/final.onnx", "SourceForbidden", "final.onnx is a symbolic link"),
        ("pvc://models/parent/model.onnx", "SourceForbidden", "parent is a symbolic link"),
        ("pvc://models/../outside/model.onnx", "SourceForbidden", "dot component"),
        (
            "pvc://models/b",
            "ModelInvalid",
            "weights.bin named by tensor \"layer.0.weight\": pvc://models/b/weights.bin: weights.bin is a symbolic link",
        ),
        ("pvc://models/c", "ModelInvalid", "is neither a file nor a folder"),
        ("pvc://models/d", "SourceNotFound", "no .onnx file"),
        ("pvc://models/absent.onnx", "SourceNotFound", "there is no such file"),
    ] {
        refused(&request(uri), &env, reason, text).await;
    }
    let unmounted = Env { claim: root.path().join("nothing"), ..env.clone() };
    refused(&request("pvc://models/a"), &unmounted, "SourceNotFound", "the claim is not mounted").await;

    let source = pinned(&request("pvc://models/a"), &env).await;
    let claim = env.claim.clone();
    let pod = Pod::start(root);
    pod.assign(&[("fraud-r1", &source)]);
    let status = pod.fetched("fraud-r1").await;
    assert_eq!(status.digest, source.sha256);
    std::fs::write(claim.join("a/weights.bin"), vec![2; weights as usize]).unwrap();
    pod.assign(&[("fraud-r1", &source), ("fraud-r2", &source)]);
    assert_eq!(pod.failed("fraud-r2").await.0, "SourceChanged");
}
