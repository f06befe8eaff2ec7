use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use prometheus_client::registry::Unit;

use super::store::Store;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Family<Labels, Counter>,
}

impl Metrics {
    pub fn count(&self, result: &'static str) {
        self.requests.get_or_create(&Labels { result }).inc();
    }

    pub fn render(&self, store: &Store) -> String {
        let mut registry = Registry::with_prefix("modelwright_node_cache");
        let (bytes, evicted) = store.counts();
        let bytes = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        registry.register(
            "requests",
            "Of loaders: hit, miss, stored, present, full, unauthenticated, or failed",
            self.requests.clone(),
        );
        registry.register_with_unit("stored", "Of the models that are there", Unit::Bytes, bytes);
        registry.register("evictions", "Files that went to make room", ConstCounter::new(evicted));
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
