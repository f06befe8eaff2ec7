//! The ModelRoute, as it is written.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube_quantity::ParsedQuantity;

use super::children;
use super::world::World;
use super::write::{Kind, Write};
use crate::api::{ModelDeploymentSpec, ModelRouteSpec, RouteLimits};

/// As the schema allows.
const LONGEST_WAIT: i64 = 3600;

/// `spec.traffic` and `spec.security` with every field filled in. `patience`: how long requests should wait where it
/// doesn't say.
pub(super) fn limits(spec: &ModelDeploymentSpec, patience: Option<i64>) -> RouteLimits {
    let none = RouteLimits::default();
    let patience = none.queue_timeout_seconds.max(patience.unwrap_or(0)).min(LONGEST_WAIT);
    let traffic = spec.traffic.clone().unwrap_or_default();
    let queue = traffic.queue.unwrap_or_default();
    let bytes = |quantity: Option<Quantity>, none: i64| {
        let parsed = quantity.and_then(|q| ParsedQuantity::try_from(&q).ok()?.to_bytes_f64());
        parsed.map_or(none, |bytes| bytes as i64)
    };
    RouteLimits {
        request_timeout_seconds: traffic.request_timeout_seconds.unwrap_or(none.request_timeout_seconds),
        max_request_bytes: bytes(traffic.max_request_bytes, none.max_request_bytes),
        queue_requests: queue.max_requests.unwrap_or(none.queue_requests),
        queue_bytes: bytes(queue.max_bytes, none.queue_bytes),
        queue_timeout_seconds: queue.timeout_seconds.unwrap_or(patience),
        authentication: spec.security.as_ref().and_then(|s| s.authentication).unwrap_or_default(),
    }
}

/// None: it says so already.
pub(super) fn write(world: &World, next: &ModelRouteSpec) -> Option<Write> {
    let name = world.snapshot.name().to_string();
    let kind = Kind::ModelRoute;
    match world.route {
        Some(route) if route.spec == *next || route.meta.deleting => None,
        Some(route) => {
            let body = children::route(world.snapshot, next, Some(&route.meta));
            Some(Write::Apply { kind, name, body })
        }
        None => Some(Write::Create { kind, name, body: children::route(world.snapshot, next, None) }),
    }
}

#[cfg(test)]
mod tests;
