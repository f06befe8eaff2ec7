//! One face for every kind of store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::claim::Claim;
use super::client::{Meter, transport};
use super::hub::Hub;
use super::s3::S3;
use super::web::Http;
use super::{Env, LoadError, Result};
use crate::formats::{Pin, PinnedFile, SourceRequest};

pub(super) type Stream = BoxStream<'static, Result<Bytes>>;

/// Where the model was found.
pub(super) struct Located {
    /// What stands before the path of every file of the model, ending in `/` or empty.
    pub folder: String,
    pub file: PinnedFile,
}

pub(super) struct Source {
    uri: String,
    store: Store,
    pub meter: Arc<Meter>,
}

enum Store {
    S3(Box<S3>),
    Http(Box<Http>),
    Hub(Box<Hub>),
    Claim(Claim),
}

impl Source {
    pub fn open(request: &SourceRequest, env: &Env) -> Result<Self> {
        let uri = request.uri.as_str();
        let (scheme, rest) = uri
            .split_once("://")
            .ok_or_else(|| LoadError::NotFound(format!("{uri:?} has no scheme such as s3://")))?;
        if uri.len() > 2048 || rest.chars().any(|c| c.is_control() || c.is_whitespace() || "?#\\".contains(c))
        {
            return Err(LoadError::NotFound(format!("{uri:?} is no source address")));
        }
        if rest.split('/').any(|part| part == ".." || part == ".") {
            return Err(LoadError::Forbidden(format!("{uri} has a dot component")));
        }
        let meter = Arc::new(Meter::default());
        let store = match scheme {
            "s3" => Store::S3(Box::new(S3::open(request, rest, env, meter.clone())?)),
            "http" | "https" => Store::Http(Box::new(Http::open(request, env, meter.clone())?)),
            "hf" => Store::Hub(Box::new(Hub::open(request, rest, env, meter.clone())?)),
            "pvc" => Store::Claim(Claim::open(rest, env, meter.clone())?),
            other => return Err(LoadError::NotFound(format!("{uri}: no store is known for {other}://"))),
        };
        Ok(Self { uri: uri.to_owned(), store, meter })
    }

    /// Finds the model file: the address itself, or the one `.onnx` directly in it.
    pub async fn locate(&self) -> Result<Located> {
        match &self.store {
            Store::S3(s3) => s3.locate().await,
            Store::Http(http) => http.locate().await,
            Store::Hub(hub) => hub.locate().await,
            Store::Claim(claim) => claim.locate().await,
        }
    }

    /// The folder of a source that was located before: by another process, months ago.
    pub fn folder(&self, model: &str) -> String {
        let whole = match &self.store {
            Store::S3(s3) => s3.key(),
            Store::Http(http) => return http.folder(),
            Store::Hub(hub) => hub.path(),
            Store::Claim(claim) => claim.path(),
        };
        folder_of(whole, model)
    }

    /// The store's own name for a file of the model.
    pub fn name(&self, folder: &str, path: &str) -> String {
        match &self.store {
            Store::Http(http) => http.name(folder, path),
            _ => format!("{folder}{path}"),
        }
    }

    /// A file's name as people know it.
    pub fn show(&self, name: &str) -> String {
        match &self.store {
            Store::S3(s3) => s3.show(name),
            Store::Http(_) => name.to_owned(),
            Store::Hub(hub) => hub.show(name),
            Store::Claim(claim) => claim.show(name),
        }
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// A file beside the model; `None` when there is none.
    pub async fn stat(&self, name: &str) -> Result<Option<(u64, Option<Pin>)>> {
        match &self.store {
            Store::S3(s3) => s3.stat(name).await,
            Store::Http(http) => http.stat(name).await,
            Store::Hub(hub) => hub.stat(name).await,
            Store::Claim(claim) => claim.stat(name).await,
        }
    }

    /// Exactly these bytes of the pinned file.
    pub async fn read(&self, name: &str, file: &PinnedFile, range: Range<u64>) -> Result<Bytes> {
        match &self.store {
            Store::S3(s3) => s3.read(name, file, range).await,
            Store::Http(http) => http.read(name, file, range).await,
            Store::Hub(hub) => hub.read(name, file, range).await,
            // Never pinned, so read as a stream only.
            Store::Claim(_) => Err(LoadError::Changed(format!("{} has no pin", self.show(name)))),
        }
    }

    /// The whole pinned file.
    pub async fn stream(&self, name: &str, file: &PinnedFile) -> Result<Stream> {
        match &self.store {
            Store::S3(s3) => s3.stream(name, file).await,
            Store::Http(http) => http.stream(name, file).await,
            Store::Hub(hub) => hub.stream(name, file).await,
            Store::Claim(claim) => claim.stream(name).await,
        }
    }
}

/// `a/b/model.onnx` and `model.onnx`: `a/b/`. `a/b` and `model.onnx`: `a/b/`.
/// No folder that a source names ends in `.onnx`, so the two can't be confused.
pub(super) fn folder_of(whole: &str, model: &str) -> String {
    let trimmed = whole.trim_end_matches('/');
    if trimmed.len() == whole.len()
        && let Some(folder) = whole.strip_suffix(model)
        && (folder.is_empty() || folder.ends_with('/'))
    {
        return folder.to_owned();
    }
    if trimmed.is_empty() { String::new() } else { format!("{trimmed}/") }
}

/// The one `.onnx` among the names directly in a folder.
pub(super) fn only_model<'a>(names: impl Iterator<Item = &'a str>, shown: &str) -> Result<String> {
    let mut models: Vec<&str> = names.filter(|n| n.ends_with(".onnx") && !n.contains('/')).collect();
    models.sort_unstable();
    match models.as_slice() {
        [] => {
            Err(LoadError::NotFound(format!("{shown}: no .onnx file stands in this folder; check model.uri")))
        }
        [one] => Ok((*one).to_owned()),
        [one, two, ..] => {
            let count = models.len();
            let text =
                format!("{shown}: {count} .onnx files stand in this folder ({one}, {two}, …): name one");
            Err(LoadError::Invalid(text))
        }
    }
}

/// The body of an answer.
pub(super) fn stream(response: reqwest::Response, shown: String) -> Stream {
    response.bytes_stream().map(move |chunk| chunk.map_err(|e| transport(&shown, &e))).boxed()
}
