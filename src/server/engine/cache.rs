//! What a GPU's provider compiles from a model, kept for the next load: minutes with TensorRT.
//!
//! One folder a key. TensorRT's own names for engines depend on the graph's structure, not on its weights: two versions
//! of one model would take each other's engine. So the model's digest is part of the key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

/// Where to keep it, and for which model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePlace {
    pub root: PathBuf,
    pub digest: String,
}

/// Folders of other keys go, the least recently loaded first, when all hold more than this together.
const LIMIT: u64 = 4 << 30;

impl CachePlace {
    /// The folder for this model and `settings` (provider, options, runtime, GPUs), which exists from now on.
    pub fn folder(&self, settings: &[&str]) -> io::Result<PathBuf> {
        self.folder_within(settings, LIMIT)
    }

    fn folder_within(&self, settings: &[&str], limit: u64) -> io::Result<PathBuf> {
        let mut key = Sha256::new();
        for part in std::iter::once(&self.digest.as_str()).chain(settings) {
            key.update((part.len() as u64).to_le_bytes());
            key.update(part);
        }
        let name: String = key.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let folder = self.root.join(name);
        fs::create_dir_all(&folder)?;
        // The time of the last load.
        fs::write(folder.join("used"), "")?;
        trim(&self.root, &folder, limit)?;
        Ok(folder)
    }
}

fn trim(root: &Path, ours: &Path, limit: u64) -> io::Result<()> {
    let mut folders: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        // What holds no such file is not ours to delete.
        if let Ok(used) = fs::metadata(path.join("used")).and_then(|m| m.modified()) {
            let size = size(&path)?;
            folders.push((used, path, size));
        }
    }
    folders.sort();
    let mut total: u64 = folders.iter().map(|(_, _, size)| size).sum();
    for (_, path, size) in folders {
        // A worker beside this one has its engine in memory already.
        if total > limit && path != ours {
            fs::remove_dir_all(path)?;
            total -= size;
        }
    }
    Ok(())
}

/// Engines lie side by side, without folders below.
fn size(folder: &Path) -> io::Result<u64> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// The driver and the GPUs' models: an engine is good for one architecture. Empty: no NVIDIA driver.
pub fn gpus() -> String {
    let mut models: Vec<String> = fs::read_dir("/proc/driver/nvidia/gpus")
        .into_iter()
        .flatten()
        .filter_map(|gpu| fs::read_to_string(gpu.ok()?.path().join("information")).ok())
        .filter_map(|text| text.lines().find(|line| line.starts_with("Model:")).map(str::to_string))
        .collect();
    models.sort();
    models.extend(fs::read_to_string("/proc/driver/nvidia/version"));
    models.join("\n")
}

#[cfg(test)]
mod tests;
