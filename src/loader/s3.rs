//! `s3://bucket/key`, a file or a prefix, from AWS or any server that speaks its protocol (path-style addresses).

use std::future::Future;
use std::ops::Range;
use std::pin::Pin as Boxed;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService,
};
use object_store::path::Path;
use object_store::{
    BackoffConfig, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
};
use reqwest::{Client, Url};

use super::address::ForbiddenAddress;
use super::client::{Meter, cause, check_url, client, find};
use super::secret::{Secret, ca_bundle};
use super::source::{Located, Stream, folder_of, only_model};
use super::{Env, LoadError, Result};
use crate::formats::{Pin, PinnedFile, SourceRequest};

/// Objects looked through for the model of a prefix.
const MAX_LISTED: usize = 1000;

pub(super) struct S3 {
    store: AmazonS3,
    bucket: String,
    key: String,
    has_credentials: bool,
    meter: Arc<Meter>,
}

impl S3 {
    pub fn open(request: &SourceRequest, rest: &str, env: &Env, meter: Arc<Meter>) -> Result<Self> {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || key.contains("//") || key.starts_with('/') {
            return Err(LoadError::NotFound(format!("{} is no s3://bucket/key", request.uri)));
        }
        let settings = request.s3.clone().unwrap_or_default();
        let region = settings.region.or_else(|| environment("AWS_REGION")).unwrap_or("us-east-1".into());
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_virtual_hosted_style_request(false)
            .with_http_connector(Connector {
                client: client(env, ca_bundle(request, env)?)?,
                meter: meter.clone(),
            })
            // A second try for a hiccup; whoever runs the loader has the patience for the rest.
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(200),
                    max_backoff: Duration::from_secs(2),
                    base: 3.,
                },
                max_retries: 2,
                retry_timeout: Duration::from_secs(10),
            });
        if let Some(endpoint) = settings.endpoint {
            let url = Url::parse(&endpoint)
                .map_err(|e| LoadError::NotFound(format!("model.s3.endpoint {endpoint}: {e}")))?;
            check_url(&url, request.insecure_http, env.allow_loopback)?;
            builder = builder.with_endpoint(endpoint).with_allow_http(true);
        }
        let (builder, has_credentials) = match Secret::of(request, env)? {
            Some(secret) => (from_secret(builder, &secret)?, true),
            None => from_workload(builder),
        };
        let store = builder.build().map_err(|e| LoadError::NotFound(format!("{}: {e}", request.uri)))?;
        Ok(Self { store, bucket: bucket.into(), key: key.into(), has_credentials, meter })
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn show(&self, name: &str) -> String {
        format!("s3://{}/{name}", self.bucket)
    }

    pub async fn locate(&self) -> Result<Located> {
        if !self.key.is_empty() && !self.key.ends_with('/') {
            if let Some((size, pin)) = self.stat(&self.key).await? {
                let path = self.key.rsplit('/').next().unwrap_or(&self.key).to_owned();
                return Ok(Located {
                    folder: folder_of(&self.key, &path),
                    file: PinnedFile { path, size, pin },
                });
            }
            if self.key.ends_with(".onnx") {
                return Err(self.missing(&self.key));
            }
        }
        let folder = folder_of(&self.key, "\0");
        let shown = self.show(&folder);
        let prefix = self.path(folder.trim_end_matches('/'))?;
        let listed: Vec<ObjectMeta> = self
            .store
            .list(Some(&prefix))
            .take(MAX_LISTED + 1)
            .try_collect()
            .await
            .map_err(|e| self.error(&folder, &e, false))?;
        if listed.is_empty() {
            return Err(self.missing(&self.key));
        }
        if listed.len() > MAX_LISTED {
            let text = format!("{shown}: more than {MAX_LISTED} objects stand below it: name the model file");
            return Err(LoadError::Invalid(text));
        }
        let names = listed.iter().filter_map(|o| o.location.as_ref().strip_prefix(&folder));
        let path = only_model(names, &shown)?;
        let name = format!("{folder}{path}");
        // A listing has neither version nor the same moment as the read.
        let (size, pin) = self.stat(&name).await?.ok_or_else(|| self.missing(&name))?;
        Ok(Located { folder, file: PinnedFile { path, size, pin } })
    }

    pub async fn stat(&self, name: &str) -> Result<Option<(u64, Option<Pin>)>> {
        match self.store.head(&self.path(name)?).await {
            Ok(meta) => {
                // "null" is the version of an object from before versioning: it can be overwritten.
                let version = meta.version.filter(|v| v != "null").map(Pin::VersionId);
                Ok(Some((meta.size, version.or_else(|| meta.e_tag.map(Pin::Etag)))))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error(name, &e, false)),
        }
    }

    pub async fn read(&self, name: &str, file: &PinnedFile, range: Range<u64>) -> Result<Bytes> {
        let len = range.end.saturating_sub(range.start);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..pinned(file) };
        let result = self.store.get_opts(&self.path(name)?, options).await;
        let result = result.map_err(|e| self.error(name, &e, is_versioned(file)))?;
        self.same_size(name, file, result.meta.size)?;
        let bytes = result.bytes().await.map_err(|e| self.error(name, &e, is_versioned(file)))?;
        self.meter.add(bytes.len());
        if bytes.len() as u64 != len {
            let text =
                format!("{}: the download broke off after {} of {len} bytes", self.show(name), bytes.len());
            return Err(LoadError::Unavailable(text));
        }
        Ok(bytes)
    }

    pub async fn stream(&self, name: &str, file: &PinnedFile) -> Result<Stream> {
        let result = self.store.get_opts(&self.path(name)?, pinned(file)).await;
        let result = result.map_err(|e| self.error(name, &e, is_versioned(file)))?;
        self.same_size(name, file, result.meta.size)?;
        let (shown, has_credentials, versioned) = (self.show(name), self.has_credentials, is_versioned(file));
        let stream = result.into_stream();
        Ok(stream.map_err(move |e| error(&shown, &e, versioned, has_credentials)).boxed())
    }

    fn same_size(&self, name: &str, file: &PinnedFile, size: u64) -> Result<()> {
        if size == file.size {
            return Ok(());
        }
        let shown = self.show(name);
        Err(LoadError::Changed(format!(
            "{shown} has {size} bytes, and had {} when it was resolved",
            file.size
        )))
    }

    fn path(&self, name: &str) -> Result<Path> {
        Path::parse(name).map_err(|e| LoadError::NotFound(format!("{} is no key: {e}", self.show(name))))
    }

    fn missing(&self, name: &str) -> LoadError {
        LoadError::NotFound(format!(
            "{}: there is no such object, or no such bucket; check model.uri",
            self.show(name)
        ))
    }

    fn error(&self, name: &str, e: &object_store::Error, is_versioned: bool) -> LoadError {
        error(&self.show(name), e, is_versioned, self.has_credentials)
    }
}

fn is_versioned(file: &PinnedFile) -> bool {
    matches!(file.pin, Some(Pin::VersionId(_)))
}

fn pinned(file: &PinnedFile) -> GetOptions {
    match &file.pin {
        Some(Pin::VersionId(version)) => GetOptions { version: Some(version.clone()), ..Default::default() },
        Some(Pin::Etag(etag)) => GetOptions { if_match: Some(etag.clone()), ..Default::default() },
        Some(Pin::Commit(_)) | None => GetOptions::default(),
    }
}

fn from_secret(builder: AmazonS3Builder, secret: &Secret) -> Result<AmazonS3Builder> {
    let builder = builder
        .with_access_key_id(secret.need("AWS_ACCESS_KEY_ID")?)
        .with_secret_access_key(secret.need("AWS_SECRET_ACCESS_KEY")?);
    Ok(match secret.get("AWS_SESSION_TOKEN")? {
        Some(token) => builder.with_token(token),
        None => builder,
    })
}

/// IAM roles for service accounts, or EKS Pod Identity, where the cluster has injected them; else unsigned requests.
/// Never the instance's metadata server: its role is the node's.
fn from_workload(builder: AmazonS3Builder) -> (AmazonS3Builder, bool) {
    use AmazonS3ConfigKey as Key;
    let either: [&[(&str, Key)]; 2] = [
        &[("AWS_WEB_IDENTITY_TOKEN_FILE", Key::WebIdentityTokenFile), ("AWS_ROLE_ARN", Key::RoleArn)],
        &[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Key::ContainerCredentialsFullUri),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", Key::ContainerAuthorizationTokenFile),
        ],
    ];
    for needed in either {
        let values: Option<Vec<String>> = needed.iter().map(|(name, _)| environment(name)).collect();
        if let Some(values) = values {
            let pairs = needed.iter().zip(values);
            return (pairs.fold(builder, |b, ((_, key), value)| b.with_config(*key, value)), true);
        }
    }
    (builder.with_skip_signature(true), false)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// object_store's errors quote URLs and whole answers, which may hold an access key: only the code is shown.
fn error(shown: &str, e: &object_store::Error, is_versioned: bool, has_credentials: bool) -> LoadError {
    let text = e.to_string();
    let code = between(&text, "<Code>", "</Code>").unwrap_or_default();
    let status = between(&text, "status code: ", ":").unwrap_or_default();
    let said = [status, code].join(" ").trim().to_owned();
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    let is_refused = status.starts_with("401") || status.starts_with("403");
    match e {
        object_store::Error::NotFound { .. }
            if is_versioned && code != "NoSuchKey" && code != "NoSuchBucket" =>
        {
            LoadError::Changed(format!("{shown}: the version that was resolved is gone{said}"))
        }
        object_store::Error::NotFound { .. } => {
            LoadError::NotFound(format!("{shown}: there is no such object{said}; check model.uri"))
        }
        object_store::Error::Precondition { .. } => {
            LoadError::Changed(format!("{shown}: the object has changed since it was resolved{said}"))
        }
        _ if is_versioned && matches!(code, "NoSuchVersion" | "InvalidVersionId") => {
            LoadError::Changed(format!("{shown}: the version that was resolved is gone{said}"))
        }
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            denied(shown, &said, has_credentials)
        }
        _ if is_refused => denied(shown, &said, has_credentials),
        _ => match find::<ForbiddenAddress>(e) {
            Some(forbidden) => LoadError::Forbidden(format!("{shown}: {forbidden}")),
            None if said.is_empty() => LoadError::Unavailable(format!("{shown}: the store: {}", cause(e))),
            None => LoadError::Unavailable(format!("{shown}: the store can't answer{said}")),
        },
    }
}

fn denied(shown: &str, said: &str, has_credentials: bool) -> LoadError {
    let who = if has_credentials {
        "these credentials; check the Secret of model.secretRef and the bucket's policy"
    } else {
        "a read without credentials; name a Secret in model.secretRef"
    };
    LoadError::Forbidden(format!("{shown}: the store refuses{said} {who}"))
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let rest = &text[text.find(from)? + from.len()..];
    rest.find(to).map(|end| &rest[..end.min(64)])
}

/// Our client, with its address rules and deadlines, under object_store.
#[derive(Debug)]
struct Connector {
    client: Client,
    meter: Arc<Meter>,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Metered { client: self.client.clone(), meter: self.meter.clone() }))
    }
}

#[derive(Debug)]
struct Metered {
    client: Client,
    meter: Arc<Meter>,
}

type Answer<'a> = Boxed<Box<dyn Future<Output = std::result::Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Metered {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        self.meter.request();
        self.client.call(request)
    }
}
