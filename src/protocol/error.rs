use std::time::Duration;

/// Messages repeat names of the client's: gRPC carries them in a header, and clients accept 8 KiB of those, where each
/// byte may take three.
const LONGEST_MESSAGE: usize = 1024;

/// What a client is told, the same on REST and gRPC.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    /// For people: names the tensor, what was expected and what came. No paths, addresses or traces.
    pub message: String,
}

/// REST status and gRPC code follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400, INVALID_ARGUMENT
    Invalid,
    /// 401, UNAUTHENTICATED: of the gateway, as is the next.
    Unauthenticated,
    /// 403, PERMISSION_DENIED
    PermissionDenied,
    /// 404, NOT_FOUND
    NotFound,
    /// 405, UNIMPLEMENTED
    MethodNotAllowed,
    /// 408, DEADLINE_EXCEEDED: the request did not arrive in time.
    SlowRequest,
    /// 413, RESOURCE_EXHAUSTED
    TooLarge,
    /// 415, INVALID_ARGUMENT
    UnsupportedMedia,
    /// 500, INTERNAL
    Internal,
    /// 503, UNAVAILABLE: try again, here or elsewhere.
    Unavailable,
    /// 504, DEADLINE_EXCEEDED
    DeadlineExceeded,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > LONGEST_MESSAGE {
            message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
            message.push('…');
        }
        Self { kind, message }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    pub fn too_large(limit: usize) -> Self {
        Self::new(Kind::TooLarge, format!("the request is larger than the limit of {limit} bytes"))
    }

    pub fn timed_out(after: Duration) -> Self {
        Self::new(Kind::DeadlineExceeded, format!("no answer within {} s", after.as_secs_f64()))
    }
}

impl Kind {
    pub fn http_status(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::Unauthenticated => 401,
            Kind::PermissionDenied => 403,
            Kind::NotFound => 404,
            Kind::MethodNotAllowed => 405,
            Kind::SlowRequest => 408,
            Kind::TooLarge => 413,
            Kind::UnsupportedMedia => 415,
            Kind::Internal => 500,
            Kind::Unavailable => 503,
            Kind::DeadlineExceeded => 504,
        }
    }

    /// The label of the metric `modelwright_requests_total`.
    pub fn outcome(self) -> &'static str {
        match self {
            Kind::Invalid | Kind::MethodNotAllowed | Kind::UnsupportedMedia => "invalid",
            Kind::Unauthenticated | Kind::PermissionDenied => "refused",
            Kind::NotFound => "not_found",
            Kind::SlowRequest | Kind::DeadlineExceeded => "deadline_exceeded",
            Kind::TooLarge => "too_large",
            Kind::Internal => "failed",
            Kind::Unavailable => "unavailable",
        }
    }
}
