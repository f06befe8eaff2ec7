//! Writes the CustomResourceDefinitions: `cargo run --bin crdgen crds`.

use std::path::PathBuf;

use kube::CustomResourceExt;
use modelwright::api::{ModelDeployment, ModelRoute, SCHEMA_REVISION, annotations};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("want a folder: crdgen crds")?);
    for (name, mut crd) in [("modeldeployments", ModelDeployment::crd()), ("modelroutes", ModelRoute::crd())]
    {
        crd.metadata
            .annotations
            .get_or_insert_default()
            .insert(annotations::SCHEMA_REVISION.into(), SCHEMA_REVISION.to_string());
        std::fs::write(folder.join(name).with_extension("yaml"), serde_yaml::to_string(&crd)?)?;
    }
    Ok(())
}
