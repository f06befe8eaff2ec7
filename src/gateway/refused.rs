//! Why the gateway itself answers a request with an error.

/// The label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    QueueRequests,
    QueueBytes,
    QueueTimeout,
    Refusing,
    Unauthenticated,
    Forbidden,
    Unknown,
    TooLarge,
    Invalid,
    Memory,
    Slow,
    Unreachable,
    Deadline,
}

impl Refused {
    pub const ALL: [Refused; 13] = [
        Refused::QueueRequests,
        Refused::QueueBytes,
        Refused::QueueTimeout,
        Refused::Refusing,
        Refused::Unauthenticated,
        Refused::Forbidden,
        Refused::Unknown,
        Refused::TooLarge,
        Refused::Invalid,
        Refused::Memory,
        Refused::Slow,
        Refused::Unreachable,
        Refused::Deadline,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Refused::QueueRequests => "queue_requests",
            Refused::QueueBytes => "queue_bytes",
            Refused::QueueTimeout => "queue_timeout",
            Refused::Refusing => "refusing",
            Refused::Unauthenticated => "unauthenticated",
            Refused::Forbidden => "forbidden",
            Refused::Unknown => "unknown",
            Refused::TooLarge => "too_large",
            Refused::Invalid => "invalid",
            Refused::Memory => "memory",
            Refused::Slow => "slow",
            Refused::Unreachable => "unreachable",
            Refused::Deadline => "deadline",
        }
    }
}
