/// The gateways of one namespace, as the operator sees and hears them, for one ModelDeployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gateways {
    pub pods: Vec<GatewayView>,
    /// Why there are fewer than wanted: a refused pod, an image that can't be pulled.
    pub fault: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GatewayView {
    pub name: String,
    /// Services send new requests to it.
    pub ready: bool,
    /// It may still be forwarding: it is being deleted, its stream stands, or it has been unready or gone for less than
    /// the request timeout.
    pub leaving: bool,
    /// The generation of this ModelDeployment's ModelRoute that it forwards by; none: not heard, or of another object.
    pub applied: Option<i64>,
    /// Requests that wait in it for a pod.
    pub held: u64,
}

impl Gateways {
    pub fn ready(&self) -> usize {
        self.pods.iter().filter(|g| g.ready).count()
    }

    /// No gateway forwards by an older generation any more. Destructive steps wait for this.
    pub fn acknowledged(&self, generation: i64) -> bool {
        let (all, heard) = self.count(generation);
        heard == all
    }

    /// Gateways that may forward, and those of them that do so by this generation.
    pub fn count(&self, generation: i64) -> (usize, usize) {
        let forwarding = self.pods.iter().filter(|g| g.ready || g.leaving);
        let heard = forwarding.clone().filter(|g| g.applied >= Some(generation)).count();
        (forwarding.count(), heard)
    }
}
