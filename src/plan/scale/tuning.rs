/// The numbers that the simulator chose, one set for every model: `make bench ONLY=autoscaling`, docs/autoscaling.md.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// Share of a pod's measured rate that is planned with.
    pub utilization: f64,
    /// HPA's name: a count is kept while the demand exceeds it by no more than this share.
    pub tolerance: f64,
    /// The load is a mean of this share of the cold start: a burst that is over before a pod has started needs none.
    pub smooth_share: f64,
    pub smooth_least: f64,
    /// The stabilization window in cold starts: a pod that is missed soon costs as much as it takes to start.
    pub window_share: f64,
    pub window_least: f64,
    /// What waits when new pods are ready is drained within this share of the cold start.
    pub drain_share: f64,
    pub drain_least: f64,
    /// How fast requests come, while some wait, is a mean of this share of the cold start.
    pub burst_share: f64,
    /// An idle pod is kept for so many cold starts, within bounds, until pauses were seen.
    pub idle_share: f64,
    pub idle_least: f64,
    pub idle_most: f64,
    /// Idle pod-seconds that are worth a second of one request's wait.
    pub wait_worth: f64,
    /// Of all requests, so many may find no pod.
    pub cold_budget: f64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            utilization: 0.79,
            tolerance: 0.1,
            smooth_share: 0.5,
            smooth_least: 10.0,
            window_share: 3.0,
            window_least: 15.0,
            drain_share: 0.15,
            drain_least: 1.0,
            burst_share: 0.1,
            idle_share: 60.0,
            idle_least: 60.0,
            idle_most: 600.0,
            wait_worth: 10.0,
            cold_budget: 0.002,
        }
    }
}
