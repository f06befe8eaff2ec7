//! What the container may use: memory and CPU, from cgroup v2 or v1.

use std::fs;
use std::path::{Path, PathBuf};

/// The container's cgroup, as it sees it itself.
#[derive(Clone, Debug)]
pub struct Cgroup {
    root: PathBuf,
}

impl Default for Cgroup {
    fn default() -> Self {
        Self { root: "/sys/fs/cgroup".into() }
    }
}

impl Cgroup {
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Bytes of memory the container may use; None: no limit.
    pub fn memory_limit(&self) -> Option<u64> {
        let text = self.read("memory.max").or_else(|| self.read("memory/memory.limit_in_bytes"))?;
        // v2 says "max", v1 a number near 2^63.
        text.trim().parse().ok().filter(|limit| *limit < 1 << 60)
    }

    /// Bytes of memory that can't be reclaimed: page cache is not counted.
    pub fn memory_used(&self) -> Option<u64> {
        let (text, key) = match self.read("memory.stat") {
            Some(text) => (text, "anon "),
            None => (self.read("memory/memory.stat")?, "total_rss "),
        };
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    }

    /// CPUs, rounded up: a quota of 1.5 keeps two threads busy three quarters of the time each.
    pub fn cpus(&self) -> usize {
        let host = std::thread::available_parallelism().map_or(1, usize::from);
        let quota = self.cpu_quota().map_or(host, |cpus| cpus.ceil() as usize);
        quota.clamp(1, host)
    }

    fn cpu_quota(&self) -> Option<f64> {
        let (quota, period): (f64, f64) = match self.read("cpu.max") {
            Some(text) => {
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse().ok()?, period.parse().ok()?)
            }
            None => {
                let number = |file| self.read(file)?.trim().parse::<f64>().ok();
                (number("cpu/cpu.cfs_quota_us")?, number("cpu/cpu.cfs_period_us")?)
            }
        };
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    }

    fn read(&self, file: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.root.join(file)).ok()
    }
}

#[cfg(test)]
mod tests;
