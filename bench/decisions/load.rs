//! Who had the cores meanwhile.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::common::{Cluster, Operator};
use crate::report::{cpu_seconds, say};

const PROCESSES: [&str; 4] = ["kube-apiserver", "etcd", "kube-controller-manager", "fake-kubelet"];

pub struct Load {
    began: Instant,
    pub seconds: f64,
    /// Seconds of CPU, by process, this one and the whole machine included.
    cpu: BTreeMap<&'static str, f64>,
    passes: f64,
    pass_seconds: f64,
}

impl Load {
    pub async fn now(cluster: &Cluster, operator: &Operator) -> Self {
        let mut cpu: BTreeMap<&str, f64> =
            PROCESSES.into_iter().map(|name| (name, cpu_seconds(cluster.pid_of(name)))).collect();
        cpu.insert("operator", cpu_seconds(operator.pid()));
        cpu.insert("bench", cpu_seconds(std::process::id()));
        cpu.insert("machine", machine_seconds());
        let metrics = operator.metrics().await.expect("the operator's metrics");
        let sum = |prefix: &str| {
            metrics.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum::<f64>()
        };
        Self {
            began: Instant::now(),
            seconds: 0.0,
            cpu,
            passes: sum("modelwright_operator_reconciles_total"),
            pass_seconds: sum("modelwright_operator_reconcile_duration_seconds_sum"),
        }
    }

    /// What was used since.
    pub async fn until_now(self, cluster: &Cluster, operator: &Operator) -> Self {
        let now = Self::now(cluster, operator).await;
        Self {
            began: self.began,
            seconds: self.began.elapsed().as_secs_f64(),
            cpu: now.cpu.into_iter().map(|(name, seconds)| (name, seconds - self.cpu[name])).collect(),
            passes: now.passes - self.passes,
            pass_seconds: now.pass_seconds - self.pass_seconds,
        }
    }

    /// Cores of one process.
    pub fn of(&self, name: &str) -> f64 {
        self.cpu[name] / self.seconds
    }

    /// Whether others had a part in what was measured.
    pub fn machine(&self) -> String {
        let ours: f64 =
            self.cpu.iter().filter(|(name, _)| **name != "machine").map(|(_, seconds)| seconds).sum();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (ours, all) = (ours / self.seconds, self.of("machine"));
        format!("of {cores} cores {all:.2} were busy, {:.2} of them with others", (all - ours).max(0.0))
    }

    pub fn say(&self) {
        let cores: Vec<String> = self.cpu.keys().map(|name| format!("{name} {:.2}", self.of(name))).collect();
        say(&format!("cores: {}", cores.join(", ")));
        say(&format!(
            "reconciles: {:.0} a second, {:.1} ms each",
            self.passes / self.seconds,
            1000.0 * self.pass_seconds / self.passes.max(1.0)
        ));
    }
}

/// Of all processes: user, nice, system, irq, softirq.
fn machine_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
    let fields = stat.lines().next().expect("the sum of all CPUs").split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.map(|field| field.parse().expect("ticks")).collect();
    [0, 1, 2, 5, 6].into_iter().map(|i| ticks[i]).sum::<f64>() / 100.0
}
