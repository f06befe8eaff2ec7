//! What Kubernetes mounts for the loader. Both volumes are optional, so that a missing one is said by name here, and
//! picked up by the next try once it is created.

use std::fs;
use std::path::Path;

use reqwest::Certificate;

use super::{Env, LoadError, Result};
use crate::formats::SourceRequest;

const MAX_FILE: u64 = 1 << 20;

/// The Secret that a request names.
pub(super) struct Secret<'a> {
    name: &'a str,
    folder: &'a Path,
}

impl<'a> Secret<'a> {
    /// `None` when the request names none.
    pub fn of(request: &'a SourceRequest, env: &'a Env) -> Result<Option<Self>> {
        let Some(name) = request.secret_name.as_deref() else { return Ok(None) };
        let secret = Secret { name, folder: &env.secret };
        if files(secret.folder).is_empty() {
            return Err(LoadError::Secret(format!(
                "Secret {name} (model.secretRef) does not exist in this namespace, or holds no keys: create it"
            )));
        }
        Ok(Some(secret))
    }

    pub fn get(&self, key: &str) -> Result<Option<String>> {
        match read(&self.folder.join(key)) {
            Ok(Some(bytes)) => match String::from_utf8(bytes) {
                // Editors and `kubectl create secret --from-file` leave a line's end.
                Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(_) => Err(self.unusable(key, "is not text")),
            },
            Ok(None) => Ok(None),
            Err(e) => Err(self.unusable(key, &format!("can't be read: {}", e.kind()))),
        }
    }

    pub fn need(&self, key: &str) -> Result<String> {
        self.get(key)?.ok_or_else(|| {
            LoadError::Secret(format!("Secret {} (model.secretRef) has no key {key}: add it", self.name))
        })
    }

    pub fn lacks(&self, keys: &str) -> LoadError {
        LoadError::Secret(format!("Secret {} (model.secretRef) has neither {keys}: add one", self.name))
    }

    pub fn unusable(&self, key: &str, what: &str) -> LoadError {
        LoadError::Secret(format!("key {key} of Secret {} (model.secretRef) {what}", self.name))
    }
}

/// The certificates of the ConfigMap that a request names.
pub(super) fn ca_bundle(request: &SourceRequest, env: &Env) -> Result<Vec<Certificate>> {
    let Some(name) = request.ca_bundle_name.as_deref() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for path in files(&env.ca) {
        let pem = read(&path).ok().flatten().unwrap_or_default();
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|_| {
            let key = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            LoadError::Secret(format!("key {key} of ConfigMap {name} (model.caBundleRef) is not PEM"))
        })?;
        found.extend(certificates);
    }
    if found.is_empty() {
        return Err(LoadError::Secret(format!(
            "ConfigMap {name} (model.caBundleRef) does not exist in this namespace, or holds no certificate: create it"
        )));
    }
    Ok(found)
}

/// The keys of a mounted volume; `..data` and its like are the kubelet's.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with(".."))
        .map(|entry| entry.path())
        .collect();
    files.sort_unstable();
    files
}

fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    match fs::File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(MAX_FILE).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
