//! How much memory a worker may take, and what to say when it was not enough.

use crate::cgroup::Cgroup;

/// Kept for the supervisor, sockets and page tables.
const RESERVE: u64 = 24 << 20;
/// Less than this serves no model; the cap is not the place to say so.
const LEAST: u64 = 32 << 20;

pub(super) struct Memory {
    cgroup: Cgroup,
    capped: bool,
}

impl Memory {
    pub fn new(cgroup: Cgroup, capped: bool) -> Self {
        Self { cgroup, capped }
    }

    /// RLIMIT_DATA for a worker that starts now. On cgroup v2 the kernel kills every process of a container that goes
    /// over its limit (`memory.oom.group`, set by the kubelet): the stable worker with the candidate. Below that limit
    /// a worker's own allocation fails instead, alone, and can be reported.
    /// `beside`: of another, which keeps a quarter of what is in use to grow.
    pub fn cap(&self, beside: bool) -> Option<u64> {
        let limit = self.cgroup.memory_limit().filter(|_| self.capped)?;
        let used = self.cgroup.memory_used().unwrap_or(0);
        let taken = used.saturating_add(if beside { used / 4 } else { 0 });
        Some(limit.saturating_sub(taken).saturating_sub(RESERVE).max(LEAST))
    }

    /// The advice of every `OutOfMemory`.
    pub fn advice(&self, cap: Option<u64>) -> String {
        let mib = |bytes: u64| bytes >> 20;
        match (self.cgroup.memory_limit(), cap) {
            (Some(limit), Some(cap)) => format!(
                "the container's memory limit is {} MiB, of which {} MiB were left for this model: raise \
                 resources.limits.memory",
                mib(limit),
                mib(cap)
            ),
            (Some(limit), None) => {
                format!("the container's memory limit is {} MiB: raise resources.limits.memory", mib(limit))
            }
            (None, _) => {
                "the container has no memory limit, so the node ran short: set resources.requests.memory to \
                          what the model needs"
                    .into()
            }
        }
    }
}
