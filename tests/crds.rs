//! The committed CustomResourceDefinition is the one that the code means. That the chart ships it: tests/chart.rs.
#![cfg(feature = "operator")]

use serde_json::Value;

const COMMITTED: &str = include_str!("../crds/modeldeployments.yaml");

#[test]
fn the_committed_definition_is_fresh() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_crdgen")).output().unwrap();
    assert!(output.status.success());
    let fresh = String::from_utf8(output.stdout).unwrap();
    assert!(fresh == COMMITTED, "run: cargo run --bin crdgen > crds/modeldeployments.yaml");
}

/// kubectl apply stores the object in an annotation, which the API server bounds.
#[test]
fn the_definition_fits_an_annotation() {
    let json = serde_json::to_string(&serde_yaml::from_str::<Value>(COMMITTED).unwrap()).unwrap();
    assert!(json.len() < 200 << 10, "{} bytes of 262,144", json.len());
}
