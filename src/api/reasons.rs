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
        /// Demand is known, and pods follow it.
        ScalingActive,
        /// Something keeps the number of pods from what the demand asks for.
        ScalingLimited,
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
        /// No pod, and the next request starts one.
        ScaledToZero,
        /// Requests wait for the first pod.
        Activating,
        NoReplicas,
        /// No gateway is ready to take requests.
        GatewayUnavailable,
        Suspended,
        // Progressing
        Resolving,
        CreatingPods,
        WaitingForGPU,
        LoadingModel,
        /// The pods of a step are on their way, or its weight is.
        CanaryStep,
        CanaryPaused,
        Promoting,
        RolloutComplete,
        ProgressDeadlineExceeded,
        Aborted,
        /// The steps need a pod beside the stable ones, and there is no room.
        StepsNeedRoom,
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
        /// Inputs or outputs break what clients of the stable revision rely on.
        SignatureIncompatible,
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
        /// The candidate failed more, or was slower, than its analysis allows.
        AnalysisFailed,
        NameConflict,
        CRDOutdated,
        // ModelResolved
        Pinned,
        MutableSource,
        // RuntimeCurrent
        Current,
        NewerRuntimeAvailable,
        PinnedByUser,
        // ScalingActive
        DemandReported,
        /// No gateway reports demand: the number of pods stays.
        NoDemandData,
        /// A HorizontalPodAutoscaler, KEDA or `kubectl scale` writes `spec.replicas`.
        ExternallyScaled,
        Disabled,
        // ScalingLimited
        DesiredWithinRange,
        TooManyReplicas,
        TooFewReplicas,
        NoGPUAvailable,
        // Events only
        /// Autoscaling has changed the number of pods.
        Rescaled,
        RevisionCreated,
        /// The API server refused a write.
        WriteFailed,
    }
}
