//! HTTP with everything outside our control under a deadline: names and redirects are checked, credentials never
//! follow a redirect to another host.

use std::error::Error;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, ETAG, HeaderValue, IF_MATCH, LOCATION, RANGE};
use reqwest::{Certificate, Client, Response, StatusCode, Url};

use super::address::{ForbiddenAddress, Resolver, check_literal};
use super::{Env, LoadError, Result};

const MAX_REDIRECTS: usize = 5;

/// What a job has asked of its store.
#[derive(Debug, Default)]
pub struct Meter {
    pub requests: AtomicU64,
    pub bytes: AtomicU64,
}

impl Meter {
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A client that trusts Mozilla's roots and the user's bundle.
pub(super) fn client(env: &Env, bundle: Vec<Certificate>) -> Result<Client> {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    let roots = roots.filter_map(|der| Certificate::from_der(der).ok());
    Client::builder()
        .tls_certs_only(roots.chain(bundle))
        .dns_resolver(Resolver { allow_loopback: env.allow_loopback })
        .connect_timeout(env.connect)
        .read_timeout(env.stall)
        .redirect(reqwest::redirect::Policy::none())
        // A proxy would resolve the names that we have to check.
        .no_proxy()
        .referer(false)
        .user_agent(concat!("modelwright-loader/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| LoadError::Secret(format!("the CA bundle is not usable: {}", cause(&e))))
}

/// Refuses what may never be asked, before anything is sent.
pub(super) fn check_url(url: &Url, insecure_http: bool, allow_loopback: bool) -> Result<()> {
    match url.scheme() {
        "https" => {}
        "http" if insecure_http => {}
        "http" => {
            let text = format!("{url} is plain HTTP: use https, or set model.insecureHTTP to true");
            return Err(LoadError::Forbidden(text));
        }
        other => return Err(LoadError::Forbidden(format!("{other}:// is no address of a store"))),
    }
    if !url.username().is_empty() || url.password().is_some() {
        let text = "the address holds credentials: put them into the Secret of model.secretRef";
        return Err(LoadError::Forbidden(text.into()));
    }
    check_literal(url, allow_loopback).map_err(|e| LoadError::Forbidden(e.to_string()))
}

/// GET with redirects.
pub(super) struct Web {
    pub client: Client,
    pub insecure_http: bool,
    pub allow_loopback: bool,
    pub credentials: Option<HeaderValue>,
    /// Credentials go here only.
    pub home: Url,
}

#[derive(Clone, Default)]
pub(super) struct Ask<'a> {
    pub range: Option<Range<u64>>,
    pub if_match: Option<&'a str>,
}

impl Web {
    /// The answer, whatever its status, and where it came from. `shown` names the source in errors.
    pub async fn get(&self, url: &Url, ask: Ask<'_>, shown: &str, meter: &Meter) -> Result<Response> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            check_url(&url, self.insecure_http, self.allow_loopback).map_err(|e| match e {
                LoadError::Forbidden(text) => LoadError::Forbidden(format!("{shown}: {text}")),
                other => other,
            })?;
            // `identity`: a compressed answer has other bytes, lengths and ETags.
            let mut request = self.client.get(url.clone()).header("accept-encoding", "identity");
            if let Some(credentials) =
                self.credentials.as_ref().filter(|_| url.origin() == self.home.origin())
            {
                request = request.header(AUTHORIZATION, credentials);
            }
            if let Some(range) = &ask.range {
                request =
                    request.header(RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
            }
            if let Some(etag) = ask.if_match {
                request = request.header(IF_MATCH, etag);
            }
            meter.request();
            let response = request.send().await.map_err(|e| transport(shown, &e))?;
            let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            match location.filter(|_| response.status().is_redirection()) {
                None => return Ok(response),
                Some(location) => {
                    url = url.join(location).map_err(|_| {
                        LoadError::Unavailable(format!(
                            "{shown}: the server redirects to an impossible address"
                        ))
                    })?;
                }
            }
        }
        Err(LoadError::Unavailable(format!("{shown}: more than {MAX_REDIRECTS} redirects")))
    }
}

/// An answer's strong ETag, the only kind that If-Match takes.
pub(super) fn strong_etag(response: &Response) -> Option<String> {
    let etag = response.headers().get(ETAG)?.to_str().ok()?;
    (etag.starts_with('"') && etag.len() > 2 && etag.len() <= 256).then(|| etag.to_owned())
}

/// A body of at most `limit` bytes.
pub(super) async fn body(mut response: Response, limit: usize, shown: &str, meter: &Meter) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| transport(shown, &e))? {
        meter.add(chunk.len());
        if bytes.len() + chunk.len() > limit {
            return Err(LoadError::Unavailable(format!("{shown}: the answer is longer than {limit} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// A status that is no success, in words.
pub(super) fn refusal(status: StatusCode, shown: &str, has_credentials: bool) -> LoadError {
    let text = |what: &str| format!("{shown}: the server answers {}: {what}", status.as_u16());
    match status.as_u16() {
        401 | 403 if has_credentials => {
            LoadError::Forbidden(text("the credentials of model.secretRef may not read this"))
        }
        401 | 403 => LoadError::Forbidden(text("this needs credentials; name a Secret in model.secretRef")),
        404 | 410 => LoadError::NotFound(text("there is no such file; check model.uri")),
        412 => LoadError::Changed(text("the file has changed since it was resolved")),
        429 => LoadError::Unavailable(text("too many requests")),
        500.. => LoadError::Unavailable(text("the server has a fault of its own")),
        _ => LoadError::Unavailable(text("that is no answer to a read")),
    }
}

/// A request that got no answer.
pub(super) fn transport(shown: &str, error: &reqwest::Error) -> LoadError {
    match find::<ForbiddenAddress>(error) {
        Some(forbidden) => LoadError::Forbidden(format!("{shown}: {forbidden}")),
        None => LoadError::Unavailable(format!("{shown}: {}", cause(error))),
    }
}

/// The error of this type in a chain of sources.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// What happened, in a few words: reqwest's own text names the URL and not the cause.
pub(super) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    if find::<reqwest::Error>(error).is_some_and(reqwest::Error::is_timeout) {
        return "the server did not answer in time".into();
    }
    if text.contains("dns error") || text.contains("lookup address") {
        return format!("the host's name does not resolve ({text})");
    }
    if text.contains("UnknownIssuer") {
        return format!(
            "the server's certificate is signed by an unknown CA; name it in model.caBundleRef ({text})"
        );
    }
    text
}
