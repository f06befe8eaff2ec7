use super::*;
use crate::telemetry::page;

#[test]
fn the_page_lists_exactly_what_is_served() {
    let metrics = Metrics::default();
    metrics.wrote(Kind::Service, "create", true);
    metrics.reconciled("ok");
    let listed = page::listed(include_str!("../../../docs/metrics.md"), "## The operator");
    assert_eq!(page::served(&metrics.render(), &[]), listed);
}
