//! Writes the CustomResourceDefinitions: `cargo run --bin crdgen crds charts/modelwright/files/crds`.

use std::path::PathBuf;

use kube::CustomResourceExt;
use modelwright::api::{ModelDeployment, ModelRoute, SCHEMA_REVISION, annotations};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folders: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    if folders.is_empty() {
        return Err("want folders: crdgen crds charts/modelwright/files/crds".into());
    }
    for (name, mut crd) in [("modeldeployments", ModelDeployment::crd()), ("modelroutes", ModelRoute::crd())]
    {
        crd.metadata
            .annotations
            .get_or_insert_default()
            .insert(annotations::SCHEMA_REVISION.into(), SCHEMA_REVISION.to_string());
        let text = serde_yaml::to_string(&crd)?;
        for folder in &folders {
            std::fs::write(folder.join(name).with_extension("yaml"), &text)?;
        }
    }
    Ok(())
}
