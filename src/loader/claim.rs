//! `pvc://claim/path`: files below the claim's mount. No link is followed, at any step of a path: whoever can write
//! into the claim could point it at the loader's own credentials. (A hard link can't leave its file system.)

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rustix::fs::{FileType, Mode, OFlags, open, openat};
use rustix::io::Errno;

use super::client::Meter;
use super::source::{Located, Stream, folder_of, only_model};
use super::{Env, LoadError, Result};
use crate::formats::{Pin, PinnedFile};

const CHUNK: usize = 1 << 20;

#[derive(Clone)]
pub(super) struct Claim {
    root: PathBuf,
    claim: String,
    path: String,
    stall: Duration,
    meter: Arc<Meter>,
}

enum Opened {
    File(File, u64),
    Folder(OwnedFd),
}

impl Claim {
    pub fn open(rest: &str, env: &Env, meter: Arc<Meter>) -> Result<Self> {
        let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (claim, path) = (claim.to_owned(), path.trim_start_matches('/').to_owned());
        Ok(Self { root: env.claim.clone(), claim, path, stall: env.stall, meter })
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn show(&self, name: &str) -> String {
        format!("pvc://{}/{name}", self.claim)
    }

    pub async fn locate(&self) -> Result<Located> {
        self.blocking(|claim| match claim.walk(&claim.path)? {
            Some(Opened::File(_, size)) => {
                let path = claim.path.rsplit('/').next().unwrap_or_default().to_owned();
                let folder = folder_of(&claim.path, &path);
                Ok(Located { folder, file: PinnedFile { path, size, pin: None } })
            }
            Some(Opened::Folder(folder)) => {
                let shown = claim.show(&claim.path);
                let entries = rustix::fs::Dir::new(folder).map_err(|e| claim.fault(&claim.path, e))?;
                let names: Vec<String> = entries
                    .take(10_000)
                    .filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()))
                    .collect();
                let path = only_model(names.iter().map(String::as_str), &shown)?;
                let folder = folder_of(&claim.path, "\0");
                match claim.walk(&format!("{folder}{path}"))? {
                    Some(Opened::File(_, size)) => {
                        Ok(Located { folder, file: PinnedFile { path, size, pin: None } })
                    }
                    _ => Err(LoadError::NotFound(format!("{shown}: {path} is no file"))),
                }
            }
            None => Err(claim.missing(&claim.path)),
        })
        .await
    }

    pub async fn stat(&self, name: &str) -> Result<Option<(u64, Option<Pin>)>> {
        let name = name.to_owned();
        self.blocking(move |claim| match claim.walk(&name)? {
            Some(Opened::File(_, size)) => Ok(Some((size, None))),
            Some(Opened::Folder(_)) | None => Ok(None),
        })
        .await
    }

    pub async fn stream(&self, name: &str) -> Result<Stream> {
        let name = name.to_owned();
        let opened = name.clone();
        let file = self
            .blocking(move |claim| match claim.walk(&opened)? {
                Some(Opened::File(file, _)) => Ok(file),
                Some(Opened::Folder(_)) | None => Err(claim.missing(&opened)),
            })
            .await?;
        let next = move |(claim, name, mut file): (Claim, String, File)| async move {
            let (task, shown) = (claim.clone(), name.clone());
            let read = task
                .blocking(move |claim| {
                    let mut chunk = vec![0; CHUNK];
                    let n = file.read(&mut chunk).map_err(|e| {
                        LoadError::Unavailable(format!("{}: reading failed: {e}", claim.show(&shown)))
                    })?;
                    chunk.truncate(n);
                    Ok((Bytes::from(chunk), file))
                })
                .await;
            match read {
                Ok((chunk, _)) if chunk.is_empty() => None,
                Ok((chunk, file)) => Some((Ok(chunk), Some((claim, name, file)))),
                Err(e) => Some((Err(e), None)),
            }
        };
        let start = Some((self.clone(), name, file));
        Ok(futures::stream::unfold(start, move |state| async move { next(state?).await }).boxed())
    }

    /// A volume whose server is gone blocks for ever: that must not look like patience.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Claim) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let claim = self.clone();
        self.meter.request();
        let silent = || {
            let text = format!("{}: the volume gave no answer in {:?}", self.show(&self.path), self.stall);
            LoadError::Unavailable(text)
        };
        let task = tokio::task::spawn_blocking(move || work(&claim));
        match tokio::time::timeout(self.stall, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(silent()),
        }
    }

    /// Opens step by step, each without following a link.
    fn walk(&self, name: &str) -> Result<Option<Opened>> {
        let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = open(&self.root, folder, Mode::empty()).map_err(|_| {
            let text = format!("{}: the claim is not mounted at {}", self.show(name), self.root.display());
            LoadError::NotFound(text)
        })?;
        for part in name.split('/').filter(|part| !part.is_empty()) {
            if part == ".." || part == "." {
                return Err(LoadError::Forbidden(format!("{} has a dot component", self.show(name))));
            }
            // NONBLOCK: a named pipe would wait for a writer.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            at = match openat(&at, part, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(Errno::LOOP) => {
                    let text =
                        format!("{}: {part} is a symbolic link, and none is followed", self.show(name));
                    return Err(LoadError::Forbidden(text));
                }
                Err(Errno::ACCESS | Errno::PERM) => {
                    let text = format!("{}: the loader's user may not read {part}", self.show(name));
                    return Err(LoadError::Forbidden(text));
                }
                Err(e) => return Err(self.fault(name, e)),
            };
        }
        let stat = rustix::fs::fstat(&at).map_err(|e| self.fault(name, e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                Ok(Some(Opened::File(File::from(at), u64::try_from(stat.st_size).unwrap_or(0))))
            }
            FileType::Directory => Ok(Some(Opened::Folder(at))),
            _ => Err(LoadError::Forbidden(format!("{} is neither a file nor a folder", self.show(name)))),
        }
    }

    fn missing(&self, name: &str) -> LoadError {
        LoadError::NotFound(format!("{}: there is no such file; check model.uri", self.show(name)))
    }

    fn fault(&self, name: &str, e: Errno) -> LoadError {
        LoadError::Unavailable(format!("{}: {}", self.show(name), std::io::Error::from(e)))
    }
}
