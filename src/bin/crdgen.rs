//! Prints the CustomResourceDefinition: `cargo run --bin crdgen > crds/modeldeployments.yaml`.

use kube::CustomResourceExt;
use modelwright::api::{ModelDeployment, SCHEMA_REVISION, annotations};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut crd = ModelDeployment::crd();
    crd.metadata
        .annotations
        .get_or_insert_default()
        .insert(annotations::SCHEMA_REVISION.into(), SCHEMA_REVISION.to_string());
    print!("{}", serde_yaml::to_string(&crd)?);
    Ok(())
}
