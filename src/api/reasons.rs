//! The names that `kubectl wait`, alerts and scripts depend on. A name, once shipped, keeps its meaning.

use std::fmt;

macro_rules! names {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $name:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type { $($(#[$doc])* $name),+ }

        impl $type {
            pub const ALL: &[$type] = &[$($type::$name),+];

            pub fn as_str(self) -> &'static str {
                match self { $($type::$name => stringify!($name)),+ }
            }

            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|n| n.as_str() == name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names! {
    /// Condition types.
    Condition {
        /// The newest spec is fully rolled out and available.
        Ready,
        /// Requests are answered.
        Available,
        /// A rollout is on its way or done.
        Progressing,
        /// Something needs a human.
        Degraded,
        /// The source is pinned and the graph was read.
        ModelResolved,
        /// Pods run the runtime that the operator ships.
        RuntimeCurrent,
    }
}

names! {
    /// Reasons of conditions and events.
    Reason {
        // Ready
        Serving,
        Starting,
        RolloutInProgress,
        // Available
        MinimumReplicasAvailable,
        NoReplicas,
        // Progressing
        Resolving,
        CreatingPods,
        WaitingForGPU,
        LoadingModel,
        Promoting,
        RolloutComplete,
        ProgressDeadlineExceeded,
        // Degraded
        AsExpected,
        SourceNotFound,
        /// The store is down, or cut the download short.
        SourceUnavailable,
        SourceForbidden,
        SourceChanged,
        SecretNotFound,
        ServiceAccountNotFound,
        DigestMismatch,
        ModelInvalid,
        OpsetUnsupported,
        /// Asked for and did not load.
        ExecutionProviderUnavailable,
        /// Nodes are on the CPU against the policy.
        ExecutionProviderFallback,
        /// Of the host; the next is the GPU.
        OutOfMemory,
        InsufficientGPUMemory,
        Unschedulable,
        QuotaExceeded,
        /// Pod security or another admission rule refused the pod.
        PodRejected,
        ImagePullFailed,
        CrashLooping,
        NameConflict,
        CRDOutdated,
        // ModelResolved
        Pinned,
        MutableSource,
        // RuntimeCurrent
        Current,
        NewerRuntimeAvailable,
        PinnedByUser,
        // Events only
        RevisionCreated,
        /// The API server refused a write.
        WriteFailed,
    }
}
