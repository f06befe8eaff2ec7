use serde::{Deserialize, Serialize};

/// What the user asked for: the source part of `spec.model`, handed to the resolve pod as `--source`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceRequest {
    /// `s3://bucket/key`, `https://…`, `http://…`, `pvc://claim/path`, `hf://owner/name[@revision]/path`.
    /// A file, or a folder (prefix) that holds one `.onnx` and its external data.
    pub uri: String,
    /// `sha256:<64 hex>`. One file: of its bytes. Several: of the sorted `sha256sum` lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Settings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hf: Option<HubSettings>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "insecureHTTP")]
    pub insecure_http: bool,
    /// The Secret that should be mounted at `paths::STORE_SECRET`: named in errors when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// The ConfigMap that should be mounted at `paths::CA_BUNDLE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Settings {
    /// Absent: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HubSettings {
    /// Absent: huggingface.co.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// The same source with every byte named: what a loader fetches, today and after a node is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedSource {
    #[serde(flatten)]
    pub request: SourceRequest,
    /// The model file first, then its external data, sorted by path.
    pub files: Vec<PinnedFile>,
    /// False: the store gives nothing immutable to hold on to, so `sha256` pins the bytes that were seen.
    pub immutable: bool,
    /// Of the whole, as `SourceRequest::digest` counts it: given by the user, or computed because the source is
    /// mutable. Absent: recorded at the first load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedFile {
    /// Relative to the model's folder, `/`-separated, never absolute, no `..`.
    pub path: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
}

/// What the store promises never to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pin {
    /// S3 object version.
    VersionId(String),
    /// Read with If-Match; other bytes fail the read.
    Etag(String),
    /// Hugging Face commit.
    Commit(String),
}

impl PinnedSource {
    /// A short text for status: the version the store gave to the model file.
    pub fn version(&self) -> Option<&str> {
        match self.files.first()?.pin.as_ref()? {
            Pin::VersionId(v) | Pin::Etag(v) | Pin::Commit(v) => Some(v),
        }
    }

    /// Bytes to fetch.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }
}
