//! Keeps a pod's folder as its assignment says, for the pod's whole life.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::fs;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::cache::Near;
use super::fetch::{Fetch, Fetched, reuse};
use super::{Env, LoadError};
use crate::formats::{Assignment, Assignments, FORMAT_VERSION, LoadPhase, LoadStatus, PinnedSource, paths};

/// The kubelet takes seconds to deliver a change: looking once a second loses nothing, and misses nothing.
const LOOK: Duration = Duration::from_secs(1);
/// Seconds between tries; the last for ever, so that a store that comes back is found within it.
const BACKOFF: [u64; 5] = [1, 2, 4, 8, 15];

/// Where the agent reads and writes.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The `Assignments` file.
    pub assignment: PathBuf,
    pub models: PathBuf,
}

impl Default for Folders {
    fn default() -> Self {
        Self { assignment: paths::ASSIGNMENT.into(), models: paths::MODELS.into() }
    }
}

impl Folders {
    fn ready(&self, revision: &str) -> PathBuf {
        self.models.join("revisions").join(revision)
    }

    fn incoming(&self, revision: &str) -> PathBuf {
        self.models.join("incoming").join(revision)
    }

    fn status(&self, revision: &str) -> PathBuf {
        self.models.join("status").join(format!("{revision}.json"))
    }
}

struct Job {
    source: PinnedSource,
    task: JoinHandle<()>,
}

/// Runs until dropped.
pub async fn run(folders: Folders, env: Env) {
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    let mut seen = None;
    let mut told = String::new();
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        match read(&folders.assignment).await {
            Ok(assignments) if seen.as_ref() != Some(&assignments) => {
                apply(&assignments, &mut jobs, &folders, &env).await;
                seen = Some(assignments);
                told.clear();
            }
            Ok(_) => {}
            // What can't be read is not an empty list: nothing is thrown away.
            Err(text) if text != told => {
                warn!(file = %folders.assignment.display(), error = text, "assignment is not readable, keeping what is there");
                told = text;
            }
            Err(_) => {}
        }
    }
}

async fn read(path: &Path) -> Result<Vec<Assignment>, String> {
    let text = fs::read(path).await.map_err(|e| e.to_string())?;
    let read: Assignments = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    // Who runs which is the server's.
    let all = [read.assignments, read.fetch_only].concat();
    // It names folders: nothing but a name may come in.
    let is_name = |r: &str| {
        !r.is_empty() && r.len() <= 253 && r.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    match all.iter().find(|a| !is_name(&a.revision)) {
        Some(bad) => Err(format!("{:?} is no revision's name", bad.revision)),
        None => Ok(all),
    }
}

async fn apply(assignments: &[Assignment], jobs: &mut BTreeMap<String, Job>, folders: &Folders, env: &Env) {
    let wanted: BTreeMap<&str, &Assignment> = assignments.iter().map(|a| (a.revision.as_str(), a)).collect();
    let mut gone: Vec<String> = Vec::new();
    for (revision, job) in jobs.iter() {
        if wanted.get(revision.as_str()).is_none_or(|a| a.source != job.source) {
            gone.push(revision.clone());
        }
    }
    for revision in gone {
        if let Some(job) = jobs.remove(&revision) {
            job.task.abort();
            // Ended before its folder goes, or it would write on.
            let _ = job.task.await;
            info!(revision, "no longer assigned");
        }
    }
    sweep(folders, |revision| wanted.contains_key(revision)).await;
    for (revision, assignment) in wanted {
        if !jobs.contains_key(revision) {
            let (folders, env, source) = (folders.clone(), env.clone(), assignment.source.clone());
            let task = tokio::spawn(keep(revision.to_owned(), source.clone(), folders, env));
            jobs.insert(revision.to_owned(), Job { source, task });
        }
    }
}

/// Removes what belongs to no assigned revision, also what an earlier run of this container left.
async fn sweep(folders: &Folders, is_wanted: impl Fn(&str) -> bool) {
    for kind in ["revisions", "incoming", "status"] {
        let Ok(mut entries) = fs::read_dir(folders.models.join(kind)).await else { continue };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_wanted(name.strip_suffix(".json").unwrap_or(&name)) {
                continue;
            }
            let path = entry.path();
            let removed =
                if kind == "status" { fs::remove_file(&path).await } else { fs::remove_dir_all(&path).await };
            if let Err(e) = removed {
                warn!(path = %path.display(), error = %e, "can't remove");
            }
        }
    }
}

/// Fetches one revision, and goes on trying until it is there.
async fn keep(revision: String, source: PinnedSource, folders: Folders, env: Env) {
    let path = folders.status(&revision);
    let mut status = Status { path, total: source.size(), start: Instant::now() };
    let (incoming, ready) = (folders.incoming(&revision), folders.ready(&revision));
    if let Some(fetched) = reuse(&source, &ready, status.known_digest().await.as_deref()).await {
        info!(revision, digest = fetched.digest, "already there");
        return status.fetched(&fetched).await;
    }
    for parent in [&incoming, &ready].into_iter().filter_map(|path| path.parent()) {
        // A fault shows again, with words, when the fetch writes there.
        let _ = fs::create_dir_all(parent).await;
    }
    let mut tries = 0;
    loop {
        status.start = Instant::now();
        if tries == 0 {
            // Later tries keep the reason in view until bytes flow again.
            status.fetching(0).await;
        }
        let near = Near::of(&source, &env);
        match watched(&source, &incoming, &ready, &env, near.as_ref(), &status).await {
            Ok(fetched) => {
                let seconds = status.start.elapsed().as_secs_f64();
                let from_cache = fetched.from_cache;
                info!(
                    revision,
                    digest = fetched.digest,
                    bytes = status.total,
                    seconds,
                    from_cache,
                    "fetched"
                );
                status.fetched(&fetched).await;
                if let Some(near) = near.filter(|_| from_cache < source.files.len()) {
                    for (file, sha256) in source.files.iter().zip(&fetched.sha256) {
                        near.put(file, sha256, &ready.join(&file.path)).await;
                    }
                }
                return;
            }
            Err(error) => {
                let wait = BACKOFF[tries.min(BACKOFF.len() - 1)];
                warn!(revision, reason = error.reason(), error = %error, retry_seconds = wait, "fetch failed");
                status.failed(&error).await;
                tries += 1;
                tokio::time::sleep(Duration::from_secs(wait)).await;
            }
        }
    }
}

/// A fetch, and a look at how far it is once a second.
async fn watched(
    source: &PinnedSource,
    incoming: &Path,
    ready: &Path,
    env: &Env,
    near: Option<&Near>,
    status: &Status,
) -> Result<Fetched, LoadError> {
    let written = AtomicU64::new(0);
    let fetch = Fetch { pinned: source, incoming, ready, env, written: &written };
    let mut fetch = pin!(fetch.run(near));
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            result = &mut fetch => return result,
            _ = tick.tick() => match written.load(Ordering::Relaxed) {
                0 => {}
                bytes => status.fetching(bytes).await,
            },
        }
    }
}

/// The revision's `LoadStatus` file.
struct Status {
    path: PathBuf,
    total: u64,
    start: Instant,
}

impl Status {
    /// What an earlier run of this container verified.
    async fn known_digest(&self) -> Option<String> {
        let status: LoadStatus = serde_json::from_slice(&fs::read(&self.path).await.ok()?).ok()?;
        status.digest.filter(|_| status.phase == LoadPhase::Fetched)
    }

    async fn fetching(&self, bytes: u64) {
        self.write(LoadStatus { bytes, ..self.status(LoadPhase::Fetching) }).await;
    }

    async fn fetched(&self, fetched: &Fetched) {
        self.write(LoadStatus {
            bytes: self.total,
            model_file: Some(fetched.model_file.clone()),
            digest: Some(fetched.digest.clone()),
            ..self.status(LoadPhase::Fetched)
        })
        .await;
    }

    async fn failed(&self, error: &LoadError) {
        self.write(LoadStatus {
            reason: Some(error.reason().into()),
            message: Some(error.to_string()),
            ..self.status(LoadPhase::Failed)
        })
        .await;
    }

    fn status(&self, phase: LoadPhase) -> LoadStatus {
        LoadStatus {
            format_version: FORMAT_VERSION,
            phase,
            reason: None,
            message: None,
            model_file: None,
            digest: None,
            bytes: 0,
            total_bytes: self.total,
            seconds: self.start.elapsed().as_secs_f64(),
        }
    }

    async fn write(&self, status: LoadStatus) {
        if let Err(e) = self.try_write(&status).await {
            warn!(path = %self.path.display(), error = %e, "can't write the load status");
        }
    }

    /// By rename: a reader never sees half of it.
    async fn try_write(&self, status: &LoadStatus) -> std::io::Result<()> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).await?;
        }
        let next = self.path.with_extension("next");
        fs::write(&next, serde_json::to_vec(status)?).await?;
        fs::rename(&next, &self.path).await
    }
}
