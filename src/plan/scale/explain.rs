//! Names and sentences of a decision.

use super::{Decision, Gateways, Pods, Seconds, Settings, Target};

/// Why the number is what it is: `status.autoscaling.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    DemandRose,
    RequestsWait,
    Waking,
    WithinTolerance,
    AsNeeded,
    /// Fewer would do now, but not in the stabilization window.
    Stabilizing,
    DemandFell,
    /// Idle, but not for long enough.
    KeptWarm,
    Idle,
    /// No pod was ready yet.
    NeverReady,
    GatewaySilent,
    NoDemandData,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::DemandRose => "DemandRose",
            Reason::RequestsWait => "RequestsWait",
            Reason::Waking => "Waking",
            Reason::WithinTolerance => "WithinTolerance",
            Reason::AsNeeded => "AsNeeded",
            Reason::Stabilizing => "Stabilizing",
            Reason::DemandFell => "DemandFell",
            Reason::KeptWarm => "KeptWarm",
            Reason::Idle => "Idle",
            Reason::NeverReady => "NeverReady",
            Reason::GatewaySilent => "GatewaySilent",
            Reason::NoDemandData => "NoDemandData",
        }
    }
}

/// `ScalingActive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    DemandReported,
    NoDemandData,
}

/// `ScalingLimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// HPA's `DesiredWithinRange`.
    WithinRange,
    TooManyReplicas,
    TooFewReplicas,
    NoGpuAvailable,
}

pub(super) struct Facts {
    pub desired: u32,
    pub wanted: u32,
    pub before: u32,
    pub load: f64,
    pub current: Option<f64>,
    pub held: u64,
    pub pods: Pods,
    pub gateways: Gateways,
    pub idle_for: Seconds,
    pub idle_until: Seconds,
    pub now: Seconds,
}

pub(super) fn no_data(desired: u32, gateways: Gateways) -> Decision {
    let message = match gateways.all {
        0 => format!("stays at {desired}: there is no gateway to report demand"),
        all => format!("stays at {desired}: none of {} reports demand", count(all, "gateway")),
    };
    Decision {
        desired,
        reason: Reason::NoDemandData,
        message,
        current: None,
        active: Active::NoDemandData,
        limited: Limit::WithinRange,
        wake_at: None,
    }
}

pub(super) fn decision(
    reason: Reason,
    limited: Limit,
    wake_at: Option<Seconds>,
    facts: &Facts,
    settings: &Settings,
) -> Decision {
    let mut message = sentence(reason, facts, settings);
    match limited {
        Limit::WithinRange => {}
        Limit::TooManyReplicas => message += &format!("; held at maxReplicas, {}", settings.max),
        Limit::TooFewReplicas => message += &format!("; kept at minReplicas, {}", settings.min),
        Limit::NoGpuAvailable => {
            let with_node = facts.pods.ready + facts.pods.starting;
            message +=
                &format!("; the scheduler has room for {with_node}, so {} are asked for", facts.desired);
        }
    }
    let active = Active::DemandReported;
    let (desired, current) = (facts.desired, facts.current);
    Decision { desired, reason, message, current, active, limited, wake_at }
}

fn sentence(reason: Reason, facts: &Facts, settings: &Settings) -> String {
    let Facts { wanted, before, held, idle_for, .. } = *facts;
    let demand = match target(settings) {
        Some(target) => format!("demand is {:.1} pods' worth at {target}", facts.load),
        None => "what a pod can take is not measured yet".into(),
    };
    match reason {
        Reason::DemandRose => format!("{before} to {wanted}: {demand}"),
        Reason::RequestsWait => {
            let ready = facts.pods.ready;
            format!("{before} to {wanted}: {} waiting for {ready} ready", count_long(held, "request"))
        }
        Reason::Waking => format!("0 to {wanted}: {} waiting", count_long(held, "request")),
        Reason::WithinTolerance | Reason::AsNeeded => format!("stays at {wanted}: {demand}"),
        Reason::Stabilizing => format!("stays at {wanted}: it was needed within the window, now {demand}"),
        Reason::DemandFell => format!("{before} to {wanted}: {demand}, and no more within the window"),
        Reason::KeptWarm => {
            let left = (facts.idle_until - facts.now).max(0.0);
            format!("stays at {wanted}: no request for {idle_for:.0} s, 0 in {left:.0} s without one")
        }
        Reason::Idle if before == 0 => format!("stays at 0: no request for {}", lasting(idle_for)),
        Reason::Idle => format!("{before} to 0: no request for {idle_for:.0} s"),
        Reason::NeverReady => format!("stays at {wanted}: no pod was ready yet"),
        Reason::GatewaySilent => {
            let Gateways { reporting, all } = facts.gateways;
            format!(
                "stays at {wanted}: {reporting} of {} report, so it does not shrink",
                count(all, "gateway")
            )
        }
        Reason::NoDemandData => format!("stays at {wanted}: no gateway reports demand"),
    }
}

fn target(settings: &Settings) -> Option<String> {
    Some(match settings.target {
        Target::Measured { per_second, .. } => {
            format!("{:.0} % of {per_second:.1} requests a second", settings.tuning.utilization * 100.0)
        }
        Target::RequestsPerSecond(target) => format!("{target:.1} requests a second"),
        Target::Concurrency(target) => format!("{target:.0} requests at a time"),
        Target::Unmeasured => return None,
    })
}

/// Ever coarser: each new sentence is a write, and a model may rest for weeks.
fn lasting(time: Seconds) -> String {
    const UNITS: [(Seconds, &str); 3] = [(86_400.0, "days"), (3_600.0, "h"), (60.0, "min")];
    match UNITS.iter().find(|(unit, _)| time >= 2.0 * unit) {
        Some((unit, name)) => format!("{:.0} {name}", (time / unit).floor()),
        None => format!("{time:.0} s"),
    }
}

fn count(number: u32, noun: &str) -> String {
    count_long(u64::from(number), noun)
}

fn count_long(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
