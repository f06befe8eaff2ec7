use crate::onnx::OnnxError;

pub type Result<T, E = LoadError> = std::result::Result<T, E>;

/// Why a model can't be had. The variant is the reason of the condition table; the text says what was wrong, where,
/// and what to do, and never holds a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Secret(String),
    #[error(
        "{0}; annotate the ModelDeployment with modelwright.dev/resolve-at=<time> to resolve the source again"
    )]
    Changed(String),
    #[error("{0}")]
    Digest(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unsupported(String),
}

impl LoadError {
    pub fn reason(&self) -> &'static str {
        match self {
            LoadError::NotFound(_) => "SourceNotFound",
            LoadError::Forbidden(_) => "SourceForbidden",
            LoadError::Unavailable(_) => "SourceUnavailable",
            LoadError::Secret(_) => "SecretNotFound",
            LoadError::Changed(_) => "SourceChanged",
            LoadError::Digest(_) => "DigestMismatch",
            LoadError::Invalid(_) => "ModelInvalid",
            LoadError::Unsupported(_) => "OpsetUnsupported",
        }
    }

    /// May pass within seconds, without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            LoadError::Unavailable(_) => true,
            LoadError::NotFound(_)
            | LoadError::Forbidden(_)
            | LoadError::Secret(_)
            | LoadError::Changed(_)
            | LoadError::Digest(_)
            | LoadError::Invalid(_)
            | LoadError::Unsupported(_) => false,
        }
    }

    /// Says which file the graph's fault is in.
    pub fn in_model(place: &str, error: OnnxError) -> Self {
        match error {
            OnnxError::Unsupported(_) => LoadError::Unsupported(format!("{place}: {error}")),
            _ => LoadError::Invalid(format!("{place}: {error}")),
        }
    }
}
