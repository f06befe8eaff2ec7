//! The gateways: each takes over a new route at its own time, and says so.

use std::sync::Arc;

use modelwright::observe::{GatewayView, Gateways, RouteView};

use super::Sim;

pub struct Gateway {
    name: String,
    ready: bool,
    leaving: bool,
    /// What it forwards by.
    pub route: Option<Arc<RouteView>>,
}

impl Sim {
    pub fn add_gateway(&mut self) {
        self.version += 1;
        let name = format!("gateway-{:03}", self.version);
        self.gateways.push(Gateway { name, ready: false, leaving: false, route: None });
    }

    /// One is told to go; another takes its place.
    pub fn restart_gateway(&mut self, index: usize) {
        if let Some(gateway) = self.gateways.get_mut(index).filter(|g| !g.leaving) {
            gateway.leaving = true;
            gateway.ready = false;
            self.say("a gateway is replaced".into());
            self.add_gateway();
        }
    }

    /// One of them becomes ready, takes over the newest route, or is gone at last.
    pub(super) fn gateway(&mut self) -> bool {
        if self.mute {
            return false;
        }
        let route = self.family().route;
        let count = self.gateways.len();
        let start = self.shuffle.as_mut().map_or(0, |rng| rng.below(count.max(1)));
        for index in (0..count).map(|i| (start + i) % count) {
            let gateway = &mut self.gateways[index];
            if gateway.leaving {
                self.gateways.remove(index);
                return true;
            }
            if !gateway.ready {
                gateway.ready = true;
                gateway.route = route;
                return true;
            }
            if gateway.route != route {
                gateway.route = route.clone();
                let all = self.gateways.iter().all(|g| g.route == route);
                if let Some(route) = route.filter(|_| all) {
                    self.say(format!("gateways: all forward by route {}", route.generation));
                }
                return true;
            }
        }
        false
    }

    pub(super) fn gateway_views(&self) -> Gateways {
        let view = |g: &Gateway| GatewayView {
            name: g.name.clone(),
            ready: g.ready,
            leaving: g.leaving,
            applied: g.route.as_ref().map(|route| route.generation),
            held: 0,
        };
        let mut pods: Vec<GatewayView> = self.gateways.iter().map(view).collect();
        if let Some(first) = pods.first_mut() {
            first.held = self.held;
        }
        Gateways { pods, fault: None }
    }

    pub(super) fn gateway_routes(&self) -> impl Iterator<Item = &RouteView> {
        self.gateways.iter().filter_map(|g| g.route.as_deref())
    }
}
