//! The committed CustomResourceDefinitions are those that the code means. That the chart ships them: tests/chart.rs.
#![cfg(feature = "operator")]

use std::path::Path;

use serde_json::Value;

const COMMITTED: [(&str, &str); 2] = [
    ("modeldeployments.yaml", include_str!("../crds/modeldeployments.yaml")),
    ("modelroutes.yaml", include_str!("../crds/modelroutes.yaml")),
];

#[test]
fn the_committed_definitions_are_fresh() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crds");
    std::fs::create_dir_all(&folder).unwrap();
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_crdgen")).arg(&folder).status().unwrap();
    assert!(status.success());
    for (name, committed) in COMMITTED {
        let fresh = std::fs::read_to_string(folder.join(name)).unwrap();
        assert!(fresh == committed, "{name}: run: cargo run --bin crdgen crds");
    }
}

/// kubectl apply stores the object in an annotation, which the API server bounds.
#[test]
fn a_definition_fits_an_annotation() {
    for (name, committed) in COMMITTED {
        let json = serde_json::to_string(&serde_yaml::from_str::<Value>(committed).unwrap()).unwrap();
        assert!(json.len() < 200 << 10, "{name}: {} bytes of 262,144", json.len());
    }
}
