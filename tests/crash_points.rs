//! Crash points are for tests: what ships must not know them.

/// The variable that arms them; it stands in the binary as text.
const NEEDLE: &[u8] = b"MODELWRIGHT_CRASH";

#[test]
fn only_a_build_with_the_feature_faults_has_crash_points() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_modelwright-operator")).expect("the operator's binary");
    let found = binary.windows(NEEDLE.len()).any(|window| window == NEEDLE);
    assert_eq!(found, cfg!(feature = "faults"));
}

#[test]
fn no_default_and_no_shipped_feature_brings_faults_in() {
    let manifest = include_str!("../Cargo.toml");
    let features = manifest.split_once("[features]").expect("features").1;
    let features = features.split_once("\n[").expect("an end").0;
    let brings =
        |line: &&str| !line.starts_with('#') && !line.starts_with("faults =") && line.contains("\"faults\"");
    assert_eq!(features.lines().find(brings), None);
}
