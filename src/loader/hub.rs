//! `hf://owner/name[@revision]/path`: the Hugging Face Hub and what speaks its API
//! (huggingface.co/docs/hub/api: `/api/models/…/revision/…`, `/api/models/…/tree/…`, `/…/resolve/…`).
//! A commit never changes, so it is the pin.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use reqwest::header::LINK;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::client::{Ask, Meter, Web, body, check_url, client, refusal};
use super::secret::{Secret, ca_bundle};
use super::source::{Located, Stream, folder_of, only_model, stream};
use super::web::{bearer, content_range};
use super::{Env, LoadError, Result};
use crate::formats::{Pin, PinnedFile, SourceRequest};

const HUGGING_FACE: &str = "https://huggingface.co";
/// A page of a listing has at most 1,000 entries.
const MAX_PAGE: usize = 16 << 20;
const MAX_PAGES: usize = 20;

pub(super) struct Hub {
    web: Web,
    repo: String,
    revision: String,
    path: String,
    /// Known once located, or given by the pin.
    listing: OnceLock<Listing>,
    /// Where the store of large files sent us: valid for minutes, and each read would ask for it again.
    moved: Mutex<BTreeMap<String, Url>>,
    meter: Arc<Meter>,
}

struct Listing {
    commit: String,
    sizes: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
}

impl Hub {
    pub fn open(request: &SourceRequest, rest: &str, env: &Env, meter: Arc<Meter>) -> Result<Self> {
        let bad = || LoadError::NotFound(format!("{} is no hf://owner/name[@revision]/path", request.uri));
        let (owner, rest) = rest.split_once('/').ok_or_else(bad)?;
        let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        if owner.is_empty() || name.is_empty() || revision.is_empty() {
            return Err(bad());
        }
        let endpoint = request.hf.as_ref().and_then(|hf| hf.endpoint.as_deref()).unwrap_or(HUGGING_FACE);
        let home = Url::parse(endpoint)
            .map_err(|e| LoadError::NotFound(format!("model.hf.endpoint {endpoint}: {e}")))?;
        check_url(&home, request.insecure_http, env.allow_loopback)?;
        let credentials = match Secret::of(request, env)? {
            Some(secret) => {
                Some(bearer(&secret, "HF_TOKEN", &format!("Bearer {}", secret.need("HF_TOKEN")?))?)
            }
            None => None,
        };
        let web = Web {
            client: client(env, ca_bundle(request, env)?)?,
            insecure_http: request.insecure_http,
            allow_loopback: env.allow_loopback,
            credentials,
            home,
        };
        Ok(Self {
            web,
            repo: format!("{owner}/{name}"),
            revision: revision.into(),
            path: path.into(),
            listing: OnceLock::new(),
            moved: Mutex::default(),
            meter,
        })
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn show(&self, name: &str) -> String {
        format!("hf://{}@{}/{name}", self.repo, self.revision)
    }

    pub async fn locate(&self) -> Result<Located> {
        let shown = self.show(&self.path);
        let info = self.url(&format!("api/models/{}/revision", self.repo), &self.revision)?;
        let response = self.ask(&info, Ask::default(), &shown).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(response.status(), &shown));
        }
        let info: Info = self.json(response, &shown).await?.0;
        let commit = info.sha;
        if commit.is_empty() || commit.len() > 64 || !commit.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(LoadError::Unavailable(format!("{shown}: the hub names an impossible commit")));
        }
        let whole = self.path.trim_end_matches('/');
        // A file stands in its parent's listing, a folder has its own.
        let parent = whole.rsplit_once('/').map_or("", |(parent, _)| parent);
        let is_named = whole.ends_with(".onnx") && !self.path.ends_with('/');
        let mut sizes = self.tree(&commit, if is_named { parent } else { whole }, &shown).await?;
        if sizes.is_none() && !is_named && !whole.is_empty() {
            sizes = self.tree(&commit, parent, &shown).await?;
        }
        let sizes = sizes.unwrap_or_default();
        let (folder, path) = if sizes.contains_key(whole) {
            let path = whole.rsplit('/').next().unwrap_or(whole).to_owned();
            (folder_of(whole, &path), path)
        } else {
            let folder = folder_of(whole, "\0");
            if is_named || !sizes.keys().any(|name| name.starts_with(&folder)) {
                return Err(LoadError::NotFound(format!(
                    "{shown}: the repository has no such file; check model.uri"
                )));
            }
            let path = only_model(sizes.keys().filter_map(|n| n.strip_prefix(&folder)), &shown)?;
            (folder, path)
        };
        let size = sizes.get(&format!("{folder}{path}")).copied().unwrap_or(0);
        let pin = Some(Pin::Commit(commit.clone()));
        let _ = self.listing.set(Listing { commit, sizes });
        Ok(Located { folder, file: PinnedFile { path, size, pin } })
    }

    /// Files below a folder at a commit; `None` when there is no such folder.
    async fn tree(&self, commit: &str, folder: &str, shown: &str) -> Result<Option<BTreeMap<String, u64>>> {
        let below = if folder.is_empty() { commit.to_owned() } else { format!("{commit}/{folder}") };
        let mut url = self.url(&format!("api/models/{}/tree", self.repo), &below)?;
        url.set_query(Some("recursive=true"));
        let mut sizes = BTreeMap::new();
        for _ in 0..MAX_PAGES {
            let response = self.ask(&url, Ask::default(), shown).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                status => return Err(self.refused(status, shown)),
            }
            let (entries, next): (Vec<Entry>, _) = self.json(response, shown).await?;
            sizes.extend(entries.into_iter().filter(|e| e.r#type == "file").map(|e| (e.path, e.size)));
            match next {
                Some(next) if next.origin() == self.web.home.origin() => url = next,
                _ => return Ok(Some(sizes)),
            }
        }
        let text =
            format!("{shown}: more than {} files stand below it: name the model file", MAX_PAGES * 1000);
        Err(LoadError::Invalid(text))
    }

    pub async fn stat(&self, name: &str) -> Result<Option<(u64, Option<Pin>)>> {
        let listing = self.listing.get();
        Ok(listing.and_then(|l| Some((*l.sizes.get(name)?, Some(Pin::Commit(l.commit.clone()))))))
    }

    pub async fn read(&self, name: &str, file: &PinnedFile, range: Range<u64>) -> Result<Bytes> {
        let shown = self.show(name);
        let len = range.end.saturating_sub(range.start);
        let start = range.start;
        let response = self.open_file(name, file, Ask { range: Some(range), if_match: None }).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(self.refused(response.status(), &shown));
        }
        if content_range(&response) != Some((start, file.size)) {
            return Err(LoadError::Unavailable(format!(
                "{shown}: the hub answers with another range than asked"
            )));
        }
        let bytes = body(response, len as usize, &shown, &self.meter).await?;
        if bytes.len() as u64 != len {
            let text = format!("{shown}: the download broke off after {} of {len} bytes", bytes.len());
            return Err(LoadError::Unavailable(text));
        }
        Ok(bytes)
    }

    pub async fn stream(&self, name: &str, file: &PinnedFile) -> Result<Stream> {
        let shown = self.show(name);
        let response = self.open_file(name, file, Ask::default()).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(response.status(), &shown));
        }
        Ok(stream(response, shown))
    }

    async fn open_file(&self, name: &str, file: &PinnedFile, ask: Ask<'_>) -> Result<Response> {
        let shown = self.show(name);
        let Some(Pin::Commit(commit)) = &file.pin else {
            return Err(LoadError::Changed(format!("{shown} was resolved without a commit")));
        };
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(url) = moved {
            let response = self.ask(&url, ask.clone(), &shown).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            // Its signature has run out.
        }
        let url = self.url(&format!("{}/resolve", self.repo), &format!("{commit}/{name}"))?;
        let response = self.ask(&url, ask, &shown).await?;
        if response.status().is_success() && response.url() != &url {
            let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
            moved.insert(name.to_owned(), response.url().clone());
        }
        Ok(response)
    }

    async fn ask(&self, url: &Url, ask: Ask<'_>, shown: &str) -> Result<Response> {
        self.web.get(url, ask, shown, &self.meter).await
    }

    /// A JSON answer, and the next page that its Link header names (RFC 8288).
    async fn json<T: serde::de::DeserializeOwned>(
        &self,
        response: Response,
        shown: &str,
    ) -> Result<(T, Option<Url>)> {
        let link = response.headers().get(LINK).and_then(|v| v.to_str().ok());
        let next = link.and_then(|text| {
            let page = text.split(',').find(|part| part.contains("rel=\"next\""))?;
            let page = page.trim().strip_prefix('<')?.split_once('>')?.0;
            response.url().join(page).ok()
        });
        let bytes = body(response, MAX_PAGE, shown, &self.meter).await?;
        let value = serde_json::from_slice(&bytes).map_err(|_| {
            LoadError::Unavailable(format!("{shown}: the hub's answer is not its API's JSON"))
        })?;
        Ok((value, next))
    }

    fn url(&self, api: &str, below: &str) -> Result<Url> {
        let mut url = self.web.home.clone();
        url.path_segments_mut()
            .map_err(|()| LoadError::NotFound(format!("{} is no hub's address", self.web.home)))?
            .pop_if_empty()
            .extend(api.split('/').chain(below.split('/')));
        Ok(url)
    }

    /// The hub says 401 of a repository that does not exist, too.
    fn refused(&self, status: StatusCode, shown: &str) -> LoadError {
        match status.as_u16() {
            401 if self.web.credentials.is_none() => LoadError::Forbidden(format!(
                "{shown}: the hub answers 401: the repository does not exist, or it is private and needs HF_TOKEN \
                 in the Secret of model.secretRef"
            )),
            404 => LoadError::NotFound(format!(
                "{shown}: the hub answers 404: there is no such repository, revision or file"
            )),
            _ => refusal(status, shown, self.web.credentials.is_some()),
        }
    }
}
