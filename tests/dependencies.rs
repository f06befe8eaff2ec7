//! Each binary carries only what it needs.

use std::collections::BTreeSet;
use std::process::Command;

fn crates(feature: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges=normal", "--prefix=none", "--format={p}"])
        .args(["--no-default-features", "--features", feature])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_string).collect()
}

fn wall(feature: &str, banned: &[&str]) {
    let crates = crates(feature);
    assert!(crates.contains("tokio"), "cargo tree says nothing of {feature}");
    for name in banned {
        assert!(
            !crates.contains(*name),
            "{name} reaches the {feature}: cargo tree -i {name} --features {feature}"
        );
    }
}

#[test]
fn the_operator_knows_no_runtime_and_no_store() {
    wall("operator", &["ort", "ort-sys", "reqwest", "object_store", "tonic"]);
}

#[test]
fn the_loader_knows_no_cluster_and_no_runtime() {
    wall("loader", &["kube", "kube-client", "k8s-openapi", "ort", "ort-sys", "tonic"]);
}

#[test]
fn the_server_knows_no_cluster_and_no_store() {
    wall("server", &["kube", "kube-client", "k8s-openapi", "reqwest", "object_store"]);
}

#[test]
fn the_gateway_knows_no_runtime_and_no_store() {
    wall("gateway", &["ort", "ort-sys", "reqwest", "object_store", "tonic"]);
}

/// One TLS library, and none that is built from C++ or comes from the machine.
#[test]
fn there_is_one_tls_library() {
    for feature in ["operator", "gateway", "loader", "server"] {
        wall(feature, &["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"]);
    }
}
