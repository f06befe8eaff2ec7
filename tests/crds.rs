//! The committed CustomResourceDefinitions, and the chart's copies of them (a chart can't reach out of its folder), are
//! those that the code means.
#![cfg(feature = "operator")]

use std::path::Path;

use serde_json::Value;

macro_rules! committed {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../crds/", $name)),
            include_str!(concat!("../charts/modelwright/files/crds/", $name)),
        )
    };
}

const COMMITTED: [(&str, &str, &str); 2] =
    [committed!("modeldeployments.yaml"), committed!("modelroutes.yaml")];

#[test]
fn the_committed_definitions_are_fresh() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crds");
    std::fs::create_dir_all(&folder).unwrap();
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_crdgen")).arg(&folder).status().unwrap();
    assert!(status.success());
    for (name, committed, shipped) in COMMITTED {
        let fresh = std::fs::read_to_string(folder.join(name)).unwrap();
        let same = fresh == committed && fresh == shipped;
        assert!(same, "{name}: run: cargo run --bin crdgen crds charts/modelwright/files/crds");
    }
}

/// kubectl apply stores the object in an annotation, which the API server bounds.
#[test]
fn a_definition_fits_an_annotation() {
    for (name, committed, _) in COMMITTED {
        let json = serde_json::to_string(&serde_yaml::from_str::<Value>(committed).unwrap()).unwrap();
        assert!(json.len() < 200 << 10, "{name}: {} bytes of 262,144", json.len());
    }
}
