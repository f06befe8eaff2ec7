//! Pins a source and reads its graph; hashes the whole only when nothing else could hold it still.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::digest::{check, hex, whole};
use super::source::{Located, Source};
use super::{Env, LoadError, Result};
use crate::formats::{PinnedFile, PinnedSource, Resolved, SourceRequest};
use crate::onnx::{Model, ONNX_RUNTIME, Walk};

/// A hiccup is tried again here; a longer fault is the kubelet's to retry, with its backoff.
const TRIES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(10);
/// Far more than a report can name.
const MAX_FILES: usize = 1000;

/// What was found, and what it cost.
#[derive(Debug)]
pub struct Outcome {
    pub resolved: Resolved,
    pub requests: u64,
    pub bytes: u64,
}

/// Resolves a source.
pub async fn resolve(request: &SourceRequest, env: &Env) -> Result<Outcome> {
    if let Some(digest) = &request.digest {
        check(digest)?;
    }
    let start = Instant::now();
    let mut tries = 1;
    loop {
        match once(request, env).await {
            Err(e) if e.is_transient() && tries < TRIES && start.elapsed() < PATIENCE => {
                warn!(error = %e, tries, "source is unavailable, trying again");
                tokio::time::sleep(Duration::from_secs(tries as u64)).await;
                tries += 1;
            }
            result => return result,
        }
    }
}

async fn once(request: &SourceRequest, env: &Env) -> Result<Outcome> {
    let source = Source::open(request, env)?;
    let Located { folder, file } = source.locate().await?;
    let name = source.name(&folder, &file.path);
    let shown = source.show(&name);
    info!(model = shown, size = file.size, pin = ?file.pin, "model file found");

    let mut hashes = BTreeMap::new();
    let model = match &file.pin {
        Some(_) => walk(&source, &name, &shown, &file).await?,
        None => {
            let (model, hash) = walk_whole(&source, &name, &shown, &file).await?;
            hashes.insert(file.path.clone(), hash);
            model
        }
    };
    model.supported_by(&ONNX_RUNTIME).map_err(|e| LoadError::in_model(&shown, e))?;
    let files = external_files(&source, &folder, &shown, file, &model).await?;

    let immutable = files.iter().all(|file| file.pin.is_some());
    let mut sha256 = request.digest.clone();
    if !immutable {
        for file in files.iter().filter(|file| !hashes.contains_key(&file.path)).cloned().collect::<Vec<_>>()
        {
            let hash = hash(&source, &folder, &file).await?;
            hashes.insert(file.path, hash);
        }
        let computed = whole(&hashes.into_iter().collect::<Vec<_>>());
        if let Some(given) = request.digest.as_ref().filter(|given| **given != computed) {
            return Err(mismatch(&source, given, &computed));
        }
        sha256 = Some(computed);
    }
    Ok(Outcome {
        resolved: Resolved {
            source: PinnedSource { request: request.clone(), files, immutable, sha256 },
            graph: model.summary(),
        },
        requests: source.meter.requests.load(Ordering::Relaxed),
        bytes: source.meter.bytes.load(Ordering::Relaxed),
    })
}

pub(super) fn mismatch(source: &Source, given: &str, computed: &str) -> LoadError {
    LoadError::Digest(format!(
        "{}: the bytes have digest {computed}, and model.digest says {given}: correct one of them",
        source.uri()
    ))
}

/// Reads the graph by ranges of the pinned file.
async fn walk(source: &Source, name: &str, shown: &str, file: &PinnedFile) -> Result<Model> {
    let invalid = |e| LoadError::in_model(shown, e);
    let mut walk = Walk::new(file.size).map_err(invalid)?;
    while let Some(range) = walk.wanted().map_err(invalid)? {
        let range = range.offset..range.offset + range.len as u64;
        let bytes = source.read(name, file, range).await?;
        walk.supply(&bytes).map_err(invalid)?;
    }
    walk.finish().map_err(invalid)
}

/// Reads all of a file that can't be pinned, and hashes exactly the bytes that the graph was read from.
async fn walk_whole(source: &Source, name: &str, shown: &str, file: &PinnedFile) -> Result<(Model, String)> {
    let invalid = |e| LoadError::in_model(shown, e);
    let mut walk = Walk::new(file.size).map_err(invalid)?;
    let mut wanted = walk.wanted().map_err(invalid)?;
    let mut hash = Sha256::new();
    let mut offset = 0;
    let mut stream = source.stream(name, file).await?;
    while let Some(chunk) = stream.try_next().await? {
        source.meter.add(chunk.len());
        hash.update(&chunk);
        let end = offset + chunk.len() as u64;
        // Ranges only go forward, and a prefix of one will do.
        while let Some(range) = wanted.filter(|range| range.offset < end) {
            let from = range.offset.saturating_sub(offset) as usize;
            walk.supply(&chunk[from..]).map_err(invalid)?;
            wanted = walk.wanted().map_err(invalid)?;
        }
        offset = end;
    }
    whole_length(shown, offset, file.size)?;
    Ok((walk.finish().map_err(invalid)?, hex(hash)))
}

async fn hash(source: &Source, folder: &str, file: &PinnedFile) -> Result<String> {
    let name = source.name(folder, &file.path);
    let mut hash = Sha256::new();
    let mut read = 0;
    let mut stream = source.stream(&name, file).await?;
    while let Some(chunk) = stream.try_next().await? {
        source.meter.add(chunk.len());
        read += chunk.len() as u64;
        hash.update(&chunk);
    }
    whole_length(&source.show(&name), read, file.size)?;
    Ok(hex(hash))
}

pub(super) fn whole_length(shown: &str, read: u64, size: u64) -> Result<()> {
    if read == size {
        return Ok(());
    }
    Err(LoadError::Unavailable(format!("{shown}: the download broke off after {read} of {size} bytes")))
}

/// The model file, then the files that its tensors name.
async fn external_files(
    source: &Source,
    folder: &str,
    shown: &str,
    model_file: PinnedFile,
    model: &Model,
) -> Result<Vec<PinnedFile>> {
    if model.external.len() > MAX_FILES {
        let count = model.external.len();
        return Err(LoadError::Invalid(format!("{shown}: the graph names {count} external data files")));
    }
    let mut files = vec![model_file];
    // A model may be its own data file.
    for (path, external) in
        model.external.iter().filter(|(path, _)| **path != files[0].path).collect::<Vec<_>>()
    {
        let name = source.name(folder, path);
        let tensor = &external.tensor;
        let found = source.stat(&name).await.map_err(|e| match e {
            // A link in the model's folder: the store's rule is the model's fault.
            LoadError::Forbidden(text) if source.uri().starts_with("pvc://") => {
                LoadError::Invalid(format!("external data file {path} named by tensor {tensor}: {text}"))
            }
            other => other,
        })?;
        let Some((size, pin)) = found else {
            return Err(LoadError::Invalid(format!(
                "external data file {path} named by tensor {tensor} is missing beside the model file {shown}"
            )));
        };
        files.push(PinnedFile { path: path.clone(), size, pin });
    }
    let size_of = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.size);
    model.check_files(size_of).map_err(|e| LoadError::in_model(shown, e))?;
    Ok(files)
}
