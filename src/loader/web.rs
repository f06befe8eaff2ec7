//! `https://` and `http://`: one file, and its external data beside it. RFC 9110: ranges, If-Match.

use std::ops::Range;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue};
use reqwest::{Response, StatusCode, Url};

use super::client::{Ask, Meter, Web, body, check_url, client, refusal, strong_etag};
use super::secret::{Secret, ca_bundle};
use super::source::{Located, Stream, stream};
use super::{Env, LoadError, Result};
use crate::formats::{Pin, PinnedFile, SourceRequest};

pub(super) struct Http {
    web: Web,
    url: Url,
    meter: Arc<Meter>,
}

impl Http {
    pub fn open(request: &SourceRequest, env: &Env, meter: Arc<Meter>) -> Result<Self> {
        let url = Url::parse(&request.uri)
            .map_err(|e| LoadError::NotFound(format!("{}: this is no address: {e}", request.uri)))?;
        check_url(&url, request.insecure_http, env.allow_loopback)?;
        let credentials = Secret::of(request, env)?.map(|secret| credentials(&secret)).transpose()?;
        let web = Web {
            client: client(env, ca_bundle(request, env)?)?,
            insecure_http: request.insecure_http,
            allow_loopback: env.allow_loopback,
            credentials,
            home: url.clone(),
        };
        Ok(Self { web, url, meter })
    }

    pub async fn locate(&self) -> Result<Located> {
        let name = self.url.path_segments().and_then(|mut s| s.next_back()).unwrap_or_default().to_owned();
        if name.is_empty() {
            let text = format!("{}: a server's folder can't be listed; name the model file", self.url);
            return Err(LoadError::NotFound(text));
        }
        let folder = self.folder();
        let probed = self.probe(&self.url).await?;
        let (size, pin) = probed.ok_or_else(|| refusal(StatusCode::NOT_FOUND, self.url.as_str(), false))?;
        Ok(Located { folder, file: PinnedFile { path: name, size, pin } })
    }

    pub fn folder(&self) -> String {
        let text = self.url.as_str();
        text.rfind('/').map_or(text, |slash| &text[..=slash]).to_owned()
    }

    /// The address of a file beside the model. The model's own name comes from its address, as it stands there.
    pub fn name(&self, folder: &str, path: &str) -> String {
        let own = format!("{folder}{path}");
        if own == self.url.as_str() {
            return own;
        }
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop().extend(path.split('/'));
        }
        url.to_string()
    }

    pub async fn stat(&self, name: &str) -> Result<Option<(u64, Option<Pin>)>> {
        self.probe(&parse(name)?).await
    }

    /// Asks for one byte: its answer holds size and ETag, and shows whether ranges work (HEAD shows neither for sure).
    async fn probe(&self, url: &Url) -> Result<Option<(u64, Option<Pin>)>> {
        let ask = Ask { range: Some(0..1), if_match: None };
        let response = self.web.get(url, ask, url.as_str(), &self.meter).await?;
        let sizeless =
            || LoadError::Unavailable(format!("{url}: the server does not say how long the file is"));
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let size = content_range(&response).ok_or_else(sizeless)?.1;
                Ok(Some((size, strong_etag(&response).map(Pin::Etag))))
            }
            StatusCode::OK => Ok(Some((content_length(&response).ok_or_else(sizeless)?, None))),
            // No first byte: the file is empty.
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Some((0, None))),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status => Err(refusal(status, url.as_str(), self.web.credentials.is_some())),
        }
    }

    pub async fn read(&self, name: &str, file: &PinnedFile, range: Range<u64>) -> Result<Bytes> {
        let len = range.end.saturating_sub(range.start);
        let etag = etag(file);
        let ask = Ask { range: Some(range.clone()), if_match: etag };
        let response = self.web.get(&parse(name)?, ask, name, &self.meter).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(self.unexpected(&response, name));
        }
        same_etag(&response, etag, name)?;
        if content_range(&response) != Some((range.start, file.size)) {
            return Err(LoadError::Unavailable(format!(
                "{name}: the server answers with another range than asked"
            )));
        }
        let bytes = body(response, len as usize, name, &self.meter).await?;
        if bytes.len() as u64 != len {
            let text = format!("{name}: the download broke off after {} of {len} bytes", bytes.len());
            return Err(LoadError::Unavailable(text));
        }
        Ok(bytes)
    }

    pub async fn stream(&self, name: &str, file: &PinnedFile) -> Result<Stream> {
        let etag = etag(file);
        let ask = Ask { range: None, if_match: etag };
        let response = self.web.get(&parse(name)?, ask, name, &self.meter).await?;
        if response.status() != StatusCode::OK {
            return Err(self.unexpected(&response, name));
        }
        same_etag(&response, etag, name)?;
        Ok(stream(response, name.to_owned()))
    }

    fn unexpected(&self, response: &Response, name: &str) -> LoadError {
        if response.status().is_success() {
            return LoadError::Unavailable(format!("{name}: the server no longer answers ranges"));
        }
        refusal(response.status(), name, self.web.credentials.is_some())
    }
}

fn etag(file: &PinnedFile) -> Option<&str> {
    match &file.pin {
        Some(Pin::Etag(etag)) => Some(etag),
        _ => None,
    }
}

/// Some servers ignore If-Match: the answer's own ETag has the last word.
fn same_etag(response: &Response, etag: Option<&str>, name: &str) -> Result<()> {
    match etag {
        Some(etag) if strong_etag(response).as_deref() != Some(etag) => Err(LoadError::Changed(format!(
            "{name}: the file has changed since it was resolved: another ETag"
        ))),
        _ => Ok(()),
    }
}

fn parse(name: &str) -> Result<Url> {
    Url::parse(name).map_err(|e| LoadError::NotFound(format!("{name}: {e}")))
}

/// Start and whole size of `Content-Range: bytes 0-0/1234`.
pub(super) fn content_range(response: &Response) -> Option<(u64, u64)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, size.parse().ok()?))
}

fn content_length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn credentials(secret: &Secret) -> Result<HeaderValue> {
    let (key, text) = match (secret.get("TOKEN")?, secret.get("USERNAME")?) {
        (Some(token), _) => ("TOKEN", format!("Bearer {token}")),
        (None, Some(user)) => {
            let password = secret.need("PASSWORD")?;
            ("PASSWORD", format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        }
        (None, None) => return Err(secret.lacks("TOKEN nor USERNAME and PASSWORD")),
    };
    bearer(secret, key, &text)
}

pub(super) fn bearer(secret: &Secret, key: &str, text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| secret.unusable(key, "has characters that no HTTP header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}
