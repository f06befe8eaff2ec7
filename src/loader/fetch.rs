//! Brings one revision's files into the pod: the bytes that are written are the bytes that were hashed.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use tokio::fs;
use tokio::io::AsyncWriteExt;
use tracing::{debug, warn};

use super::cache::{Cached, Near};
use super::digest::{hex, whole};
use super::resolve::{mismatch, whole_length};
use super::source::Source;
use super::{Env, LoadError, Result};
use crate::formats::{PinnedFile, PinnedSource};
use crate::onnx::check_location;

/// What stands in the revision's folder.
pub(super) struct Fetched {
    pub model_file: String,
    pub digest: String,
    /// Of each file, in the order of the pinned ones.
    pub sha256: Vec<String>,
    /// Files that the node cache gave.
    pub from_cache: usize,
}

/// One revision's files, on their way into `incoming`; verified, they are renamed to `ready`.
pub(super) struct Fetch<'a> {
    pub pinned: &'a PinnedSource,
    pub incoming: &'a Path,
    pub ready: &'a Path,
    pub env: &'a Env,
    /// Counts bytes as they go.
    pub written: &'a AtomicU64,
}

impl Fetch<'_> {
    /// What goes wrong with the node cache's part is done again without it.
    pub async fn run(&self, near: Option<&Near>) -> Result<Fetched> {
        let mut from_cache = 0;
        match self.attempt(near, &mut from_cache).await {
            Err(error) if from_cache > 0 => {
                warn!(%error, from_cache, "with files of the node cache; asking the source for all of them");
                self.attempt(None, &mut 0).await
            }
            done => done,
        }
    }

    async fn attempt(&self, near: Option<&Near>, from_cache: &mut usize) -> Result<Fetched> {
        let Self { pinned, incoming, ready, env, written } = *self;
        let model_file = check(pinned)?;
        let source = Source::open(&pinned.request, env)?;
        let folder = source.folder(&model_file);
        let total = pinned.size();
        let disk = |e: io::Error| disk(incoming, total, &e);

        clear(incoming).await.map_err(disk)?;
        fs::create_dir_all(incoming).await.map_err(disk)?;
        room(incoming, total)?;
        written.store(0, Ordering::Relaxed);
        let mut hashes = Vec::with_capacity(pinned.files.len());
        for file in &pinned.files {
            let name = source.name(&folder, &file.path);
            let path = incoming.join(&file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).await.map_err(disk)?;
            }
            let (mut stream, expected) = match cached(&source, near, &name, file).await {
                Some(cached) => {
                    *from_cache += 1;
                    (cached.stream, Some(cached.sha256))
                }
                None => (source.stream(&name, file).await?, None),
            };
            let mut out =
                fs::OpenOptions::new().write(true).create_new(true).open(&path).await.map_err(disk)?;
            let (mut hash, mut size) = (Sha256::new(), 0);
            while let Some(chunk) = stream.try_next().await.map_err(|e| broken_off(e, size, file.size))? {
                size += chunk.len() as u64;
                if size > file.size {
                    let text = format!(
                        "{} is longer than the {} bytes that were resolved",
                        source.show(&name),
                        file.size
                    );
                    return Err(LoadError::Changed(text));
                }
                hash.update(&chunk);
                out.write_all(&chunk).await.map_err(disk)?;
                written.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            out.flush().await.map_err(disk)?;
            if pinned.immutable {
                whole_length(&source.show(&name), size, file.size)?;
            } else if size != file.size {
                return Err(changed(&source));
            }
            let hash = hex(hash);
            if expected.is_some_and(|expected| expected != hash) {
                return Err(LoadError::Unavailable(format!(
                    "{}: its bytes have changed on the node",
                    file.path
                )));
            }
            hashes.push((file.path.clone(), hash));
        }
        let digest = whole(&hashes);
        verify(pinned, &source, &digest)?;
        clear(ready).await.map_err(disk)?;
        fs::rename(incoming, ready).await.map_err(disk)?;
        let sha256 = hashes.into_iter().map(|(_, hash)| hash).collect();
        Ok(Fetched { model_file, digest, sha256, from_cache: *from_cache })
    }
}

/// From the node cache, if the store still gives us the pinned file: a credential that was withdrawn is withdrawn here,
/// too. One byte says so as well as HEAD, which tells of no version on some stores.
async fn cached(source: &Source, near: Option<&Near>, name: &str, file: &PinnedFile) -> Option<Cached> {
    let cached = near.filter(|_| file.size > 0)?.get(file).await?;
    match source.read(name, file, 0..1).await {
        Ok(_) => Some(cached),
        Err(error) => {
            debug!(%error, "not taken from the node cache: the source does not give its first byte");
            None
        }
    }
}

/// A folder left by an earlier run of the loader: taken when its bytes are the right ones.
pub(super) async fn reuse(pinned: &PinnedSource, ready: &Path, known: Option<&str>) -> Option<Fetched> {
    let model_file = check(pinned).ok()?;
    let (pinned, ready) = (pinned.clone(), ready.to_owned());
    let known = pinned.sha256.clone().or(pinned.request.digest.clone()).or(known.map(str::to_owned))?;
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hashes = Vec::with_capacity(pinned.files.len());
        for file in &pinned.files {
            let mut hash = HashWriter(Sha256::new());
            let size = io::copy(&mut std::fs::File::open(ready.join(&file.path)).ok()?, &mut hash).ok()?;
            if size != file.size {
                return None;
            }
            hashes.push((file.path.clone(), hex(hash.0)));
        }
        Some(whole(&hashes))
    });
    let digest = hashed.await.ok()??;
    (digest == known).then_some(Fetched { model_file, digest, sha256: Vec::new(), from_cache: 0 })
}

/// How far it came tells a server that ends early from one that never answers.
fn broken_off(error: LoadError, read: u64, size: u64) -> LoadError {
    match error {
        LoadError::Unavailable(text) => {
            LoadError::Unavailable(format!("{text}: the download broke off after {read} of {size} bytes"))
        }
        other => other,
    }
}

struct HashWriter(Sha256);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The files' paths come from outside the pod: they are held to the rule of external data once more.
fn check(pinned: &PinnedSource) -> Result<String> {
    for file in &pinned.files {
        match check_location(&file.path) {
            Ok(path) if path == file.path => {}
            Ok(_) => {
                return Err(LoadError::Invalid(format!("the path {:?} is not in its plain form", file.path)));
            }
            Err(rule) => return Err(LoadError::Invalid(format!("the path {:?} {rule}", file.path))),
        }
    }
    let model = pinned.files.first();
    model.map(|file| file.path.clone()).ok_or_else(|| LoadError::Invalid("the source has no files".into()))
}

fn verify(pinned: &PinnedSource, source: &Source, digest: &str) -> Result<()> {
    if let Some(given) = pinned.request.digest.as_deref().filter(|given| *given != digest) {
        // The resolve pod has seen a mutable source match.
        return Err(if pinned.immutable { mismatch(source, given, digest) } else { changed(source) });
    }
    if pinned.sha256.as_deref().is_some_and(|known| known != digest) {
        return Err(changed(source));
    }
    Ok(())
}

fn changed(source: &Source) -> LoadError {
    LoadError::Changed(format!("{}: the bytes have changed since they were resolved", source.uri()))
}

async fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Says early what a full disk would say late.
fn room(folder: &Path, total: u64) -> Result<()> {
    match free(folder) {
        Some(free) if free < total => Err(LoadError::Unavailable(format!(
            "the model needs {total} bytes, and the pod's volume has {free} free: make room on the node"
        ))),
        _ => Ok(()),
    }
}

fn free(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

fn disk(folder: &Path, total: u64, e: &io::Error) -> LoadError {
    if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        let free = free(folder).unwrap_or(0);
        let text = format!("the model needs {total} bytes, and the pod's volume is full ({free} left)");
        return LoadError::Unavailable(text);
    }
    LoadError::Unavailable(format!("writing below {} failed: {e}", folder.display()))
}
